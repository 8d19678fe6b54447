"""8. A tape: all of autograd.

A Tensor is an array that remembers what made it: its `inputs`, and the `pullback`, which makes of
the slope in the array those in its inputs. What is computed from tensors is therefore a graph, from
the inputs to the loss, and `backward` goes through it the other way round. (Wengert, 1964)

To derive: the order, and what happens at a tensor that was used twice.

    1. A tensor may hand on its slope only when all who used it have handed theirs to it. Which
       order of the tensors sees to that? (Inputs are made before what is made of them.)
    2. What comes from several users adds up: it is a sum over all ways from the tensor to the end.

The inputs of the whole have no inputs and no pullback themselves.

gradtwin check tape.py:network --against tape.py:truth --shape 4,3 --shape 3,3
"""

import numpy as np
import torch


class Tensor:
    def __init__(self, data, inputs=(), pullback=None):
        self.data, self.inputs, self.pullback, self.grad = data, inputs, pullback, None

    def __add__(self, other):
        return Tensor(self.data + other.data, (self, other), lambda dy: (dy, dy))

    def __mul__(self, other):
        a, b = self.data, other.data
        return Tensor(a * b, (self, other), lambda dy: (dy * b, dy * a))

    def __matmul__(self, other):
        a, b = self.data, other.data
        return Tensor(a @ b, (self, other), lambda dy: (dy @ b.T, a.T @ dy))

    def tanh(self):
        y = np.tanh(self.data)
        return Tensor(y, (self,), lambda dy: (dy * (1 - y * y),))

    def backward(self, dy):
        """Sets the grad of this tensor to dy, and that of every tensor behind it; what an earlier
        call has left there is forgotten."""
        raise NotImplementedError("go back through the graph")


def network(x, w):
    """Two layers with the same weights; what the first one gives is used three times."""
    x, w = Tensor(x), Tensor(w)
    h = (x @ w).tanh()
    y = (h @ w) * h + h

    def pullback(dy):
        y.backward(dy)
        return x.grad, w.grad

    return y.data, pullback


def truth(x, w):
    h = torch.tanh(x @ w)
    return (h @ w) * h + h
