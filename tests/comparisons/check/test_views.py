"""Mistakes in functions of tensors that look right: `check` finds each and passes what is right."""

import inspect

import numpy as np
import pytest
import torch
from gradtwin.reference.adapters import NotAsked

from gradtwin import check, manual, reference

rng = np.random.default_rng(0)
X, SQUARE, CUBE = (rng.standard_normal(shape) for shape in ((4, 3), (3, 3), (2, 3, 4)))
Y, NUMBER = rng.standard_normal((4, 3)), np.array(0.7)
MASK = rng.random((4, 3)) < 0.5
TIES = np.array([[1.0, 2.0, 1.0, 2.0], [3.0, 3.0, 0.0, 3.0]])
TWICE = np.array([2, 0, 2, 1, 2])
AT = np.array([[2, 0, 2, 0], [1, 1, 1, 0], [0, 2, 1, 1], [2, 2, 2, 2]])

# op, what it is called with, and of each mistake the function that it is in, what stands there and
# what would.
CALLS = {
    "reshape": ((X, (3, 4)), {}),
    "transpose": ((SQUARE, 0, 1), {}),
    "permute": ((CUBE, (2, 0, 1)), {}),
    "broadcast_to": ((X, (2, 4, 3)), {}),
    "expand": ((NUMBER, (3, 2)), {}),
    "flatten": ((CUBE, 1), {}),
    "squeeze": ((rng.standard_normal((2, 1, 3, 1)), 1), {}),
    "unsqueeze": ((X, 1), {}),
    "repeat": ((X, (2, 1, 3)), {}),
    "narrow": ((X, 0, 1, 2), {}),
    "split": ((X, [1, 1, 2]), {}),
    "chunk": ((X, 2, 1), {}),
    "unbind": ((X, 1), {}),
    "cat": (([X, Y], 1), {}),
    "stack": (([X, Y, X + Y], 1), {}),
    "flip": ((X, (0,)), {}),
    "roll": ((X, 1, 0), {}),
    "masked_fill": ((X, MASK, NUMBER), {}),
    "tril": ((SQUARE, -1), {}),
    "triu": ((SQUARE, 1), {}),
    "sort": ((X,), {"dim": 0, "descending": True}),
    "topk": ((rng.standard_normal((20, 2)), 2, 0), {}),
    "gather": ((X, 0, AT[:, :3]), {}),
    "index_select": ((X, 0, TWICE), {}),
}
SUMS = "np.bincount(places.reshape(-1), dy.reshape(-1), math.prod(shape))"
LAST = "np.zeros(math.prod(shape)); sums[places.reshape(-1)] = dy.reshape(-1)"
MISTAKES = [
    ("reshape", "reshape", "dy.reshape(before)", 'dy.reshape(before, order="F")'),
    ("transpose", "transpose", "dy.swapaxes(*dims)", "dy"),
    ("permute", "permute", "np.argsort(order)", "order"),
    ("broadcast_to", "_stretched", "sum_to(dy, before)", "sum_to(dy, before) * x.size / dy.size"),
    ("expand", "_stretched", "sum_to(dy, before)", "dy[(0,) * new]"),
    ("flatten", "reshape", "dy.reshape(before)", "dy.reshape(before)[..., ::-1]"),
    ("squeeze", "reshape", "dy.reshape(before)", "dy.T.reshape(before)"),
    ("unsqueeze", "unsqueeze", "(*x.shape[:axis], 1, *x.shape[axis:])", "(*x.shape, 1)"),
    ("repeat", "repeat", "for pair in zip(times, before, strict=True)",
     "for pair in zip(before, times, strict=True)"),
    ("repeat", "repeat", "np.tile(x, times)", "np.tile(x[::-1], times)"),
    ("repeat", "repeat", ".reshape(shape)", ".reshape(shape) / times[0]"),
    ("narrow", "_parts", "np.zeros(shape, dtype)", "np.ones(shape, dtype)"),
    ("narrow", "narrow", "slice(first, first + length)", "slice(first, n)"),
    ("split", "_cut", "slice(end - length, end)",
     "slice(end - length, end - length + lengths[0])"),
    ("split", "_parts", "dx[place] = part", "dx[places[-1]] = part[: len(dx[places[-1]])]"),
    ("split", "_parts", "if part is not None", "if part is not None and place is not places[0]"),
    ("chunk", "_parts", "dx[place] = part", "dx[place] = 2 * part"),
    ("unbind", "_parts", "dx[place] = part", "dx[place] = part[::-1]"),
    ("cat", "cat", "_cut(dy, lengths, axis)[0]", "_cut(dy, lengths, axis)[0][::-1]"),
    ("cat", "cat", "part.reshape(a.shape)", "dy[:, : a.shape[1]]"),
    ("stack", "stack", "np.moveaxis(dy, axis, 0)",
     "dy.reshape(len(arrays), *arrays[0].shape)"),
    ("stack", "stack", "np.stack(arrays, axis)", "np.stack(arrays[::-1], axis)"),
    ("flip", "flip", "np.flip(dy, axes)", "dy"),
    ("flip", "flip", "np.flip(dy, axes)", "np.flip(dy)"),
    ("roll", "roll", "[-n for n in moves]", "moves"),
    ("roll", "roll", "_rolled(dy, [-n for n in moves], axes)",
     "_rolled(dy, [-n for n in moves], [])"),
    ("masked_fill", "masked_fill", "back(where(kept, dy, 0)", "back(dy"),
    ("masked_fill", "masked_fill", "where(kept, 0, dy))", "where(kept, 0, 0 * dy))"),
    ("masked_fill", "masked_fill", "where(kept, 0, dy))", "dy)"),
    ("masked_fill", "masked_fill", "kept = ~np", "kept = np"),
    ("tril", "_where_kept", "np.where(kept, dy, 0)", "dy"),
    ("tril", "_where_kept", "np.where(kept, dy, 0)", "np.where(kept.T, dy, 0)"),
    ("triu", "triu", "_inside(x, diagonal) - 1", "_inside(x, diagonal)"),
    ("triu", "_where_kept", "np.where(kept, x, 0)", "np.where(kept, x, 1e-3)"),
    ("sort", "_picked", "np.put_along_axis(dx, index, np.reshape(dy[0], index.shape), axis)",
     "dx = np.take_along_axis(dy[0], index, axis)"),
    ("sort", "_picked", "np.put_along_axis(dx, index, np.reshape(dy[0], index.shape), axis)",
     "dx = dy[0]"),
    ("sort", "sort", "_order(np.atleast_1d(x), axis, descending)",
     "_order(np.atleast_1d(x), axis, False)"),
    ("sort", "_order", "rows.shape[axis] - 1 - np.flip(turned, axis)", "np.flip(turned, axis)"),
    ("topk", "_picked", "np.zeros_like(rows)", "np.ones_like(rows)"),
    ("topk", "topk", "_first(rows, k, axis, largest)", "_first(rows, k, axis, not largest)"),
    ("topk", "_first", "-1, descending)\n    return", "-1, not descending)\n    return"),
    ("topk", "_first", "~(a < edge) if descending", "a > edge if descending"),
    ("gather", "_collected", SUMS, LAST),
    ("gather", "_collected", "dy.reshape(-1)", "dy.T.reshape(-1)"),
    ("gather", "_places", "places[axis]", "places[axis - 1]"),
    ("index_select", "_collected", "sums.astype",
     "(sums / np.maximum(np.bincount(places.ravel(), None, sums.size), 1)).astype"),
    ("index_select", "_collected", SUMS, LAST),
]  # fmt: skip


