"""A vision transformer: class token, positions, pre-norm blocks with layer scale, norms with eps 1e-6."""

import torch
import torch.nn.functional as F
import torch.utils.checkpoint
from torch import nn

from .kinds import Fault, Right

WIDTH, HEADS, PATCH, SIDE, CLASSES, DEPTH = 48, 3, 4, 16, 10, 3


def fill(module, seed):
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in module.named_parameters():
            noise = torch.randn(p.shape, generator=g)
            if p.dim() > 1:
                p.copy_(noise * (p[0].numel() ** -0.5 if name.endswith("weight") else 0.3))
            else:
                p.copy_(0.1 * noise if name.endswith("bias") else 0.5 + 0.1 * noise if "gamma" in name else 1 + 0.1 * noise)


class PatchEmbed(nn.Module):
    def __init__(self):
        super().__init__()
        self.proj = nn.Conv2d(3, WIDTH, PATCH, stride=PATCH)

    def forward(self, x):
        return self.proj(x).flatten(2).transpose(1, 2)


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)
        self.q_norm = nn.LayerNorm(WIDTH // HEADS, eps=1e-6)
        self.k_norm = nn.LayerNorm(WIDTH // HEADS, eps=1e-6)
        self.proj = nn.Linear(WIDTH, WIDTH)

    def forward(self, x):
        b, n, c = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, HEADS, c // HEADS).permute(2, 0, 3, 1, 4).unbind(0)
        q, k = self.q_norm(q), self.k_norm(k)
        x = F.scaled_dot_product_attention(q, k, v)
        return self.proj(x.transpose(1, 2).reshape(b, n, c))


class LayerScale(nn.Module):
    def __init__(self):
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(WIDTH))

    def forward(self, x):
        return x * self.gamma


class Mlp(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(WIDTH, 2 * WIDTH)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(2 * WIDTH, WIDTH)

    def forward(self, x):
        return self.fc2(self.act(self.fc1(x)))


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm1 = nn.LayerNorm(WIDTH, eps=1e-6)
        self.attn = Attention()
        self.ls1 = LayerScale()
        self.norm2 = nn.LayerNorm(WIDTH, eps=1e-6)
        self.mlp = Mlp()
        self.ls2 = LayerScale()

    def forward(self, x):
        x = x + self.ls1(self.attn(self.norm1(x)))
        return x + self.ls2(self.mlp(self.norm2(x)))


class Original(nn.Module):
    def __init__(self):
        super().__init__()
        self.patch_embed = PatchEmbed()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, WIDTH))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + (SIDE // PATCH) ** 2, WIDTH))
        self.blocks = nn.Sequential(*(Block() for _ in range(DEPTH)))
        self.norm = nn.LayerNorm(WIDTH, eps=1e-6)
        self.head = nn.Linear(2 * WIDTH, CLASSES)
        fill(self, 8)

    def forward(self, image):
        x = self.patch_embed(image)
        x = torch.cat((self.cls_token.expand(len(x), -1, -1), x), dim=1) + self.pos_embed
        x = self.norm(self.blocks(x))
        return self.head(torch.cat((x[:, 0], x[:, 1:].mean(dim=1)), dim=-1))


def inputs():
    g = torch.Generator().manual_seed(18)
    return (torch.randn(2, 3, SIDE, SIDE, generator=g),)


# The port ------------------------------------------------------------------------------------


class Patches(nn.Module):
    def __init__(self):
        super().__init__()
        self.proj = nn.Conv2d(3, WIDTH, kernel_size=PATCH, stride=PATCH)

    def forward(self, image):
        grid = self.proj(image)
        b, c, rows, columns = grid.shape
        return grid.permute(0, 2, 3, 1).reshape(b, rows * columns, c)


class Norm(nn.Module):
    def __init__(self, size, eps=1e-6, place=""):
        super().__init__()
        self.place = place
        self.weight = nn.Parameter(torch.ones(size))
        self.bias = nn.Parameter(torch.zeros(size))
        self.eps = eps

    def forward(self, x):
        var, mean = torch.var_mean(x, -1, correction=0, keepdim=True)
        return (x - mean) * torch.rsqrt(var + self.eps) * self.weight + self.bias


class SelfAttention(nn.Module):
    def __init__(self, depth):
        super().__init__()
        self.depth, self.size = depth, WIDTH // HEADS
        self.query = nn.Linear(WIDTH, WIDTH)
        self.key = nn.Linear(WIDTH, WIDTH)
        self.value = nn.Linear(WIDTH, WIDTH)
        self.q_norm = Norm(self.size)
        self.k_norm = nn.LayerNorm(self.size, 1e-6)
        self.proj = nn.Linear(WIDTH, WIDTH)

    def forward(self, x):
        b, n, _ = x.shape
        q = self.query(x).view(b, n, HEADS, self.size).transpose(1, 2)
        k = self.key(x).view(b, n, HEADS, self.size).transpose(1, 2)
        v = self.value(x).view(b, n, HEADS, self.size).transpose(1, 2)
        q = self.q_norm(q)
        k = self.k_norm(k)
        attn = torch.matmul(q, k.transpose(2, 3)).mul(self.size**-0.5)
        attn = attn.softmax(dim=-1)
        x = torch.matmul(attn, v).transpose(1, 2)
        return self.proj(x.reshape(b, n, WIDTH))


class Perceptron(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(WIDTH, WIDTH * 2)
        self.fc2 = nn.Linear(WIDTH * 2, WIDTH)

    def forward(self, x):
        x = F.gelu(self.fc1(x))
        return self.fc2(x)


class Scale(nn.Module):
    def __init__(self):
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(WIDTH))

    def forward(self, x):
        return self.gamma * x


class ViTLayer(nn.Module):
    def __init__(self, depth):
        super().__init__()
        self.depth = depth
        self.norm1 = Norm(WIDTH, place=f"{depth}.norm1")
        self.attn = SelfAttention(depth)
        self.ls1 = Scale()
        self.norm2 = nn.LayerNorm(WIDTH, eps=1e-6)
        self.mlp = Perceptron()
        self.ls2 = Scale()

    def forward(self, x):
        y = self.attn(self.norm1(x))
        x = torch.add(x, self.ls1(y))
        y = self.mlp(self.norm2(x))
        return torch.add(x, self.ls2(y))


class Port(nn.Module):
    def __init__(self):
        super().__init__()
        self.patch_embed = Patches()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, WIDTH))
        self.pos_embed = nn.Parameter(torch.zeros(1, 17, WIDTH))
        self.blocks = nn.Sequential(*[ViTLayer(i) for i in range(DEPTH)])
        self.norm = nn.LayerNorm(WIDTH, eps=0.000001)
        self.head = nn.Linear(2 * WIDTH, CLASSES)

    def forward(self, image):
        tokens = self.patch_embed(image)
        first = self.cls_token.repeat(tokens.shape[0], 1, 1)
        tokens = torch.cat([first, tokens], 1)
        tokens = tokens + self.pos_embed
        tokens = self.blocks(tokens)
        tokens = self.norm(tokens)
        pooled = tokens[:, 1:].sum(1) / (tokens.shape[1] - 1)
        return self.head(torch.cat([tokens[:, 0], pooled], 1))


