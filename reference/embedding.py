"""Rows of a table, picked by their index."""

import functools
import inspect

import torch.nn.functional as F

from .adapters import rule


def _with_weight(embed):
    """The function, and behind its value the weight where max_norm may have shortened it."""
    signature = inspect.signature(embed)

    @functools.wraps(embed)
    def both(*args, **kwargs):
        y = embed(*args, **kwargs)
        given = signature.bind(*args, **kwargs).arguments
        return y if given.get("max_norm") is None else (y, given["weight"].detach())

    return both


embedding = rule(_with_weight(F.embedding), order="weight input", algorithm="sparse")
embedding_bag = rule(
    _with_weight(F.embedding_bag), order="weight input", algorithm="sparse", forward=False
)
one_hot = rule(F.one_hot)