def with_mistake(function, old, new):
    source = inspect.getsource(function)
    assert source.count(old) == 1
    scope = dict(vars(inspect.getmodule(function)))
    exec(source.replace(old, new), scope)
    return scope[function.__name__]


def module_of(op):
    families = manual.views, manual.masked, manual.sorting, manual.indexing
    return next(family for family in families if hasattr(family, op))


@pytest.mark.parametrize("op", CALLS)
def test_the_right_one_passes(op):
    report = check(op, op, *CALLS[op], probes=["ordinary"])
    assert report.passed, report


@pytest.mark.thinned(3)
@pytest.mark.parametrize(("op", "function", "old", "new"), MISTAKES)
@pytest.mark.usefixtures("no_cause")
def test_a_mistake_is_found(op, function, old, new, monkeypatch):
    module = module_of(op)
    wrong = with_mistake(getattr(module, function), old, new)
    monkeypatch.setattr(module, function, wrong)
    report = check(op, op, *CALLS[op], probes=["ordinary"])
    print(report.table)
    assert not report.passed


@pytest.mark.parametrize(("op", "settings"), [("sort", {"dim": 1}), ("topk", {"k": 2})])
def test_of_equal_elements_the_first_is_taken_where_torch_leaves_it_open(op, settings):
    rule = getattr(manual.sorting, op)
    (values, indices), _ = rule(TIES, **settings, **{"sort": {}, "topk": {"largest": False}}[op])
    stable = torch.sort(torch.from_numpy(TIES), dim=1, stable=True)
    k = settings.get("k", 4)
    assert np.array_equal(values, stable.values[:, :k])
    assert np.array_equal(indices, stable.indices[:, :k])
    with pytest.raises(NotAsked, match="leaves open which of equal elements"):
        getattr(reference.sorting, op)(TIES, **settings)
    with pytest.raises(ValueError, match="against: it refuses this call"):
        check(op, op, [TIES], settings)


