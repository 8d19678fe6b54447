"""A small detection transformer in eval mode: convolutional backbone, sine positions, queries, boxes refined layer by layer."""

import math

import torch
import torch.nn.functional as F
from torch import nn

from ..ports.kinds import Fault, Right


class Backbone(nn.Module):
    def __init__(self, width=24):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 12, 3, stride=2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(12)
        self.relu = nn.ReLU()
        self.conv2 = nn.Conv2d(12, width, 3, stride=2, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        for bn in (self.bn1, self.bn2):
            nn.init.uniform_(bn.running_var, 0.01, 0.1)
            nn.init.normal_(bn.running_mean, std=0.1)
            nn.init.uniform_(bn.weight, 0.5, 1.5)

    def forward(self, x):
        x = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.bn2(self.conv2(x)))


class SinePosition(nn.Module):
    def __init__(self, feats, temperature=10000.0):
        super().__init__()
        self.feats = feats
        self.temperature = temperature

    def forward(self, mask, like):
        keep = (~mask).to(like)
        y, x = keep.cumsum(1), keep.cumsum(2)
        y = y / (y[:, -1:, :] + 1e-6) * 2 * math.pi
        x = x / (x[:, :, -1:] + 1e-6) * 2 * math.pi
        i = torch.arange(self.feats, dtype=torch.float64)
        dim_t = (self.temperature ** (2 * (i // 2) / self.feats)).to(like)
        x, y = x[..., None] / dim_t, y[..., None] / dim_t
        x = torch.stack([x[..., 0::2].sin(), x[..., 1::2].cos()], dim=4).flatten(3)
        y = torch.stack([y[..., 0::2].sin(), y[..., 1::2].cos()], dim=4).flatten(3)
        return torch.cat([y, x], dim=3).flatten(1, 2)


class MultiHead(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.q = nn.Linear(width, width)
        self.k = nn.Linear(width, width)
        self.v = nn.Linear(width, width)
        self.out = nn.Linear(width, width)

    def forward(self, query, key, value, attn_mask=None):
        """attn_mask is added: (batch, 1, 1, keys), 0 or -inf."""
        b, t, c = query.shape
        d = c // self.heads
        q = self.q(query).view(b, t, self.heads, d).transpose(1, 2)
        k = self.k(key).view(b, -1, self.heads, d).transpose(1, 2)
        v = self.v(value).view(b, -1, self.heads, d).transpose(1, 2)
        scores = q @ k.transpose(2, 3) / math.sqrt(d)
        if attn_mask is not None:
            scores = scores + attn_mask
        out = scores.softmax(-1) @ v
        return self.out(out.transpose(1, 2).reshape(b, t, c))


class EncoderLayer(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.self_attn = MultiHead(width, heads)
        self.norm1 = nn.LayerNorm(width)
        self.linear1 = nn.Linear(width, 2 * width)
        self.linear2 = nn.Linear(2 * width, width)
        self.norm2 = nn.LayerNorm(width)

    def forward(self, src, pos, attn_mask):
        q = k = src + pos
        src = self.norm1(src + self.self_attn(q, k, src, attn_mask))
        return self.norm2(src + self.linear2(F.relu(self.linear1(src))))


class DecoderLayer(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.self_attn = MultiHead(width, heads)
        self.norm1 = nn.LayerNorm(width)
        self.cross_attn = MultiHead(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.linear1 = nn.Linear(width, 2 * width)
        self.linear2 = nn.Linear(2 * width, width)
        self.norm3 = nn.LayerNorm(width)

    def forward(self, tgt, memory, query_pos, pos, attn_mask):
        q = k = tgt + query_pos
        tgt = self.norm1(tgt + self.self_attn(q, k, tgt))
        tgt = self.norm2(tgt + self.cross_attn(tgt + query_pos, memory + pos, memory, attn_mask))
        return self.norm3(tgt + self.linear2(F.relu(self.linear1(tgt))))


class BoxHead(nn.Sequential):
    def __init__(self, width):
        super().__init__(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 4))


def inverse_sigmoid(x, eps=1e-5):
    x = x.clamp(0, 1)
    return torch.log(x.clamp(min=eps) / (1 - x).clamp(min=eps))


class Original(nn.Module):
    def __init__(self, width=24, heads=4, queries=6, classes=5):
        super().__init__()
        self.backbone = Backbone(width)
        self.position = SinePosition(width // 2)
        self.encoder = nn.ModuleList([EncoderLayer(width, heads)])
        self.decoder = nn.ModuleList([DecoderLayer(width, heads) for _ in range(2)])
        self.norm = nn.LayerNorm(width)
        self.query_embed = nn.Embedding(queries, width)
        self.reference = nn.Linear(width, 4)
        self.class_embed = nn.Linear(width, classes)
        self.bbox_embed = nn.ModuleList([BoxHead(width) for _ in range(2)])
        self.eval()

    def forward(self, images, mask):
        feats = self.backbone(images)
        mask = mask[:, ::4, ::4]
        pos = self.position(mask, feats)
        src = feats.flatten(2).transpose(1, 2)
        added = torch.zeros_like(mask, dtype=src.dtype).masked_fill(mask, float("-inf")).flatten(1)[:, None, None]
        for layer in self.encoder:
            src = layer(src, pos, added)
        query_pos = self.query_embed.weight[None].expand(len(images), -1, -1)
        tgt = torch.zeros_like(query_pos)
        ref = self.reference(query_pos).sigmoid()
        logits, boxes = [], []
        for layer, head in zip(self.decoder, self.bbox_embed):
            tgt = layer(tgt, src, query_pos, pos, added)
            y = self.norm(tgt)
            box = (head(y) + inverse_sigmoid(ref)).sigmoid()
            logits.append(self.class_embed(y))
            boxes.append(box)
            ref = box.detach()
        return {"pred_logits": logits[-1], "pred_boxes": boxes[-1],
                "aux_outputs": [{"pred_logits": a, "pred_boxes": b} for a, b in zip(logits[:-1], boxes[:-1])]}


def inputs():
    g = torch.Generator().manual_seed(3)
    images = torch.randn(2, 3, 24, 32, generator=g)
    mask = torch.zeros(2, 24, 32, dtype=torch.bool)
    mask[1, 17:] = True
    mask[1, :, 26:] = True
    return images, mask


# The port ------------------------------------------------------------------------------------


class Stem(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 12, 3, 2, 1, bias=False)
        self.bn1 = Norm2d(12)
        self.conv2 = nn.Conv2d(12, width, 3, 2, 1, bias=False)
        self.bn2 = Norm2d(width)

    def forward(self, x):
        x = self.bn1(self.conv1(x)).relu()
        x = self.bn2(self.conv2(x)).relu()
        return x


class Norm2d(nn.Module):
    def __init__(self, n):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(n))
        self.bias = nn.Parameter(torch.zeros(n))
        self.register_buffer("running_mean", torch.zeros(n))
        self.register_buffer("running_var", torch.ones(n))
        self.register_buffer("num_batches_tracked", torch.tensor(0))
        self.eps = 1e-5

    def forward(self, x):
        mean, var = self.running_mean, self.running_var
        scale = self.weight * (var + self.eps).rsqrt()
        shift = self.bias - mean * scale
        return x * scale.view(1, -1, 1, 1) + shift.view(1, -1, 1, 1)


class Positions(nn.Module):
    """Gives (height * width, batch, channels)."""

    def __init__(self, feats):
        super().__init__()
        self.feats = feats

    def encode(self, coordinate):
        power = torch.arange(0, self.feats, 2, dtype=torch.float64) / self.feats
        omega = (10000.0 ** -power).to(coordinate)
        angle = coordinate.unsqueeze(-1) * omega
        return torch.stack((angle.sin(), angle.cos()), -1).flatten(-2)

    def forward(self, valid):
        rows = valid.cumsum(1)
        columns = valid.cumsum(2)
        rows = 2 * math.pi * rows / (rows[:, -1:] + 1e-6)
        columns = 2 * math.pi * columns / (columns[:, :, -1:] + 1e-6)
        both = torch.cat((self.encode(rows), self.encode(columns)), -1)
        return both.flatten(1, 2).transpose(0, 1)


class Attention(nn.Module):
    """Time first; the mask is boolean and true where padded; value, key, query in this order."""

    def __init__(self, width, heads):
        super().__init__()
        self.heads, self.dim = heads, width // heads
        self.in_proj_weight = nn.Parameter(torch.zeros(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out = nn.Linear(width, width)

    def project(self, q, k, v):
        weights, biases = self.in_proj_weight.chunk(3), self.in_proj_bias.chunk(3)
        return [F.linear(t, w, b) for t, w, b in zip((q, k, v), weights, biases)]

    def forward(self, value, key, query, padded=None):
        t, n, c = query.shape
        q, k, v = self.project(query, key, value)
        q = q.reshape(t, n * self.heads, self.dim).transpose(0, 1) * self.dim ** -0.5
        k = k.reshape(-1, n * self.heads, self.dim).transpose(0, 1)
        v = v.reshape(-1, n * self.heads, self.dim).transpose(0, 1)
        scores = torch.bmm(q, k.transpose(1, 2)).view(n, self.heads, t, -1)
        if padded is not None:
            scores = scores.masked_fill(padded[:, None, None, :], float("-inf"))
        weights = scores.softmax(-1).flatten(0, 1)
        mixed = torch.bmm(weights, v).transpose(0, 1).reshape(t, n, c)
        return self.out(mixed)


class Encoder(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.self_attn = Attention(width, heads)
        self.linear1 = nn.Linear(width, 2 * width)
        self.linear2 = nn.Linear(2 * width, width)
        self.norm1 = nn.LayerNorm(width)
        self.norm2 = nn.LayerNorm(width)

    def forward(self, x, position, padded):
        placed = x + position
        x = self.norm1(self.self_attn(x, placed, placed, padded) + x)
        y = self.linear2(self.linear1(x).relu())
        return self.norm2(y + x)


class Decoder(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.self_attn = Attention(width, heads)
        self.cross_attn = Attention(width, heads)
        self.linear1 = nn.Linear(width, 2 * width)
        self.linear2 = nn.Linear(2 * width, width)
        self.norm1 = nn.LayerNorm(width)
        self.norm2 = nn.LayerNorm(width)
        self.norm3 = nn.LayerNorm(width)

    def forward(self, x, queries, memory, placed_memory, padded):
        placed = x + queries
        x = self.norm1(self.self_attn(x, placed, placed) + x)
        found = self.cross_attn(memory, placed_memory, x + queries, padded)
        x = self.norm2(found + x)
        y = self.linear2(torch.relu(self.linear1(x)))
        return self.norm3(y + x)


class Box(nn.Sequential):
    pass


class Port(nn.Module):
    def __init__(self, width=24):
        super().__init__()
        self.backbone = Stem(width)
        self.position = Positions(width // 2)
        self.encoder = nn.ModuleList([Encoder(width, 4)])
        self.decoder = nn.ModuleList([Decoder(width, 4), Decoder(width, 4)])
        self.norm = nn.LayerNorm(width)
        self.queries = nn.Parameter(torch.zeros(6, width))
        self.reference = nn.Linear(width, 4)
        self.class_embed = nn.Linear(width, 5)
        self.bbox_embed = nn.ModuleList([Box(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 4)) for _ in range(2)])
        self.eval()

    def forward(self, images, mask):
        x = self.backbone(images)
        n = x.shape[0]
        mask = mask[:, ::4, ::4]
        position = self.position((~mask).to(x))
        x = x.flatten(2).permute(2, 0, 1)
        padded = mask.flatten(1)
        x = self.encoder[0](x, position, padded)
        placed_memory = x + position
        queries = self.queries.unsqueeze(1).repeat(1, n, 1)
        start = self.reference(queries).sigmoid()
        target = torch.zeros_like(queries)
        results = []
        for i in range(2):
            target = self.decoder[i](target, queries, x, placed_memory, padded)
            normed = self.norm(target)
            delta = self.bbox_embed[i](normed)
            box = torch.sigmoid(delta + torch.logit(start))
            start = box.detach()
            results.append({"pred_logits": self.class_embed(normed).transpose(0, 1), "pred_boxes": box.transpose(0, 1)})
        return {**results[1], "aux_outputs": [results[0]]}


NAMES = {"queries": "query_embed.weight"}
for _a in ("encoder.0.self_attn", "decoder.0.self_attn", "decoder.0.cross_attn", "decoder.1.self_attn", "decoder.1.cross_attn"):
    for _k in ("weight", "bias"):
        NAMES[f"{_a}.in_proj_{_k}"] = f"cat({_a}.q.{_k}, {_a}.k.{_k}, {_a}.v.{_k})"

_APART = {"queries": "query_embed.weight"}

FAULTS = [
    Fault("eps_of_frozen_norm", "self.eps = 1e-5", "self.eps = 1e-6", "backbone.bn1", "output", "eps"),
    Fault("batch_statistics", "mean, var = self.running_mean, self.running_var", "var, mean = torch.var_mean(x, (0, 2, 3), unbiased=False)",
          "backbone.bn1", "output", "mode"),
    Fault("edges_replicated", "self.conv2 = nn.Conv2d(12, width, 3, 2, 1, bias=False)",
          "self.conv2 = nn.Conv2d(12, width, 3, 2, 1, padding_mode=\"replicate\", bias=False)", "backbone.conv2", "output", "padding"),
    Fault("mask_sampled_elsewhere", "mask = mask[:, ::4, ::4]", "mask = mask[:, 3::4, 3::4]", "", "output", "stride"),
    Fault("positions_of_padding", "self.position((~mask).to(x))", "self.position(torch.ones_like(mask).to(x))", "", "output", "mask"),
    Fault("sines_then_cosines", "torch.stack((angle.sin(), angle.cos()), -1).flatten(-2)", "torch.cat((angle.sin(), angle.cos()), -1)",
          "position", "output", "order"),
    Fault("columns_before_rows", "torch.cat((self.encode(rows), self.encode(columns)), -1)", "torch.cat((self.encode(columns), self.encode(rows)), -1)",
          "position", "output", "order"),
    Fault("eps_of_positions", "(columns[:, :, -1:] + 1e-6)", "(columns[:, :, -1:] + 1e-4)", "position", "output", "eps"),
    Fault("heads_before_batch", "k = k.reshape(-1, n * self.heads, self.dim).transpose(0, 1)",
          "k = k.reshape(-1, n, self.dim, self.heads).transpose(2, 3).flatten(1, 2).transpose(0, 1)", "encoder.0.self_attn", "output", "heads"),
    Fault("scaled_twice", "scores = torch.bmm(q, k.transpose(1, 2)).view(n, self.heads, t, -1)",
          "scores = torch.bmm(q, k.transpose(1, 2)).view(n, self.heads, t, -1) * self.dim ** -0.5", "encoder.0.self_attn", "output", "scale"),
    Fault("mask_shifted", "masked_fill(padded[:, None, None, :]", "masked_fill(padded.roll(1, 1)[:, None, None, :]", "encoder.0.self_attn", "output", "mask"),
    Fault("no_mask_across", "self.cross_attn(memory, placed_memory, x + queries, padded)", "self.cross_attn(memory, placed_memory, x + queries)",
          "decoder.0", "output", "mask"),
    Fault("value_with_position", "self.self_attn(x, placed, placed, padded)", "self.self_attn(placed, placed, placed, padded)", "encoder.0", "output", "operand"),
    Fault("query_without_place", "self.cross_attn(memory, placed_memory, x + queries, padded)", "self.cross_attn(memory, placed_memory, x, padded)",
          "decoder.0", "output", "missing"),
    Fault("residual_of_placed", "return self.norm3(y + x)", "return self.norm3(y + placed)", "decoder.0", "output", "residual"),
    Fault("residual_outside_norm", "return self.norm2(y + x)", "return self.norm2(y) + x", "encoder.0", "output", "residual"),
    Fault("bias_detached", "biases = self.in_proj_weight.chunk(3), self.in_proj_bias.chunk(3)",
          "biases = self.in_proj_weight.chunk(3), self.in_proj_bias.detach().chunk(3)", "encoder.0.self_attn", "gradient", "detached"),
    Fault("memory_detached", "found = self.cross_attn(memory, ", "found = self.cross_attn(memory.detach(), ", "decoder.0", "gradient", "detached"),
    Fault("target_starts_at_queries", "target = torch.zeros_like(queries)", "target = queries", "", "output", "initial"),
    Fault("reference_not_detached", "start = box.detach()", "start = box", "", "gradient", "detached"),
    Fault("first_reference_kept", "            start = box.detach()\n", "", "", "output", "operand"),
    Fault("placed_memory_detached", "placed_memory = x + position", "placed_memory = x.detach() + position", "", "gradient", "detached"),
    Fault("eps_of_last_norm", "self.norm = nn.LayerNorm(width)", "self.norm = nn.LayerNorm(width, eps=1e-6)", "norm", "output", "eps"),
]

RIGHT = [
    Right("online_softmax", """        if padded is not None:
            scores = scores.masked_fill(padded[:, None, None, :], float("-inf"))
        weights = scores.softmax(-1).flatten(0, 1)
        mixed = torch.bmm(weights, v).transpose(0, 1).reshape(t, n, c)
""", """        if padded is not None:
            scores = scores.masked_fill(padded[:, None, None, :], -1e30)
        scores = scores.flatten(0, 1)
        top = torch.full_like(scores[..., :1], -1e29)
        total = torch.zeros_like(top)
        mixed = torch.zeros_like(q)
        for i in range(0, scores.shape[-1], 7):
            block = scores[..., i:i + 7]
            new = torch.maximum(top, block.amax(-1, keepdim=True))
            e = torch.exp(block - new)
            decay = torch.exp(top - new)
            total = total * decay + e.sum(-1, keepdim=True)
            mixed = mixed * decay + torch.bmm(e, v[:, i:i + 7])
            top = new
        mixed = (mixed / total).transpose(0, 1).reshape(t, n, c)
"""),
    Right("scaled_dot_product", """        scores = torch.bmm(q, k.transpose(1, 2)).view(n, self.heads, t, -1)
        if padded is not None:
            scores = scores.masked_fill(padded[:, None, None, :], float("-inf"))
        weights = scores.softmax(-1).flatten(0, 1)
        mixed = torch.bmm(weights, v).transpose(0, 1).reshape(t, n, c)
""", """        q, k, v = (s.unflatten(0, (n, self.heads)) for s in (q, k, v))
        seen = None if padded is None else ~padded[:, None, None, :]
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=seen, scale=1.0)
        mixed = mixed.permute(2, 0, 1, 3).reshape(t, n, c)
"""),
    Right("additive_mask_by_baddbmm", """        scores = torch.bmm(q, k.transpose(1, 2)).view(n, self.heads, t, -1)
        if padded is not None:
            scores = scores.masked_fill(padded[:, None, None, :], float("-inf"))
        weights = scores.softmax(-1).flatten(0, 1)
""", """        added = q.new_zeros(n * self.heads, 1, k.shape[1])
        if padded is not None:
            added = added.masked_fill(padded.repeat_interleave(self.heads, 0)[:, None], float("-inf"))
        weights = torch.baddbmm(added, q, k.mT).softmax(-1)
"""),
    Right("library_attention", """        q, k, v = self.project(query, key, value)
        q = q.reshape(t, n * self.heads, self.dim).transpose(0, 1) * self.dim ** -0.5
        k = k.reshape(-1, n * self.heads, self.dim).transpose(0, 1)
        v = v.reshape(-1, n * self.heads, self.dim).transpose(0, 1)
        scores = torch.bmm(q, k.transpose(1, 2)).view(n, self.heads, t, -1)
        if padded is not None:
            scores = scores.masked_fill(padded[:, None, None, :], float("-inf"))
        weights = scores.softmax(-1).flatten(0, 1)
        mixed = torch.bmm(weights, v).transpose(0, 1).reshape(t, n, c)
        return self.out(mixed)
""", """        return F.multi_head_attention_forward(
            query, key, value, c, self.heads, self.in_proj_weight, self.in_proj_bias, None, None, False, 0.0,
            self.out.weight, self.out.bias, training=False, key_padding_mask=padded, need_weights=False)[0]
""", True),
    Right("projections_apart", """        self.in_proj_weight = nn.Parameter(torch.zeros(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out = nn.Linear(width, width)

    def project(self, q, k, v):
        weights, biases = self.in_proj_weight.chunk(3), self.in_proj_bias.chunk(3)
        return [F.linear(t, w, b) for t, w, b in zip((q, k, v), weights, biases)]
""", """        self.q, self.k, self.v, self.out = (nn.Linear(width, width) for _ in range(4))

    def project(self, q, k, v):
        return self.q(q), self.k(k), self.v(v)
""", False, _APART),
    Right("norm_folded_into_convolution", "        x = self.bn1(self.conv1(x)).relu()\n", """        scale = self.bn1.weight / (self.bn1.running_var + 1e-5).sqrt()
        x = F.conv2d(x, self.conv1.weight * scale.view(-1, 1, 1, 1), self.bn1.bias - self.bn1.running_mean * scale, 2, 1).relu_()
""", True),
    Right("second_convolution_unfolded", "        x = self.bn2(self.conv2(x)).relu()\n", """        size = [s // 2 for s in x.shape[-2:]]
        x = torch.einsum("oi,bil->bol", self.conv2.weight.flatten(1), F.unfold(x, 3, padding=1, stride=2)).unflatten(-1, size)
        x = self.bn2(x).clamp(min=0)
""", True),
    Right("library_batch_norm", """        scale = self.weight * (var + self.eps).rsqrt()
        shift = self.bias - mean * scale
        return x * scale.view(1, -1, 1, 1) + shift.view(1, -1, 1, 1)
""", """        return F.batch_norm(x, mean, var, self.weight, self.bias, False, 0.0, self.eps)
"""),
    Right("feed_forward_functional", "        y = self.linear2(torch.relu(self.linear1(x)))\n",
          """        y = 0
        for rows in torch.arange(48).chunk(3):
            part = F.linear(x, self.linear1.weight[rows], self.linear1.bias[rows]).relu()
            y = y + part @ self.linear2.weight[:, rows].T
        y = y + self.linear2.bias
""", True),
]
