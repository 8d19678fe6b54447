"""Sketches of tensors: the norm and sixteen sums of ± elements, from which the distance of two
tensors is known to a fifth, however many numbers they have."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
import torch

PARTS = 16
WIDTH = 1 + PARTS  # numbers in a sketch: the norm, and a sum for each part
SMALL = 4096  # elements; smaller tensors are summed together, since each would cost three calls
LONGEST = 2**18  # elements of a part whose signs are kept; beyond, they are used again


def sketch(tensors: Sequence[torch.Tensor]) -> np.ndarray:
    """The sketches, (tensors, 17), in float64 if one of them is, else in float32.

    A tensor is cut into sixteen stretches of as many elements; what is left over, fewer than
    sixteen, goes to the first stretches, one each. Of each stretch the sum of its elements is
    taken, each with a sign of its own, the same at every step of every run. With random signs the
    sum of the squares of these sums is, in the mean, the square of the norm (Alon, Matias &
    Szegedy, 1996), also of the difference of two tensors. Whatever is not finite shows in the norm
    alone, and is 0 in the sums.
    """
    wide = any(t.dtype == torch.float64 for t in tensors)
    found = np.zeros((len(tensors), WIDTH), np.float64 if wide else np.float32)
    groups: dict[tuple[torch.device, torch.dtype], list[int]] = {}
    for i, t in enumerate(tensors):
        kind = torch.float64 if t.dtype == torch.float64 else torch.float32
        groups.setdefault((t.device, kind), []).append(i)
    for (_, dtype), chosen in groups.items():
        flat = [_flat(tensors[i], dtype) for i in chosen]
        sums = _sums(flat)
        norms = torch.stack(torch._foreach_norm(flat)).to(dtype)
        strange = (~torch.isfinite(norms)).nonzero().flatten().tolist()
        if strange:
            cut = [torch.nan_to_num(flat[i], 0.0, 0.0, 0.0) for i in strange]
            sums[strange] = _sums(cut)
        found[chosen] = torch.cat([norms[:, None], sums], dim=1).cpu().numpy()
    return found


def _flat(tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """The elements in a row, as real numbers of this dtype."""
    dense = tensor.detach()
    if dense.layout != torch.strided:
        dense = dense.to_dense()
    if dense.is_complex():
        dense = torch.view_as_real(dense.resolve_conj())
    return dense.to(dtype).reshape(-1)


def _sums(flat: Sequence[torch.Tensor]) -> torch.Tensor:
    """The sixteen sums of each, (tensors, 16)."""
    dtype, device = flat[0].dtype, flat[0].device
    sums = torch.zeros(len(flat), PARTS, dtype=dtype, device=device)
    small = [i for i, x in enumerate(flat) if x.numel() <= SMALL]
    if small:
        lengths = tuple(flat[i].numel() for i in small)
        places, signs = _small(lengths, dtype, device)
        part = torch.zeros(len(small) * PARTS, dtype=dtype, device=device)
        part.index_add_(0, places, torch.cat([flat[i] for i in small]) * signs)
        sums[small] = part.view(-1, PARTS)
    for i, x in enumerate(flat):
        if x.numel() > SMALL:
            sums[i] = _large(x)
    return sums


@functools.lru_cache(maxsize=64)
def _small(
    lengths: tuple[int, ...], dtype: torch.dtype, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Of tensors of these lengths, one after another: in which sum each element goes, and with
    which sign."""
    places, signs = [], []
    for i, n in enumerate(lengths):
        m = n // PARTS
        at = np.arange(n)
        part = np.where(at < m * PARTS, at // max(m, 1), at - m * PARTS)
        places.append(i * PARTS + part)
        longest = _signs(m + 1)
        signs.append(longest[part, np.where(at < m * PARTS, at % max(m, 1), m)])
    where = torch.from_numpy(np.concatenate(places)).to(device)
    return where, torch.from_numpy(np.concatenate(signs)).to(device, dtype)


def _large(x: torch.Tensor) -> torch.Tensor:
    m = x.numel() // PARTS
    body, rest = x[: m * PARTS].view(PARTS, m), x[m * PARTS :]
    if m <= LONGEST:
        sums = (body * _kept(m, x.dtype, x.device)).sum(1)
    else:
        # Stretches of the same signs, each with a sign of its own, are as good as all new signs.
        signs = _kept(LONGEST, x.dtype, x.device)
        stretches = body.split(LONGEST, dim=1)
        turns = torch.from_numpy(_signs(len(stretches))).to(x.device, x.dtype)
        sums = torch.zeros(PARTS, dtype=x.dtype, device=x.device)
        for k, stretch in enumerate(stretches):
            sums += (stretch * signs[:, : stretch.shape[1]]).sum(1) * turns[:, k]
    if len(rest):
        sums[: len(rest)] += rest
    return sums


_LONGEST: dict[tuple[torch.dtype, torch.device], torch.Tensor] = {}


def _kept(m: int, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """(16, m) signs, a part of the longest ones that were asked for."""
    kept = _LONGEST.get((dtype, device))
    if kept is None or kept.shape[1] < m:
        kept = torch.from_numpy(_signs(m)).to(device, dtype)
        _LONGEST[dtype, device] = kept
    return kept[:, :m]


def _signs(m: int) -> np.ndarray:
    """(16, m) signs: for each part a row of its own, which begins alike for every m. The raw bits
    of PCG64 are the same in every version of NumPy."""
    bits = [np.random.PCG64(part).random_raw(m // 64 + 1) for part in range(PARTS)]
    rows = np.unpackbits(np.stack(bits).astype("<u8").view(np.uint8), axis=1)[:, :m]
    return rows.astype(np.int8) * 2 - 1


def distance(old: np.ndarray, new: np.ndarray) -> np.ndarray:
    """The distance of the tensors behind two sketches or stacks of them, (…, 17) → (…), as far as
    sketches show it: to 18 % (quartiles) where the difference is spread over all parts, and never
    less than the difference of the norms, which no distance is below.

    Infinite where only one of them is finite.
    """
    with np.errstate(invalid="ignore", over="ignore"):
        difference = np.subtract(old, new, dtype=np.float64)
        apart = np.sqrt(np.sum(np.square(difference[..., 1:]), -1))
        apart = np.fmax(apart, abs(np.nan_to_num(difference[..., 0], nan=0, posinf=0, neginf=0)))
    strange = np.isfinite(old[..., 0]) != np.isfinite(new[..., 0])
    return np.where(strange, np.inf, apart)


def size(sketches: np.ndarray) -> np.ndarray:
    """The norm behind sketches, (…, 17) → (…), of what is finite of the tensors."""
    norm = sketches[..., 0].astype(np.float64)
    rest = np.sqrt(np.sum(np.square(sketches[..., 1:].astype(np.float64)), -1))
    return np.where(np.isfinite(norm), norm, rest)
