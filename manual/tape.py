"""A reverse-mode engine over the rules: it knows no derivative, only which rule made which array.

All of it raises RuntimeError where there is no way back: for a tensor that requires no gradient, a
gradient of another shape, and a saved value that was freed or changed in place. Arguments of the
wrong type raise TypeError, and what a rule raises passes through.

Names are torch's, where the same lives in torch/csrc/autograd: `Node` in function.h, `execute` in
engine.cpp, what is saved in saved_variable.cpp. Wengert, 1964; Speelpenning, 1980
"""

import functools
import itertools

import numpy as np

from . import indexing, pointwise, products, reductions, views
from .arguments import array, expect, flag, floating
from .binding import arrays_of, as_number, by_name
from .grad_mode import is_grad_enabled, no_grad
from .names import unknown
from .trees import kept, leaves, overlaps, tree_map

# Functions of tensors, which are methods of a Tensor.
RULES = {
    name: rule
    for family in (pointwise, products, reductions, views, indexing)
    for name, rule in vars(family).items()
    if not name.startswith("_") and getattr(rule, "__module__", "") == family.__name__
}
_numbers = itertools.count()  # torch's sequence_nr: what is made later has the larger one


class Node:
    """One call of a rule, the grad_fn of its outputs. It has the way back, an edge to what made
    each array, (node, number of its output), the names of the arrays by argument, and the versions
    of what it saved."""

    def __init__(self, name, pullback, next_edges, names, zeros=(None,), number=None):
        self.name, self.pullback, self.names, self.zeros = name, pullback, names, zeros
        self.number = next(_numbers) if number is None else number
        self.next_edges, self.saved, self.hooks = next_edges, [], [[] for _ in zeros]

    def __call__(self, grads):
        """(edge, gradient) of every argument."""
        expect(self.pullback, f"{self.name}: its saved values were freed by an earlier backward")
        for version, then in self.saved:
            expect(version == [then], f"{self.name}: a saved value was changed in place")
        for i, hook in [(i, hook) for i, hooks in enumerate(self.hooks) for hook in hooks]:
            shape, new = grads[i].shape, hook(Tensor(grads[i]))
            grads[i] = grads[i] if new is None else new.data
            expect(grads[i].shape == shape, f"hook: expected shape {shape}, got {grads[i].shape}")
        found = self.pullback(tuple(grads) if len(grads) > 1 else grads[0])
        return zip(self.next_edges, by_name(self.name, self.names, found), strict=True)


class Tensor:
    """An array, `data`, that remembers in `grad_fn` what made it; a leaf collects its `grad`."""

    __array_ufunc__ = None  # so that array + tensor is the tensor's business
    shape, dtype = property(lambda self: self.data.shape), property(lambda self: self.data.dtype)
    requires_grad = property(lambda self: self.edge is not None)

    def __init__(self, data, requires_grad=False, version=None):
        self.data, self.version, self.is_view = array(data=np.asarray(data)), version or [0], False
        self.grad = self.grad_fn = self.edge = None
        flag(requires_grad=requires_grad)
        if requires_grad:  # a leaf's node comes after all that are numbered
            expect(self.dtype.kind == "f", f"requires_grad: expected floating, got {self.dtype}")
            self.edge = Node("AccumulateGrad", self._accumulate, (), {}, number=-1), 0

    def _accumulate(self, grad):
        self.grad = Tensor(grad if self.grad is None else self.grad.data + grad)
        return ()

    def __getattr__(self, name):
        """x.exp(…) is apply(exp, x, …), and x.exp_(…) writes that into x."""
        if name.startswith("_") or name.removesuffix("_") not in RULES:
            raise AttributeError(unknown("attribute", name, [*dir(type(self)), *RULES]))
        rule = RULES[name.removesuffix("_")]
        return functools.partial(self._in_place if name.endswith("_") else apply, rule, self)

    def detach(self):
        """A tensor with the same memory, without what made it."""
        return Tensor(self.data, version=self.version)

    def register_hook(self, hook):
        """Calls the hook with the gradient in every backward pass; what it returns, unless None,
        takes its place. Returns a function that removes the hook. Raises TypeError for a hook that
        cannot be called, RuntimeError unless the tensor requires a gradient."""
        expect(self.requires_grad, "hook: expected a tensor that requires a gradient")
        if not callable(hook):
            raise TypeError(f"hook: expected a function of the gradient, got {hook!r}")
        hooks = self.edge[0].hooks[self.edge[1]]
        hooks.append(hook)
        return functools.partial(hooks.remove, hook)

    def retain_grad(self):
        """Keeps the gradient in `grad` although this is no leaf."""
        if self.grad_fn:
            self.register_hook(functools.partial(setattr, self, "grad"))

    def backward(self, gradient=None, retain_graph=False):
        """Adds the gradient of ⟨gradient, self⟩ to the grad of every leaf behind; gradient has the
        shape of self, and is 1 for a single number without it. retain_graph keeps what was saved,
        for another pass. Raises RuntimeError for a gradient that is missing or of another shape."""
        flag(retain_graph=retain_graph)
        expect(self.requires_grad, "backward: expected a tensor that requires a gradient")
        expect(gradient is not None or self.data.size == 1, "gradient: expected one, got None")
        given = np.ones_like(self.data) if gradient is None else gradient
        given = floating(gradient=given.data if isinstance(given, Tensor) else given)
        expect(given.shape == self.shape, f"gradient: expected {self.shape}, got {given.shape}")
        execute(self.edge, given, retain_graph)

    @staticmethod
    def _in_place(rule, x, *args, **settings):
        fixed = x.requires_grad and (x.is_view or not x.grad_fn) and is_grad_enabled()
        expect(not fixed, "in place: expected neither a leaf that requires a gradient nor a view")
        before = Tensor(x.data.copy())
        before.grad_fn, before.edge = x.grad_fn, x.edge
        after = apply(rule, before, *args, **settings)
        x.data[...], x.grad_fn = after.data, after.grad_fn or x.grad_fn
        x.edge, x.version[0] = after.edge or x.edge, x.version[0] + 1
        return x


