"""Every optimizer beside torch's, on streams with zeros, tiny and huge gradients."""

import inspect
import math
import tracemalloc
import warnings

import numpy as np
import pytest
import torch
from gradtwin.comparisons.ops.optimizers import configurations, every
from gradtwin.comparisons.optimizers import memory, noisy, runs, streams, table
from gradtwin.comparisons.optimizers.streams import STREAMS
from gradtwin.comparisons.samples.optimizers import SAMPLES
from gradtwin.comparisons.verdict import floor
from gradtwin.comparisons.verdict.classes import DTYPES
from gradtwin.comparisons.verdict.noise import moved
from torch.testing._internal.common_optimizers import optim_db

from gradtwin import manual, reference

KINDS = list(STREAMS)
NAMES = pytest.mark.parametrize("name", SAMPLES)
EACH_DTYPE = pytest.mark.parametrize("dtype", DTYPES)


def cases(name):
    """Every configuration, and the stream that it is tried on."""
    return [
        (settings, "fading" if name == "lbfgs" else KINDS[i % 3])
        for i, settings in enumerate(configurations(name))
    ]


def steps_by_hand(name, settings, stream):
    return runs.free_run(getattr(manual.optimizers, name), stream, settings)


@NAMES
@EACH_DTYPE
def test_every_configuration_of_torchs_own_tests_is_rounding(name, dtype, held, sweep):
    """Half of them in each dtype, with --sweep all in both."""

    def holds(case):
        settings, kind = case
        rows = table.rows(name, settings, dtype, kind, seed=1, steps=12)
        print({r["quantity"]: (r["lockstep_margin"], r["max_ratio"]) for r in rows})
        assert {r["class"] for r in rows} <= {"identical", "rounding"}

    known = cases(name)
    half = slice(DTYPES.index(dtype), None, 2)
    held(holds, known if sweep or len(known) < 2 else known[half])


@pytest.mark.thinned(2)
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(o.name, marks=pytest.mark.sweep if i % 2 else ())
        for i, o in enumerate(o for o in every() if o.facts.elementwise)
    ],
)
def test_a_thousand_steps_are_rounding(name):
    rows = table.rows(name, SAMPLES[name][0], "float32", seed=1)
    assert {r["class"] for r in rows} <= {"identical", "rounding"}
    assert {r["step"] for r in rows} == {1, 10, 100, 1000}
    assert all(np.isfinite(r["torch_spread"]) for r in rows)


@pytest.mark.parametrize("name", [name for name in SAMPLES if name != "lbfgs"])
def test_the_pure_step_equals_an_optimizer_that_is_kept(name, held):
    """Bit for bit, though it is built anew around its state at every step. (L-BFGS always is.)"""
    twin = getattr(reference.optimizers, name)

    def holds(case):
        settings, kind = case
        stream = streams.stream_of(name, kind, "float32", 0, 40)
        param, state = stream.param, {}
        kept = runs.torch_run(twin, stream, settings)
        for grad, (kept_param, kept_state) in zip(stream.given, kept, strict=True):
            param, state = twin(param, grad, state, **settings)
            assert np.array_equal(param, kept_param)
            assert state.keys() == kept_state.keys()
            assert all(np.array_equal(state[k], kept_state[k]) for k in state)

    held(holds, cases(name))


def test_every_optimizer_of_torch_is_here():
    theirs = {
        cls.__name__.lower()
        for cls in vars(torch.optim).values()
        if inspect.isclass(cls) and issubclass(cls, torch.optim.Optimizer)
    } - {"optimizer"}
    ours = {
        name.replace("_", "")
        for name, f in vars(manual.optimizers).items()
        if inspect.isfunction(f) and "state" in inspect.signature(f).parameters and name[0] != "_"
    }
    assert theirs == ours == {name.replace("_", "") for name in SAMPLES}
    assert sum(len(configurations(name)) for name in SAMPLES) >= 91


