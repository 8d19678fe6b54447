"""What an optimizer sees and keeps of the original's parameters, arranged as those of a port."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from typing import Any

import torch

from .optimizing import OfEach
from .pairing import Pairing
from .state import State, first_names, parameters_of, tensors_of


class Arranging:
    """Of the original's parameters, by name, to the port's.

    sources   of which parameters of the original each of the port's is made; not those that have
              no partner
    """

    def __init__(self, port: torch.nn.Module, original: torch.nn.Module, pairing: Pairing) -> None:
        self._port, self._pairing = port, pairing
        self._own, self._theirs = parameters_of(port), tensors_of(original)
        self._first = first_names(self._theirs)
        trained = parameters_of(original)
        made_of = {n: [self._first[s] for s in pairing.sources.get(n, ())] for n in self._own}
        self.sources = {n: s for n, s in made_of.items() if s and set(s) <= trained.keys()}

    def whole(self, state: State) -> dict[str, torch.Tensor]:
        """A state of the original, tied tensors under each of their names."""
        return {name: state[first] for name, first in self._first.items()}

    def made(self, given: State, names: Sequence[str]) -> dict[str, torch.Tensor]:
        """These parameters of the port from those of the original; what is not given is 0."""
        if not names:
            return {}
        like = next(iter(given.values()))
        empty = {n: like.new_zeros(t.shape) for n, t in self._theirs.items() if n not in given}
        return self._pairing.made(self.whole(empty | dict(given)), names)

    def parameters(self, given: OfEach) -> dict[str, torch.Tensor]:
        """All of the port's; what has no partner is its own."""
        return self._with_own(self.made(given, list(self.sources)), self._own)

    def ported(self, state: State) -> dict[str, torch.Tensor]:
        """All parameters and buffers of the port from those of the original."""
        held = tensors_of(self._port)
        made = self._pairing.made(state, [n for n in held if n in self._pairing.sources])
        return self._with_own(made, held)

    @staticmethod
    def _with_own(made: State, held: State) -> dict[str, torch.Tensor]:
        kind = next((t.dtype for t in made.values() if t.is_floating_point()), None)
        rest = {n: t.detach() for n, t in held.items() if n not in made}
        cast = {n: t.to(kind) if t.is_floating_point() else t for n, t in rest.items()}
        return {**cast, **made}

    def gradients(self, given: OfEach, reached: Collection[str]) -> dict[str, torch.Tensor]:
        """Of those that a gradient reaches; sparse where the original's is, and 0 where it has
        none."""
        dense = {n: g.to_dense() for n, g in given.items() if g is not None}
        names = [n for n in self.sources if n in reached]
        made = self.made(dense, names) if dense else {}
        kinds = {n: given[self.sources[n][0]] for n in made}
        rows = [n for n, g in kinds.items() if g is not None and g.layout is torch.sparse_coo]
        return made | {n: made[n].to_sparse(1) for n in rows}

    def has(self, given: OfEach) -> set[str]:
        """The port's parameters of which the original has something given."""
        there = {name for name, value in given.items() if value is not None}
        return {n for n, sources in self.sources.items() if not there.isdisjoint(sources)}

    def state(self, given: Mapping[str, OfEach]) -> tuple[dict[str, dict[str, Any]], set[str]]:
        """What is kept of the port's parameters, and the names of what cannot be arranged: neither
        laid out as its parameter is nor a number, of a parameter that is not as it stands. Of
        numbers, the first counts: where others differ, so did what they were made of."""
        found: dict[str, dict[str, Any]] = {name: {} for name in self.sources}
        laid_out: dict[str, tuple[dict[str, Any], list[str]]] = {}
        unlike: set[str] = set()
        for name, sources in self.sources.items():
            every = [given.get(s, {}) for s in sources]
            for key in dict.fromkeys(key for kept in every for key in kept):
                values = [kept.get(key) for kept in every]
                if all(self._laid_out(v, s) for v, s in zip(values, sources, strict=True)):
                    tensors, names = laid_out.setdefault(key, ({}, []))
                    tensors.update(zip(sources, values, strict=True))
                    names.append(name)
                    found[name][key] = None  # in its place
                elif name in self.same or all(map(number, values)):
                    found[name][key] = values[0]
                else:
                    unlike.add(key)
        for key, (tensors, names) in laid_out.items():
            for name, made in self.made(tensors, names).items():
                found[name][key] = made
        return found, unlike

    def _laid_out(self, value: Any, name: str) -> bool:
        return isinstance(value, torch.Tensor) and value.shape == self._theirs[name].shape

    @cached_property
    def same(self) -> set[str]:
        """The port's parameters that are one of the original's as it stands."""
        marked = {}
        for name in {s for sources in self.sources.values() for s in sources}:
            t = self._theirs[name]
            marked[name] = torch.arange(1.0, t.numel() + 1, dtype=torch.float64).view(t.shape)
        made = self.made(marked, list(self.sources)) if marked else {}
        return {n for n, s in self.sources.items() if torch.equal(made[n], marked[s[0]])}


def number(value: Any) -> bool:
    """Whether it is one, or a tensor without axes."""
    return value.ndim == 0 if isinstance(value, torch.Tensor) else isinstance(value, (int, float))
