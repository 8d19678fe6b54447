"""Sketches of tensors: the norm and sixteen sums of ± elements, from which the distance of two
tensors is known to a fifth, however many numbers they have."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
import torch

PARTS = 16
WIDTH = 1 + PARTS  # numbers in a sketch: the norm, and a sum for each part
# Elements of a stretch of a large tensor. A prime: no row of a matrix is a multiple of it, so that
# what is alike in all rows meets other signs in each.
STRETCH = 509
SMALL = PARTS * STRETCH  # elements; smaller tensors are summed together: each costs a few calls


def sketch(tensors: Sequence[torch.Tensor]) -> np.ndarray:
    """The sketches, (tensors, 17), in float64 if one of them is, else in float32.

    A tensor is cut into sixteen parts of as many elements. Of each part the sum of its elements is
    taken, each with a sign of its own, the same at every step of every run; in a large tensor the
    sign is that of the element in its stretch times that of the stretch. With random signs the sum
    of the squares of these sums is, in the mean, the square of the norm (Alon, Matias & Szegedy,
    1996), also of the difference of two tensors. Whatever is not finite shows in the norm alone,
    and is 0 in the sums.
    """
    wide = any(t.dtype == torch.float64 for t in tensors)
    found = np.zeros((len(tensors), WIDTH), np.float64 if wide else np.float32)
    groups: dict[tuple[torch.device, torch.dtype], list[int]] = {}
    for i, t in enumerate(tensors):
        kind = torch.float64 if t.dtype == torch.float64 else torch.float32
        groups.setdefault((t.device, kind), []).append(i)
    for (_, dtype), chosen in groups.items():
        flat = [_flat(tensors[i], dtype) for i in chosen]
        both = torch.cat([_norms(flat)[:, None], _sums(flat)], dim=1).cpu().numpy()
        strange = np.flatnonzero(~np.isfinite(both[:, 0]))
        if strange.size:
            cut = [torch.nan_to_num(flat[i], 0.0, 0.0, 0.0) for i in strange]
            both[strange, 1:] = _sums(cut).cpu().numpy()
        found[chosen] = both
    return found


def dense_sketch(tensors: Sequence[torch.Tensor]) -> np.ndarray:
    """The same with dense sums: each goes over all elements, and is a quarter of that, so that
    distances are taken alike. They cost sixteen passes, and have no heavier tails than sixteen
    random numbers, however few elements differ; which of them do is not seen."""
    wide = any(t.dtype == torch.float64 for t in tensors)
    found = np.zeros((len(tensors), WIDTH), np.float64 if wide else np.float32)
    for row, t in zip(found, tensors, strict=True):
        x = _flat(t, torch.float64 if t.dtype == torch.float64 else torch.float32)
        row[0] = torch.dot(x, x).sqrt().item()
        if not np.isfinite(row[0]):
            x = torch.nan_to_num(x, 0.0, 0.0, 0.0)
        x = torch.nn.functional.pad(x, (0, -len(x) % STRETCH)).view(-1, STRETCH)
        within, between = (
            torch.from_numpy(_signs(n, seed)).to(x.device, x.dtype)
            for n, seed in ((STRETCH, 24), (len(x), 25))
        )
        row[1:] = ((x @ within.T) * between.T).sum(0).div_(PARTS**0.5).cpu().numpy()
    return found


def _norms(flat: Sequence[torch.Tensor]) -> torch.Tensor:
    return torch.stack([torch.dot(x, x) for x in flat]).sqrt_()


def _flat(tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """The elements in a row, as real numbers of this dtype."""
    dense = tensor.detach()
    if dense.layout != torch.strided:
        dense = dense.to_dense()
    if dense.dtype != dtype:
        dense = torch.view_as_real(dense.resolve_conj()) if dense.is_complex() else dense
        dense = dense.to(dtype)
    return dense.reshape(-1)


def _sums(flat: Sequence[torch.Tensor]) -> torch.Tensor:
    """The sixteen sums of each, (tensors, 16). Of a large tensor, stretches are summed first, in
    one pass over its memory; a call for each tensor would take longer than all the rest."""
    dtype, device = flat[0].dtype, flat[0].device
    stretch = _stretch(dtype, device)
    terms = []
    for x in flat:
        n = _stretches(x.numel())
        if n:
            terms.append(torch.mv(x[: n * STRETCH].view(n, STRETCH), stretch))
        terms.append(x[n * STRETCH :] if n else x)
    places, signs = _places(tuple(x.numel() for x in flat), dtype, device)
    sums = torch.zeros(len(flat) * PARTS, dtype=dtype, device=device)
    sums.index_add_(0, places, torch.cat(terms).mul_(signs))
    return sums.view(-1, PARTS)


def _stretches(n: int) -> int:
    """How many stretches of so many elements are summed first."""
    return n // STRETCH if n > SMALL else 0


@functools.lru_cache(maxsize=64)
def _places(
    lengths: tuple[int, ...], dtype: torch.dtype, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Of the terms of tensors of these lengths, one after another: in which sum each goes, and with
    which sign."""
    places, signs = [], []
    for i, length in enumerate(lengths):
        stretches = _stretches(length)
        for n in [stretches, length - stretches * STRETCH] if stretches else [length]:
            m = -(-n // PARTS)
            at = np.arange(n)
            part = at * PARTS // n if n else at
            places.append(i * PARTS + part)
            signs.append(_signs(m + 1)[part, at - np.searchsorted(part, part)])
    where = torch.from_numpy(np.concatenate(places)).to(device)
    return where, torch.from_numpy(np.concatenate(signs)).to(device, dtype)


@functools.lru_cache(maxsize=8)
def _stretch(dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """The signs of a stretch. Their sum is about √STRETCH, as that of random ones is in the mean,
    so that what is the same in all elements is seen as it should be."""
    return torch.from_numpy(_signs(STRETCH, 22)[0]).to(device, dtype)


def _signs(m: int, seed: int = 0) -> np.ndarray:
    """(16, m) signs: for each part a row of its own, which begins alike for every m. The raw bits
    of PCG64 are the same in every version of NumPy."""
    rows = [np.random.PCG64([seed, part]).random_raw(m // 64 + 1) for part in range(PARTS)]
    bits = np.unpackbits(np.stack(rows).astype("<u8").view(np.uint8), axis=1)[:, :m]
    return bits.astype(np.int8) * 2 - 1


# Elements of a part of a tensor at the start of a run; of a small one, each is kept.
START_PART, START_SMALL = 16, 4096


def start_parts(n: int) -> int:
    """How many sums a start of so many elements has."""
    return n if n <= START_SMALL else -(-n // START_PART)


def start_sums(tensor: torch.Tensor) -> np.ndarray:
    """Sums of the elements of short parts, each element with a sign of its own, as float32: as a
    sketch, but fine enough to show one number of many."""
    flat = _flat(tensor, torch.float64).cpu().numpy()
    if len(flat) > START_SMALL:
        flat = np.pad(flat, (0, -len(flat) % START_PART))
        signs = _signs(len(flat) // PARTS + 1, 23).reshape(-1)[: len(flat)]
        flat = (flat * signs).reshape(-1, START_PART).sum(axis=1)
    return flat.astype(np.float32)


def start_distances(old: np.ndarray, new: np.ndarray) -> tuple[float, float, float]:
    """The largest distance and the median of two starts' sums, by the size of such a sum, and the
    share of those that differ; infinite where only one is finite."""
    apart = abs(np.subtract(old, new, dtype=np.float64))
    scale = np.sqrt(np.mean(np.square(old, dtype=np.float64))) if len(old) else 0.0
    same = (old == new) | (np.isnan(old) & np.isnan(new))
    if same.all():
        return 0.0, 0.0, 0.0
    with np.errstate(invalid="ignore", divide="ignore"):
        relative = np.where(same, 0, np.nan_to_num(apart / scale, nan=np.inf))
    return float(relative.max()), float(np.median(relative)), float(1 - same.mean())


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