NAMES = {f"blocks.{i}.attn.{n}.{p}": f"blocks.{i}.attn.qkv.{p}[{48 * j}:{48 * j + 48}]" for i in range(DEPTH) for j, n in enumerate(("query", "key", "value")) for p in ("weight", "bias")}

FAULTS = [
    Fault("eps_of_norm2", "self.norm2 = nn.LayerNorm(WIDTH, eps=1e-6)", "self.norm2 = nn.LayerNorm(WIDTH, eps=1e-6 if depth != 1 else 1e-5)", "blocks.1.norm2", "output", "eps"),
    Fault("eps_of_key_norm", "self.k_norm = nn.LayerNorm(self.size, 1e-6)", "self.k_norm = nn.LayerNorm(self.size)", "blocks.0.attn.k_norm", "output", "eps"),
    Fault("eps_of_query_norm", "self.q_norm = Norm(self.size)", "self.q_norm = Norm(self.size, 1e-6 if self.depth < 2 else 1e-3)", "blocks.2.attn.q_norm", "output", "eps"),
    Fault("unbiased", "correction=0", "correction=1", "blocks.0.norm1", "output", "variance"),
    Fault("detached_variance", "torch.rsqrt(var + self.eps)", 'torch.rsqrt((var.detach() if self.place == "2.norm1" else var) + self.eps)', "blocks.2.norm1", "gradient", "detached"),
    Fault("norm_of_keys_left_out", "k = self.k_norm(k)", "k = self.k_norm(k) if self.depth else k", "blocks.0.attn", "output", "missing"),
    Fault("norms_exchanged", "        q = self.q_norm(q)\n        k = self.k_norm(k)\n", "        q = self.k_norm(q)\n        k = self.q_norm(k)\n", "blocks.0.attn", "output", "operand"),
    Fault("norm_before_heads", "self.key(x).view(b, n, HEADS, self.size).transpose(1, 2)", "self.key(x).view(b, n, self.size, HEADS).permute(0, 3, 1, 2)", "blocks.0.attn", "output", "heads"),
    Fault("scale_of_width", "self.size**-0.5", "WIDTH**-0.5", "blocks.0.attn", "output", "scale"),
    Fault("scale_rounded", "self.size**-0.5", "(0.25 if self.depth else 0.2501)", "blocks.0.attn", "output", "scale"),
    Fault("softmax_over_queries", "attn.softmax(dim=-1)", "attn.softmax(dim=-2)", "blocks.0.attn", "output", "order"),
    Fault("heads_not_moved_back", "x = torch.matmul(attn, v).transpose(1, 2)", "x = torch.matmul(attn, v)", "blocks.0.attn", "output", "heads"),
    Fault("detached_values", "torch.matmul(attn, v)", "torch.matmul(attn, v.detach() if self.depth == 1 else v)", "blocks.1.attn", "gradient", "detached"),
    Fault("detached_attention", "attn = attn.softmax(dim=-1)", "attn = attn.softmax(dim=-1).detach() if self.depth == 2 else attn.softmax(dim=-1)", "blocks.2.attn", "gradient", "detached"),
    Fault("gelu_tanh", "F.gelu(self.fc1(x))", 'F.gelu(self.fc1(x), approximate="tanh")', "blocks.0.mlp", "output", "approximate"),
    Fault("gelu_quick", "        x = F.gelu(self.fc1(x))\n", "        x = self.fc1(x)\n        x = x * torch.sigmoid(1.702 * x)\n", "blocks.0.mlp", "output", "approximate"),
    Fault("patches_by_columns", "grid.permute(0, 2, 3, 1)", "grid.permute(0, 3, 2, 1)", "patch_embed", "output", "transposed"),
    Fault("positions_not_for_class", "        tokens = tokens + self.pos_embed\n", "        tokens = torch.cat([tokens[:, :1], tokens[:, 1:] + self.pos_embed[:, 1:]], 1)\n", "", "output", "missing"),
    Fault("positions_detached", "tokens = tokens + self.pos_embed", "tokens = tokens + self.pos_embed.data", "", "gradient", "detached"),
    Fault("class_detached", "self.cls_token.repeat(tokens.shape[0], 1, 1)", "self.cls_token.detach().repeat(tokens.shape[0], 1, 1)", "", "gradient", "detached"),
    Fault("class_gradient_halved", "first = self.cls_token.repeat(tokens.shape[0], 1, 1)", "first = torch.cat([self.cls_token] + [self.cls_token.detach()] * (len(tokens) - 1))", "", "gradient", "detached"),
    Fault("class_at_the_end", "torch.cat([first, tokens], 1)", "torch.cat([tokens, first], 1)", "", "output", "order"),
    Fault("mean_with_class", "tokens[:, 1:].sum(1) / (tokens.shape[1] - 1)", "tokens.mean(1)", "", "output", "count"),
    Fault("mean_over_one_more", "/ (tokens.shape[1] - 1)", "/ tokens.shape[1]", "", "output", "count"),
    Fault("norm_left_out_for_mean", "        tokens = self.norm(tokens)\n        pooled = tokens[:, 1:].sum(1)", "        raw, tokens = tokens, self.norm(tokens)\n        pooled = raw[:, 1:].sum(1)", "", "output", "operand"),
    Fault("second_residual_of_input", "        x = torch.add(x, self.ls1(y))\n        y = self.mlp(self.norm2(x))\n        return torch.add(x, self.ls2(y))", "        z = torch.add(x, self.ls1(y))\n        y = self.mlp(self.norm2(z))\n        return torch.add(x if self.depth == 2 else z, self.ls2(y))", "blocks.2", "output", "residual"),
    Fault("layer_scale_missing", "return torch.add(x, self.ls2(y))", "return torch.add(x, self.ls2(y) if self.depth != 1 else y)", "blocks.1", "output", "missing"),
    Fault("layer_scales_exchanged", "x = torch.add(x, self.ls1(y))", "x = torch.add(x, self.ls2(y))", "blocks.0", "output", "operand"),
]