@NAMES
@EACH_DTYPE
def test_a_step_is_pure(name, dtype):
    step, settings = getattr(manual.optimizers, name), SAMPLES[name][0]
    stream = streams.stream_of(name, "mixed", dtype, 0, 3)
    param, state = stream.param, {}
    for given in stream.given:
        before = repr((param, given, state))
        twice = [step(param, stream.by_hand(given), state, **settings) for _ in range(2)]
        assert repr((param, given, state)) == before
        first, second = (runs.named(*result) for result in twice)
        assert all(np.array_equal(first[n], second[n]) for n in first)
        assert first["param"].dtype == dtype
        param, state = twice[0]


def test_a_step_takes_any_layout_and_size():
    rng = np.random.default_rng(0)
    large = rng.standard_normal((2, 300, 70))
    for shape in ((), (0,), (1,), (3, 1, 2)):
        p, g = np.zeros(shape), np.ones(shape)
        assert manual.optimizers.adam(p, g, {})[0].shape == shape
    whole, state = manual.optimizers.adam(*large, {})
    turned, other = manual.optimizers.adam(*(a.T for a in large), {})
    assert np.array_equal(whole.T, turned)
    assert np.array_equal(state["exp_avg"].T, other["exp_avg"])
    with pytest.raises(ValueError, match=r"state\['exp_avg'\]: expected shape \(2,\) and dtype"):
        manual.optimizers.adam(np.ones(2), np.ones(2), state)


def test_the_streams_have_zeros_and_tiny_and_huge_values():
    sizes = abs(streams.mixed(1000, 0))
    assert (sizes == 0).any()
    assert ((sizes > 0) & (sizes < 1e-7)).any()
    assert (sizes > 1e4).any()
    assert all(make(50, 0).shape == (50, 4, 6) for make in STREAMS.values())


# Settings that matter later, or only where they are met.
IDLE = {"asgd": "t0", "rprop": "step_sizes", "lbfgs": "tolerance_grad", "muon": "eps"}


@NAMES
def test_configurations_differ(name):
    ends, expected = set(), set()
    for settings in configurations(name):
        end = b""
        for kind in ("mixed", "trained"):
            stream = streams.stream_of(name, kind, "float64", 0, 2 if name == "lbfgs" else 8)
            *_, last = steps_by_hand(name, settings, stream)
            end += b"".join(a.tobytes() for a in runs.named(*last).values())
        ends.add(end)
        expected.add(repr({k: v for k, v in settings.items() if k != IDLE.get(name)}))
    assert len(ends) >= len(expected)


def bad_settings():
    """What torch's own tests expect to be refused, where it is about settings."""
    for info in optim_db:
        name = {"SparseAdam": "sparse_adam"}.get(info.name, info.name.lower())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            made = info.optim_error_inputs_func(device="cpu", dtype=torch.float32)
        for i, case in enumerate(made):
            settings = case.optimizer_error_input.kwargs
            values = [
                v
                for value in settings.values()
                for v in (value if isinstance(value, tuple) else [value])
            ]
            if settings and not any(isinstance(v, torch.Tensor) for v in values):
                yield pytest.param(name, settings, id=f"{name}-{i}")


OURS = [
    ("sgd", {"lr": -1.0}),
    ("sgd", {"weight_decay": -1.0}),
    ("sgd", {"nesterov": True}),
    ("sgd", {"nesterov": True, "momentum": 0.9, "dampening": 0.1}),
    ("rmsprop", {"alpha": -0.1}),
    ("rmsprop", {"eps": -1.0}),
    ("adagrad", {"initial_accumulator_value": -1.0}),
    ("adam", {"betas": (0.9, -0.1)}),
    ("adam", {"eps": -1.0}),
    ("adadelta", {"eps": -1.0}),
    ("adamax", {"lr": -1.0}),
    ("radam", {"eps": -1.0}),
    ("asgd", {"lr": -1.0}),
    ("adafactor", {"eps": (None, -1.0)}),
    ("adafactor", {"weight_decay": -1.0}),
    ("muon", {"momentum": -1.0}),
    ("muon", {"ns_steps": 100}),
    ("sparse_adam", {"lr": 0.0}),
    ("sparse_adam", {"eps": 0.0}),
    ("lbfgs", {"lr": -1.0}),
]


