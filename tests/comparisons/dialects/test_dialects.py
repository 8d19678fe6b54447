"""Dialects of the optimizers: the lines that differ, and the search for those that were used."""

import json
from pathlib import Path

import numpy as np
import pytest
from gradtwin.comparisons.cli.app import app
from gradtwin.comparisons.dialects import judged, search, trajectory
from gradtwin.comparisons.dialects.candidates import Candidate
from gradtwin.comparisons.dialects.facts import ELSEWHERE, OPTIMIZERS, defaults
from gradtwin.comparisons.dialects.trajectory import Trajectory
from gradtwin.comparisons.samples.optimizers import SAMPLES
from gradtwin.manual.dialects import DIALECTS, of, rule_of, variant
from typer.testing import CliRunner

from gradtwin import reference

TRAJECTORIES = Path(__file__).parents[2] / "trajectories"

# What made each recorded trajectory: the optimizer, (about, name) of its dialects, its settings.
BEFORE = ("ε", "before the bias correction")
INSIDE = ("ε", "inside the root")
MADE_BY = {
    "keras-Adadelta-1.0-rho0.9-epsilon1e-4": ("adadelta", [], {"eps": 1e-4}),
    "keras-Adafactor-0.05-epsilon_11e-4": (
        "adafactor",
        [("ε₁", "added to the squares")],
        {"lr": 0.05, "eps": (1e-4, 1e-3)},
    ),
    "keras-Adagrad-0.1-epsilon1e-4": (
        "adagrad",
        [INSIDE],
        {"lr": 0.1, "eps": 1e-4, "initial_accumulator_value": 0.1},
    ),
    "keras-Adam-0.01-beta_20.99-epsilon1e-4": (
        "adam",
        [BEFORE],
        {"lr": 0.01, "betas": (0.9, 0.99), "eps": 1e-4},
    ),
    "keras-Adam-0.01-epsilon1e-4-amsgradTrue": (
        "adam",
        [BEFORE],
        {"lr": 0.01, "eps": 1e-4, "amsgrad": True},
    ),
    "keras-AdamW-0.01-epsilon1e-4-weight_decay0.1": (
        "adam",
        [BEFORE],
        {"lr": 0.01, "eps": 1e-4, "weight_decay": 0.1, "decoupled_weight_decay": True},
    ),
    "keras-Adamax-0.01-epsilon1e-3": (
        "adamax",
        [("ε", "added to u when it divides")],
        {"lr": 0.01, "eps": 1e-3},
    ),
    "keras-Nadam-0.01-epsilon1e-4": (
        "nadam",
        [],
        {"lr": 0.01, "eps": 1e-4, "momentum_decay": 1.0},
    ),
    "keras-RMSprop-0.01-rho0.9-epsilon1e-4": (
        "rmsprop",
        [INSIDE],
        {"lr": 0.01, "alpha": 0.9, "eps": 1e-4},
    ),
    "keras-RMSprop-0.01-rho0.9-epsilon1e-4-centeredTrue-weight_decay0.1": (
        "rmsprop",
        [INSIDE, ("decay", "decoupled: p shrinks by 1 − lr λ")],
        {"lr": 0.01, "alpha": 0.9, "eps": 1e-4, "centered": True, "weight_decay": 0.1},
    ),
    "keras-SGD-0.05-momentum0.9": (
        "sgd",
        [("momentum", "the buffer holds lr d: a new lr acts on new gradients alone")],
        {"momentum": 0.9},
    ),
    "keras-SGD-0.05-momentum0.9-nesterovTrue-weight_decay0.01": (
        "sgd",
        [("decay", "decoupled: p shrinks by 1 − lr λ")],
        {"lr": 0.05, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01},
    ),
    "optax-adadelta-1.0-rho0.9-eps1e-4": ("adadelta", [], {"eps": 1e-4}),
    "optax-adafactor-0.05-min_dim_size_to_factor1-weight_decay_rate0.01": (
        "adafactor",  # with two more dialects, unheard: ε₁ is 1e-30, and lr never reaches 1/√t
        [("decay", "without lr: p shrinks by 1 − λ")],
        {"lr": 0.05, "weight_decay": 0.01},
    ),
    "optax-adagrad-0.1-eps1e-4": (
        "adagrad",
        [INSIDE],
        {"lr": 0.1, "eps": 1e-4, "initial_accumulator_value": 0.1},
    ),
    "optax-adam-0.01-b10.8-b20.99-eps1e-4": (
        "adam",
        [],
        {"lr": 0.01, "betas": (0.8, 0.99), "eps": 1e-4},
    ),
    "optax-adam-0.01-eps0.0-eps_root1e-6": ("adam", [INSIDE], {"lr": 0.01, "eps": 1e-6}),
    "optax-adamax-0.01-eps1e-3": ("adamax", [], {"lr": 0.01, "eps": 1e-3}),
    "optax-adamaxw-0.01-eps1e-3-weight_decay0.1": (
        "adamax",
        [("decay", "decoupled: p shrinks by 1 − lr λ")],
        {"lr": 0.01, "eps": 1e-3, "weight_decay": 0.1},
    ),
    "optax-adamw-0.01-eps1e-4-weight_decay0.1": (
        "adam",
        [],
        {"lr": 0.01, "eps": 1e-4, "weight_decay": 0.1, "decoupled_weight_decay": True},
    ),
    "optax-amsgrad-0.01-b20.9-eps1e-4": (
        "adam",
        [("maximum", "of the corrected v̂")],
        {"lr": 0.01, "betas": (0.9, 0.9), "eps": 1e-4, "amsgrad": True},
    ),
    "optax-nadam-0.01-eps1e-4": (
        "nadam",
        [("schedule", "constant momentum")],
        {"lr": 0.01, "eps": 1e-4},
    ),
    "optax-radam-0.01-b20.9-eps1e-3": (
        "radam",
        [("ε", "after the bias correction")],
        {"lr": 0.01, "betas": (0.9, 0.9), "eps": 1e-3},
    ),
    "optax-rmsprop-0.01-decay0.9-eps1e-4": (
        "rmsprop",
        [INSIDE],
        {"lr": 0.01, "alpha": 0.9, "eps": 1e-4},
    ),
    "optax-rmsprop-0.01-decay0.9-eps1e-4-centeredTrue-momentum0.5": (
        "rmsprop",
        [INSIDE],
        {"lr": 0.01, "alpha": 0.9, "eps": 1e-4, "centered": True, "momentum": 0.5},
    ),
    "optax-rmsprop-0.01-decay0.9-eps1e-4-eps_in_sqrtFalse": (
        "rmsprop",
        [],
        {"lr": 0.01, "alpha": 0.9, "eps": 1e-4},
    ),
    "optax-rprop-0.01": (
        "rprop",
        [("delay", "each step is that of the gradient before, unless the sign turns now")],
        {"lr": 0.01},
    ),
    "optax-sgd-0.05-momentum0.9-nesterovTrue": (
        "sgd",
        [],
        {"lr": 0.05, "momentum": 0.9, "nesterov": True},
    ),
}


