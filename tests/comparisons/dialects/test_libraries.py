"""Trajectories of nine libraries, and of loops: what made each reproduces it."""

import time
from dataclasses import replace
from pathlib import Path

import pytest
from gradtwin.comparisons.dialects import judged, search, trajectory
from gradtwin.comparisons.dialects.candidates import Candidate
from gradtwin.comparisons.dialects.facts import defaults
from gradtwin.comparisons.dialects.rates import Rate
from gradtwin.manual.dialects import of

TRAJECTORIES = Path(__file__).parents[2] / "trajectories"
PATHS = {path.stem: path for path in sorted(TRAJECTORIES.rglob("*.npz"))}
DECOUPLED = {"decoupled_weight_decay": True}
INSIDE, BEFORE = ("ε", "inside the root"), ("ε", "before the bias correction")
BUFFER = ("momentum", "the buffer holds lr d: a new lr acts on new gradients alone")
SHRINKS = ("decay", "decoupled: p shrinks by 1 − lr λ")
AFTER = ("decay", "after the step, of what it leaves")
BERT = ("correction", "none for the start at 0")
TIMM = ("schedule", "constant momentum, both parts corrected by 1 − β₁ᵗ")
ADDED = ("ε₁", "added to the squares")
# What nothing here makes: it is refused, and never named.
UNKNOWN = {
    "an-average-of-weights-for-the-weights",
    "muon-beside-adamw",
    "one-cycle-with-momentum",
    "optax-novograd-0.01",
    "pytorch_optimizer-AdamP-lr1e-3",
    "timm-Adan-lr1e-3",
    "torch_optimizer-DiffGrad-lr0.01",
    "torch_optimizer-MADGRAD-lr0.01",
}


def cosine(lr, length, warmup=0, start=None, low=0.0):
    return Rate("cosine", {"lr": lr, "T_max": length, "eta_min": low}, warmup, start)


def linear(lr, length, warmup=0):
    return Rate("linear", {"lr": lr, "end": 0.0, "total_iters": length}, warmup)


def exponential(lr):
    return Rate("exponential", {"lr": lr, "gamma": 0.95})


def later(lr):
    return Rate("multistep", {"lr": lr, "gamma": 0.1, "milestones": (15,)})


