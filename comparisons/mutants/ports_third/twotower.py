"""A small CLIP in eval mode: a convolutional image tower with frozen BatchNorm and attention pooling, a causal text tower with QuickGELU; contrastive logits and loss in a dict."""

from collections import OrderedDict

import torch
import torch.nn.functional as F
import torch.utils.checkpoint
from torch import nn

from ..ports.kinds import Fault, Right


class QuickGELU(nn.Module):
    def forward(self, x):
        return x * torch.sigmoid(1.702 * x)


class AttentionPool2d(nn.Module):
    def __init__(self, places, width, heads, out):
        super().__init__()
        self.positional_embedding = nn.Parameter(0.3 * torch.randn(places + 1, width))
        self.q_proj = nn.Linear(width, width)
        self.k_proj = nn.Linear(width, width)
        self.v_proj = nn.Linear(width, width)
        self.c_proj = nn.Linear(width, out)
        self.heads = heads

    def forward(self, x):
        x = x.flatten(start_dim=2).permute(2, 0, 1)
        x = torch.cat([x.mean(dim=0, keepdim=True), x], dim=0)
        x = x + self.positional_embedding[:, None, :]
        x, _ = F.multi_head_attention_forward(
            query=x[:1], key=x, value=x, embed_dim_to_check=x.shape[-1], num_heads=self.heads,
            q_proj_weight=self.q_proj.weight, k_proj_weight=self.k_proj.weight, v_proj_weight=self.v_proj.weight,
            in_proj_weight=None, in_proj_bias=torch.cat([self.q_proj.bias, self.k_proj.bias, self.v_proj.bias]),
            bias_k=None, bias_v=None, add_zero_attn=False, dropout_p=0.0, out_proj_weight=self.c_proj.weight,
            out_proj_bias=self.c_proj.bias, use_separate_proj_weight=True, training=self.training, need_weights=False)
        return x.squeeze(0)