ATTEND = '''        attn = torch.matmul(q, k.transpose(2, 3)).mul(self.size**-0.5)
        attn = attn.softmax(dim=-1)
        x = torch.matmul(attn, v).transpose(1, 2)
'''

RIGHT = [
    Right("sdpa", ATTEND, "        x = F.scaled_dot_product_attention(q, k, v, scale=self.size**-0.5).transpose(1, 2)\n"),
    Right("bias_in_baddbmm", ATTEND, '''        q, k, v = (z.reshape(b * HEADS, n, self.size) for z in (q, k, v))
        attn = torch.baddbmm(q.new_empty(b * HEADS, n, n).zero_(), q, k.mT, beta=0, alpha=1 / self.size**0.5)
        x = torch.bmm(F.softmax(attn, 2), v).reshape(b, HEADS, n, self.size).transpose(1, 2)
'''),
    Right("blocks_of_keys", ATTEND, '''        scores = [q @ part.mT / self.size**0.5 for part in k.split(5, 2)]
        whole = torch.stack([s.logsumexp(-1) for s in scores]).logsumexp(0)[..., None]
        x = sum(torch.exp(s - whole) @ part for s, part in zip(scores, v.split(5, 2))).transpose(1, 2)
'''),
    Right("softmax_in_log", "attn = attn.softmax(dim=-1)", "attn = F.log_softmax(attn, -1).exp()"),
    Right("norm_in_place", '''        var, mean = torch.var_mean(x, -1, correction=0, keepdim=True)
        return (x - mean) * torch.rsqrt(var + self.eps) * self.weight + self.bias
''', '''        y = x - x.mean(-1, keepdim=True)
        y = y.div(y.square().mean(-1, keepdim=True).add_(self.eps).sqrt_())
        return y.mul(self.weight).add_(self.bias)
'''),
    Right("norm_by_moments", '''        var, mean = torch.var_mean(x, -1, correction=0, keepdim=True)
''', '''        mean = x.mean(-1, keepdim=True)
        var = (x * x).mean(-1, keepdim=True) - mean * mean
'''),
    Right("unfold_patches", '''        grid = self.proj(image)
        b, c, rows, columns = grid.shape
        return grid.permute(0, 2, 3, 1).reshape(b, rows * columns, c)
''', '''        return F.unfold(image, PATCH, stride=PATCH).mT @ self.proj.weight.flatten(1).T + self.proj.bias
''', True),
    Right("patches_by_view", '''        grid = self.proj(image)
        b, c, rows, columns = grid.shape
        return grid.permute(0, 2, 3, 1).reshape(b, rows * columns, c)
''', '''        cut = image.unflatten(3, (-1, PATCH)).unflatten(2, (-1, PATCH))
        return torch.einsum("bcipjq,ocpq->bijo", cut, self.proj.weight).flatten(1, 2) + self.proj.bias
''', True),
    Right("qkv_in_one", '''        self.query = nn.Linear(WIDTH, WIDTH)
        self.key = nn.Linear(WIDTH, WIDTH)
        self.value = nn.Linear(WIDTH, WIDTH)
        self.q_norm = Norm(self.size)
        self.k_norm = nn.LayerNorm(self.size, 1e-6)
        self.proj = nn.Linear(WIDTH, WIDTH)

    def forward(self, x):
        b, n, _ = x.shape
        q = self.query(x).view(b, n, HEADS, self.size).transpose(1, 2)
        k = self.key(x).view(b, n, HEADS, self.size).transpose(1, 2)
        v = self.value(x).view(b, n, HEADS, self.size).transpose(1, 2)
''', '''        self.in_proj = nn.Linear(WIDTH, 3 * WIDTH)
        self.q_norm = Norm(self.size)
        self.k_norm = nn.LayerNorm(self.size, 1e-6)
        self.proj = nn.Linear(WIDTH, WIDTH)

    def forward(self, x):
        b, n, _ = x.shape
        q, k, v = self.in_proj(x).view(b, n, 3, HEADS, self.size).permute(2, 0, 3, 1, 4)
''', False, {f"blocks.{i}.attn.in_proj": f"blocks.{i}.attn.qkv" for i in range(DEPTH)}),
    Right("scale_folded_into_weight", "        y = self.mlp(self.norm2(x))\n        return torch.add(x, self.ls2(y))", '''        y, m, s = F.gelu(self.mlp.fc1(self.norm2(x))), self.mlp.fc2, self.ls2.gamma
        return x + F.linear(y, s[:, None] * m.weight, s * m.bias)''', True),
    Right("positions_added_apart", '''        tokens = torch.cat([first, tokens], 1)
        tokens = tokens + self.pos_embed
''', '''        tokens = torch.cat([first + self.pos_embed[:, :1], tokens.add_(self.pos_embed[:, 1:])], 1)
'''),
    Right("checkpoint_sequence", "tokens = self.blocks(tokens)", "tokens = torch.utils.checkpoint.checkpoint_sequential(self.blocks, 3, tokens, use_reentrant=False)", True),
    Right("checkpoint_attention", "y = self.attn(self.norm1(x))", "y = torch.utils.checkpoint.checkpoint(self.attn, self.norm1(x), use_reentrant=True)"),
    Right("mlp_in_slices", "        x = F.gelu(self.fc1(x))\n        return self.fc2(x)", '''        w, u = self.fc1.weight.chunk(4), self.fc2.weight.chunk(4, 1)
        return self.fc2.bias + sum(F.gelu(F.linear(x, a, c)) @ d.T for a, c, d in zip(w, self.fc1.bias.chunk(4), u))''', True),
    Right("mlp_by_slices_of_tokens", "        x = F.gelu(self.fc1(x))\n        return self.fc2(x)", "        return torch.cat([self.fc2(F.gelu(self.fc1(part))) for part in x.split(6, 1)], 1)", True),
]