# The optimizer, its dialects, settings and rate; of b, where it is another, the settings.
MADE_BY = {
    "timm-RMSpropTF-lr0.01-alpha0.9-eps1e-3-momentum0.9": (
        "rmsprop",
        [INSIDE, ("start", "the mean of squares starts at 1"), BUFFER],
        {"lr": 0.01, "alpha": 0.9, "eps": 1e-3, "momentum": 0.9},
    ),
    "timm-NAdamW-lr2e-3-weight_decay0.05-cosine-True": (
        "nadam",
        [TIMM],
        {"weight_decay": 0.05, **DECOUPLED},
        cosine(2e-3, 40),
        {"weight_decay": 0.0},
    ),
    "timm-Lamb-lr0.01-weight_decay0.02": (
        "lamb",
        [],
        {"lr": 0.01, "weight_decay": 0.02, "clip_by_global_norm": 1.0},
    ),
    "timm-Lion-lr1e-3-weight_decay0.1-True": (
        "lion",
        [],
        {"lr": 1e-3, "weight_decay": 0.1},
        None,
        {"weight_decay": 0.0},
    ),
    "timm-AdaBelief-lr1e-3-eps1e-8-rectifyFalse-float64": (
        "adabelief",
        [],
        {"eps": 1e-8, "eps_root": 1e-8},
    ),
    "timm-AdamWLegacy-lr0.01-weight_decay0.1-cautionTrue-True": (
        "cautious_adamw",
        [],
        {"lr": 0.01, "weight_decay": 0.1},
    ),
    "timm-SGDW-lr0.05-momentum0.9-weight_decay1e-2-halved-every-10": (
        "sgd",
        [SHRINKS],
        {"momentum": 0.9, "weight_decay": 0.01},
        Rate("step", {"lr": 0.05, "gamma": 0.5, "step_size": 10}),
    ),
    "torch_optimizer-QHAdam-lr0.01-nus-0.7-1.0-25-True": ("qhadam", [], {"lr": 0.01}),
    "torch_optimizer-Yogi-lr0.01-eps1e-3-float64": ("yogi", [], {}),
    "torch_optimizer-AdaBound-lr1e-3-final_lr0.1": ("adabound", [], {}),
    "torch_optimizer-SGDW-lr0.1-momentum0.9-weight_decay1e-3": (
        "sgd",
        [("decay", "a constant: lr λ is taken off every element, whatever its size")],
        {"lr": 0.1, "momentum": 0.9, "weight_decay": 1e-3},
    ),
    "torch_optimizer-Lamb-lr0.01": ("lamb", [BERT], {"lr": 0.01}),
    "pytorch_optimizer-Lion-lr3e-4-betas-0.95-0.98-weight_decay0.2": (
        "lion",
        [],
        {"lr": 3e-4, "betas": (0.95, 0.98), "weight_decay": 0.2},
    ),
    "pytorch_optimizer-StableAdamW-lr2e-3": ("stable_adamw", [], {"lr": 2e-3}),
    "optax-lion-1e-3-weight_decay0.01-warm-up-of-8": (
        "lion",
        [],
        {"weight_decay": 0.01},
        Rate("constant", {"lr": 1e-3}, 8),
    ),
    "optax-yogi-0.01": ("yogi", [], {}),
    "optax-adabelief-3e-3-eps1e-8-eps_root1e-8-float64": (
        "adabelief",
        [],
        {"lr": 3e-3, "eps": 1e-8, "eps_root": 1e-8},
    ),
    "optax-lamb-0.01-weight_decay0.01-float64": ("lamb", [], {"lr": 0.01, "weight_decay": 0.01}),
    "optax-adamw-2e-3-weight_decay0.05-warm-up-of-10-cosine": (
        "adam",
        [],
        {"weight_decay": 0.05, **DECOUPLED},
        cosine(2e-3, 30, 10),
    ),
    "optax-adamw-0.01-eps1e-6-weight_decay1e-2-norm-1.0": (
        "adam",
        [],
        {"lr": 0.01, "eps": 1e-6, "weight_decay": 0.01, "clip_grad_norm": 1.0, **DECOUPLED},
    ),
    "keras-Lion-1e-3-weight_decay0.02": ("lion", [], {"lr": 1e-3, "weight_decay": 0.02}),
    "keras-Ftrl-0.1": ("ftrl", [], {"lr": 0.1}),
    "keras-RMSprop-0.01-rho0.95-epsilon1e-5-momentum0.9-float64": (
        "rmsprop",
        [INSIDE],
        {"lr": 0.01, "alpha": 0.95, "eps": 1e-5, "momentum": 0.9},
    ),
    "schedulefree-SGDScheduleFree-lr0.1": ("schedule_free_sgd", [], {"lr": 0.1}),
    "schedulefree-AdamWScheduleFree-lr0.01-weight_decay0.05": (
        "schedule_free_adamw",
        [],
        {"lr": 0.01, "weight_decay": 0.05},
    ),
    "torch-NAdam-lr2e-3-float64": ("nadam", [], {}),
    "torch-AdamW-lr1e-3-weight_decay0.1-warm-up-of-5-linear-to-0-True": (
        "adam",
        [],
        {"weight_decay": 0.1, **DECOUPLED},
        linear(1e-3, 35, 5),
        {"weight_decay": 0.0},
    ),
    "torch-SGD-lr0.05-momentum0.9-norm-2.0-float64": (
        "sgd",
        [],
        {"lr": 0.05, "momentum": 0.9, "clip_grad_norm": 2.0},
    ),
    "torch-Adam-lr1e-3-betas-0.9-0.98-value-0.5": (
        "adam",
        [],
        {"betas": (0.9, 0.98), "clip_grad_value": 0.5},
    ),
    "transformers-4.40.0-AdamW-lr0.01-weight_decay0.1-float64": (
        "adam",
        [BEFORE, AFTER],
        {"lr": 0.01, "eps": 1e-6, "weight_decay": 0.1, **DECOUPLED},
    ),
    "transformers-4.40.0-AdamW-lr1e-3-weight_decay0.01-correct_biasFalse-True": (
        "adam",
        [BERT, AFTER],
        {"eps": 1e-6, "weight_decay": 0.01, **DECOUPLED},
        None,
        {"weight_decay": 0.0},
    ),
    "lion-pytorch-Lion-lr1e-3-weight_decay0.5-decoupled_weight_decayTrue": (
        "lion",
        [("decay", "without lr: p shrinks by 1 − λ")],
        {"lr": 1e-3, "weight_decay": 0.5},
    ),
    "timm-RMSpropTF-lr2e-3-alpha0.95-eps1e-2-momentum0.5-weight_decay1e-2-True": (
        "rmsprop",
        [INSIDE, ("start", "the mean of squares starts at 1"), BUFFER],
        {"lr": 2e-3, "alpha": 0.95, "eps": 1e-2, "momentum": 0.5, "weight_decay": 1e-2},
        None,
        {"weight_decay": 0.0},
    ),
    "timm-NAdamW-lr5e-3-betas-0.85-0.99-weight_decay0.2": (
        "nadam",
        [TIMM],
        {"lr": 5e-3, "betas": (0.85, 0.99), "weight_decay": 0.2, **DECOUPLED},
    ),
    "timm-NAdamLegacy-lr1e-2-float64": (
        "nadam",
        [("schedule", "its product in float64, not in float32")],
        {"lr": 1e-2},
    ),
    "timm-Lamb-lr4e-3-betas-0.9-0.99-weight_decay0.1-linear-to-0-True": (
        "lamb",
        [],
        {"betas": (0.9, 0.99), "weight_decay": 0.1, "clip_by_global_norm": 1.0},
        linear(4e-3, 40),
    ),
    "timm-Lion-lr5e-4-betas-0.9-0.95-weight_decay0.3-cosine-to-a-tenth": (
        "lion",
        [],
        {"betas": (0.9, 0.95), "weight_decay": 0.3},
        cosine(5e-4, 40, low=5e-5),
    ),
    "timm-SGDW-lr0.1-momentum0.8-weight_decay5e-2-nesterovTrue-float64": (
        "sgd",
        [SHRINKS],
        {"lr": 0.1, "momentum": 0.8, "weight_decay": 0.05, "nesterov": True},
    ),
    "timm-Lars-lr0.3-momentum0.9-weight_decay1e-4": (
        "lars",
        [],
        {"lr": 0.3, "weight_decay": 1e-4},
    ),
    "torch_optimizer-QHAdam-lr3e-3-betas-0.95-0.999-nus-0.8-0.9-float64": (
        "qhadam",
        [],
        {"lr": 3e-3, "betas": (0.95, 0.999), "nus": (0.8, 0.9)},
    ),
    "torch_optimizer-QHM-lr0.05-momentum0.95-nu0.7": ("qhm", [], {"lr": 0.05, "momentum": 0.95}),
    "torch_optimizer-Yogi-lr5e-3-betas-0.9-0.99-eps1e-2-times-0.95-each": (
        "yogi",
        [],
        {"betas": (0.9, 0.99), "eps": 1e-2},
        exponential(5e-3),
    ),
    "torch_optimizer-AdaBound-lr5e-3-final_lr0.05-gamma1e-2-float64": (
        "adabound",
        [],
        {"lr": 5e-3, "final_lr": 0.05, "gamma": 1e-2},
    ),
    "torch_optimizer-AdaBelief-lr2e-3-eps1e-8-rectifyFalse-weight_decoupleFalse": (
        "adabelief",
        [],
        {"lr": 2e-3, "eps": 1e-8, "eps_root": 1e-8},
    ),
    "torch_optimizer-Lamb-lr2e-3-betas-0.8-0.99-weight_decay0.05-float64": (
        "lamb",
        [BERT],
        {"lr": 2e-3, "betas": (0.8, 0.99), "weight_decay": 0.05},
    ),
    "pytorch_optimizer-LARS-lr0.5-momentum0.9-weight_decay1e-3": (
        "lars",
        [],
        {"lr": 0.5, "weight_decay": 1e-3},
        None,
        ("sgd", {"lr": 0.5, "momentum": 0.9}),
    ),
    "pytorch_optimizer-Lion-lr1e-3-weight_decay0.05-warm-up-of-10-cosine-True": (
        "lion",
        [],
        {"weight_decay": 0.05},
        cosine(1e-3, 30, 10),
        {"weight_decay": 0.0},
    ),
    "pytorch_optimizer-QHAdam-lr5e-3-nus-0.6-1.0-weight_decay0.1-weight_decoupleTrue": (
        "qhadam",
        [],
        {"lr": 5e-3, "nus": (0.6, 1.0), "weight_decay": 0.1, **DECOUPLED},
    ),
    "pytorch_optimizer-StableAdamW-lr5e-3-betas-0.9-0.95-weight_decay0.1-True": (
        "stable_adamw",
        [],
        {"lr": 5e-3, "betas": (0.9, 0.95), "weight_decay": 0.1},
    ),
    "optax-lion-3e-4-b10.95-b20.98-weight_decay1.0-float64": (
        "lion",
        [],
        {"lr": 3e-4, "betas": (0.95, 0.98), "weight_decay": 1.0},
    ),
    "optax-yogi-5e-3-b20.99-eps1e-2-float64": (
        "yogi",
        [],
        {"lr": 5e-3, "betas": (0.9, 0.99), "eps": 1e-2},
    ),
    "optax-adabelief-1e-2-b20.99-eps1e-6-eps_root1e-6": (
        "adabelief",
        [],
        {"lr": 1e-2, "betas": (0.9, 0.99), "eps": 1e-6, "eps_root": 1e-6},
    ),
    "optax-lamb-5e-3-b20.99-eps1e-5": (
        "lamb",
        [],
        {"lr": 5e-3, "betas": (0.9, 0.99), "eps": 1e-5},
    ),
    "optax-sgd-0.1-momentum0.9-nesterovTrue-warm-up-of-5-linear-to-0": (
        "sgd",
        [],
        {"momentum": 0.9, "nesterov": True},
        linear(0.1, 35, 5),
    ),
    "optax-adam-5e-3-b10.95-value-0.1-float64": (
        "adam",
        [],
        {"lr": 5e-3, "betas": (0.95, 0.999), "clip_grad_value": 0.1},
    ),
    "keras-Lion-3e-4-beta_20.98-a-tenth-from-15-on": (
        "lion",
        [],
        {"betas": (0.9, 0.98)},
        later(3e-4),
    ),
    "keras-Ftrl-0.05-l1_regularization_strength0.01-l2_regularization_strength0.1-float64": (
        "ftrl",
        [],
        {"lr": 0.05, "l1": 0.01, "l2": 0.1},
    ),
    "keras-Lamb-5e-3": ("lamb", [], {"lr": 5e-3, "eps": 1e-7}),
    "keras-Adam-3e-3-epsilon1e-5-cosine": ("adam", [BEFORE], {"eps": 1e-5}, cosine(3e-3, 40)),
    "schedulefree-SGDScheduleFree-lr0.5-momentum0.8-float64": (
        "schedule_free_sgd",
        [],
        {"lr": 0.5, "momentum": 0.8},
    ),
    "schedulefree-AdamWScheduleFree-lr5e-3-betas-0.95-0.99-True": (
        "schedule_free_adamw",
        [],
        {"lr": 5e-3, "betas": (0.95, 0.99)},
    ),
    "torch-NAdam-lr5e-3-betas-0.9-0.99-weight_decay0.01-decoupled_weight_decayTrue-float64": (
        "nadam",
        [],
        {"lr": 5e-3, "betas": (0.9, 0.99), "weight_decay": 0.01, **DECOUPLED},
    ),
    "torch-AdamW-lr3e-3-betas-0.9-0.95-weight_decay0.1-cosine-to-a-tenth-True-norm-1.0": (
        "adam",
        [],
        {"betas": (0.9, 0.95), "weight_decay": 0.1, "clip_grad_norm": 1.0, **DECOUPLED},
        cosine(3e-3, 40, low=3e-4),
        {"weight_decay": 0.0},
    ),
    "torch-SGD-lr0.1-momentum0.9-weight_decay5e-4-a-tenth-from-15-on-True": (
        "sgd",
        [],
        {"momentum": 0.9, "weight_decay": 5e-4},
        later(0.1),
        {"weight_decay": 0.0},
    ),
    "torch-RMSprop-lr1e-3-alpha0.9-momentum0.9-times-0.95-each": (
        "rmsprop",
        [],
        {"alpha": 0.9, "momentum": 0.9},
        exponential(1e-3),
    ),
    "torch-Adagrad-lr0.05-linear-to-0-float64": ("adagrad", [], {}, linear(0.05, 40)),
    "transformers-4.40.0-AdamW-lr5e-3-betas-0.9-0.98-weight_decay0.05-linear-to-0-True": (
        "adam",
        [BEFORE, AFTER],
        {"betas": (0.9, 0.98), "eps": 1e-6, "weight_decay": 0.05, **DECOUPLED},
        linear(5e-3, 40),
        {"weight_decay": 0.0},
    ),
    "transformers-4.40.0-AdamW-lr2e-3-weight_decay0.1-correct_biasFalse-float64": (
        "adam",
        [BERT, AFTER],
        {"lr": 2e-3, "eps": 1e-6, "weight_decay": 0.1, **DECOUPLED},
    ),
    "lion-pytorch-Lion-lr2e-4-betas-0.95-0.98-weight_decay1.0-True": (
        "lion",
        [],
        {"lr": 2e-4, "betas": (0.95, 0.98), "weight_decay": 1.0},
        None,
        {"weight_decay": 0.0},
    ),
    # Loops, whose biases are all alike.
    "own-adam-without-correction": ("adam", [BERT], {}),
    "own-sgd-with-decay-after-momentum": (
        "sgd",
        [SHRINKS],
        {"lr": 0.05, "momentum": 0.9, "weight_decay": 5e-3},
    ),
    "optax-accumulating-by-4": ("adam", [], {"lr": 3e-3, "weight_decay": 0.05, **DECOUPLED}),
    "clipped-adamw-with-two-groups": (
        "adam",
        [],
        {"betas": (0.9, 0.95), "weight_decay": 0.1, **DECOUPLED},
        Rate("constant", {"lr": 3e-3}, 10),
        {"weight_decay": 0.0},
    ),
    "inverse-square-root-of-transformers": (
        "adam",
        [],
        {"betas": (0.9, 0.98), "eps": 1e-9},
        Rate("inverse root", {"lr": 5e-3, "shift": 8.0}, 8, 0.0),
    ),
    "keras-cosine-with-restarts": (
        "sgd",
        [BUFFER],
        {"momentum": 0.9},
        Rate("cosine with restarts", {"lr": 0.05, "T_0": 10, "T_mult": 1, "eta_min": 0.0}),
    ),
    "lion-with-a-schedule": ("lion", [], {"weight_decay": 0.1}, cosine(1e-3, 34, 6, 0.0)),
    "layerwise-decay-of-the-rate": (
        "adam",
        [],
        {"weight_decay": 0.05, **DECOUPLED},
        None,
        {"lr": "layers"},
    ),
    "adafactor-of-transformers": (
        "adafactor",
        [ADDED, ("rate", "lr at every step, whatever the size of the parameter")],
        {"lr": 1e-3, "eps": (1e-30, 1e-3)},
    ),
}