@pytest.mark.parametrize(("name", "settings"), [*bad_settings(), *OURS])
def test_refuses_what_torch_refuses(name, settings):
    stream = streams.stream_of(name, "mixed", "float64", 0, 1)
    with pytest.raises(ValueError, match=r"(?i)invalid|nesterov|should be|not supported|less than"):
        list(runs.torch_run(getattr(reference.optimizers, name), stream, settings))
    with pytest.raises(ValueError, match="|".join(settings)):
        list(steps_by_hand(name, settings, stream))


def test_names_what_does_not_fit():
    o = manual.optimizers
    with pytest.raises(ValueError, match=r"grad: expected the shape of param, \(2,\), got \(3,\)"):
        o.sgd(np.ones(2), np.ones(3), {})
    with pytest.raises(TypeError, match="grad: expected the dtype of param, float64, got float32"):
        o.rprop(np.ones(2), np.ones(2, np.float32), {})
    with pytest.raises(TypeError, match="param: expected a floating array, got dtype int64"):
        o.adam(np.array([1]), np.ones(1), {})
    with pytest.raises(ValueError, match=r"param: expected a matrix, got shape \(2,\)"):
        o.muon(np.ones(2), np.ones(2), {})
    with pytest.raises(ValueError, match=r"values: expected shape \(1, 3\), got \(1, 2\)"):
        o.sparse_adam(np.ones((2, 3)), ([0], np.ones((1, 2))), {})
    with pytest.raises(ValueError, match="line_search_fn: expected None or 'strong_wolfe'"):
        o.lbfgs([np.ones(2)], None, {}, line_search_fn="armijo")


# Two, but where wide matrices are multiplied, and where a line search holds two points.
TEMPORARIES = {"muon": 3, "lbfgs": 5}


@NAMES
def test_a_large_step_makes_few_temporaries(name):
    """Beside the results, in multiples of the parameter, which has 10⁷ elements, or 10⁶ where no
    block is beside it."""
    param = np.ones((50, 20_000 if name in TEMPORARIES else 200_000), np.float32)
    grad = ([1, 2], param[:2]) if name == "sparse_adam" else param
    allowed = (TEMPORARIES.get(name, 2) + 0.01) * param.nbytes
    step, settings = getattr(manual.optimizers, name), SAMPLES[name][-1]
    if name == "lbfgs":
        weights = np.linspace(1, 2, param.size, dtype=np.float32)
        param = [param]

        def grad(params):
            gradient = weights * params[0].ravel()
            return float(gradient @ params[0].ravel()) / 2, [gradient]

    state = step(param, grad, {}, **settings)[1]
    tracemalloc.start()
    results = step(param, grad, state, **settings)
    kept, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    del results  # which were alive until here, so that they are in what was kept
    assert peak - kept <= allowed


def test_lbfgs_takes_the_same_decisions_as_torch():
    """In whole steps of many iterations. Each iteration is judged by itself above."""
    for settings in configurations("lbfgs"):
        upwards = settings.get("maximize", False)
        stream = streams.stream_of("lbfgs", "trained", "float64", 0, 2, upwards)
        ours = steps_by_hand("lbfgs", settings, stream)
        theirs = runs.torch_run(reference.optimizers.lbfgs, stream, settings)
        for (_, state), (_, state_torch) in zip(ours, theirs, strict=True):
            for count in ("n_iter", "func_evals"):
                assert state[count] == state_torch[count]


