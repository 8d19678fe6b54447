"""Torch behind the conventions of the hand-written side: NumPy in, NumPy out, always copied."""

import contextlib
import contextvars
import functools
import inspect
import os
import warnings
from dataclasses import dataclass, field, fields

import ml_dtypes
import numpy as np
import torch

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)


@dataclass(frozen=True)
class Facts:
    """What is peculiar about a function of torch; several names are given as one string.

    constant    the floating arguments that it never differentiates
    algorithm   those that say how it is computed, not what
    without     those that torch takes and a rule does not: they change no number
    also        other names that it is called by
    reflected   the operator that is called with its two operands swapped
    spread      whether its last argument, lengths or axes, may come one by one
    overload    its arguments, as it has them where the second is of whole numbers
    order       its first arguments, as its entry in torch's op_db has them, where that is another
    entry       its entry in torch's op_db, where another has its name, as the method of a tensor
    lengths     the settings that a length follows from
    unsafe      what its kernel must not be given, for it does not look: "negative", "large" indices
    fused       the function of ATen's core set that it is, and that is a composition nevertheless
    module      the torch.nn.Module that is given in its place
    within      the torch.nn.Module, as torch's module_db calls it, that it is judged on
    forward     whether torch has its forward mode
    batched     whether torch.func.vmap computes it from many draws as it is computed from one
    cut         the setting beyond which it gives an approximation
    unsettled   whether this torch takes another side of a kink than others of its releases do
    """

    constant: tuple = ()
    algorithm: tuple = ()
    without: tuple = ("inplace", "_stacklevel", "size_average", "reduce", "_weight")
    also: tuple = ()
    reflected: tuple = ()
    spread: bool = False
    overload: tuple = ()
    order: tuple = ()
    entry: str = ""
    lengths: tuple = ()
    unsafe: tuple = ()
    fused: tuple = ()
    module: type | None = None
    within: str = ""
    forward: bool = True
    batched: bool = True
    cut: str = ""
    unsettled: bool = False

    def __post_init__(self):
        for f in fields(self):
            if f.type is not str and isinstance(names := getattr(self, f.name), str):
                object.__setattr__(self, f.name, tuple(names.split()))


@dataclass(frozen=True)
class Draws:
    """One array in each of several draws, along its first axis. A rule that is called with some
    answers with such, from one evaluation; nothing else knows what to do with it."""

    array: np.ndarray


def ones_like(y):
    """A cotangent of ones, in each draw if y is draws."""
    return Draws(np.ones_like(y.array)) if isinstance(y, Draws) else np.ones_like(y)


def rule(function, **facts):
    """A torch function as a rule, `y, pullback = rule(...)`, differentiated by torch.autograd.

    What is peculiar about it is a keyword, one of Facts, which stay at hand as `facts`.
    `pullback.constant` says for each output whether it has no gradient; its dy is None. The torch
    function stays at hand as `__wrapped__`, so that models are made of torch alone. None, a
    function that this torch lacks, stays None.
    """
    if function is None:
        return None
    known = Facts(**facts)
    try:
        signature = inspect.signature(function)
        kinds = {parameter.kind for parameter in signature.parameters.values()}
        bind = None if inspect.Parameter.VAR_POSITIONAL in kinds else signature.bind
    except ValueError:  # a builtin is taken as it was called
        bind = None

    @functools.wraps(function)
    def twin(*args, **kwargs):
        together = [isinstance(leaf, Draws) for leaf in leaves((args, kwargs))]
        call = of_each_draw(function, together) if any(together) else function
        answer = (lambda t: Draws(array(t))) if any(together) else array
        args, kwargs = tree_map(tensor, (args, kwargs))
        arguments = bind(*args, **kwargs).arguments if bind else dict(enumerate(args)) | kwargs
        wanted = [
            argument
            for name, argument in arguments.items()
            if name not in known.constant and any(map(is_differentiable, leaves(argument)))
        ]
        sources = [leaf.requires_grad_() for leaf in leaves(wanted) if is_differentiable(leaf)]
        with warnings.catch_warnings(action="ignore"):  # advice on how it is called
            y = call(*args, **kwargs)

        def pullback(dy):
            if not sources:
                return ()
            pairs = [
                (o, tensor(d)) for o, d in zip(leaves(y), leaves(dy), strict=True) if d is not None
            ]
            outputs, cotangents = zip(*pairs, strict=True) if pairs else ((), ())
            found = torch.autograd.grad(
                outputs, sources, cotangents, retain_graph=True, materialize_grads=True
            )
            gradients = map(answer, found)
            trees = tree_map(
                lambda leaf: next(gradients) if is_differentiable(leaf) else leaf, wanted
            )
            return trees[0] if len(trees) == 1 else tuple(trees)

        pullback.constant = [not o.requires_grad for o in leaves(y)]
        return tree_map(answer, y), pullback

    twin.facts = known
    return twin