def candidate(optimizer, spoken, settings, rate=None):
    chosen = tuple(d for d in of(optimizer) if (d.about, d.name) in spoken)
    assert len(chosen) == len(spoken)
    return Candidate(optimizer, chosen, defaults(optimizer) | settings, (), rate)


def made(name, tensor):
    """What made a tensor of that record."""
    optimizer, spoken, settings, rate, of_b = (*MADE_BY[name], None, None)[:5]
    if of_b == {"lr": "layers"}:
        lr = float(f"{2e-3 * 0.75 ** (3 - int(tensor[0]) // 2):.12g}")  # as one writes it
        return candidate(optimizer, spoken, settings | {"lr": lr})
    if of_b and tensor.rpartition(".")[2] in ("b", "bias"):
        if isinstance(of_b, tuple):
            return candidate(of_b[0], [], of_b[1])
        settings = settings | of_b
    return candidate(optimizer, spoken, settings, rate)


def test_every_recorded_trajectory_is_known():
    known = {p.stem for folder in ("libraries", "loops") for p in (TRAJECTORIES / folder).iterdir()}
    assert known == MADE_BY.keys() | UNKNOWN


@pytest.mark.parametrize("name", MADE_BY)
def test_a_library_is_reproduced_by_its_rule(name):
    record = trajectory.read(PATHS[name])
    for i, tensor in enumerate(record.names):
        right = made(name, tensor)
        match = judged.judged(right, record.tensor(i))
        assert match.reproduced, tensor
        if right.rate is None and "clip_grad_norm" not in right.settings:
            lr = 1.01 * right.settings["lr"]
            wrong = replace(right, settings={**right.settings, "lr": lr})
            assert judged.judged(wrong, record.tensor(i)).leaves is not None, tensor