def test_a_loss_answers_from_memory_where_it_was_asked_and_elsewhere_evaluates():
    asked, known = [], []

    def loss(params):
        asked.append(params)
        return np.float32(7), [np.full_like(p, len(asked)) for p in params]

    first, second = [np.ones(3, np.float32)], [np.full(3, 1.1, np.float32)]
    watched = memory.remembering(loss, known)
    assert [float(watched(params)[1][0][0]) for params in (first, second)] == [1, 2]
    again = memory.replayed(loss, known)
    nearly = [np.nextafter(second[0], np.float32(2))]
    assert [again(params)[1][0][0] for params in (nearly, first, second)] == [2, 1, 2]
    assert again([np.full(3, 1.05, np.float32)])[1][0][0] == 3
    assert len(asked) == 3
    assert known[0][1].dtype == np.float32


@pytest.mark.parametrize(("dtype", "other"), [("float64", 1e-6), ("float32", 1e-2)])
def test_another_place_is_what_no_draw_of_noise_would_reach(dtype, other):
    def loss(params):
        return np.asarray(params[0].sum()), [params[0]]

    known = []
    place = [np.linspace(-1, 1, 5).astype(dtype)]
    memory.remembering(loss, known)(place)
    u = np.finfo(dtype).eps / 2
    answers = memory.replayed(loss, known)
    for size, same in ((0, True), (floor.LARGE * u, True), (other, False)):
        there = [moved(place[0], size, np.random.default_rng(0))]
        assert (answers(there)[1][0] is place[0]) == same


def test_noise_inside_of_a_step_moves_what_is_computed_in_16_bits_alone():
    for name, halves in (("muon", True), ("adafactor", False)):
        stream = streams.stream_of(name, "mixed", "float32", 0, 5)
        twin = getattr(reference.optimizers, name)
        steps = runs.recorded(twin, stream, {})
        noise = noisy.noise_in_16_bits(twin, steps, {})
        assert [bool(movement) for movement in noise] == [halves] * 5
        if halves:  # of the parameter, which steps by 1e-3, by a part of that; not of the buffer
            assert all(1e-9 < abs(of_param).max() < 2e-4 for of_param, _ in noise)
            assert not any(of_buffer.any() for _, of_buffer in noise)


@pytest.mark.parametrize("name", ["muon", "lbfgs"])
def test_noisy_runs_feel_the_noise_inside(name, monkeypatch):
    """Far more than they feel that their parameters and gradients are moved."""
    stream = streams.stream_of(name, "trained", "float64", 0, 8)
    twin = getattr(reference.optimizers, name)
    settings = {"lr": 1e-3, **twin.facts.single}
    steps = runs.recorded(twin, stream, settings)
    theirs = runs.stacked(step.after for step in steps)["param"]

    def drift():
        found = noisy.noisy_runs(name, stream, settings, 0, steps)
        return max(float(abs(run["param"] - theirs).max()) for run in found)

    with_noise = drift()
    monkeypatch.setattr(noisy, "_shaken", lambda tree, *_: tree)
    print(with_noise, drift())
    assert with_noise > 4 * drift()


def test_the_noise_of_a_loss_is_measured_where_each_step_is_taken():
    stream = streams.stream_of("lbfgs", "mixed", "float64", 0, 3)
    steps = runs.recorded(reference.optimizers.lbfgs, stream, {"max_iter": 1})
    for t, step in enumerate(steps):
        _, ((params, loss, gradients), *_) = step.given
        assert all(map(np.array_equal, params, step.param))
        noise = noisy.noise_of_loss(stream, step, 2.0**-52, t)
        moved = [
            abs(n).max() / abs(a).max() for n, a in zip(noise, (loss, *gradients), strict=True)
        ]
        print(moved)
        assert 0 < max(moved) < 1e-12


RIGHT = {name: getattr(manual.optimizers, name) for name in SAMPLES}


# Planted faults: (name, settings) and a wrong step; each is different from the step named.
def eps_inside_the_root(param, grad, state, *, lr=0.01):
    _, state = RIGHT["rmsprop"](param, grad, state, lr=lr)
    return param - lr * (grad / np.sqrt(state["square_avg"] + 1e-8)), state


def accumulates_sizes(param, grad, state, *, lr=0.01):
    total = state.get("sum", 0) + abs(grad)
    step = np.asarray(state.get("step", 0) + 1, np.float32)
    return param - lr * (grad / (np.sqrt(total) + 1e-10)), {"step": step, "sum": total}