@functools.lru_cache(maxsize=256)
def holding(twin, names):
    """The mirror that differentiates none of these arguments either."""
    return rule(twin.__wrapped__, **vars(twin.facts) | {"constant": (*twin.facts.constant, *names)})


def of_each_draw(function, together):
    """A torch function that is applied to each draw by torch.func.vmap; `together` says for every
    leaf of its arguments whether that is all the draws of one tensor. Outside of it, autograd sees
    one result, to each draw of which only the same draw of the arguments contributes."""

    @functools.wraps(function)
    def to_all(*args, **kwargs):
        def to_one(*drawn):
            rows, drawn_here = iter(drawn), iter(together)
            tree = tree_map(lambda t: next(rows) if next(drawn_here) else t, (args, kwargs))
            return function(*tree[0], **tree[1])

        drawn = [t for t, many in zip(leaves((args, kwargs)), together, strict=True) if many]
        with silent_loops():
            return torch.func.vmap(to_one)(*drawn)

    return to_all


@contextlib.contextmanager
def silent_loops():
    """Where vmap has no rule for an operator it loops over the draws, and warns from C++."""
    warns = torch._C._functorch._set_vmap_fallback_warning_enabled
    warns(False)
    try:
        yield
    finally:
        warns(True)


_watch = contextvars.ContextVar("watch", default=None)


@contextlib.contextmanager
def watched(watch):
    """Within, a function that is `written_out` is called by watch(name, function, args, kwargs)."""
    token = _watch.set(watch)
    try:
        yield
    finally:
        _watch.reset(token)


def written_out(name):
    """Marks a function of torch's functions as the one of this name, for who watches a forward."""

    def named(function):
        @functools.wraps(function)
        def call(*args, **kwargs):
            watch = _watch.get()
            return watch(name, function, args, kwargs) if watch else function(*args, **kwargs)

        return call

    return named


class NotAsked(ValueError):
    """What a mirror does not ask of torch: that would crash, or torch leaves the answer open."""


def refusing(function, fault, why):
    """A torch function that must not be called where fault(*args, **kwargs): NotAsked, instead of
    what torch would do then."""

    @functools.wraps(function)
    def guarded(*args, **kwargs):
        if fault(*args, **kwargs):
            raise NotAsked(f"{function.__name__}: {why}")
        return function(*args, **kwargs)

    guarded.unguarded = function
    return guarded


def drawing(function, name, draw, **facts):
    """A torch function that draws at random, as a rule; what it draws is the keyword `name`.

    Torch cannot be given a draw. It is seeded instead, so that it draws the same every time, and
    `twin.draw(*args, **kwargs)` is {name: draw(seeded function, *args, **kwargs)}.
    """
    signature = inspect.signature(function)
    keyword = inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None)
    always = seeded(function)

    @functools.wraps(function)
    def without(*args, **kwargs):
        kwargs.pop(name, None)
        return always(*args, **kwargs)

    without.__signature__ = signature.replace(parameters=[*signature.parameters.values(), keyword])
    constant = " ".join([facts.pop("constant", ""), name])
    twin = rule(without, constant=constant, **facts)

    def drawn(*args, **kwargs):
        args, kwargs = tree_map(tensor, (args, kwargs))
        kwargs.pop(name, None)
        return {name: array(draw(without, *args, **kwargs))}

    drawn.keyword = name
    twin.draw = drawn
    return twin


def seeded(function):
    """The function, drawing the same every time; that leaves no trace in what is drawn later."""

    @functools.wraps(function)
    def always(*args, **kwargs):
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings(action="ignore"):
            _seed(0)
            return function(*args, **kwargs)

    return always


def _seed(seed):
    """As torch.manual_seed, which for other devices writes down who has called it: that takes
    longer than most functions."""
    (torch.default_generator if device() == "cpu" else torch).manual_seed(seed)


# How an open setting of an optimizer is looked for: by its logarithm, by that of 1 less it, or as
# it is, from 0 on.
SCALE, SHARE, AMOUNT = "scale", "share", "amount"