def test_a_moment_that_forgets_nothing_is_no_excuse():
    """QHAdam's movement, missed by 18 %, lies within the floor of a β₂ that one ulp moves far."""
    path = PATHS["torch_optimizer-QHAdam-lr0.01-nus-0.7-1.0-25-True"]
    settings = {"lr": 3e-5, "betas": (0.7, 0.999999), "amsgrad": True}
    match = judged.judged(candidate("adam", [], settings), trajectory.read(path))
    assert match.leaves == 1


def same(found, right):
    """Whether a candidate says what made the tensor: its name, dialects, settings and rate."""
    without = {"lr"} if right.rate else set()
    settings = {n: v for n, v in right.settings.items() if n not in without}
    return (
        (found.optimizer, set(found.dialects)) == (right.optimizer, set(right.dialects))
        and all(found.settings.get(n, False) == v for n, v in settings.items())
        and found.rate == right.rate
    )


@pytest.mark.parametrize(
    ("name", "optimizers"),
    [
        ("torch_optimizer-QHAdam-lr0.01-nus-0.7-1.0-25-True", ["adam", "qhadam"]),
        ("torch-NAdam-lr2e-3-float64", ["nadam"]),
        (
            "keras-Ftrl-0.05-l1_regularization_strength0.01-l2_regularization_strength0.1-float64",
            ["ftrl"],
        ),
        ("lion-pytorch-Lion-lr1e-3-weight_decay0.5-decoupled_weight_decayTrue", ["lion"]),
        ("optax-adabelief-1e-2-b20.99-eps1e-6-eps_root1e-6", ["adabelief"]),
        pytest.param("layerwise-decay-of-the-rate", ["adam"], marks=pytest.mark.sweep),
        pytest.param("keras-cosine-with-restarts", ["sgd"], marks=pytest.mark.sweep),
        pytest.param("keras-Adam-3e-3-epsilon1e-5-cosine", ["adam"], marks=pytest.mark.sweep),
        pytest.param(
            "transformers-4.40.0-AdamW-lr5e-3-betas-0.9-0.98-weight_decay0.05-linear-to-0-True",
            ["adam"],
            marks=pytest.mark.sweep,
        ),
    ],
)
def test_one_is_named_with_the_settings_that_made_it(name, optimizers):
    answers, _ = search.search(trajectory.read(PATHS[name]), names=optimizers)
    assert answers[0].reproduced
    for tensor in answers[0].tensors:
        assert same(tensor.match.candidate, made(name, tensor.name)), tensor.match.candidate