@no_grad()
def execute(edge, gradient, retain_graph):
    """Visits all nodes behind the edge, the last made first, so that the cotangents of each are
    complete by then. Raises RuntimeError for saved values that were freed or changed in place."""
    found, nodes = {edge[0]}, [edge[0]]
    for node in nodes:  # it grows meanwhile
        new = {e[0] for e in node.next_edges if e} - found
        found.update(new)
        nodes.extend(new)
    grads = {edge: gradient}
    for node in sorted(nodes, key=lambda node: -node.number):
        for edge, grad in node([grads.pop((node, i), zero) for i, zero in enumerate(node.zeros)]):
            if edge:
                grads[edge] = grads[edge] + grad if edge in grads else grad
        if not retain_graph and kept(node.pullback):  # what saved nothing may run again
            node.pullback, node.saved = None, []


def apply(rule, *args, **settings):
    """rule(*args, **settings) of tensors and arrays, recorded. It raises what the rule raises.
    torch.autograd.Function.apply"""
    while isinstance(rule, functools.partial):
        rule, args, settings = rule.func, (*rule.args, *args), {**rule.keywords, **settings}
    names, given = arrays_of(rule, args, settings)
    tensors = [a for a in leaves((args, settings)) if isinstance(a, Tensor)]
    args, settings = tree_map(lambda a: a.data if isinstance(a, Tensor) else a, (args, settings))
    y, pullback = rule(*args, **settings)
    outputs = [Tensor(a) for a in (y if isinstance(y, tuple) else (y,))]
    for t, source in itertools.product(outputs, tensors):
        if overlaps(t.data, [source.data]):
            t.version, t.is_view = source.version, True
    edges = [getattr(a, "edge", None) for a in given]
    if is_grad_enabled() and any(edges):
        name = getattr(rule, "__name__", type(rule).__name__)
        zeros = [np.zeros_like(t.data) if t.dtype.kind == "f" else None for t in outputs]
        node, arrays = Node(name, pullback, edges, names, zeros), kept(pullback)
        for i, t in enumerate(outputs):
            t.grad_fn, t.edge = (node, (node, i)) if t.dtype.kind == "f" else (None, None)
        held = [t.version for t in tensors + outputs if overlaps(t.data, arrays)]
        node.saved = [(v, v[0]) for v in held]
    return tuple(outputs) if isinstance(y, tuple) else outputs[0]


def _operator(rule, reflected=False):
    return lambda *args: apply(rule, *map(as_number, args[::-1] if reflected else args))


for _sign in ["add", "sub", "mul", "truediv", "pow", "matmul", "neg", "getitem"]:
    _rule = RULES[_sign.replace("truediv", "div")]
    setattr(Tensor, f"__{_sign}__", _operator(_rule))
    setattr(Tensor, f"__r{_sign}__", _operator(_rule, reflected=True))