@dataclass(frozen=True)
class OptimizerFacts:
    """What is peculiar about an optimizer of torch.

    takes        what a step is given: a "gradient", one of a "matrix" alone, some "rows" of one, or
                 a "closure" that evaluates the loss
    elementwise  whether it treats every element alike
    free         the settings that may be looked for, each by SCALE, SHARE or AMOUNT
    choices      what is tried besides the defaults; a setting that stands here is not open
    start        where a search begins instead of at a default
    alias        another optimizer that this is, and with which settings
    single       the settings under which one call is one iteration
    timed        the settings that it is timed with
    """

    takes: str = "gradient"
    elementwise: bool = True
    free: dict = field(default_factory=dict)
    choices: tuple = ()
    start: dict = field(default_factory=dict)
    alias: tuple = ()
    single: dict = field(default_factory=dict)
    timed: tuple = ({},)


def step(optimizer, gradient=None, **facts):
    """A torch optimizer as one pure step: `param, state = step(param, grad, state, **settings)`.

    What is peculiar about it is a keyword, one of OptimizerFacts, which stay at hand as `facts`.

    Every step builds the optimizer anew around the state, which equals one that is kept, bit for
    bit. Lists of parameters, gradients and states step together, as in one parameter group, and
    give two lists. `gradient(grad, shape)` makes a tensor of what is no array. None stays None.

    `run(params, gradients, settings)` keeps one optimizer, and yields both lists after every step.
    """
    if optimizer is None:
        return None
    gradient = gradient or (lambda grad, shape: tensor(grad))

    def stepped(machine, parameters, grads):
        for p, g in zip(parameters, grads, strict=True):
            p.grad = gradient(g, p.shape)
        machine.step()
        states = [machine.state[p] for p in parameters]
        new = [{k: array(v) for k, v in s.items() if v is not None} for s in states]
        return [array(p) for p in parameters], new

    @functools.wraps(optimizer, updated=())
    def twin(param, grad, state, **settings):
        many = isinstance(param, list)
        params, grads, states = (param, grad, state) if many else ([param], [grad], [state])
        parameters = [torch.nn.Parameter(tensor(p)) for p in params]
        machine = optimizer(parameters, **settings)
        for p, s in zip(parameters, states, strict=True):
            if s != {}:
                machine.state[p] = tree_map(tensor, dict(s))
        stepped_params, new = stepped(machine, parameters, grads)
        return (stepped_params, new) if many else (stepped_params[0], new[0])

    def run(params, gradients, settings, disturb=lambda tree: tree):
        parameters = [torch.nn.Parameter(tensor(p)) for p in params]
        machine = optimizer(parameters, **settings)
        for grads in gradients:
            params, grads = disturb((params, grads))
            for p, seen in zip(parameters, params, strict=True):
                p.data.copy_(tensor(seen))
            params, states = stepped(machine, parameters, grads)
            yield params, states

    twin.run, twin.facts = run, OptimizerFacts(**facts)
    return twin


def search(optimizer, **facts):
    """A torch optimizer that evaluates the loss itself, as one pure step over all parameters:
    `params, state = search(params, closure, state, **settings)`. Facts are those of `step`.

    closure(params) gives the loss and the list of gradients, all as arrays.
    """

    @functools.wraps(optimizer, updated=())
    def twin(params, closure, state, **settings):
        parameters = [torch.nn.Parameter(tensor(p)) for p in params]
        machine = optimizer(parameters, **settings)
        machine.state[parameters[0]] = tree_map(tensor, dict(state))

        def evaluate():
            loss, grads = closure([array(p) for p in parameters])
            for p, g in zip(parameters, grads, strict=True):
                p.grad = tensor(g)
            return tensor(loss)

        machine.step(evaluate)
        return [array(p) for p in parameters], tree_map(array, dict(machine.state[parameters[0]]))

    twin.facts = OptimizerFacts(takes="closure", elementwise=False, **facts)
    return twin


def in_place(clip):
    """A torch function that changes the gradients of parameters, as one of a list of gradients: the
    new list, behind what the function returns, if that is something."""

    @functools.wraps(clip)
    def twin(grads, *args, **kwargs):
        parameters = [torch.nn.Parameter(torch.zeros_like(tensor(g))) for g in grads]
        for p, g in zip(parameters, grads, strict=True):
            p.grad = tensor(g)
        answer = clip(parameters, *args, **kwargs)
        clipped = [array(p.grad) for p in parameters]
        return clipped if answer is None else (array(answer), clipped)

    return twin