def candidate(optimizer, spoken, settings):
    chosen = tuple(d for d in of(optimizer) if (d.about, d.name) in spoken)
    assert len(chosen) == len(spoken)
    return Candidate(optimizer, chosen, defaults(optimizer) | settings, ())


def test_every_recorded_trajectory_is_known():
    assert {p.stem for p in TRAJECTORIES.glob("*.npz")} == set(MADE_BY)


@pytest.mark.parametrize("name", MADE_BY)
def test_optax_and_keras_are_reproduced_to_rounding_in_their_dialect(name):
    optimizer, spoken, settings = MADE_BY[name]
    record = trajectory.read(TRAJECTORIES / f"{name}.npz")
    match = judged.judged(candidate(optimizer, spoken, settings), record)
    assert match.leaves is None
    for left_out in spoken:
        others = [d for d in spoken if d != left_out]
        match = judged.judged(candidate(optimizer, others, settings), record)
        assert match.leaves is not None, left_out


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda d: f"{d.optimizer}-{d.about}-{d.name}")
def test_a_dialect_changes_what_its_optimizer_does(dialect):
    rng = np.random.default_rng(0)
    param = rng.standard_normal((4, 3))
    grads = rng.standard_normal((12, 4, 3)) * 10.0 ** rng.uniform(-4, 1, (4, 3))
    grads[6:] *= 0.01  # so that a maximum lasts
    spoken = {
        "weight_decay": 0.0 if "no decay" in dialect.name else 0.1,
        "amsgrad": True,
        "decoupled_weight_decay": dialect.about == "decay",
        "momentum": 0.9,
        "dampening": 0.5,
        "eps": (1e-3, 1e-3) if dialect.optimizer == "adafactor" else 1e-3,
        "betas": (0.9, 0.7),
        "lr": 2.0,
    }
    settings = {n: v for n, v in spoken.items() if n in accepted(dialect.optimizer)}
    assert not np.array_equal(
        after(variant(dialect.optimizer, dialect), param, grads, settings),
        after(rule_of(dialect.optimizer), param, grads, settings),
    )


