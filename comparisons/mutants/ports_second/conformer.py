"""A speech encoder in ESPnet style (the one with dropout): subsampling, macaron feed-forward, relative-position attention with a shift, convolution module, padding masks."""

import math

import torch
import torch.nn.functional as F
from torch import nn

from ..ports.kinds import Fault, Right


class Conv2dSubsampling(nn.Module):
    def __init__(self, idim, odim, channels=6):
        super().__init__()
        self.conv = nn.Sequential(nn.Conv2d(1, channels, 3, 2), nn.ReLU())
        self.out = nn.Linear(channels * ((idim - 1) // 2), odim)

    def forward(self, x, mask):
        x = self.conv(x.unsqueeze(1))
        b, c, t, f = x.size()
        x = self.out(x.transpose(1, 2).contiguous().view(b, t, c * f))
        return x, mask[:, :-2:2]


class RelPositionalEncoding(nn.Module):
    def __init__(self, d_model, dropout_rate):
        super().__init__()
        self.d_model = d_model
        self.xscale = math.sqrt(d_model)
        self.dropout = nn.Dropout(dropout_rate)

    def forward(self, x):
        length = x.size(1)
        position = torch.arange(length - 1, -length, -1, dtype=x.dtype, device=x.device).unsqueeze(1)
        div_term = torch.exp(torch.arange(0, self.d_model, 2, dtype=x.dtype, device=x.device) * -(math.log(10000.0) / self.d_model))
        pe = torch.zeros(2 * length - 1, self.d_model, dtype=x.dtype, device=x.device)
        pe[:, 0::2] = torch.sin(position * div_term)
        pe[:, 1::2] = torch.cos(position * div_term)
        return self.dropout(x * self.xscale), pe.unsqueeze(0)


class PositionwiseFeedForward(nn.Module):
    def __init__(self, d_model, d_ff, dropout_rate):
        super().__init__()
        self.w_1 = nn.Linear(d_model, d_ff)
        self.w_2 = nn.Linear(d_ff, d_model)
        self.dropout = nn.Dropout(dropout_rate)

    def forward(self, x):
        return self.w_2(self.dropout(F.silu(self.w_1(x))))


class RelPositionMultiHeadedAttention(nn.Module):
    def __init__(self, n_head, n_feat, dropout_rate):
        super().__init__()
        self.d_k, self.h = n_feat // n_head, n_head
        self.linear_q = nn.Linear(n_feat, n_feat)
        self.linear_k = nn.Linear(n_feat, n_feat)
        self.linear_v = nn.Linear(n_feat, n_feat)
        self.linear_out = nn.Linear(n_feat, n_feat)
        self.linear_pos = nn.Linear(n_feat, n_feat, bias=False)
        self.pos_bias_u = nn.Parameter(torch.empty(n_head, self.d_k).normal_(0, 0.4))
        self.pos_bias_v = nn.Parameter(torch.empty(n_head, self.d_k).normal_(0, 0.4))
        self.dropout = nn.Dropout(dropout_rate)

    def rel_shift(self, x):
        zero_pad = torch.zeros((*x.size()[:3], 1), device=x.device, dtype=x.dtype)
        x_padded = torch.cat([zero_pad, x], dim=-1).view(*x.size()[:2], x.size(3) + 1, x.size(2))
        x = x_padded[:, :, 1:].view_as(x)
        return x[:, :, :, : x.size(-1) // 2 + 1]

    def forward(self, x, pos_emb, mask):
        n_batch = x.size(0)
        q = self.linear_q(x).view(n_batch, -1, self.h, self.d_k)
        k = self.linear_k(x).view(n_batch, -1, self.h, self.d_k).transpose(1, 2)
        v = self.linear_v(x).view(n_batch, -1, self.h, self.d_k).transpose(1, 2)
        p = self.linear_pos(pos_emb).view(1, -1, self.h, self.d_k).transpose(1, 2)
        q_with_bias_u = (q + self.pos_bias_u).transpose(1, 2)
        q_with_bias_v = (q + self.pos_bias_v).transpose(1, 2)
        matrix_ac = torch.matmul(q_with_bias_u, k.transpose(-2, -1))
        matrix_bd = self.rel_shift(torch.matmul(q_with_bias_v, p.transpose(-2, -1)))
        scores = (matrix_ac + matrix_bd) / math.sqrt(self.d_k)
        hidden = ~mask[:, None, None, :]
        attn = torch.softmax(scores.masked_fill(hidden, torch.finfo(scores.dtype).min), dim=-1).masked_fill(hidden, 0.0)
        x = torch.matmul(self.dropout(attn), v).transpose(1, 2).contiguous().view(n_batch, -1, self.h * self.d_k)
        return self.linear_out(x)


class ConvolutionModule(nn.Module):
    def __init__(self, channels, kernel_size):
        super().__init__()
        self.pointwise_conv1 = nn.Conv1d(channels, 2 * channels, 1)
        self.depthwise_conv = nn.Conv1d(channels, channels, kernel_size, padding=(kernel_size - 1) // 2, groups=channels)
        self.norm = nn.BatchNorm1d(channels)
        self.pointwise_conv2 = nn.Conv1d(channels, channels, 1)

    def forward(self, x, mask):
        x = F.glu(self.pointwise_conv1(x.transpose(1, 2)), dim=1)
        x = x.masked_fill(~mask[:, None], 0.0)
        x = F.silu(self.norm(self.depthwise_conv(x)))
        return self.pointwise_conv2(x).transpose(1, 2)


class EncoderLayer(nn.Module):
    def __init__(self, size, rate):
        super().__init__()
        self.feed_forward_macaron = PositionwiseFeedForward(size, 40, rate)
        self.self_attn = RelPositionMultiHeadedAttention(3, size, rate)
        self.conv_module = ConvolutionModule(size, 5)
        self.feed_forward = PositionwiseFeedForward(size, 40, rate)
        self.norm_ff_macaron = nn.LayerNorm(size, eps=1e-12)
        self.norm_mha = nn.LayerNorm(size, eps=1e-12)
        self.norm_conv = nn.LayerNorm(size, eps=1e-12)
        self.norm_ff = nn.LayerNorm(size, eps=1e-12)
        self.norm_final = nn.LayerNorm(size, eps=1e-12)
        self.dropout = nn.Dropout(rate)
        self.ff_scale = 0.5

    def forward(self, x, pos_emb, mask):
        x = x + self.ff_scale * self.dropout(self.feed_forward_macaron(self.norm_ff_macaron(x)))
        x = x + self.dropout(self.self_attn(self.norm_mha(x), pos_emb, mask))
        x = x + self.dropout(self.conv_module(self.norm_conv(x), mask))
        x = x + self.ff_scale * self.dropout(self.feed_forward(self.norm_ff(x)))
        return self.norm_final(x)


class Original(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = Conv2dSubsampling(15, 24)
        self.pos_enc = RelPositionalEncoding(24, 0.1)
        self.encoders = nn.ModuleList([EncoderLayer(24, 0.1) for _ in range(2)])
        self.ctc_lo = nn.Linear(24, 9)
        for module in self.modules():
            if isinstance(module, (nn.LayerNorm, nn.BatchNorm1d)):
                nn.init.normal_(module.weight, 1.0, 0.2)
                nn.init.normal_(module.bias, 0.0, 0.2)

    def forward(self, xs, lengths):
        mask = torch.arange(xs.size(1), device=xs.device) < lengths[:, None]
        xs, mask = self.embed(xs, mask)
        xs, pos_emb = self.pos_enc(xs)
        for layer in self.encoders:
            xs = layer(xs, pos_emb, mask)
        return F.log_softmax(self.ctc_lo(xs), dim=-1)


def inputs():
    g = torch.Generator().manual_seed(18)
    return torch.randn(2, 21, 15, generator=g), torch.tensor([21, 14])


# The port ------------------------------------------------------------------------------------


class Subsample(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv2d = nn.Conv2d(1, 6, kernel_size=3, stride=2)
        self.out = nn.Linear(6 * 7, 24)

    def forward(self, x, mask):
        y = self.conv2d(x[:, None]).relu()
        y = y.permute(0, 2, 1, 3).flatten(2)
        return self.out(y), mask[:, : x.shape[1] - 2 : 2]


class Positions(nn.Module):
    def __init__(self):
        super().__init__()
        self.dropout = nn.Dropout(0.1)

    def forward(self, x):
        n, d = x.shape[1:]
        distance = n - 1 - torch.arange(2 * n - 1, dtype=x.dtype, device=x.device)
        angle = distance[:, None] / 10000.0 ** (torch.arange(0, d, 2, dtype=x.dtype, device=x.device) / d)
        table = torch.stack((angle.sin(), angle.cos()), -1).flatten(1)
        return self.dropout(x * d**0.5), table[None]


class FeedForward(nn.Module):
    def __init__(self):
        super().__init__()
        self.w_1, self.w_2 = nn.Linear(24, 40), nn.Linear(40, 24)
        self.dropout = nn.Dropout(0.1)

    def forward(self, x):
        h = self.w_1(x)
        h = self.dropout(h * torch.sigmoid(h))
        return self.w_2(h)


class RelativeAttention(nn.Module):
    def __init__(self, index):
        super().__init__()
        self.index, self.heads, self.size = index, 3, 8
        self.linear_q, self.linear_k, self.linear_v, self.linear_out = (nn.Linear(24, 24) for _ in range(4))
        self.linear_pos = nn.Linear(24, 24, bias=False)
        self.pos_bias_u, self.pos_bias_v = nn.Parameter(torch.zeros(3, 8)), nn.Parameter(torch.zeros(3, 8))
        self.dropout = nn.Dropout(0.1)

    def forward(self, x, pos_emb, mask):
        n = x.shape[1]
        q, k, v = (f(x).unflatten(-1, (self.heads, self.size)) for f in (self.linear_q, self.linear_k, self.linear_v))
        r = self.linear_pos(pos_emb)[0].unflatten(-1, (self.heads, self.size))
        u, w = self.pos_bias_u, self.pos_bias_v
        content = torch.einsum("bihc,bjhc->bhij", q + u, k)
        place = torch.einsum("bihc,rhc->bhir", q + w, r)
        i = torch.arange(n, device=x.device)
        which = (n - 1 - i[:, None] + i).expand_as(content)
        scores = (content + place.gather(-1, which)) * self.size**-0.5
        scores = scores.masked_fill(~mask[:, None, None], float("-inf"))
        p = self.dropout(scores.softmax(-1))
        return self.linear_out(torch.einsum("bhij,bjhc->bihc", p, v).flatten(2))


class Convolution(nn.Module):
    def __init__(self, index):
        super().__init__()
        self.pointwise_conv1 = nn.Conv1d(24, 48, 1)
        self.depthwise_conv = nn.Conv1d(24, 24, 5, padding=2, groups=24)
        self.norm = nn.BatchNorm1d(24)
        self.pointwise_conv2 = nn.Conv1d(24, 24, 1)

    def forward(self, x, mask):
        value, gate = self.pointwise_conv1(x.mT).chunk(2, 1)
        y = value * gate.sigmoid() * mask[:, None]
        y = self.norm(self.depthwise_conv(y))
        return self.pointwise_conv2(F.silu(y)).mT


class Layer(nn.Module):
    def __init__(self, index):
        super().__init__()
        self.feed_forward_macaron, self.feed_forward = FeedForward(), FeedForward()
        self.self_attn = RelativeAttention(index)
        self.conv_module = Convolution(index)
        self.norm_ff_macaron, self.norm_mha, self.norm_conv, self.norm_ff = (nn.LayerNorm(24, eps=1e-12) for _ in range(4))
        self.norm_final = nn.LayerNorm(24, 1e-12)
        self.dropout = nn.Dropout(p=0.1)

    def forward(self, x, pos_emb, mask):
        x = torch.add(x, self.dropout(self.feed_forward_macaron(self.norm_ff_macaron(x))), alpha=0.5)
        x = x + self.dropout(self.self_attn(self.norm_mha(x), pos_emb, mask))
        x = x + self.dropout(self.conv_module(self.norm_conv(x), mask))
        x = torch.add(x, self.dropout(self.feed_forward(self.norm_ff(x))), alpha=1 / 2)
        return self.norm_final(x)


class Port(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = Subsample()
        self.pos_enc = Positions()
        self.encoders = nn.ModuleList([Layer(0), Layer(1)])
        self.ctc_lo = nn.Linear(24, 9)

    def forward(self, features, lengths):
        mask = torch.arange(features.shape[1], device=features.device)[None] < lengths[:, None]
        x, mask = self.embed(features, mask)
        x, pos = self.pos_enc(x)
        for layer in self.encoders:
            x = layer(x, pos, mask)
        scores = self.ctc_lo(x)
        return scores - scores.logsumexp(-1, keepdim=True)


NAMES = {"embed.conv2d": "embed.conv.0"}

FAULTS = [
    Fault("channels_behind_frequencies", "y = y.permute(0, 2, 1, 3).flatten(2)", "y = y.permute(0, 2, 3, 1).flatten(2)", "embed", "output", "transposed"),
    Fault("mask_one_frame_late", "mask[:, : x.shape[1] - 2 : 2]", "mask[:, 2 :: 2]", "embed", "output", "mask"),
    Fault("input_not_scaled", "self.dropout(x * d**0.5)", "self.dropout(x)", "pos_enc", "output", "scale"),
    Fault("sines_in_halves", "torch.stack((angle.sin(), angle.cos()), -1).flatten(1)", "torch.cat((angle.sin(), angle.cos()), -1)", "pos_enc", "output", "rope"),
    Fault("distances_ascending", "distance = n - 1 - torch.arange(", "distance = 1 - n + torch.arange(", "pos_enc", "output", "rope"),
    Fault("feed_forward_without_dropout", "h = self.dropout(h * torch.sigmoid(h))", "h = h * torch.sigmoid(h)", "encoders.0.feed_forward_macaron", "output", "mode"),
    Fault("attention_without_dropout", "p = self.dropout(scores.softmax(-1))", "p = scores.softmax(-1)", "encoders.0.self_attn", "output", "mode"),
    Fault("dropout_of_one_percent", "self.dropout = nn.Dropout(p=0.1)", "self.dropout = nn.Dropout(p=0.01)", "encoders.0.dropout", "output", "mode"),
    Fault("place_not_shifted", "place.gather(-1, which)", "place[..., :n]", "encoders.0.self_attn", "output", "order"),
    Fault("shift_off_by_one", "which = (n - 1 - i[:, None] + i)", "which = (n - i[:, None] + i).clamp(max=2 * n - 2)", "encoders.0.self_attn", "output", "order"),
    Fault("biases_exchanged", "u, w = self.pos_bias_u, self.pos_bias_v", "w, u = self.pos_bias_u, self.pos_bias_v", "encoders.0.self_attn", "output", "operand"),
    Fault("content_bias_detached", "u, w = self.pos_bias_u, self.pos_bias_v", "u, w = (self.pos_bias_u.detach() if self.index == 1 else self.pos_bias_u), self.pos_bias_v", "encoders.1.self_attn", "gradient", "detached"),
    Fault("places_detached", "r = self.linear_pos(pos_emb)[0]", "r = (self.linear_pos(pos_emb) if self.index else self.linear_pos(pos_emb).detach())[0]", "encoders.0.self_attn", "gradient", "detached"),
    Fault("scaled_content_only", "scores = (content + place.gather(-1, which)) * self.size**-0.5", "scores = content * self.size**-0.5 + place.gather(-1, which)", "encoders.0.self_attn", "output", "scale"),
    Fault("convolution_over_padding", "y = value * gate.sigmoid() * mask[:, None]", "y = value * gate.sigmoid()", "encoders.0.conv_module", "output", "mask"),
    Fault("gate_and_value_exchanged", "value, gate = self.pointwise_conv1", "gate, value = self.pointwise_conv1", "encoders.0.conv_module", "output", "operand"),
    Fault("edges_replicated", "nn.Conv1d(24, 24, 5, padding=2, groups=24)", 'nn.Conv1d(24, 24, 5, padding=2, groups=24, padding_mode="replicate")', "encoders.0.conv_module.depthwise_conv", "output", "padding"),
    Fault("batch_norm_eps", "self.norm = nn.BatchNorm1d(24)", "self.norm = nn.BatchNorm1d(24, eps=1e-6)", "encoders.0.conv_module.norm", "output", "eps"),
    Fault("batch_norm_momentum", "self.norm = nn.BatchNorm1d(24)", "self.norm = nn.BatchNorm1d(24, momentum=0.01 if index else 0.1)", "encoders.1.conv_module.norm", "buffer", "momentum"),
    Fault("batch_norm_cumulative", "self.norm = nn.BatchNorm1d(24)", "self.norm = nn.BatchNorm1d(24, momentum=None)", "encoders.0.conv_module.norm", "buffer", "momentum"),
    Fault("eps_of_final_norm", "self.norm_final = nn.LayerNorm(24, 1e-12)", "self.norm_final = nn.LayerNorm(24)", "encoders.0.norm_final", "output", "eps"),
    Fault("whole_second_step", "alpha=1 / 2)", "alpha=1)", "encoders.0", "output", "residual"),
    Fault("normalised_over_time", "scores.logsumexp(-1, keepdim=True)", "scores.logsumexp(1, keepdim=True)", "", "output", "order"),
    Fault("normaliser_detached", "scores.logsumexp(-1, keepdim=True)", "scores.logsumexp(-1, keepdim=True).detach()", "", "gradient", "detached"),
]

RIGHT = [
    Right("shift_by_padding", """        i = torch.arange(n, device=x.device)
        which = (n - 1 - i[:, None] + i).expand_as(content)
        scores = (content + place.gather(-1, which)) * self.size**-0.5
""", """        shifted = F.pad(place, (1, 0)).flatten(2)[..., n:].unflatten(-1, (n, 2 * n - 1))[..., :n]
        scores = (content + shifted) * self.size**-0.5
"""),
    Right("place_pair_by_pair", """        place = torch.einsum("bihc,rhc->bhir", q + w, r)
        i = torch.arange(n, device=x.device)
        which = (n - 1 - i[:, None] + i).expand_as(content)
        scores = (content + place.gather(-1, which)) * self.size**-0.5
""", """        pairs = torch.stack([r[n - 1 - t : 2 * n - 1 - t] for t in range(n)])
        place = torch.einsum("bihc,ijhc->bhij", q + w, pairs)
        scores = (content + place) / math.sqrt(self.size)
"""),
    Right("batch_norm_by_hand", "        y = self.norm(self.depthwise_conv(y))\n", """        y = self.depthwise_conv(y)
        norm = self.norm
        var, mean = torch.var_mean(y, (0, 2), keepdim=True, unbiased=False)
        with torch.no_grad():
            count = y.numel() / y.shape[1]
            norm.running_mean += norm.momentum * (mean.flatten() - norm.running_mean)
            norm.running_var += norm.momentum * (var.flatten() * count / (count - 1) - norm.running_var)
            norm.num_batches_tracked += 1
        y = (y - mean) / (var + norm.eps).sqrt() * norm.weight[:, None] + norm.bias[:, None]
""", fused=True),
    Right("pointwise_as_linear", "        value, gate = self.pointwise_conv1(x.mT).chunk(2, 1)\n", "        weight, bias = self.pointwise_conv1.weight.squeeze(-1), self.pointwise_conv1.bias\n        value, gate = (F.linear(x, a, b).mT for a, b in zip(weight.split(24), bias.split(24)))\n", fused=True),
    Right("half_by_lerp", "x = torch.add(x, self.dropout(self.feed_forward_macaron(self.norm_ff_macaron(x))), alpha=0.5)", "x = x.lerp(x + self.dropout(self.feed_forward_macaron(self.norm_ff_macaron(x))), 0.5)"),
    Right("glu_of_torch", "        value, gate = self.pointwise_conv1(x.mT).chunk(2, 1)\n        y = value * gate.sigmoid() * mask[:, None]\n", "        y = F.glu(self.pointwise_conv1(x.mT), 1).where(mask[:, None], 0.0)\n"),
    Right("log_softmax_of_torch", "        return scores - scores.logsumexp(-1, keepdim=True)\n", "        return scores.log_softmax(-1)\n"),
    Right("query_key_value_packed", """        self.linear_q, self.linear_k, self.linear_v, self.linear_out = (nn.Linear(24, 24) for _ in range(4))
        self.linear_pos = nn.Linear(24, 24, bias=False)
        self.pos_bias_u, self.pos_bias_v = nn.Parameter(torch.zeros(3, 8)), nn.Parameter(torch.zeros(3, 8))
        self.dropout = nn.Dropout(0.1)

    def forward(self, x, pos_emb, mask):
        n = x.shape[1]
        q, k, v = (f(x).unflatten(-1, (self.heads, self.size)) for f in (self.linear_q, self.linear_k, self.linear_v))
""", """        self.in_proj_weight, self.in_proj_bias = nn.Parameter(torch.zeros(72, 24)), nn.Parameter(torch.zeros(72))
        self.linear_out = nn.Linear(24, 24)
        self.linear_pos = nn.Linear(24, 24, bias=False)
        self.pos_bias_u, self.pos_bias_v = nn.Parameter(torch.zeros(3, 8)), nn.Parameter(torch.zeros(3, 8))
        self.dropout = nn.Dropout(0.1)

    def forward(self, x, pos_emb, mask):
        n = x.shape[1]
        q, k, v = F.linear(x, self.in_proj_weight, self.in_proj_bias).unflatten(-1, (3, self.heads, self.size)).unbind(2)
""", fused=True, names=NAMES | {f"encoders.{i}.self_attn.in_proj_{p}": f"cat(encoders.{i}.self_attn.linear_q.{p}, encoders.{i}.self_attn.linear_k.{p}, encoders.{i}.self_attn.linear_v.{p})"
                                for i in range(2) for p in ("weight", "bias")}),
]