def rate(scheduler):
    """A torch scheduler as a function of all steps: `lr = rate(steps, lr=0.1, **settings)`.

    The scheduler runs once, up to the last step. Where it moves the momentum as well, that is
    returned beside the rate. One that takes metrics goes through `steps` as these, and gives the
    rate after each. `disturb` is applied to the rate before every step. With `closed` it is
    torch's own closed form that is asked at every step, None where there is none.
    """

    @functools.wraps(scheduler, updated=())
    def twin(steps, *, lr=0.1, disturb=lambda lr: lr, closed=False, **settings):
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr, momentum=0.5)
        machine = scheduler(optimizer, **settings)
        by_metric = isinstance(machine, torch.optim.lr_scheduler.ReduceLROnPlateau)
        (group,) = optimizer.param_groups
        if closed and not hasattr(machine, "_get_closed_form_lr"):
            return None

        def now():
            lr = machine._get_closed_form_lr()[0] if closed else group["lr"]
            return lr, group["momentum"]

        seen = [now()]
        optimizer.step()  # torch wants to see one first
        for step in range(len(steps) if by_metric else int(np.max(steps, initial=0))):
            group["lr"] = disturb(group["lr"])
            machine.step(float(steps[step])) if by_metric else machine.step()
            seen.append(now())
        lrs, momenta = np.array(seen, dtype=float).T
        if by_metric:
            return lrs[1:]
        at = np.asarray(steps)
        moves = np.any(momenta != 0.5)
        return (lrs[at], momenta[at]) if moves else lrs[at]

    return twin


def tree_map(function, tree):
    """The tree, of dicts, lists and tuples, with the function applied to every leaf in order."""
    if not isinstance(tree, (dict, list, tuple)):
        return function(tree)
    if isinstance(tree, dict):
        return {key: tree_map(function, branch) for key, branch in tree.items()}
    kind = tuple if isinstance(tree, torch.Size) else type(tree)
    return kind([tree_map(function, branch) for branch in tree])


def leaves(tree):
    """The leaves of a tree, in order."""
    found = []
    tree_map(found.append, tree)
    return found


def device():
    """Where all that is torch's is computed, which another process must be able to know."""
    return os.environ.get("GRADTWIN_DEVICE", "cpu")


def tensor(leaf):
    """An array as a tensor of its own memory, all draws of one, which are made for one evaluation,
    in theirs, NumPy's dtype as torch's; anything else as it is."""
    if isinstance(leaf, np.dtype):
        return torch.bfloat16 if leaf == BFLOAT16 else torch.from_numpy(np.empty(0, leaf)).dtype
    drawn = isinstance(leaf, Draws)
    if drawn or isinstance(leaf, (np.ndarray, np.generic)):
        # Some of torch refuses another order.
        own = np.ascontiguousarray(leaf.array) if drawn else np.array(leaf, order="C")
        if own.dtype == BFLOAT16:  # which torch does not know from NumPy: the same bits
            made = torch.from_numpy(own.view(np.int16)).view(torch.bfloat16)
        else:
            made = torch.from_numpy(own)
        return made if device() == "cpu" else made.to(device())
    return leaf


def array(leaf):
    """A tensor as an array of its own memory, torch's dtype as NumPy's; anything else as it is."""
    if isinstance(leaf, torch.dtype):
        return BFLOAT16 if leaf == torch.bfloat16 else torch.empty(0, dtype=leaf).numpy().dtype
    if isinstance(leaf, torch.Tensor):
        if leaf.dtype == torch.bfloat16:
            bits = leaf.detach().to_dense().contiguous().view(torch.int16)
            return bits.numpy(force=True).copy().view(BFLOAT16)
        return leaf.to_dense().numpy(force=True).copy()
    return leaf


def sparse(grad, shape):
    """A gradient (indices, values) of some rows or elements as a sparse tensor of that shape."""
    indices, values = grad
    return torch.sparse_coo_tensor(
        np.atleast_2d(indices), tensor(values), shape, check_invariants=True
    )


def is_differentiable(leaf):
    """Whether the leaf is a floating tensor."""
    return isinstance(leaf, torch.Tensor) and leaf.is_floating_point()


def listed(one_or_many):
    """A list or tuple as it is, anything else as a list of one."""
    return one_or_many if isinstance(one_or_many, (list, tuple)) else [one_or_many]