def test_the_nearest_is_not_absurd():
    """Nothing of these makes DiffGrad's steps."""
    record = trajectory.read(PATHS["torch_optimizer-DiffGrad-lr0.01"])
    answers, _ = search.search(record, names=["sgd", "adam"], budget=1.0)
    assert not answers[0].reproduced
    for tensor in answers[0].tensors:
        assert tensor.match.candidate.settings["lr"] <= 1
        assert tensor.match.off > 0


@pytest.mark.sweep
@pytest.mark.parametrize("name", PATHS)
def test_none_is_named_wrongly_and_none_takes_too_long(name):
    """Prints what the README counts: `pytest --sweep -rP`, with this file's name."""
    began = time.process_time()
    record = trajectory.read(PATHS[name])
    answers, clock = search.search(record)
    seconds = time.process_time() - began
    said = (
        [all(same(t.match.candidate, made(name, t.name)) for t in a.tensors) for a in answers]
        if name in MADE_BY
        else []
    )
    print(
        f"{seconds:6.1f} s",
        "named"
        if said and said[0]
        else "named beside others"
        if any(said)
        else answers[0].reproduced,
        name,
    )
    assert not clock.skipped
    assert answers[0].reproduced == (name not in UNKNOWN)
    if name in MADE_BY:
        optimizer = MADE_BY[name][0]
        assert optimizer in {a.match.candidate.optimizer for a in answers}
