"""A hierarchical window transformer in timm style: shifted windows under a mask, a table of relative positions, layer scale, patch merging."""

import torch
import torch.utils.checkpoint
import torch.nn.functional as F
from torch import nn

from ..ports.kinds import Fault, Right


def window_partition(x, window):
    B, H, W, C = x.shape
    x = x.view(B, H // window, window, W // window, window, C)
    return x.permute(0, 1, 3, 2, 4, 5).contiguous().view(-1, window * window, C)


def window_reverse(windows, window, H, W):
    C = windows.shape[-1]
    x = windows.view(-1, H // window, W // window, window, window, C)
    return x.permute(0, 1, 3, 2, 4, 5).contiguous().view(-1, H, W, C)


class WindowAttention(nn.Module):
    def __init__(self, dim, num_heads, window=4):
        super().__init__()
        self.num_heads = num_heads
        self.scale = (dim // num_heads) ** -0.5
        self.relative_position_bias_table = nn.Parameter(0.5 * torch.randn((2 * window - 1) ** 2, num_heads))
        coords = torch.stack(torch.meshgrid(torch.arange(window), torch.arange(window), indexing="ij")).flatten(1)
        relative = (coords[:, :, None] - coords[:, None, :]).permute(1, 2, 0).contiguous()
        relative += window - 1
        relative[:, :, 0] *= 2 * window - 1
        self.register_buffer("relative_position_index", relative.sum(-1), persistent=False)
        self.qkv = nn.Linear(dim, dim * 3, bias=True)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x, mask=None):
        B_, N, C = x.shape
        qkv = self.qkv(x).reshape(B_, N, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)
        attn = (q * self.scale) @ k.transpose(-2, -1)
        bias = self.relative_position_bias_table[self.relative_position_index.view(-1)].view(N, N, -1)
        attn = attn + bias.permute(2, 0, 1).unsqueeze(0)
        if mask is not None:
            num_win = mask.shape[0]
            attn = attn.view(-1, num_win, self.num_heads, N, N) + mask.to(attn.dtype).unsqueeze(1).unsqueeze(0)
            attn = attn.view(-1, self.num_heads, N, N)
        attn = attn.softmax(dim=-1)
        return self.proj((attn @ v).transpose(1, 2).reshape(B_, N, C))


class Mlp(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.fc1 = nn.Linear(dim, dim * 2)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(dim * 2, dim)

    def forward(self, x):
        return self.fc2(self.act(self.fc1(x)))


class SwinBlock(nn.Module):
    def __init__(self, dim, num_heads, size, shift, window=4):
        super().__init__()
        self.window, self.shift = window, shift
        self.norm1 = nn.LayerNorm(dim)
        self.attn = WindowAttention(dim, num_heads, window)
        self.gamma1 = nn.Parameter(torch.rand(dim) + 0.5)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim)
        self.gamma2 = nn.Parameter(torch.rand(dim) + 0.5)
        attn_mask = None
        if shift:
            img_mask = torch.zeros(1, size, size, 1)
            cnt = 0
            for h in (slice(0, -window), slice(-window, -shift), slice(-shift, None)):
                for w in (slice(0, -window), slice(-window, -shift), slice(-shift, None)):
                    img_mask[:, h, w, :] = cnt
                    cnt += 1
            windows = window_partition(img_mask, window).squeeze(-1)
            attn_mask = windows.unsqueeze(1) - windows.unsqueeze(2)
            attn_mask = attn_mask.masked_fill(attn_mask != 0, -100.0).masked_fill(attn_mask == 0, 0.0)
        self.register_buffer("attn_mask", attn_mask, persistent=False)

    def forward(self, x):
        B, H, W, C = x.shape
        shifted = self.norm1(x)
        if self.shift:
            shifted = torch.roll(shifted, shifts=(-self.shift, -self.shift), dims=(1, 2))
        windows = self.attn(window_partition(shifted, self.window), mask=self.attn_mask)
        shifted = window_reverse(windows, self.window, H, W)
        if self.shift:
            shifted = torch.roll(shifted, shifts=(self.shift, self.shift), dims=(1, 2))
        x = x + self.gamma1 * shifted
        return x + self.gamma2 * self.mlp(self.norm2(x))


class PatchMerging(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.norm = nn.LayerNorm(4 * dim)
        self.reduction = nn.Linear(4 * dim, 2 * dim, bias=False)

    def forward(self, x):
        x0 = x[:, 0::2, 0::2, :]
        x1 = x[:, 1::2, 0::2, :]
        x2 = x[:, 0::2, 1::2, :]
        x3 = x[:, 1::2, 1::2, :]
        return self.reduction(self.norm(torch.cat([x0, x1, x2, x3], -1)))


class SwinStage(nn.Module):
    def __init__(self, dim, num_heads, size, depth, downsample):
        super().__init__()
        self.blocks = nn.Sequential(*[SwinBlock(dim, num_heads, size, 0 if i % 2 == 0 or size <= 4 else 2) for i in range(depth)])
        self.downsample = PatchMerging(dim) if downsample else nn.Identity()

    def forward(self, x):
        return self.downsample(self.blocks(x))


class PatchEmbed(nn.Module):
    def __init__(self):
        super().__init__()
        self.proj = nn.Conv2d(3, 24, kernel_size=2, stride=2)
        self.norm = nn.LayerNorm(24)

    def forward(self, x):
        return self.norm(self.proj(x).permute(0, 2, 3, 1))


class Original(nn.Module):
    def __init__(self):
        super().__init__()
        self.patch_embed = PatchEmbed()
        self.layers = nn.Sequential(SwinStage(24, 2, 8, 2, True), SwinStage(48, 4, 4, 1, False))
        self.norm = nn.LayerNorm(48)
        self.head = nn.Linear(48, 7)
        for module in self.modules():
            if isinstance(module, nn.LayerNorm):
                nn.init.normal_(module.weight, 1.0, 0.2)
                nn.init.normal_(module.bias, 0.0, 0.2)

    def forward(self, x):
        x = self.norm(self.layers(self.patch_embed(x)))
        return self.head(x.mean(dim=(1, 2)))


def inputs():
    g = torch.Generator().manual_seed(16)
    return (torch.randn(2, 3, 16, 16, generator=g),)


# The port ------------------------------------------------------------------------------------


def relative_index(window):
    i = torch.arange(window * window)
    row, column = i // window, i % window
    down = row[:, None] - row + window - 1
    right = column[:, None] - column + window - 1
    return down * (2 * window - 1) + right


def regions_differ(size, window, shift):
    """windows, tokens, tokens: which pairs were brought together by the roll alone"""
    place = torch.arange(size)
    band = (place >= size - window).long() + (place >= size - shift).long()
    region = cut((band[:, None] * 3 + band)[None, :, :, None], window).squeeze(-1)
    return region[:, :, None] != region[:, None, :]


def cut(x, window):
    x = x.unflatten(2, (-1, window)).unflatten(1, (-1, window))
    return x.transpose(2, 3).reshape(-1, window * window, x.shape[-1])


def paste(x, window, size):
    n = size // window
    x = x.reshape(-1, n, n, window, window, x.shape[-1])
    return torch.cat([torch.cat([x[:, i, j] for j in range(n)], 2) for i in range(n)], 1)


class Attention(nn.Module):
    def __init__(self, dim, heads, index, window=4):
        super().__init__()
        self.heads, self.window, self.index = heads, window, index
        self.relative_position_bias_table = nn.Parameter(torch.zeros((2 * window - 1) ** 2, heads))
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x, mask=None):
        w, n, c = x.shape
        size = c // self.heads
        q, k, v = self.qkv(x).view(w, n, 3, self.heads, size).unbind(2)
        scores = torch.einsum("wqhc,wkhc->whqk", q, k) / size**0.5
        table = self.relative_position_bias_table
        bias = table.t()[:, relative_index(self.window)]
        scores = scores + bias
        if mask is not None:
            scores = scores + mask.to(x.dtype).repeat(w // len(mask), 1, 1)[:, None]
        p = F.softmax(scores, -1)
        return self.proj(torch.einsum("whqk,wkhc->wqhc", p, v).reshape(w, n, c))


class FeedForward(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.fc1 = nn.Linear(dim, 2 * dim)
        self.fc2 = nn.Linear(2 * dim, dim)

    def forward(self, x):
        return self.fc2(F.gelu(self.fc1(x)))


class Block(nn.Module):
    def __init__(self, dim, heads, size, shift, index):
        super().__init__()
        self.size, self.shift = size, shift
        self.norm1 = nn.LayerNorm(dim)
        self.attn = Attention(dim, heads, index)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = FeedForward(dim)
        self.gamma1 = nn.Parameter(torch.ones(dim))
        self.gamma2 = nn.Parameter(torch.ones(dim))

    def forward(self, x):
        h = self.norm1(x)
        mask = None
        if self.shift:
            h = h.roll((-self.shift, -self.shift), (1, 2))
            mask = -100.0 * regions_differ(self.size, 4, self.shift)
        h = paste(self.attn(cut(h, 4), mask=mask), 4, self.size)
        if self.shift:
            h = h.roll((self.shift, self.shift), (1, 2))
        x = x + h * self.gamma1
        return x + self.mlp(self.norm2(x)) * self.gamma2


class Merge(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.norm = nn.LayerNorm(4 * dim)
        self.reduction = nn.Linear(4 * dim, 2 * dim, bias=False)

    def forward(self, x):
        b, h, w, c = x.shape
        x = x.view(b, h // 2, 2, w // 2, 2, c).permute(0, 1, 3, 4, 2, 5).flatten(3)
        return self.reduction(self.norm(x))


class Stage(nn.Module):
    def __init__(self, blocks, downsample=None):
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.downsample = downsample

    def forward(self, x):
        for block in self.blocks:
            x = block(x)
        return x if self.downsample is None else self.downsample(x)


class Patches(nn.Module):
    def __init__(self):
        super().__init__()
        self.proj = nn.Conv2d(3, 24, 2, stride=2)
        self.norm = nn.LayerNorm(24, eps=1e-5)

    def forward(self, image):
        return self.norm(self.proj(image).movedim(1, -1))


class Port(nn.Module):
    def __init__(self):
        super().__init__()
        self.patch_embed = Patches()
        self.layers = nn.ModuleList([
            Stage([Block(24, 2, 8, 0, 0), Block(24, 2, 8, 2, 1)], Merge(24)),
            Stage([Block(48, 4, 4, 0, 2)]),
        ])
        self.norm = nn.LayerNorm(48)
        self.head = nn.Linear(48, 7)

    def forward(self, image):
        x = self.patch_embed(image)
        for layer in self.layers:
            x = layer(x)
        x = self.norm(x)
        return self.head(x.flatten(1, 2).mean(1))


NAMES = {}

FAULTS = [
    Fault("tanh_gelu", "F.gelu(self.fc1(x))", 'F.gelu(self.fc1(x), approximate="tanh")', "layers.0.blocks.0.mlp", "output", "approximate"),
    Fault("eps_of_patch_norm", "self.norm = nn.LayerNorm(24, eps=1e-5)", "self.norm = nn.LayerNorm(24, eps=1e-6)", "patch_embed.norm", "output", "eps"),
    Fault("eps_of_last_norm", "self.norm = nn.LayerNorm(48)", "self.norm = nn.LayerNorm(48, eps=1e-6)", "norm", "output", "eps"),
    Fault("shifted_without_mask", "mask = -100.0 * regions_differ(self.size, 4, self.shift)", "mask = None", "layers.0.blocks.1", "output", "mask"),
    Fault("mask_of_minus_ten", "mask = -100.0 *", "mask = -10.0 *", "layers.0.blocks.1", "output", "mask"),
    Fault("mask_of_wrong_windows", "mask.to(x.dtype).repeat(w // len(mask), 1, 1)", "mask.to(x.dtype).repeat_interleave(w // len(mask), 0)", "layers.0.blocks.1.attn", "output", "repeat"),
    Fault("not_rolled_back", "        if self.shift:\n            h = h.roll((self.shift, self.shift), (1, 2))\n", "", "layers.0.blocks.1", "output", "missing"),
    Fault("merged_row_by_row", ".permute(0, 1, 3, 4, 2, 5).flatten(3)", ".permute(0, 1, 3, 2, 4, 5).flatten(3)", "layers.0.downsample", "output", "order"),
    Fault("windows_pasted_across", "torch.cat([torch.cat([x[:, i, j] for j in range(n)], 2) for i in range(n)], 1)", "torch.cat([torch.cat([x[:, j, i] for j in range(n)], 2) for i in range(n)], 1)", "layers.0.blocks.0", "output", "order"),
    Fault("table_of_key_minus_query", "bias = table.t()[:, relative_index(self.window)]", "bias = table.t()[:, relative_index(self.window).t()]", "layers.0.blocks.0.attn", "output", "transposed"),
    Fault("table_stride", "return down * (2 * window - 1) + right", "return down * (2 * window - 2) + right", "layers.0.blocks.0.attn", "output", "stride"),
    Fault("heads_outside_qkv", "self.qkv(x).view(w, n, 3, self.heads, size).unbind(2)", "self.qkv(x).view(w, n, self.heads, 3, size).unbind(3)", "layers.0.blocks.0.attn", "output", "heads"),
    Fault("scale_of_whole_width", "/ size**0.5", "/ c**0.5", "layers.0.blocks.0.attn", "output", "scale"),
    Fault("bias_before_scale", "        scores = scores + bias\n", "        scores = scores + bias / size**0.5\n", "layers.0.blocks.0.attn", "output", "order"),
    Fault("table_detached", "table = self.relative_position_bias_table\n", "table = self.relative_position_bias_table.detach() if self.index == 2 else self.relative_position_bias_table\n", "layers.1.blocks.0.attn", "gradient", "detached"),
    Fault("probabilities_detached", "p = F.softmax(scores, -1)\n", "p = F.softmax(scores, -1)\n        p = p.detach() if self.index == 1 else p\n", "layers.0.blocks.1.attn", "gradient", "detached"),
    Fault("residual_after_norm", "        h = self.norm1(x)\n", "        x = h = self.norm1(x)\n", "layers.0.blocks.0", "output", "residual"),
    Fault("layer_scale_missing", "x + self.mlp(self.norm2(x)) * self.gamma2", "x + self.mlp(self.norm2(x))", "layers.0.blocks.0", "output", "missing"),
    Fault("mean_of_fewer", "self.head(x.flatten(1, 2).mean(1))", "self.head(x.flatten(1, 2).sum(1) / (x.shape[1] * x.shape[2] - 1))", "", "output", "count"),
]

RIGHT = [
    Right("attention_sdpa", """        scores = torch.einsum("wqhc,wkhc->whqk", q, k) / size**0.5
        table = self.relative_position_bias_table
        bias = table.t()[:, relative_index(self.window)]
        scores = scores + bias
        if mask is not None:
            scores = scores + mask.to(x.dtype).repeat(w // len(mask), 1, 1)[:, None]
        p = F.softmax(scores, -1)
        return self.proj(torch.einsum("whqk,wkhc->wqhc", p, v).reshape(w, n, c))
""", """        bias = F.embedding(relative_index(self.window), self.relative_position_bias_table).permute(2, 0, 1)[None]
        if mask is not None:
            bias = bias + mask.to(x.dtype)[:, None]
            bias = bias.repeat(w // len(mask), 1, 1, 1)
        y = F.scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), attn_mask=bias.expand(w, -1, -1, -1))
        return self.proj(y.transpose(1, 2).reshape(w, n, c))
"""),
    Right("attention_baddbmm", """        scores = torch.einsum("wqhc,wkhc->whqk", q, k) / size**0.5
        table = self.relative_position_bias_table
        bias = table.t()[:, relative_index(self.window)]
        scores = scores + bias
        if mask is not None:
            scores = scores + mask.to(x.dtype).repeat(w // len(mask), 1, 1)[:, None]
        p = F.softmax(scores, -1)
        return self.proj(torch.einsum("whqk,wkhc->wqhc", p, v).reshape(w, n, c))
""", """        q, k, v = (z.transpose(1, 2).reshape(w * self.heads, n, size) for z in (q, k, v))
        added = self.relative_position_bias_table.index_select(0, relative_index(self.window).flatten()).t().view(1, self.heads, n, n)
        if mask is not None:
            added = (added + mask.to(x.dtype)[:, None]).repeat(w // len(mask), 1, 1, 1)
        added = added.expand(w, -1, -1, -1).reshape(w * self.heads, n, n)
        p = torch.baddbmm(added, q, k.mT, alpha=size**-0.5).softmax(-1)
        return self.proj((p @ v).view(w, self.heads, n, size).permute(0, 2, 1, 3).flatten(2))
"""),
    Right("cut_by_permutation", """    x = x.unflatten(2, (-1, window)).unflatten(1, (-1, window))
    return x.transpose(2, 3).reshape(-1, window * window, x.shape[-1])
""", """    b, h, w, c = x.shape
    tiles = [tile for row in x.split(window, 1) for tile in row.split(window, 2)]
    return torch.stack(tiles, 1).reshape(-1, window * window, c)
"""),
    Right("rolled_by_cat", "h = h.roll((self.shift, self.shift), (1, 2))", "h = torch.cat((h[:, -self.shift :], h[:, : -self.shift]), 1)\n            h = torch.cat((h[:, :, -self.shift :], h[:, :, : -self.shift]), 2)"),
    Right("merged_by_cat", "        x = x.view(b, h // 2, 2, w // 2, 2, c).permute(0, 1, 3, 4, 2, 5).flatten(3)\n", "        x = torch.cat([x[:, i::2, j::2] for j in (0, 1) for i in (0, 1)], 3)\n"),
    Right("patches_by_unfold", "return self.norm(self.proj(image).movedim(1, -1))", """columns = F.unfold(image, 2, stride=2).mT
        flat = F.linear(columns, self.proj.weight.flatten(1), self.proj.bias)
        return self.norm(flat.unflatten(1, (image.shape[2] // 2, -1)))""", fused=True),
    Right("query_key_value_apart", """        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x, mask=None):
        w, n, c = x.shape
        size = c // self.heads
        q, k, v = self.qkv(x).view(w, n, 3, self.heads, size).unbind(2)
""", """        self.query, self.key, self.value = nn.Linear(dim, dim), nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x, mask=None):
        w, n, c = x.shape
        size = c // self.heads
        q, k, v = (layer(x).unflatten(-1, (self.heads, size)) for layer in (self.query, self.key, self.value))
""", fused=True, names={f"{at}.attn.{x}.{p}": f"{at}.attn.qkv.{p}[{i * dim}:{i * dim + dim}]"
                        for at, dim in (("layers.0.blocks.0", 24), ("layers.0.blocks.1", 24), ("layers.1.blocks.0", 48))
                        for i, x in enumerate(("query", "key", "value")) for p in ("weight", "bias")}),
    Right("norm_folded_into_head", "        x = self.norm(x)\n        return self.head(x.flatten(1, 2).mean(1))\n", """        x = F.layer_norm(x, (48,), eps=self.norm.eps).mean((1, 2))
        return F.linear(x, self.head.weight * self.norm.weight, self.head.bias + self.head.weight @ self.norm.bias)
""", fused=True),
    Right("layer_scale_folded", "x + self.mlp(self.norm2(x)) * self.gamma2", "x + F.linear(F.gelu(self.mlp.fc1(self.norm2(x))), self.gamma2[:, None] * self.mlp.fc2.weight, self.gamma2 * self.mlp.fc2.bias)", fused=True),
    Right("checkpointed_stage", "            x = layer(x)\n", "            x = torch.utils.checkpoint.checkpoint(layer, x, use_reentrant=False)\n"),
]
