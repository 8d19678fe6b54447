"""Less memory for more work: what was not saved is computed again. torch/utils/checkpoint.py"""

from .grad_mode import enable_grad, no_grad
from .tape import Tensor, apply


def checkpoint(function, *args):
    """function(*args) of tensors, saving only these: the backward pass runs it again and goes back
    through that. Whatever else the function uses collects its gradient on the way.

    One of args must require a gradient, as in torch with use_reentrant.

    Chen, Xu, Zhang & Guestrin, 2016, arXiv:1604.06174
    """

    def checkpointed(*arrays):
        with no_grad():
            y = function(*map(Tensor, arrays)).data

        def pullback(dy):
            inputs = [Tensor(a, a.dtype.kind == "f") for a in arrays]
            with enable_grad():
                function(*inputs).backward(dy)
            floats = [t for t in inputs if t.requires_grad]
            return tuple(t.grad.data if t.grad else 0 * t.data for t in floats)

        return y, pullback

    return apply(checkpointed, *args)
