"""Swin after torchvision (attention that pads, shifts and cuts by itself, a table of biases, merging that pads odd sides), ported with one gather of windows and masks by distances."""

from functools import partial

import torch
import torch.nn.functional as F
import torch.utils.checkpoint
from torch import nn

from ..ports.kinds import Fault, Right


def _patch_merging_pad(x):
    H, W, _ = x.shape[-3:]
    x = F.pad(x, (0, 0, 0, W % 2, 0, H % 2))
    x0 = x[..., 0::2, 0::2, :]
    x1 = x[..., 1::2, 0::2, :]
    x2 = x[..., 0::2, 1::2, :]
    x3 = x[..., 1::2, 1::2, :]
    return torch.cat([x0, x1, x2, x3], -1)


class Permute(nn.Module):
    def __init__(self, dims):
        super().__init__()
        self.dims = dims

    def forward(self, x):
        return torch.permute(x, self.dims)


class PatchMerging(nn.Module):
    def __init__(self, dim, norm_layer):
        super().__init__()
        self.dim = dim
        self.reduction = nn.Linear(4 * dim, 2 * dim, bias=False)
        self.norm = norm_layer(4 * dim)

    def forward(self, x):
        return self.reduction(self.norm(_patch_merging_pad(x)))


def shifted_window_attention(input, qkv_weight, proj_weight, relative_position_bias, window_size, num_heads, shift_size, qkv_bias, proj_bias):
    B, H, W, C = input.shape
    pad_r = (window_size[1] - W % window_size[1]) % window_size[1]
    pad_b = (window_size[0] - H % window_size[0]) % window_size[0]
    x = F.pad(input, (0, 0, 0, pad_r, 0, pad_b))
    _, pad_H, pad_W, _ = x.shape

    shift_size = shift_size.copy()
    if window_size[0] >= pad_H:
        shift_size[0] = 0
    if window_size[1] >= pad_W:
        shift_size[1] = 0
    if sum(shift_size) > 0:
        x = torch.roll(x, shifts=(-shift_size[0], -shift_size[1]), dims=(1, 2))

    num_windows = (pad_H // window_size[0]) * (pad_W // window_size[1])
    x = x.view(B, pad_H // window_size[0], window_size[0], pad_W // window_size[1], window_size[1], C)
    x = x.permute(0, 1, 3, 2, 4, 5).reshape(B * num_windows, window_size[0] * window_size[1], C)

    qkv = F.linear(x, qkv_weight, qkv_bias)
    qkv = qkv.reshape(x.size(0), x.size(1), 3, num_heads, C // num_heads).permute(2, 0, 3, 1, 4)
    q, k, v = qkv[0], qkv[1], qkv[2]
    q = q * (C // num_heads) ** -0.5
    attn = q.matmul(k.transpose(-2, -1))
    attn = attn + relative_position_bias

    if sum(shift_size) > 0:
        attn_mask = x.new_zeros((pad_H, pad_W))
        h_slices = ((0, -window_size[0]), (-window_size[0], -shift_size[0]), (-shift_size[0], None))
        w_slices = ((0, -window_size[1]), (-window_size[1], -shift_size[1]), (-shift_size[1], None))
        count = 0
        for h in h_slices:
            for w in w_slices:
                attn_mask[h[0] : h[1], w[0] : w[1]] = count
                count += 1
        attn_mask = attn_mask.view(pad_H // window_size[0], window_size[0], pad_W // window_size[1], window_size[1])
        attn_mask = attn_mask.permute(0, 2, 1, 3).reshape(num_windows, window_size[0] * window_size[1])
        attn_mask = attn_mask.unsqueeze(1) - attn_mask.unsqueeze(2)
        attn_mask = attn_mask.masked_fill(attn_mask != 0, float(-100.0)).masked_fill(attn_mask == 0, float(0.0))
        attn = attn.view(x.size(0) // num_windows, num_windows, num_heads, x.size(1), x.size(1))
        attn = attn + attn_mask.unsqueeze(1).unsqueeze(0)
        attn = attn.view(-1, num_heads, x.size(1), x.size(1))

    attn = F.softmax(attn, dim=-1)
    x = attn.matmul(v).transpose(1, 2).reshape(x.size(0), x.size(1), C)
    x = F.linear(x, proj_weight, proj_bias)

    x = x.view(B, pad_H // window_size[0], pad_W // window_size[1], window_size[0], window_size[1], C)
    x = x.permute(0, 1, 3, 2, 4, 5).reshape(B, pad_H, pad_W, C)
    if sum(shift_size) > 0:
        x = torch.roll(x, shifts=(shift_size[0], shift_size[1]), dims=(1, 2))
    return x[:, :H, :W, :].contiguous()


class ShiftedWindowAttention(nn.Module):
    def __init__(self, dim, window_size, shift_size, num_heads):
        super().__init__()
        self.window_size, self.shift_size, self.num_heads = window_size, shift_size, num_heads
        self.qkv = nn.Linear(dim, dim * 3)
        self.proj = nn.Linear(dim, dim)
        self.relative_position_bias_table = nn.Parameter(torch.zeros((2 * window_size[0] - 1) * (2 * window_size[1] - 1), num_heads))
        coords = torch.stack(torch.meshgrid(torch.arange(window_size[0]), torch.arange(window_size[1]), indexing="ij"))
        coords_flatten = torch.flatten(coords, 1)
        relative_coords = (coords_flatten[:, :, None] - coords_flatten[:, None, :]).permute(1, 2, 0).contiguous()
        relative_coords[:, :, 0] += window_size[0] - 1
        relative_coords[:, :, 1] += window_size[1] - 1
        relative_coords[:, :, 0] *= 2 * window_size[1] - 1
        self.register_buffer("relative_position_index", relative_coords.sum(-1).flatten(), persistent=False)

    def get_relative_position_bias(self):
        N = self.window_size[0] * self.window_size[1]
        bias = self.relative_position_bias_table[self.relative_position_index].view(N, N, -1)
        return bias.permute(2, 0, 1).contiguous().unsqueeze(0)

    def forward(self, x):
        return shifted_window_attention(
            x, self.qkv.weight, self.proj.weight, self.get_relative_position_bias(), self.window_size, self.num_heads, self.shift_size, self.qkv.bias, self.proj.bias
        )


class MLP(nn.Sequential):
    def __init__(self, dim, hidden):
        super().__init__(nn.Linear(dim, hidden), nn.GELU(), nn.Dropout(0.0), nn.Linear(hidden, dim), nn.Dropout(0.0))


class SwinTransformerBlock(nn.Module):
    def __init__(self, dim, num_heads, window_size, shift_size, norm_layer):
        super().__init__()
        self.norm1 = norm_layer(dim)
        self.attn = ShiftedWindowAttention(dim, window_size, shift_size, num_heads)
        self.norm2 = norm_layer(dim)
        self.mlp = MLP(dim, dim * 2)

    def forward(self, x):
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class Original(nn.Module):
    def __init__(self):
        super().__init__()
        norm_layer = partial(nn.LayerNorm, eps=1e-5)
        self.features = nn.Sequential(
            nn.Sequential(nn.Conv2d(3, 12, kernel_size=(2, 2), stride=(2, 2)), Permute([0, 2, 3, 1]), norm_layer(12)),
            nn.Sequential(*[SwinTransformerBlock(12, 2, [3, 4], [0, 0] if i == 0 else [1, 2], norm_layer) for i in range(2)]),
            PatchMerging(12, norm_layer),
            nn.Sequential(SwinTransformerBlock(24, 3, [3, 4], [1, 2], norm_layer)),
        )
        self.norm = norm_layer(24)
        self.permute = Permute([0, 3, 1, 2])
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten(1)
        self.head = nn.Linear(24, 6)
        g = torch.Generator().manual_seed(29)
        with torch.no_grad():
            for name, p in self.named_parameters():
                noise = torch.randn(p.shape, generator=g)
                if "table" in name:
                    p.copy_(0.6 * noise)
                elif p.dim() == 2:
                    p.copy_(noise * p.shape[1] ** -0.5)
                else:
                    p.add_(0.2 * noise)

    def forward(self, x):
        x = self.features(x)
        x = self.norm(x)
        x = self.permute(x)
        x = self.avgpool(x)
        x = self.flatten(x)
        return self.head(x)


def inputs():
    g = torch.Generator().manual_seed(31)
    return (torch.randn(2, 3, 10, 18, generator=g),)


# The port ------------------------------------------------------------------------------------

WINDOW = (3, 4)


def offsets(window):
    """The row of the table for each pair of places, query by key."""
    h, w = window
    down = torch.arange(h).view(h, 1, 1, 1) - torch.arange(h).view(1, 1, h, 1)
    right = torch.arange(w).view(1, w, 1, 1) - torch.arange(w).view(1, 1, 1, w)
    index = (down + h - 1) * (2 * w - 1) + (right + w - 1)
    return index.reshape(h * w, h * w)


def gathering(height, width, window, shift):
    """The flat place of every token, a row a window; and the band that each place was rolled from."""
    rows = (torch.arange(height) + shift[0]) % height
    columns = (torch.arange(width) + shift[1]) % width
    place = rows[:, None] * width + columns
    row_band = torch.arange(height).ge(height - window[0]).long() + torch.arange(height).ge(height - shift[0]).long()
    column_band = torch.arange(width).ge(width - window[1]).long() + torch.arange(width).ge(width - shift[1]).long()
    band = 3 * row_band[:, None] + column_band

    def cut(grid):
        return grid.unfold(0, window[0], window[0]).unfold(1, window[1], window[1]).flatten(2).flatten(0, 1)

    return cut(place), cut(band)


class WindowAttention(nn.Module):
    def __init__(self, dim, heads, shift):
        super().__init__()
        self.heads, self.shift = heads, shift
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        self.relative_position_bias_table = nn.Parameter(torch.zeros((2 * WINDOW[0] - 1) * (2 * WINDOW[1] - 1), heads))
        self.index = offsets(WINDOW)

    def forward(self, x):
        b, height, width, c = x.shape
        below, beside = -height % WINDOW[0], -width % WINDOW[1]
        x = F.pad(x, (0, 0, 0, beside, 0, below))
        full = (height + below, width + beside)
        shift = [0 if WINDOW[i] >= full[i] else self.shift[i] for i in (0, 1)]
        place, band = gathering(*full, WINDOW, shift)
        windows = x.flatten(1, 2)[:, place]
        packed = F.linear(windows, self.qkv.weight, self.qkv.bias)
        q, k, v = packed.unflatten(-1, (3, self.heads, -1)).unbind(3)
        scores = torch.einsum("bwqhc,bwkhc->bwhqk", q, k)
        scores = scores * (c // self.heads) ** -0.5
        bias = self.relative_position_bias_table[self.index]
        scores = scores + bias.movedim(-1, 0)
        if any(shift):
            apart = band[:, :, None] != band[:, None, :]
            scores = scores - 100.0 * apart[:, None].to(scores.dtype)
        p = scores.softmax(-1)
        y = torch.einsum("bwhqk,bwkhc->bwqhc", p, v).flatten(3)
        y = F.linear(y, self.proj.weight, self.proj.bias)
        flat = y.new_zeros(b, full[0] * full[1], c)
        flat = flat.index_copy(1, place.flatten(), y.flatten(1, 2))
        return flat.unflatten(1, full)[:, :height, :width]


class Mlp(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(dim, 2 * dim), nn.Linear(2 * dim, dim)

    def forward(self, x):
        h = F.gelu(self.fc1(x))
        return self.fc2(h)


class Block(nn.Module):
    def __init__(self, dim, heads, shift, eps=1e-5):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim, eps), nn.LayerNorm(dim, eps)
        self.attn = WindowAttention(dim, heads, shift)
        self.mlp = Mlp(dim)

    def forward(self, x):
        a = self.attn(self.norm1(x))
        x = a + x
        m = self.mlp(self.norm2(x))
        return m + x


class Merge(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.norm = nn.LayerNorm(4 * dim)
        self.reduction = nn.Linear(4 * dim, 2 * dim, bias=False)

    def forward(self, x):
        x = F.pad(x, (0, 0, 0, x.shape[2] % 2, 0, x.shape[1] % 2))
        x = x.unflatten(2, (-1, 2)).unflatten(1, (-1, 2))
        x = x.permute(0, 1, 3, 4, 2, 5).flatten(3)
        return self.reduction(self.norm(x))


class Port(nn.Module):
    def __init__(self):
        super().__init__()
        self.patch_embed = nn.Conv2d(3, 12, 2, 2)
        self.patch_norm = nn.LayerNorm(12)
        self.stage1 = nn.ModuleList([Block(12, 2, (0, 0)), Block(12, 2, (1, 2))])
        self.merge = Merge(12)
        self.stage2 = nn.ModuleList([Block(24, 3, (1, 2))])
        self.norm = nn.LayerNorm(24, eps=1e-5)
        self.head = nn.Linear(24, 6)

    def forward(self, image):
        x = self.patch_embed(image)
        x = self.patch_norm(x.movedim(1, -1))
        for block in self.stage1:
            x = block(x)
        x = self.merge(x)
        for block in self.stage2:
            x = block(x)
        pooled = self.norm(x).mean(dim=(1, 2))
        return self.head(pooled)


NAMES = {
    "patch_embed": "features.0.0",
    "patch_norm": "features.0.2",
    "merge": "features.2",
}
for _p, _o in (("stage1.0", "features.1.0"), ("stage1.1", "features.1.1"), ("stage2.0", "features.3.0")):
    NAMES[_p] = _o
    NAMES[f"{_p}.mlp.fc1"] = f"{_o}.mlp.0"
    NAMES[f"{_p}.mlp.fc2"] = f"{_o}.mlp.3"

_APART = dict(NAMES)
for _p, _d in (("stage1.0", 12), ("stage1.1", 12), ("stage2.0", 24)):
    for _j, _n in enumerate(("q", "k", "v")):
        for _k in ("weight", "bias"):
            _APART[f"{_p}.attn.{_n}.{_k}"] = f"{NAMES[_p]}.attn.qkv.{_k}[{_j * _d}:{_j * _d + _d}]"
_FLAT = {k: v for k, v in NAMES.items() if "mlp" not in k}
for _p in ("stage1.0", "stage1.1", "stage2.0"):
    for _n, _m in (("fc1", "mlp.0"), ("fc2", "mlp.3")):
        _FLAT[f"{_p}.{_n}"] = f"{NAMES[_p]}.{_m}"

FAULTS = [
    Fault("eps_of_blocks", "def __init__(self, dim, heads, shift, eps=1e-5):", "def __init__(self, dim, heads, shift, eps=1e-6):", "features.1.0.norm1", "output", "eps"),
    Fault("eps_of_patch_norm", "self.patch_norm = nn.LayerNorm(12)", "self.patch_norm = nn.LayerNorm(12, eps=1e-6)", "features.0.2", "output", "eps"),
    Fault("eps_of_merge", "self.norm = nn.LayerNorm(4 * dim)", "self.norm = nn.LayerNorm(4 * dim, eps=1e-4)", "features.2.norm", "output", "eps"),
    Fault("eps_of_last_norm", "self.norm = nn.LayerNorm(24, eps=1e-5)", "self.norm = nn.LayerNorm(24, eps=1e-3)", "norm", "output", "eps"),
    Fault("table_by_key_minus_query", "return index.reshape(h * w, h * w)", "return index.reshape(h * w, h * w).t()", "features.1.0.attn", "output", "transposed"),
    Fault("table_stride_of_height", "* (2 * w - 1) + (right + w - 1)", "* (2 * h - 1) + (right + w - 1)", "features.1.0.attn", "output", "stride"),
    Fault("table_column_first", "index = (down + h - 1) * (2 * w - 1) + (right + w - 1)", "index = (right + w - 1) * (2 * h - 1) + (down + h - 1)", "features.1.0.attn", "output", "order"),
    Fault("table_without_origin", "index = (down + h - 1) * (2 * w - 1) + (right + w - 1)", "index = (down % h) * (2 * w - 1) + (right + w - 1)", "features.1.0.attn", "output", "operand"),
    Fault("shift_the_other_way", "rows = (torch.arange(height) + shift[0]) % height\n    columns = (torch.arange(width) + shift[1]) % width", "rows = (torch.arange(height) - shift[0]) % height\n    columns = (torch.arange(width) - shift[1]) % width", "features.1.1.attn", "output", "order"),
    Fault("shifts_exchanged", "shift = [0 if WINDOW[i] >= full[i] else self.shift[i] for i in (0, 1)]", "shift = [0 if WINDOW[i] >= full[i] else self.shift[1 - i] for i in (0, 1)]", "features.1.1.attn", "output", "transposed"),
    Fault("shift_of_rows_only", "columns = (torch.arange(width) + shift[1]) % width", "columns = torch.arange(width)", "features.1.1.attn", "output", "missing"),
    Fault("mask_missing", "if any(shift):", "if False:", "features.1.1.attn", "output", "mask"),
    Fault("mask_soft", "scores = scores - 100.0 * apart", "scores = scores - 5.0 * apart", "features.1.1.attn", "output", "mask"),
    Fault("mask_turned", "apart = band[:, :, None] != band[:, None, :]", "apart = band[:, :, None] == band[:, None, :]", "features.1.1.attn", "output", "mask"),
    Fault("mask_of_rows_only", "band = 3 * row_band[:, None] + column_band", "band = 3 * row_band[:, None] + 0 * column_band", "features.1.1.attn", "output", "mask"),
    Fault("bands_collide", "band = 3 * row_band[:, None] + column_band", "band = row_band[:, None] + column_band", "features.1.1.attn", "output", "mask"),
    Fault("band_one_place_late", "torch.arange(width).ge(width - shift[1]).long()", "torch.arange(width).gt(width - shift[1]).long()", "features.1.1.attn", "output", "mask"),
    Fault("mask_before_bias_scaled", "scores = scores * (c // self.heads) ** -0.5\n        bias = self.relative_position_bias_table[self.index]\n        scores = scores + bias.movedim(-1, 0)", "bias = self.relative_position_bias_table[self.index]\n        scores = scores + bias.movedim(-1, 0)\n        scores = scores * (c // self.heads) ** -0.5", "features.1.0.attn", "output", "order"),
    Fault("padding_above_and_left", "x = F.pad(x, (0, 0, 0, beside, 0, below))", "x = F.pad(x, (0, 0, beside, 0, below, 0))", "features.1.0.attn", "output", "padding"),
    Fault("padding_by_edge", "x = F.pad(x, (0, 0, 0, beside, 0, below))", "x = F.pad(x.movedim(-1, 1), (0, beside, 0, below), mode=\"replicate\").movedim(1, -1)", "features.1.0.attn", "output", "padding"),
    Fault("padding_masked", "if any(shift):", "real = F.pad(torch.ones(height, width, dtype=torch.bool), (0, beside, 0, below)).flatten()[place]\n        scores = scores.masked_fill(~real[:, None, None], -100.0)\n        if any(shift):", "features.1.0.attn", "output", "mask"),
    Fault("shift_kept_in_small_image", "shift = [0 if WINDOW[i] >= full[i] else self.shift[i] for i in (0, 1)]", "shift = list(self.shift)", "features.3.0.attn", "output", "missing"),
    Fault("scale_of_width", "scores = scores * (c // self.heads) ** -0.5", "scores = scores * c**-0.5", "features.1.0.attn", "output", "scale"),
    Fault("scale_of_three_heads", "scores = scores * (c // self.heads) ** -0.5", "scores = scores * 6**-0.5", "features.3.0.attn", "output", "scale"),
    Fault("heads_before_parts", "q, k, v = packed.unflatten(-1, (3, self.heads, -1)).unbind(3)", "q, k, v = packed.unflatten(-1, (self.heads, 3, -1)).unbind(4)", "features.1.0.attn", "output", "heads"),
    Fault("queries_from_last_part", "q, k, v = packed", "v, k, q = packed", "features.1.0.attn", "output", "order"),
    Fault("heads_inside_channels", "\"bwhqk,bwkhc->bwqhc\", p, v", "\"bwhqk,bwkhc->bwqch\", p, v", "features.1.0.attn", "output", "heads"),
    Fault("weights_over_queries", "p = scores.softmax(-1)", "p = scores.softmax(-2)", "features.1.0.attn", "output", "order"),
    Fault("weights_detached", "p = scores.softmax(-1)", "p = scores.detach().softmax(-1)", "features.1.0.attn", "gradient", "detached"),
    Fault("table_detached", "bias = self.relative_position_bias_table[self.index]", "bias = self.relative_position_bias_table.detach()[self.index]", "features.1.0.attn", "gradient", "detached"),
    Fault("windows_pasted_unrolled", "flat.index_copy(1, place.flatten(), y.flatten(1, 2))", "flat.index_copy(1, gathering(*full, WINDOW, (0, 0))[0].flatten(), y.flatten(1, 2))", "features.1.1.attn", "output", "missing"),
    Fault("windows_not_pasted", "flat.index_copy(1, place.flatten(), y.flatten(1, 2))", "y.flatten(1, 2)", "features.1.0.attn", "output", "order"),
    Fault("projection_bias_missing", "y = F.linear(y, self.proj.weight, self.proj.bias)", "y = F.linear(y, self.proj.weight)", "features.1.0.attn", "output", "missing"),
    Fault("tanh_gelu", "h = F.gelu(self.fc1(x))", "h = F.gelu(self.fc1(x), approximate=\"tanh\")", "features.1.0.mlp", "output", "approximate"),
    Fault("silu", "h = F.gelu(self.fc1(x))", "h = F.silu(self.fc1(x))", "features.1.0.mlp", "output", "activation"),
    Fault("residual_of_normed", "m = self.mlp(self.norm2(x))", "x = self.norm2(x)\n        m = self.mlp(x)", "features.1.0", "output", "residual"),
    Fault("residual_detached", "x = a + x", "x = a + x.detach()", "features.1.0", "gradient", "residual"),
    Fault("post_norm", "a = self.attn(self.norm1(x))", "a = self.norm1(self.attn(x))", "features.1.0", "output", "order"),
    Fault("norms_exchanged", "m = self.mlp(self.norm2(x))", "m = self.mlp(self.norm1(x))", "features.1.0", "output", "operand"),
    Fault("merge_row_by_row", "x = x.permute(0, 1, 3, 4, 2, 5).flatten(3)", "x = x.permute(0, 1, 3, 2, 4, 5).flatten(3)", "features.2", "output", "order"),
    Fault("merge_channels_outside", "x = x.permute(0, 1, 3, 4, 2, 5).flatten(3)", "x = x.permute(0, 1, 3, 5, 4, 2).flatten(3)", "features.2", "output", "order"),
    Fault("merge_drops_odd_side", "x = F.pad(x, (0, 0, 0, x.shape[2] % 2, 0, x.shape[1] % 2))", "x = F.pad(x, (0, 0, 0, -(x.shape[2] % 2), 0, -(x.shape[1] % 2)))", "features.2", "output", "padding"),
    Fault("merge_norm_after_reduction", "return self.reduction(self.norm(x))", "return F.layer_norm(self.reduction(x), (x.shape[-1] // 2,))", "features.2", "output", "order"),
    Fault("pooled_before_norm", "pooled = self.norm(x).mean(dim=(1, 2))", "pooled = self.norm(x.mean(dim=(1, 2)))", "", "output", "order"),
    Fault("pooled_over_one_less", "pooled = self.norm(x).mean(dim=(1, 2))", "pooled = self.norm(x).sum(dim=(1, 2)) / (x.shape[1] * x.shape[2] - 1)", "", "output", "count"),
    Fault("pooled_by_maximum", "pooled = self.norm(x).mean(dim=(1, 2))", "pooled = self.norm(x).amax(dim=(1, 2))", "", "output", "operand"),
    Fault("image_transposed", "x = self.patch_norm(x.movedim(1, -1))", "x = self.patch_norm(x.transpose(1, 3))", "", "output", "transposed"),
]

RIGHT = [
    Right("scaled_dot_product", '''        scores = torch.einsum("bwqhc,bwkhc->bwhqk", q, k)
        scores = scores * (c // self.heads) ** -0.5
        bias = self.relative_position_bias_table[self.index]
        scores = scores + bias.movedim(-1, 0)
        if any(shift):
            apart = band[:, :, None] != band[:, None, :]
            scores = scores - 100.0 * apart[:, None].to(scores.dtype)
        p = scores.softmax(-1)
        y = torch.einsum("bwhqk,bwkhc->bwqhc", p, v).flatten(3)
''', '''        added = F.embedding(self.index, self.relative_position_bias_table).permute(2, 0, 1)
        apart = (band[:, :, None] != band[:, None, :]) & torch.tensor(any(shift))
        added = added.sub(apart[:, None].to(x.dtype), alpha=100.0).expand(b, -1, -1, -1, -1)
        y = F.scaled_dot_product_attention(q.transpose(2, 3), k.transpose(2, 3), v.transpose(2, 3), attn_mask=added)
        y = y.transpose(2, 3).flatten(3)
'''),
    Right("window_by_window", '''        y = torch.einsum("bwhqk,bwkhc->bwqhc", p, v).flatten(3)
''', '''        y = torch.stack([(p[:, w] @ v[:, w].transpose(1, 2)).transpose(1, 2).flatten(2) for w in range(len(place))], 1)
'''),
    Right("rolled_and_cut", "windows = x.flatten(1, 2)[:, place]", "rolled = x.roll((-shift[0], -shift[1]), (1, 2))\n        tiles = [t for row in rolled.split(WINDOW[0], 1) for t in row.split(WINDOW[1], 2)]\n        windows = torch.stack([t.flatten(1, 2) for t in tiles], 1)"),
    Right("pasted_by_inverse", "flat = y.new_zeros(b, full[0] * full[1], c)\n        flat = flat.index_copy(1, place.flatten(), y.flatten(1, 2))", "flat = y.flatten(1, 2).index_select(1, place.flatten().argsort())"),
    Right("pasted_by_scatter", "flat = flat.index_copy(1, place.flatten(), y.flatten(1, 2))", "flat = flat.scatter_add(1, place.view(1, -1, 1).expand(b, -1, c), y.flatten(1, 2))"),
    Right("table_by_one_hot", "bias = self.relative_position_bias_table[self.index]", "bias = F.one_hot(self.index, len(self.relative_position_bias_table)).to(x.dtype) @ self.relative_position_bias_table"),
    Right("merged_by_unfold", "x = x.unflatten(2, (-1, 2)).unflatten(1, (-1, 2))\n        x = x.permute(0, 1, 3, 4, 2, 5).flatten(3)", "h, w = x.shape[1] // 2, x.shape[2] // 2\n        columns = F.unfold(x.movedim(-1, 1).transpose(2, 3), 2, stride=2)\n        x = columns.unflatten(1, (-1, 4)).unflatten(-1, (w, h)).permute(0, 4, 3, 2, 1).flatten(3)"),
    Right("projections_apart", "class Mlp(nn.Module):", '''class WindowAttention(WindowAttention):
    def __init__(self, dim, heads, shift):
        super().__init__(dim, heads, shift)
        del self.qkv
        self.q, self.k, self.v = nn.Linear(dim, dim), nn.Linear(dim, dim), nn.Linear(dim, dim)

    def forward(self, x):
        b, height, width, c = x.shape
        x = F.pad(x, (0, 0, 0, -width % WINDOW[1], 0, -height % WINDOW[0]))
        full = x.shape[1:3]
        shift = [s * (w < f) for s, w, f in zip(self.shift, WINDOW, full)]
        place, band = gathering(*full, WINDOW, shift)
        windows = x.flatten(1, 2)[:, place]
        q, k, v = (to(windows).unflatten(-1, (self.heads, -1)).transpose(2, 3) for to in (self.q, self.k, self.v))
        bias = self.relative_position_bias_table.t()[:, offsets(WINDOW)]
        if any(shift):
            bias = bias.where((band[:, :, None] == band[:, None])[:, None], bias - 100.0)
        p = torch.softmax(q @ k.mT / (c // self.heads) ** 0.5 + bias, -1)
        y = self.proj((p @ v).transpose(2, 3).flatten(3)).flatten(1, 2)
        return y[:, place.flatten().argsort()].view(b, *full, c)[:, :height, :width]


class Mlp(nn.Module):''', True, _APART),
    Right("mlp_in_the_block", "class Merge(nn.Module):", '''class Block(Block):
    def __init__(self, dim, heads, shift):
        super().__init__(dim, heads, shift)
        del self.mlp
        self.fc1, self.fc2 = nn.Linear(dim, 2 * dim), nn.Linear(2 * dim, dim)

    def forward(self, x):
        x = x + self.attn(self.norm1(x))
        return x + self.fc2(F.gelu(self.fc1(self.norm2(x))))


class Merge(nn.Module):''', False, _FLAT),
    Right("patches_as_products", "x = self.patch_embed(image)", "patches = image.unfold(2, 2, 2).unfold(3, 2, 2)\n        x = torch.einsum(\"bihwjk,oijk->bohw\", patches, self.patch_embed.weight) + self.patch_embed.bias[:, None, None]", True),
    Right("norm_folded_into_head", "pooled = self.norm(x).mean(dim=(1, 2))\n        return self.head(pooled)", "pooled = F.layer_norm(x, (24,), eps=self.norm.eps).flatten(1, 2).mean(1)\n        return F.linear(pooled, self.head.weight * self.norm.weight, self.head.bias + self.head.weight @ self.norm.bias)", True),
    Right("checkpointed_block", "        for block in self.stage1:\n            x = block(x)\n", "        for block in self.stage1:\n            x = torch.utils.checkpoint.checkpoint(block, x, use_reentrant=False)\n"),
]
