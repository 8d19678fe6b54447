"""One name for a rule, its mirror, its definition and its samples; and what adding one takes."""

import inspect
import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from gradtwin.comparisons import ops
from gradtwin.comparisons.ops import evaluate, optimizers
from gradtwin.comparisons.ops.bad_calls import UNSAFE
from gradtwin.comparisons.verdict.noise import moved
from gradtwin.manual.trees import leaves

from gradtwin import manual, reference

ROOT = Path(__file__).parents[3]


def test_families_are_found_without_torch():
    code = (
        "import sys; from gradtwin.comparisons import ops; ops.names(); "
        "assert ops.named('gelu').family == 'activations'; print('torch' in sys.modules)"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.split() == ["False"]


def test_what_is_exchanged_is_seen_at_the_next_call(monkeypatch):
    relu = ops.named("relu")
    other = object()
    monkeypatch.setattr(manual.activations, "relu", other)
    assert relu.rule is other
    monkeypatch.setattr(reference.activations, "relu", None)
    assert relu.pair == (other, None)
    assert relu.facts.constant == ()


def test_an_unknown_name_is_answered_in_words():
    with pytest.raises(ValueError, match="unknown rule 'rely': did you mean relu"):
        ops.named("rely")
    with pytest.raises(ValueError, match="unknown optimizer 'adan': did you mean adam"):
        optimizers.named("adan")


@pytest.mark.parametrize("op", ops.names())
def test_facts_name_what_there_is(op):
    found = ops.named(op)
    facts, parameters = found.facts, inspect.signature(found.rule).parameters
    assert {*facts.constant, *facts.algorithm, *facts.order} <= set(parameters)
    assert not set(facts.without) & set(parameters)
    assert set(facts.unsafe) <= set(UNSAFE.values())
    assert all(hasattr(torch.ops.aten, name) for name in facts.fused)
    assert all(ops.called(name) == found for name in (op, *facts.also, *facts.reflected))


def test_names_that_torch_has_for_it():
    assert ops.called("truediv").name == ops.called("rtruediv").name == "div"
    assert ops.called("mm").name == "matmul"
    assert ops.called("clip").name == "clamp"
    assert ops.called("conv9d") is None
    x, y = np.ones(2), np.zeros(2)
    assert ops.named("sub").traced("rsub", (x, y), {}) == ((y, x), {})
    assert ops.named("sub").traced("sub", (x, y), {"alpha": 2}) == ((x, y), {"alpha": 2})
    assert ops.named("permute").traced("permute", (x, 0, 1), {}) == ((x, (0, 1)), {})
    assert ops.named("mse_loss").traced("mse_loss", (x, y), {"reduce": None}) == ((x, y), {})
    assert ops.named("embedding").bound(x, y, max_norm=1.0) == ((y, x), {"max_norm": 1.0})
    assert ops.named("where").bound(1, 2, 3) == ((2, 1, 3), {})


def test_without_a_definition_there_is_no_exact_value(monkeypatch):
    inputs = ((np.ones(2),), {}, np.ones(2))
    relu = ops.named("relu")
    assert relu.oracle(inputs)("x", (0,)) == 1
    monkeypatch.delattr(relu.exact.__module__ + ".relu")
    assert math.isnan(relu.oracle(inputs)("x", (0,)))


@pytest.mark.parametrize("optimizer", optimizers.every(), ids=lambda o: o.name)
def test_facts_of_an_optimizer_are_settings_of_its_rule(optimizer):
    facts, accepted = optimizer.facts, inspect.signature(optimizer.rule).parameters
    named = [*facts.free, *facts.start, *facts.single]
    named += [name for chosen in (*facts.choices, *facts.timed) for name in chosen]
    assert set(named) <= set(accepted)
    assert all(callable(optimizers.named(other).rule) for other in facts.alias[:1])
    assert all(isinstance(value, (float, tuple)) for value in optimizer.defaults.values())


RULE = '''

def square(x):
    """x²; the slope is 2x."""
    x = floating(x=x)

    def pullback(dy):
        return 2 * x * dy

    return x * x, pullback
'''

TRIED = """
import json, sys
import torch
from gradtwin import check, trace
from gradtwin.comparisons.gradients import coverage, table

rows = list(table.rows("square"))
row, cases = coverage.entry("square")
found = trace(lambda x: torch.square(x), torch.randn(3, requires_grad=True))
print(json.dumps({
    "gradients": sorted({r["class"] for r in rows}),
    "coverage": [row["rule"], row["samples"] == row["explained"] > 0, row["class"]],
    "check": check("square", torch.square).passed,
    "by hand": check("square", "square").passed,
    "trace": [[s.op, s.kind] for s in found.steps],
}))
"""


def inserted(path, text, before=None):
    source = path.read_text(encoding="utf-8")
    at = source.index(before) if before else len(source)
    path.write_text(source[:at] + text + source[at:], encoding="utf-8")


def test_an_op_is_three_insertions(tmp_path):
    package = tmp_path / "gradtwin"
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "gradtwin", package, ignore=ignore)
    for tree in ("manual", "reference", "comparisons"):
        shutil.copytree(ROOT / tree, package / tree, ignore=ignore)
    inserted(package / "manual" / "pointwise.py", RULE)
    inserted(package / "reference" / "pointwise.py", "square = rule(torch.square)\n")
    samples = package / "comparisons" / "samples" / "pointwise.py"
    inserted(samples, '    "square": [call(array(3, 4))],\n', before='    "exp":')
    found = subprocess.run(
        [sys.executable, "-c", TRIED],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, found.stderr
    told = json.loads(found.stdout)
    assert set(told["gradients"]) <= {"identical", "rounding"}
    assert told["coverage"][:2] == ["square", True]
    assert told["coverage"][2] in ("identical", "rounding")
    assert told["check"]
    assert told["by hand"]
    assert told["trace"][0][0] == "square"
    assert told["trace"][0][1] in ("identical", "rounding")


def test_a_setting_that_a_length_follows_from_is_held_still():
    """Noise of 10⁻³ on 2.0 would make 127 of 64 elements."""
    x, factors = np.ones((1, 1, 64)), (2.0, 1.5)
    for args, kwargs in (((x, None, 2.0), {}), ((x,), {"scale_factor": factors, "mode": "linear"})):
        held = ops.named("interpolate").held(args, kwargs)
        assert held == (args, kwargs)
        given = moved(held, 1e-3, np.random.default_rng(0))
        assert leaves(given)[1:] == leaves((args, kwargs))[1:]
    assert moved(2.0, 1e-3, np.random.default_rng(0)) != 2.0


@pytest.mark.thinned(2)
@pytest.mark.parametrize("op", ops.names())
def test_noise_makes_no_call_of_another_shape(op):
    for _, row in ops.named(op).rows():
        args, kwargs, _ = evaluate.drawn(op, row, "float64", 0)
        for seed in range(4):
            there = moved((args, kwargs), 1e-12, np.random.default_rng(seed))
            here, other = (
                [np.shape(y) for y in leaves(ops.named(op).mirror(*a, **k)[0])]
                for a, k in ((args, kwargs), there)
            )
            assert here == other, row
