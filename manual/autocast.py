"""Rules in 16 bits beside parameters in float32, as torch.autocast runs them. Raises ValueError for
a type that it does not know."""

import ml_dtypes
import numpy as np

from .arguments import one_of
from .trees import tree_map

TYPES = {"bfloat16": ml_dtypes.bfloat16, "float16": np.float16}


def autocast(rule, precision):
    """The rule in 16 bits: its arguments are rounded to them, its result is, what comes back to it
    is, and its gradients are. In between it computes in float32 and rounds once, as kernels do that
    accumulate there. What has 16 bits lies in arrays of float32; float64 is left as it is, as torch
    leaves it. Without a precision, the rule itself.

    Of what a transformer is made, torch runs linear layers and attention so, and what follows them
    as it comes: gelu on 16 bits. Embeddings, norms, sums with float32 and the loss stay in float32.

    Raises ValueError for another precision than bfloat16 and float16.

    Micikevicius et al., 2018, arXiv:1710.03740
    """
    if precision is None:
        return rule
    one_of(TYPES, precision=precision)

    def rounded(tree):
        with np.errstate(over="ignore", invalid="ignore"):  # beyond the largest it is infinite
            return tree_map(lambda a: _rounded(a, TYPES[precision]), tree)

    def cast(*args, **kwargs):
        y, pull = rule(*rounded(args), **kwargs)

        def pullback(dy):
            return rounded(pull(rounded(dy)))

        return rounded(y), pullback

    return cast


def _rounded(a, kind):
    single = isinstance(a, np.ndarray) and a.dtype == np.float32
    return a.astype(kind).astype(np.float32) if single else a