def forgets_the_maximum(param, grad, state, *, amsgrad=True):
    forgetful = {**state, "max_exp_avg_sq": np.zeros_like(param)} if state else {}
    return RIGHT["adam"](param, grad, forgetful, amsgrad=True)


def without_bias_correction(param, grad, state, *, lr=1e-3):
    _, state = RIGHT["adam"](param, grad, state, lr=lr)
    return param - lr * state["exp_avg"] / (np.sqrt(state["exp_avg_sq"]) + 1e-8), state


def decays_after_the_step(param, grad, state, *, lr=0.01, weight_decay=0.1):
    stepped, state = RIGHT["adamw"](param, grad, state, lr=lr, weight_decay=0.0)
    return stepped * (1 - lr * weight_decay), state


def forgets_to_turn_the_decay(param, grad, state, *, weight_decay=0.1, maximize=True):
    return RIGHT["sgd"](param, grad + weight_decay * param, state, maximize=True)


def counts_from_zero(param, grad, state, *, lr=2e-3):
    behind = {**state, "step": state["step"] - 1} if state else state
    stepped, new = RIGHT["adamax"](param, grad, behind, lr=lr)
    return stepped, {**new, "step": new["step"] + (1 if state else 0)}


def squares_the_mean(param, grad, state, *, lr=2e-3):
    stepped, new = RIGHT["nadam"](param, grad, state, lr=lr)
    old = state.get("exp_avg_sq", 0)
    return stepped, {**new, "exp_avg_sq": 0.999 * old + 0.001 * new["exp_avg"] ** 2}


def does_not_clip(param, grad, state, *, lr=1e-2):
    return RIGHT["adafactor"](param, grad, state, lr=lr, d=math.inf)


def evaluates_beside(params, closure, state, **settings):
    return RIGHT["lbfgs"](params, lambda at: closure([1.01 * p for p in at]), state, **settings)


def keeps_the_first_scale(params, closure, state, **settings):
    new, state = RIGHT["lbfgs"](params, closure, state, **settings)
    return new, {**state, "H_diag": 1}


def undoes_the_oldest_first(params, closure, state, **settings):
    turned = {k: v[::-1] for k, v in state.items() if k in ("old_dirs", "old_stps", "ro")}
    return RIGHT["lbfgs"](params, closure, {**state, **turned}, **settings)


@pytest.mark.thinned(5)
@pytest.mark.parametrize(
    ("name", "settings", "wrong", "quantity", "step"),
    [
        ("rmsprop", {}, eps_inside_the_root, "param", 1),
        ("adagrad", {}, accumulates_sizes, "sum", 1),
        ("adam", {"amsgrad": True}, forgets_the_maximum, "max_exp_avg_sq", 3),
        ("adam", {}, without_bias_correction, "param", 1),
        ("adamw", {"lr": 0.01, "weight_decay": 0.1}, decays_after_the_step, "param", 1),
        ("sgd", {"weight_decay": 0.1, "maximize": True}, forgets_to_turn_the_decay, "param", 1),
        ("adamax", {}, counts_from_zero, "param", 2),
        ("nadam", {}, squares_the_mean, "exp_avg_sq", 1),
        ("adafactor", {}, does_not_clip, "param", 1),
        ("lbfgs", {}, evaluates_beside, "prev_flat_grad", 1),
        ("lbfgs", {}, keeps_the_first_scale, "H_diag", 2),
        ("lbfgs", {}, undoes_the_oldest_first, "param", 4),
    ],
)
@EACH_DTYPE
def test_planted_faults_are_different(name, settings, wrong, quantity, step, dtype, monkeypatch):
    monkeypatch.setattr(manual.optimizers, name, wrong)
    rows = table.rows(name, settings, dtype, steps=10)
    found = [r for r in rows if r["class"] == "different" and r["quantity"] == quantity]
    assert found
    assert found[-1]["outside_step"] == step
