"""One step of two optimizers, from the same parameters, gradients and state, judged."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence, Set
from dataclasses import replace
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch

from ....reference.adapters import is_differentiable, leaves, tree_map
from ...verdict.classes import DIFFERENT, Results, Verdict
from ...verdict.floor import LOOKS, Floor
from ...verdict.halves import is_half
from ...verdict.judge import settle
from ...verdict.noise import cast
from ...verdict.ulps import same_bits
from .arranging import Arranging, number
from .evaluation import LOW, as_array, judged_in, some
from .optimizing import After, Before, Machine
from .report import FAILED


class NotInThatDtype(Exception):
    """Whatever an optimizer raises that does not take another dtype than its own."""


class Step:
    """One step on both sides, from what the original's sees. What the port's goes on with beside
    that, and what it keeps of a parameter and the original does not, is as its `last` one left it;
    a gradient have those of its parameters which one has `reached`.
    """

    def __init__(
        self,
        arranging: Arranging,
        port: Machine,
        original: Machine,
        before: Before,
        last: After,
        reached: Set[str],
    ) -> None:
        self.arranging, self.port, self.original = arranging, port, original
        self.before, self.last, self.reached = before, last, reached
        self._tree = {
            "parameters": before.parameters,
            "gradients": before.gradients,
            "state": before.state,
            "kept": before.kept,
        }
        # A number beside a larger parameter is counted, or single on purpose: it stays as it is.
        state = {
            name: {
                key: value if number(value) and before.parameters[name].ndim else _arrays(value)
                for key, value in kept.items()
            }
            for name, kept in before.state.items()
        }
        self._inputs = _arrays(self._tree) | {"state": state}
        self._dtype = judged_in({p.dtype for p in before.parameters.values()})

    @cached_property
    def theirs(self) -> After:
        """What the original's leaves."""
        return self.original(self.before)

    @cached_property
    def ours(self) -> After:
        """What the port's leaves."""
        return self._ported(self._inputs)

    @cached_property
    def given(self) -> Results:
        """What the port's gives."""
        return self._results(self.ours.parameters, self.ours.state)

    @cached_property
    def alone(self) -> set[str]:
        """The names of the state of either that is not judged."""
        _, unlike = self.arranging.state(self.theirs.state)
        return unlike.union(self._elsewhere) | {
            key
            for name in self.arranging.sources
            for key, value in self.ours.state.get(name, {}).items()
            if value is not None and f"{key} of {name}" not in self._known[1]
        }

    def verdicts(self, hopeless: bool) -> dict[str, Verdict]:
        """On each result; of what is `hopeless` only whether it is in the floor. State that the
        port has not is different, unless it has other state of that parameter, or elsewhere."""
        wanted = self._known[1]
        others = {n.rpartition(" of ")[2] for n in self.given.keys() - wanted.keys()}
        found = self._held(self.original, self._known, hopeless)
        missing = replace(FAILED, note="the port has none")
        return {
            n: found.get(n, missing)
            for n in wanted
            if n in found or not (self._elsewhere or n.rpartition(" of ")[2] in others)
        }

    def gives(self, original: Machine) -> bool:
        """Whether such an original gives all that the port does, within its own floor."""
        known = self._gives(original)
        if not (known[1].keys() <= self.given.keys() or self.alone):
            return False
        found = self._held(original, known, hopeless=True)
        return all(v.kind != DIFFERENT for v in found.values())

    def _held(
        self, original: Machine, known: tuple[Results, Results], hopeless: bool
    ) -> dict[str, Verdict]:
        """Verdicts on what the port gives, of that which an original gives as well."""
        names = [n for n in known[1] if n in self.given]
        wide, native = (some(results, names) for results in known)
        given = some(self.given, names)
        # What is the original's to the bit is right, whatever that would be in float64.
        wide |= {n: a for n, a in native.items() if same_bits(given[n], a)}

        def ours(inputs: Any, finer: bool = False) -> Results:
            try:
                after = self._ported(inputs, finer)
            except Exception as error:  # of any kind: it has stepped in its own before
                raise NotInThatDtype from error
            return some(self._results(after.parameters, after.state), names)

        def settled(hopeless: Sequence[str]) -> dict[str, Verdict]:
            floor = Floor(
                lambda inputs: some(self._theirs(original, inputs), names),
                *(self._inputs, self._dtype, (wide, native)),
                looks=LOOKS,
            )
            return settle(
                *(floor, ours, self._inputs, given),
                before=self._begun,
                finer=partial(ours, finer=True) if is_half(self._dtype) else None,
                hopeless=hopeless,
            )

        try:
            return settled(names if hopeless else ())
        except NotInThatDtype:  # in which it would be asked whether it lost but digits
            return settled(names)

    @property
    def _elsewhere(self) -> list[str]:
        """The attributes of the port's optimizer that hold tensors."""
        kept = self.ours.kept["rest"].items()
        return [n for n, v in kept if any(isinstance(leaf, torch.Tensor) for leaf in leaves(v))]

    @cached_property
    def _known(self) -> tuple[Results, Results]:
        return self._gives(self.original)

    def _gives(self, original: Machine) -> tuple[Results, Results]:
        """What an original gives in float64, and in its own dtype."""
        wide, native = cast(self._inputs, np.float64), self._inputs
        return self._theirs(original, wide), self._theirs(original, native)

    @cached_property
    def _begun(self) -> Results:
        """The port's parameters before the step."""
        return self._results(self.arranging.made(self.before.parameters, self._names), {})

    @property
    def _names(self) -> list[str]:
        return list(self.arranging.sources)

    def _theirs(self, original: Machine, inputs: Any) -> Results:
        """What an original gives, arranged as what the port does. One that is changed has the state
        that the port has of its own."""
        tree = self._tensors(inputs)
        if original is not self.original:
            for name in self.arranging.same:
                (source,) = set(self.arranging.sources[name])
                own = _cast(self.last.state.get(name, {}), tree["parameters"][source].dtype)
                if kept := own | tree["state"].get(source, {}):
                    tree["state"][source] = kept
        after = original(Before(**tree))
        state, _ = self.arranging.state(after.state)
        return self._results(self.arranging.made(after.parameters, self._names), state)

    def _ported(self, inputs: Any, finer: bool = False) -> After:
        """What the port's step leaves."""
        tree = self._tensors(inputs, finer)
        parameters = self.arranging.parameters(tree["parameters"])
        gradients = self.arranging.gradients(tree["gradients"], self.reached)
        given, _ = self.arranging.state(tree["state"])
        state = {
            name: {**_cast(kept, parameters[name].dtype), **_only(given.get(name, {}), kept)}
            for name, kept in self.last.state.items()
        }
        kind = next((p.dtype for p in parameters.values()), None)
        return self.port(Before(parameters, gradients, state, _cast(self.last.kept, kind)))

    def _tensors(self, inputs: Any, finer: bool = False) -> Any:
        """The tree of tensors. What was of 16 bits, and comes in float32, is of them again, unless
        that is what is asked for."""
        before = iter(leaves(self._tree))

        def made(leaf: Any) -> Any:
            old = next(before)
            if not isinstance(leaf, np.ndarray):
                return leaf
            t = torch.from_numpy(np.array(leaf))
            if old.dtype in LOW and t.dtype == torch.float32 and not finer:
                t = t.to(old.dtype)
            return t.to_sparse(old.sparse_dim()) if old.layout is torch.sparse_coo else t

        return tree_map(made, inputs)

    def _results(self, parameters: Mapping[str, Any], state: Mapping[str, Any]) -> Results:
        """Those of the parameters that have a partner, by name, and of what is kept of each that is
        numbers: "exp_avg of blocks.0.fc.weight"."""
        found = {}
        for name in self._names:
            found[name] = as_array(parameters[name])
            for key, value in state.get(name, {}).items():
                if isinstance(value, torch.Tensor):
                    found[f"{key} of {name}"] = as_array(value)
                elif number(value):
                    found[f"{key} of {name}"] = np.asarray(value)
        return found


def _arrays(tree: Any) -> Any:
    return tree_map(lambda leaf: as_array(leaf) if is_differentiable(leaf) else leaf, tree)


def _only(given: Mapping[str, Any], names: Collection[str]) -> dict[str, Any]:
    return {name: value for name, value in given.items() if name in names}


def _cast(kept: Mapping[str, Any], dtype: torch.dtype | None) -> dict[str, Any]:
    """State in the dtype of its parameter, but for numbers."""

    def made(leaf: Any) -> Any:
        return leaf.to(dtype) if is_differentiable(leaf) and leaf.ndim else leaf

    return {name: tree_map(made, value) for name, value in kept.items()}