@pytest.mark.parametrize("k", [1, 2, 5, 40])
@pytest.mark.parametrize("largest", [True, False])
@pytest.mark.parametrize("nans", [0, 1, 9])
def test_few_of_many_are_those_of_a_stable_sort(k, largest, nans):
    x = np.random.default_rng(k).integers(9, size=(3, 40, 2)).astype(np.float32)
    x[1, :nans] = np.nan
    stable = torch.sort(torch.from_numpy(x), dim=1, descending=largest, stable=True)
    (values, indices), _ = manual.sorting.topk(x, k, 1, largest)
    assert np.array_equal(values, stable.values[:, :k], equal_nan=True)
    assert np.array_equal(indices, stable.indices[:, :k])


def test_a_stable_sort_with_its_ties_the_other_way_round_is_found():
    def sort(x, dim=-1, descending=False, *, stable=False):
        rows = -x if not descending else x
        order = np.flip(np.argsort(rows, dim, kind="stable"), dim)
        y = np.take_along_axis(x, order, dim), order

        def pullback(dy):
            dx = np.zeros_like(x)
            np.put_along_axis(dx, order, dy[0], dim)
            return dx

        return y, pullback

    assert check(sort, "sort", [X], probes=["ordinary"]).passed
    assert not check(sort, "sort", [TIES], {"stable": True}, probes=["ordinary"]).passed


def test_what_is_not_sorted_is_in_no_order_to_compare():
    with pytest.raises(NotAsked, match="the order of what is not sorted"):
        reference.sorting.topk(X, 2, sorted=False)
    assert check("topk", "topk", [X, 1, 0, True, False], probes=["ordinary"]).passed


# What torch does, and where a rule does otherwise, why.


def test_torch_takes_none_of_one_number_for_one():
    none = torch.topk(torch.tensor(3.0), 0)
    assert none.values.shape == ()  # as if k were 1
    with pytest.raises(ValueError, match="k: expected from 1 to 1, got 0"):
        manual.sorting.topk(np.array(3.0), 0)


def test_torch_looks_at_no_axis_of_an_empty_array_that_is_rolled():
    assert torch.roll(torch.ones(0, 4), 1, 5).shape == (0, 4)
    with pytest.raises(RuntimeError):
        torch.roll(torch.ones(0, 4), 1, (0, 1))
    with pytest.raises(IndexError, match="dims: expected an axis"):
        manual.views.roll(np.ones((0, 4)), 1, 5)


def test_torchs_decomposition_of_index_add_fails_for_an_index_without_axes():
    add = torch._decomp.decomposition_table[torch.ops.aten.index_add.default]
    arguments = torch.zeros(3, 4), 1, torch.tensor(2), torch.ones(3, 1)
    assert torch.ops.aten.index_add(*arguments).sum() == 3
    with pytest.raises(RuntimeError, match="shape mismatch"):
        add(*arguments)


def test_an_index_of_no_elements_may_be_anything():
    x, index = np.ones((3, 4)), np.zeros((7, 0, 2), bool)
    for rule in (manual.indexing.gather, reference.indexing.gather):
        y, pullback = rule(x, 0, index)
        assert y.shape == (7, 0, 2)
        assert not pullback(y).any()


def test_a_number_that_a_dtype_does_not_hold_is_refused():
    x, mask = np.ones(2, np.float16), np.array([True, False])
    (y, _), infinite = manual.masked.masked_fill(x, mask, 65504.0), -float("inf")
    assert y[0] == 65504
    assert manual.masked.masked_fill(x, mask, infinite)[0][0] == infinite
    with pytest.raises(ValueError, match="value: expected a number that float16 holds, got"):
        manual.masked.masked_fill(x, mask, -1e9)
    with pytest.raises(RuntimeError, match="without overflow"):
        torch.from_numpy(x).masked_fill(torch.from_numpy(mask), -1e9)


@pytest.mark.parametrize(
    ("rule", "arguments"),
    [(manual.views.split, (2,)), (manual.views.chunk, (2,)), (manual.views.unbind, ())],
)
def test_a_part_without_a_cotangent_gets_0(rule, arguments):
    parts, pullback = rule(X, *arguments)
    dx = pullback((np.ones_like(parts[0]), *[None] * (len(parts) - 1)))
    first, *others = rule(dx, *arguments)[0]
    assert np.all(first == 1)
    assert not np.any(others)


def test_a_list_gets_a_list_and_a_tuple_a_tuple():
    for rule in (manual.views.cat, manual.views.stack):
        for kind in (list, tuple):
            y, pullback = rule(kind([X, Y]))
            assert type(pullback(y)) is kind
