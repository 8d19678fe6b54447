"""The search: what it names, what it tells apart, and what it refuses."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from gradtwin.comparisons.dialects import forced, rates, recorder, search, trajectory
from gradtwin.comparisons.dialects.candidates import Candidate, ascends
from gradtwin.comparisons.dialects.facts import defaults
from gradtwin.comparisons.dialects.trajectory import Trajectory
from gradtwin.manual.dialects import of, rule_of

from gradtwin import record_optimizer


def made(optimizer, settings, dtype="float64", steps=40, lr=None, plain=(), reset=None, seed=2):
    """A record of two tensors, w and b, by the rule itself. Those in `plain` have no decay; the
    state is lost before step `reset`."""
    rng = np.random.default_rng(seed)
    tensors = []
    for name, shape in (("w", (4, 3)), ("b", (5,))):
        param = rng.standard_normal(shape).astype(dtype)
        grads = (rng.standard_normal((steps, *shape)) + 0.5) * 10.0 ** rng.uniform(-4, 0, shape)
        grads, after, state = grads.astype(dtype), [param], {}
        for t, grad in enumerate(grads):
            state = {} if t + 1 == reset else state
            own = settings | ({"weight_decay": 0.0} if name in plain else {})
            own |= {} if lr is None else {"lr": float(lr[t])}
            param, state = rule_of(optimizer)(param, grad, state, **own)
            after.append(param)
        tensors.append((np.array(after), grads))
    return Trajectory(tuple(tensors), None, ("w", "b"))


def named(record, *optimizers):
    answers, clock = search.search(record, names=optimizers)
    assert not clock.skipped
    return answers[0]


ADAM = {"lr": 0.01, "betas": (0.9, 0.99), "eps": 1e-4}


@pytest.mark.parametrize(
    ("changed", "dtype"),
    [
        ({}, "float32"),
        ({"eps": 1.02e-4}, "float32"),
        ({"betas": (0.9, 0.999)}, "float32"),
        ({"weight_decay": 1e-3}, "float32"),
    ],
)
def test_near_misses_are_told_apart(changed, dtype):
    answer = named(made("adam", ADAM | changed, dtype), "adam")
    assert answer.reproduced
    assert len(answer.groups) == 1
    found = answer.match.candidate
    assert not found.dialects
    wanted = {"weight_decay": 0.0} | ADAM | changed
    assert {n: found.settings[n] for n in wanted} == wanted


def test_decay_on_one_tensor_alone_makes_two_groups():
    settings = ADAM | {"weight_decay": 0.1, "decoupled_weight_decay": True}
    answer = named(made("adam", settings, plain="b"), "adam")
    assert answer.reproduced
    assert [[t.name for t in group] for group in answer.groups] == [["w"], ["b"]]
    decays = [g[0].match.candidate.settings["weight_decay"] for g in answer.groups]
    assert decays == [0.1, 0.0]


def test_a_state_that_was_lost_is_said():
    answer = named(made("sgd", {"lr": 0.1, "momentum": 0.9}, reset=31), "sgd")
    assert not answer.reproduced
    assert (answer.match.leaves, answer.match.again) == (31, True)
    assert answer.match.candidate.settings["momentum"] == 0.9


def test_a_tensor_that_moves_too_little_is_not_told():
    record = made("sgd", {"lr": 1e-8}, "float32")
    answer = named(record, "sgd")
    assert not answer.reproduced
    assert answer.match.unseen


def test_one_that_hides_everything_in_its_own_floor_ends_nothing():
    """RAdam with a β₂ near 1 follows SGD, with rates in the millions; its floor is larger still."""
    lr = np.where(np.arange(40) < 15, 0.1, 0.01)
    settings = {"momentum": 0.9, "weight_decay": 5e-4}
    answer = named(made("sgd", settings, "float32", lr=lr), "radam", "sgd")
    assert answer.reproduced
    assert answer.match.candidate.optimizer == "sgd"
    assert answer.match.candidate.rate.said() == "multistep(lr=0.1, gamma=0.1, milestones=(15,))"


@pytest.mark.parametrize(
    ("shape", "factor"),
    [
        ("cosine(lr=0.01, T_max=40, eta_min=0.0)", lambda t: (1 + np.cos(np.pi * t / 40)) / 2),
        ("step(lr=0.01, gamma=0.5, step_size=10)", lambda t: 0.5 ** (t // 10)),
        ("multistep(lr=0.01, gamma=0.1, milestones=(25,))", lambda t: np.where(t < 25, 1, 0.1)),
        ("exponential(lr=0.01, gamma=0.95)", lambda t: 0.95**t),
        ("linear(lr=0.01, end=0.0, total_iters=50)", lambda t: 1 - t / 50),
        (
            "warm-up of 8 steps, then constant(lr=0.01)",
            lambda t: np.minimum(1, (t + 1) / 8),
        ),
        (
            "warm-up of 10 steps, then cosine(lr=0.01, T_max=30, eta_min=0.0)",
            lambda t: np.where(t < 10, (t + 1) / 10, (1 + np.cos(np.pi * (t - 10) / 30)) / 2),
        ),
        ("inverse time(lr=0.01, decay=0.1)", lambda t: 1 / (1 + 0.1 * t)),
        (
            "cosine with restarts(lr=0.01, T_0=10, T_mult=1, eta_min=0.0)",
            lambda t: (1 + np.cos(np.pi * (t % 10) / 10)) / 2,
        ),
        (
            "cosine with restarts(lr=0.01, T_0=5, T_mult=2, eta_min=0.0)",
            lambda t: [
                (1 + np.cos(np.pi * (s - a) / T)) / 2
                for s in t
                for a, T in ((0, 5), (5, 10), (15, 20), (35, 40))
                if a <= s < a + T
            ],
        ),
    ],
)
def test_a_schedule_is_recognised_by_its_rates(shape, factor):
    t = np.arange(40)
    lr = 0.01 * np.asarray(factor(t))
    unsure = 1e-6 * lr + 1e-12
    noise = np.random.default_rng(0).standard_normal(40)
    found = rates.recognised(lr + unsure * noise, unsure)
    assert found.said() == shape
    assert np.allclose(found.at(t), lr, rtol=1e-4)
    wrong = lr * (1 + 0.02 * np.random.default_rng(1).standard_normal(40))
    assert rates.recognised(wrong, unsure) is None


@pytest.mark.parametrize("late", [-1, 1])
def test_a_schedule_that_is_one_step_off_is_told_apart(late):
    """One that was stepped before the optimizer, or once more than it."""
    t = np.arange(40)
    lr = 0.01 * (1 + np.cos(np.pi * np.clip(t + late, 0, 40) / 40)) / 2
    unsure = 1e-6 * lr + 1e-12
    found = rates.recognised(lr, unsure)
    assert found is None or "cosine(lr=0.01, T_max=40" not in found.said()


def test_a_step_is_known_by_how_it_goes_with_its_rate():
    after = next(d for d in of("adam") if "after the step" in d.name)
    decoupled = defaults("adam") | {"decoupled_weight_decay": True}
    assert forced.linearity(Candidate("adam", (), decoupled, ())) == "linear"
    assert forced.linearity(Candidate("adam", (after,), decoupled, ())) == "quadratic"
    assert forced.linearity(Candidate("ftrl", (), defaults("ftrl"), ())) == "no"
    lr = np.linspace(0.01, 1.5, 40)
    record = made("adam", ADAM | {"weight_decay": 0.1, "decoupled_weight_decay": True}).tensor(0)
    truth = Candidate("adam", (after,), decoupled | ADAM | {"weight_decay": 0.1}, ())
    problem = forced.Problem(replace(record, lr=lr), 0.0)
    problem.moves = problem.steps([truth], lr)[0]
    assert problem.solved([truth], forced.EACH)[1][0] == pytest.approx(lr, rel=1e-9)


def test_a_first_step_that_begins_elsewhere_does_not_ascend():
    record = made("ftrl", {"lr": 0.1})
    p, g = record.tensors[0]
    assert (np.sign(p[1] - p[0]) * np.sign(g[0])).sum() > 0  # else it is no test
    assert not ascends(record)
    assert ascends(made("adam", ADAM | {"maximize": True}))


def test_some_elements_of_several_tensors_are_those_of_all():
    record = made("adam", ADAM)
    some, whole = record.flat(6), record.flat()
    for a, b in zip(some.tensors[0], whole.tensors[0], strict=True):
        assert a.shape[1] == 6
        assert all(any(np.array_equal(x, y) for y in b.T) for x in a.T)
    assert some.all_norms() == pytest.approx(whole.all_norms(), rel=1e-15)


def test_a_rate_that_nobody_wrote_down_is_found_beside_the_settings():
    lr = 2e-3 * (1 + np.cos(np.pi * np.arange(40) / 40)) / 2
    answer = named(made("adam", {"betas": (0.9, 0.95)}, "float32", lr=lr), "adam")
    assert answer.reproduced
    found = answer.match.candidate
    assert found.rate.said() == "cosine(lr=0.002, T_max=40, eta_min=0.0)"
    assert found.settings["betas"] == (0.9, 0.95)


@pytest.mark.parametrize("budget", [0.0, 0.5])
def test_a_budget_ends_the_search_and_is_said(budget):
    record = made("sgd", {"lr": 0.1})
    answers, clock = search.search(record, names=["adam"], budget=budget)
    assert clock.skipped
    assert not answers[0].reproduced


def stepped(optimizer, parameters, steps=12, fails=False):
    rng = np.random.default_rng(3)
    for _ in range(steps):
        for p in parameters:
            p.grad = torch.from_numpy(rng.standard_normal(p.shape))
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
    if fails:
        raise ZeroDivisionError


def test_what_a_recorder_writes_is_named(tmp_path):
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 4).double()
    with torch.no_grad():
        model.bias += 1
    optimizer = torch.optim.AdamW(
        [
            {"params": [model.weight], "weight_decay": 0.1},
            {"params": [model.bias], "weight_decay": 0.0},
        ],
        lr=0.02,
    )
    with record_optimizer(tmp_path / "run.npz", optimizer, model):
        stepped(optimizer, list(model.parameters()))
    record = trajectory.read(tmp_path / "run.npz")
    assert record.names == ("weight", "bias")
    assert (record.steps, record.lr) == (12, None)
    assert record.all_norms() == pytest.approx(np.ones(12), abs=1e-5)
    answer = named(record, "adam")
    assert answer.reproduced
    found = [g[0].match.candidate for g in answer.groups]
    assert [c.name for c in found] == ["adamw", "adamw"]
    assert [c.settings["weight_decay"] for c in found] == [0.1, 0.0]
    assert not optimizer._optimizer_step_pre_hooks
    before = (tmp_path / "run.npz").read_bytes()
    with pytest.raises(ValueError, match="expected one that has not stepped yet"):
        record_optimizer(tmp_path / "run.npz", optimizer)
    assert (tmp_path / "run.npz").read_bytes() == before


def test_a_recorder_writes_what_was_seen_until_an_error_and_replaces_nothing(tmp_path):
    p = torch.nn.Parameter(torch.ones(2, dtype=torch.float64))
    for path in (tmp_path / "a.npz", tmp_path / "a.npz"):
        optimizer = torch.optim.SGD([p], lr=0.1)
        with pytest.raises(ZeroDivisionError) as raised, record_optimizer(path, optimizer):
            stepped(optimizer, [p], 3 if not path.exists() else 5, fails=True)
        assert raised.value.__notes__
        assert trajectory.read(path).steps == 3
    (tmp_path / "other.npz").write_bytes(b"mine")
    with pytest.raises(ValueError, match="npz"):
        record_optimizer(tmp_path / "other.npz", torch.optim.SGD([p], lr=0.1))
    assert (tmp_path / "other.npz").read_bytes() == b"mine"


def test_a_rate_that_all_groups_share_is_written(tmp_path):
    p = torch.nn.Parameter(torch.ones(2, dtype=torch.float64))
    optimizer = torch.optim.SGD([p], lr=0.1)
    falling = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    with record_optimizer(tmp_path / "a.npz", optimizer):
        for _ in range(3):
            stepped(optimizer, [p], 1)
            falling.step()
    assert trajectory.read(tmp_path / "a.npz").lr.tolist() == [0.1, 0.05, 0.025]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (("a.npz", None), TypeError, "optimizer: expected a torch optimizer, got NoneType"),
        (("a.txt", "sgd"), ValueError, "path: expected a name that ends in .npz"),
        (("a.npz", "half"), TypeError, "expected parameters in float32 or float64, got"),
    ],
)
def test_a_recorder_refuses(tmp_path, arguments, error, message):
    name, kind = arguments
    dtype = torch.float16 if kind == "half" else torch.float64
    optimizer = kind and torch.optim.SGD([torch.nn.Parameter(torch.ones(2, dtype=dtype))], lr=0.1)
    with pytest.raises(error, match=message):
        record_optimizer(tmp_path / name, optimizer)
    assert not any(tmp_path.iterdir())


def test_a_closure_and_a_loop_without_steps_are_refused(tmp_path):
    p = torch.nn.Parameter(torch.ones(2, dtype=torch.float64))
    optimizer = torch.optim.SGD([p], lr=0.1)
    with (
        pytest.raises(ValueError, match="closure: expected none"),
        record_optimizer(tmp_path / "a.npz", optimizer),
    ):
        optimizer.step(lambda: 1.0)
    with (
        pytest.raises(ValueError, match="expected a step with gradients"),
        recorder.record_optimizer(tmp_path / "a.npz", optimizer),
    ):
        pass
    assert not any(tmp_path.iterdir())