def accepted(optimizer):
    return rule_of(optimizer).__kwdefaults__


def after(step, param, grads, settings):
    state = {}
    for t, grad in enumerate(grads):
        param, state = step(param, grad, state, **settings | {"lr": settings["lr"] / (t + 1)})
    return param


def test_a_line_that_does_not_stand_there_is_refused():
    with pytest.raises(ValueError, match="dialects: expected those of sgd"):
        variant("sgd", of("adam")[0])
    twice = of("adam")[:2]  # about the same line
    with pytest.raises(ValueError, match="does not stand in adam once"):
        variant("adam", *twice)


def recorded(optimizer, settings, dtype, steps=40):
    """A trajectory of torch's own optimizer."""
    rng = np.random.default_rng(2)
    param = rng.standard_normal((4, 3)).astype(dtype)
    grads = rng.standard_normal((steps, 4, 3)) * 10.0 ** rng.uniform(-5, 1, (4, 3))
    grads = grads.astype(dtype)
    twin = getattr(reference.optimizers, optimizer)
    after = [p for (p,), _ in twin.run([param], ([g] for g in grads), settings)]
    return np.array([param, *after]), grads


@pytest.mark.parametrize("optimizer", [o for o in OPTIMIZERS if o not in ELSEWHERE])
def test_torchs_own_trajectories_are_reproduced_without_a_dialect(optimizer):
    settings = SAMPLES[optimizer][0]
    record = Trajectory((recorded(optimizer, settings, np.float32),))
    assert judged.judged(candidate(optimizer, [], settings), record).leaves is None


def test_a_trajectory_is_named_with_its_settings(tmp_path):
    params, grads = recorded("adam", {"lr": 0.02, "betas": (0.7, 0.95), "eps": 1e-3}, "float64")
    np.savez(tmp_path / "run.npz", params=params, grads=grads)
    chosen = ["--optimizer", "adam", "--optimizer", "adamax"]
    result = CliRunner().invoke(app, ["dialect", str(tmp_path / "run.npz"), "--json", *chosen])
    assert result.exit_code == 0
    first = json.loads(result.stdout)[0]
    assert (first["optimizer"], first["dialects"]) == ("adam", [])
    assert first["settings"]["lr"] == 0.02
    assert first["settings"]["betas"] == [0.7, 0.95]
    assert first["settings"]["eps"] == 1e-3
    assert first["leaves_at"] is None


