"""Running statistics that are moved otherwise: known from what they were, are, and should be."""

from __future__ import annotations

from .failure import Failure

MANY = 3  # elements from which one ratio says something


def moved(failure: Failure) -> str:
    """What is wrong where only buffers are: that they stay, or that all of their elements go
    another share of the way. Nothing if it is neither."""
    if not all(name.startswith("buffer ") for name in failure.wrong):
        return ""
    before = failure.subject.arrange(failure.inputs.tree[0])
    said = []
    for name in failure.wrong:
        old = before[name.removeprefix("buffer ")].detach().double().numpy()
        ours, theirs = (of[name].astype(float) - old for of in (failure.ours, failure.truth))
        if old.size < MANY:  # as a counter, which says nothing by itself
            continue
        if not ours.any():
            said.append(f"mode: {name.removeprefix('buffer ')} is not kept")
            continue
        share = float((ours * theirs).sum() / (theirs * theirs).sum())
        if not failure.gives({name: old + share * theirs}, {name: failure.ours[name]}):
            return ""
        text = f"{name.removeprefix('buffer ')} goes {share:.4g} times as far as it should"
        said.append(f"momentum: {text}")
    return said[0] if said and len({text.split(":")[0] for text in said}) == 1 else ""