class ImageTower(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 12, 3, stride=2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(12)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(12, 24, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(24)
        self.relu2 = nn.ReLU()
        self.avgpool = nn.AvgPool2d(3, stride=2, padding=1)
        self.attnpool = AttentionPool2d(16, 24, 3, 20)

    def forward(self, x):
        x = self.relu1(self.bn1(self.conv1(x)))
        x = self.relu2(self.bn2(self.conv2(x)))
        return self.attnpool(self.avgpool(x))


class ResidualAttentionBlock(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.ln_1 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(OrderedDict([
            ("c_fc", nn.Linear(width, width * 2)), ("gelu", QuickGELU()),
            ("c_proj", nn.Linear(width * 2, width)), ("drop", nn.Dropout(0.1))]))
        self.ln_2 = nn.LayerNorm(width)

    def forward(self, x):
        mask = torch.full((x.shape[1], x.shape[1]), float("-inf")).triu(1).to(x)
        y = self.ln_1(x)
        x = x + self.attn(y, y, y, need_weights=False, attn_mask=mask)[0]
        return x + self.mlp(self.ln_2(x))


class TextTower(nn.Module):
    def __init__(self):
        super().__init__()
        self.token_embedding = nn.Embedding(40, 20)
        self.positional_embedding = nn.Parameter(0.3 * torch.randn(8, 20))
        self.resblocks = nn.Sequential(ResidualAttentionBlock(20, 4), ResidualAttentionBlock(20, 4))
        self.ln_final = nn.LayerNorm(20)
        self.text_projection = nn.Parameter(20 ** -0.5 * torch.randn(20, 20))

    def forward(self, text):
        x = self.token_embedding(text) + self.positional_embedding
        x = self.ln_final(self.resblocks(x))
        return x[torch.arange(x.shape[0]), text.argmax(dim=-1)] @ self.text_projection


class Original(nn.Module):
    def __init__(self):
        super().__init__()
        self.visual = ImageTower()
        self.text = TextTower()
        self.logit_scale = nn.Parameter(torch.tensor(1.3))
        generator = torch.Generator().manual_seed(4)
        with torch.no_grad():
            for p in self.parameters():
                if p.dim() == 1:
                    p.add_(0.1 * torch.randn(p.shape, generator=generator))
            for bn in (self.visual.bn1, self.visual.bn2):
                bn.running_mean.normal_(0.0, 0.2, generator=generator)
                bn.running_var.uniform_(0.3, 0.9, generator=generator)
        self.eval()

    def forward(self, image, text):
        a, b = self.visual(image), self.text(text)
        a = a / a.norm(dim=-1, keepdim=True)
        b = b / b.norm(dim=-1, keepdim=True)
        per_image = self.logit_scale.exp() * a @ b.t()
        labels = torch.arange(a.shape[0])
        loss = (F.cross_entropy(per_image, labels) + F.cross_entropy(per_image.t(), labels)) / 2
        return {"per_image": per_image, "per_text": per_image.t(), "loss": loss, "text": b}


def inputs():
    g = torch.Generator().manual_seed(15)
    text = torch.randint(1, 39, (4, 8), generator=g)
    for row, end in enumerate((5, 7, 3, 6)):
        text[row, end] = 39
        text[row, end + 1:] = 0
    return torch.randn(4, 3, 16, 16, generator=g), text


# The port ------------------------------------------------------------------------------------


class FrozenNorm(nn.Module):
    def __init__(self, size, eps=1e-5):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.bias = nn.Parameter(torch.zeros(size))
        self.register_buffer("running_mean", torch.zeros(size))
        self.register_buffer("running_var", torch.ones(size))
        self.register_buffer("num_batches_tracked", torch.tensor(0))
        self.eps = eps

    def forward(self, x):
        scale = self.weight / (self.running_var + self.eps).sqrt()
        shift = self.bias - self.running_mean * scale
        return torch.addcmul(shift[:, None, None], x, scale[:, None, None])


class Pool(nn.Module):
    def __init__(self, places, width, heads, out):
        super().__init__()
        self.heads = heads
        self.positional_embedding = nn.Parameter(torch.zeros(places + 1, width))
        self.q_proj = nn.Linear(width, width)
        self.k_proj = nn.Linear(width, width)
        self.v_proj = nn.Linear(width, width)
        self.c_proj = nn.Linear(width, out)

    def forward(self, x):
        x = x.flatten(2).mT
        middle = x.mean(1, keepdim=True)
        x = torch.cat((middle, x), 1) + self.positional_embedding
        q = self.q_proj(x[:, 0]).unflatten(-1, (self.heads, -1))
        k = self.k_proj(x).unflatten(-1, (self.heads, -1))
        v = self.v_proj(x).unflatten(-1, (self.heads, -1))
        s = torch.einsum("bhd,bkhd->bhk", q, k) / q.shape[-1] ** 0.5
        y = torch.einsum("bhk,bkhd->bhd", s.softmax(-1), v)
        return self.c_proj(y.flatten(1))


class Visual(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 12, 3, stride=2, padding=1, bias=False)
        self.bn1 = FrozenNorm(12)
        self.conv2 = nn.Conv2d(12, 24, 3, padding=1, bias=False)
        self.bn2 = FrozenNorm(24, eps=1e-5)
        self.avgpool = nn.AvgPool2d(3, 2, padding=1)
        self.attnpool = Pool(16, 24, 3, 20)

    def forward(self, x):
        x = self.bn1(self.conv1(x)).relu_()
        x = self.bn2(self.conv2(x)).relu_()
        x = self.avgpool(x)
        return self.attnpool(x)


class SelfAttention(nn.Module):
    def __init__(self, width, heads, index):
        super().__init__()
        self.heads, self.index = heads, index
        self.in_proj_weight = nn.Parameter(torch.zeros(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)

    def forward(self, x):
        b, t, d = x.shape
        qkv = F.linear(x, self.in_proj_weight, self.in_proj_bias)
        q, k, v = qkv.view(b, t, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        later = torch.arange(t)[:, None] < torch.arange(t)
        s = (q * q.shape[-1] ** -0.5) @ k.mT
        w = s.masked_fill(later, -torch.inf).softmax(-1)
        return self.out_proj((w @ v).transpose(1, 2).reshape(b, t, d))


class MLP(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.c_fc = nn.Linear(width, 2 * width)
        self.c_proj = nn.Linear(2 * width, width)
        self.drop = nn.Dropout(0.1)

    def forward(self, x):
        x = self.c_fc(x)
        x = x * torch.sigmoid(x * 1.702)
        return self.drop(self.c_proj(x))


class Block(nn.Module):
    def __init__(self, width, heads, index):
        super().__init__()
        self.ln_1 = nn.LayerNorm(width)
        self.attn = SelfAttention(width, heads, index)
        self.ln_2 = nn.LayerNorm(width)
        self.mlp = MLP(width)

    def forward(self, x):
        x = x + self.attn(self.ln_1(x))
        x = x + self.mlp(self.ln_2(x))
        return x


class Text(nn.Module):
    def __init__(self):
        super().__init__()
        self.token_embedding = nn.Embedding(40, 20)
        self.positional_embedding = nn.Parameter(torch.zeros(8, 20))
        self.resblocks = nn.ModuleList(Block(20, 4, i) for i in range(2))
        self.ln_final = nn.LayerNorm(20)
        self.projection = nn.Linear(20, 20, bias=False)

    def forward(self, ids):
        x = self.token_embedding(ids)
        x = x + self.positional_embedding
        for block in self.resblocks:
            x = block(x)
        end = (ids == 39).long().argmax(-1)
        x = x.gather(1, end[:, None, None].expand(-1, 1, x.shape[-1]))[:, 0]
        return self.projection(self.ln_final(x))


class Port(nn.Module):
    def __init__(self):
        super().__init__()
        self.visual = Visual()
        self.text = Text()
        self.logit_scale = nn.Parameter(torch.zeros(()))
        self.eval()

    def forward(self, image, text):
        a = F.normalize(self.visual(image), dim=-1)
        b = F.normalize(self.text(text), dim=-1)
        per_text = b @ a.mT * self.logit_scale.exp()
        per_image = per_text.mT
        loss = -(per_text.log_softmax(0).diagonal().mean() + per_text.log_softmax(1).diagonal().mean()) / 2
        return {"per_image": per_image, "per_text": per_text, "loss": loss, "text": b}


NAMES = {"text.projection.weight": "text.text_projection.T"}

FAULTS = [
    Fault("gelu_for_quick_gelu", "x = x * torch.sigmoid(x * 1.702)", "x = F.gelu(x)", "text.resblocks.0.mlp", "output", "activation"),
    Fault("quick_gelu_rounded", "x = x * torch.sigmoid(x * 1.702)", "x = x * torch.sigmoid(x * 1.7)", "text.resblocks.0.mlp", "output", "approximate"),
    Fault("projection_transposed", "return self.projection(self.ln_final(x))", "return self.ln_final(x) @ self.projection.weight", "text", "output", "transposed"),
    Fault("last_token_for_end", "end = (ids == 39).long().argmax(-1)", "end = torch.full_like(ids[:, 0], ids.shape[1] - 1)", "text", "output", "operand"),
    Fault("bn_of_the_batch", """        scale = self.weight / (self.running_var + self.eps).sqrt()
        shift = self.bias - self.running_mean * scale
        return torch.addcmul(shift[:, None, None], x, scale[:, None, None])""", "        return F.batch_norm(x, None, None, self.weight, self.bias, True, 0.1, self.eps)", "visual.bn1", "output", "mode"),
    Fault("eps_of_bn2", "self.bn2 = FrozenNorm(24, eps=1e-5)", "self.bn2 = FrozenNorm(24, eps=1e-3)", "visual.bn2", "output", "eps"),
    Fault("pool_without_padding_counted", "self.avgpool = nn.AvgPool2d(3, 2, padding=1)", "self.avgpool = nn.AvgPool2d(3, 2, padding=1, count_include_pad=False)", "visual.avgpool", "output", "count"),
    Fault("pool_shifted", "x = self.avgpool(x)", "x = F.avg_pool2d(F.pad(x, (0, 1, 0, 1)), 3, 2)", "visual", "output", "padding"),
    Fault("mean_of_pool_after_positions", "x = torch.cat((middle, x), 1) + self.positional_embedding", "x = torch.cat((middle, x + self.positional_embedding[1:]), 1)", "visual.attnpool", "output", "missing"),
    Fault("middle_detached", "middle = x.mean(1, keepdim=True)", "middle = x.detach().mean(1, keepdim=True)", "visual.attnpool", "gradient", "detached"),
    Fault("qkv_interleaved", "q, k, v = qkv.view(b, t, 3, self.heads, -1).permute(2, 0, 3, 1, 4)", "q, k, v = qkv.view(b, t, self.heads, 3, -1).permute(3, 0, 2, 1, 4)", "text.resblocks.0.attn", "output", "heads"),
    Fault("value_bias_detached", "qkv = F.linear(x, self.in_proj_weight, self.in_proj_bias)", "qkv = F.linear(x, self.in_proj_weight, self.in_proj_bias if self.index else self.in_proj_bias.detach())", "text.resblocks.0.attn", "gradient", "detached"),
    Fault("dropout_in_eval", "return self.drop(self.c_proj(x))", "return F.dropout(self.c_proj(x), 0.1)", "text.resblocks.0.mlp", "output", "mode"),
    Fault("logit_scale_not_exponentiated", "per_text = b @ a.mT * self.logit_scale.exp()", "per_text = b @ a.mT * self.logit_scale", "", "output", "scale"),
    Fault("norm_detached", "b = F.normalize(self.text(text), dim=-1)", "b = self.text(text)\n        b = b / b.detach().norm(dim=-1, keepdim=True)", "", "gradient", "detached"),
    Fault("loss_of_one_side", "loss = -(per_text.log_softmax(0).diagonal().mean() + per_text.log_softmax(1).diagonal().mean()) / 2", "loss = -per_text.log_softmax(1).diagonal().mean()", "", "output", "missing"),
    Fault("residual_of_normed", "        x = x + self.mlp(self.ln_2(x))\n", "        x = self.ln_2(x)\n        x = x + self.mlp(x)\n", "text.resblocks.0", "output", "residual"),
    Fault("bias_of_pool_detached", "return self.c_proj(y.flatten(1))", "return F.linear(y.flatten(1), self.c_proj.weight, self.c_proj.bias.detach())", "visual.attnpool", "gradient", "detached"),
]

RIGHT = [
    Right("bn_of_torch", """        scale = self.weight / (self.running_var + self.eps).sqrt()
        shift = self.bias - self.running_mean * scale
        return torch.addcmul(shift[:, None, None], x, scale[:, None, None])""", "        return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)"),
    Right("conv_and_bn_folded", "x = self.bn1(self.conv1(x)).relu_()", """scale = self.bn1.weight * torch.rsqrt(self.bn1.running_var + self.bn1.eps)
        x = F.conv2d(x, self.conv1.weight * scale[:, None, None, None], self.bn1.bias - self.bn1.running_mean * scale, 2, 1).relu()""", True, NAMES),
    Right("conv2_by_unfold", "x = self.bn2(self.conv2(x)).relu_()", """columns = self.conv2.weight.flatten(1) @ F.unfold(x, 3, padding=1)
        x = self.bn2(columns.unflatten(-1, x.shape[-2:])).clamp(min=0)""", True, NAMES),
    Right("pool_by_convolution", "x = self.avgpool(x)", "x = F.conv2d(x, x.new_full((24, 1, 3, 3), 1 / 9), stride=2, padding=1, groups=24)", True, NAMES),
    Right("attention_of_torch", """        later = torch.arange(t)[:, None] < torch.arange(t)
        s = (q * q.shape[-1] ** -0.5) @ k.mT
        w = s.masked_fill(later, -torch.inf).softmax(-1)
        return self.out_proj((w @ v).transpose(1, 2).reshape(b, t, d))""", """        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.out_proj(y.transpose(1, 2).flatten(2))"""),
    Right("attention_by_rows", """        w = s.masked_fill(later, -torch.inf).softmax(-1)
        return self.out_proj((w @ v).transpose(1, 2).reshape(b, t, d))""", """        rows = [s[:, :, i, :i + 1].softmax(-1)[:, :, None] @ v[:, :, :i + 1] for i in range(t)]
        return self.out_proj(torch.cat(rows, 2).permute(0, 2, 1, 3).flatten(2))"""),
    Right("quick_gelu_by_silu", "x = x * torch.sigmoid(x * 1.702)", "x = F.silu(x * 1.702) / 1.702"),
    Right("projection_as_given", """        self.projection = nn.Linear(20, 20, bias=False)

    def forward(self, ids):""", """        self.text_projection = nn.Parameter(torch.zeros(20, 20))

    def projection(self, y):
        return torch.einsum("bd,de->be", y, self.text_projection)

    def forward(self, ids):""", False, {"text.text_projection": "text.text_projection"}),
    Right("split_in_projection", """        self.in_proj_weight = nn.Parameter(torch.zeros(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)

    def forward(self, x):
        b, t, d = x.shape
        qkv = F.linear(x, self.in_proj_weight, self.in_proj_bias)
""", """        self.to_q, self.to_k, self.to_v = (nn.Linear(width, width) for _ in range(3))
        self.out_proj = nn.Linear(width, width)

    def forward(self, x):
        b, t, d = x.shape
        qkv = torch.cat([self.to_q(x), self.to_k(x), self.to_v(x)], -1)
""", True, NAMES | {
        f"text.resblocks.{i}.attn.to_{n}.{w}": f"text.resblocks.{i}.attn.in_proj_{w}[{20 * j}:{20 * j + 20}]"
        for i in range(2) for j, n in enumerate("qkv") for w in ("weight", "bias")}),
    Right("normalised_by_rsqrt", "a = F.normalize(self.visual(image), dim=-1)\n", "a = self.visual(image)\n        a = a * a.square().sum(-1, keepdim=True).rsqrt()\n"),
]