@pytest.mark.parametrize(
    ("name", "optimizer", "settings", "dialect"),
    [
        ("keras-SGD-0.05-momentum0.9", "sgd", "momentum=0.9", "momentum: the buffer holds lr d"),
        (
            "optax-rprop-0.01",
            "rprop",
            "defaults",
            "delay: each step is that of the gradient before",
        ),
        pytest.param(
            "keras-RMSprop-0.01-rho0.9-epsilon1e-4",
            "rmsprop",
            "alpha=0.9, eps=0.0001",
            "ε: inside the root",
            marks=pytest.mark.sweep,
        ),
    ],
)
def test_a_dialect_is_named(name, optimizer, settings, dialect):
    path = TRAJECTORIES / f"{name}.npz"
    result = CliRunner().invoke(app, ["dialect", str(path), "--optimizer", optimizer])
    assert result.exit_code == 0
    assert f"Reproduced by {optimizer}({settings})" in result.output
    assert dialect in result.output


@pytest.mark.sweep
def test_the_step_where_nothing_follows_is_named():
    """Torch's SGD, one of whose parameters was moved from outside."""
    params, grads = recorded("sgd", {"lr": 0.1}, "float64")
    params[26:, 2, 1] += 1e-3
    record = Trajectory(((params, grads),))
    assert judged.judged(candidate("sgd", [], {"lr": 0.1}), record).leaves == 26
    (answer,), _ = search.search(record, names=["sgd"])
    assert not answer.reproduced
    assert answer.match.leaves == 26
    assert answer.match.candidate.settings["lr"] == pytest.approx(0.1, rel=1e-2)


GOOD = {"params": np.ones((3, 2)), "grads": np.ones((2, 2))}


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": np.ones(3)}, "expected arrays params and grads, got x"),
        ({"params": np.ones((3, 2))}, "grads: missing"),
        (GOOD | {"grads": np.ones((3, 2))}, r"grads: expected the shape of params"),
        (GOOD | {"grads": np.ones((2, 2), np.float32)}, "both float32 or both float64"),
        (GOOD | {"lr": np.ones(3)}, "lr: expected 2 numbers"),
        (GOOD | {"params": np.ones((1, 2)), "grads": np.ones((0, 2))}, "one step less"),
        ({"params.a": np.ones((3, 0)), "grads.a": np.ones((2, 0))}, "at least one element"),
        (
            {f"{k}.a": v for k, v in GOOD.items()}
            | {"params.b": np.ones((4, 2)), "grads.b": np.ones((3, 2))},
            "as many steps for all",
        ),
    ],
)
def test_a_file_that_is_no_record_is_refused(tmp_path, arrays, message):
    np.savez(tmp_path / "run.npz", **arrays)
    with pytest.raises(ValueError, match=message):
        trajectory.read(tmp_path / "run.npz")


@pytest.mark.parametrize("content", [b"", b"params", b"PK\x03\x04"])
def test_a_file_that_is_no_npz_is_refused(tmp_path, content):
    path = tmp_path / "run.npz"
    path.write_bytes(content)
    for given in (path, tmp_path / "none.npz", tmp_path):
        result = CliRunner().invoke(app, ["dialect", str(given)])
        assert result.exit_code == 2
        assert f"{given}: " in result.output
    assert CliRunner().invoke(app, ["dialect", str(path), "--optimizer", "muon"]).exit_code == 2


def test_a_rate_that_falls_by_a_setting_is_not_hidden_by_a_rate_of_each_step():
    rng = np.random.default_rng(1)
    param, grads = rng.standard_normal((8, 6)), 0.1 * rng.standard_normal((40, 8, 6))
    settings = {"lr": 0.03, "lr_decay": 0.01, "weight_decay": 1e-3, "eps": 1e-8}
    run = reference.optimizers.adagrad.run([param], ([g] for g in grads), settings)
    record = Trajectory(((np.array([param, *(after for (after,), _ in run)]), grads),))
    (answer, *_), _ = search.search(record, names=["adagrad"])
    assert answer.reproduced
    candidate = answer.match.candidate
    rate = candidate.rate and candidate.rate.settings
    assert rate == {"lr": 0.03, "decay": 0.01} or candidate.settings["lr_decay"] == 0.01
