"""gradtwin show: what it says of torch, of kinks, and what it draws."""

import numpy as np
import pytest
from gradtwin.comparisons import ops
from gradtwin.comparisons.cli.app import app
from gradtwin.comparisons.show import anatomy, elementwise
from gradtwin.comparisons.show.elementwise import HEIGHT, WIDTH
from typer.testing import CliRunner


def shown(*arguments):
    return CliRunner().invoke(app, ["show", *map(str, arguments)])


@pytest.mark.thinned(6)
@pytest.mark.parametrize("op", ops.names())
def test_every_op_is_shown(op):
    result = shown(op)
    assert result.exit_code == 0, result.output
    assert f"def {op}" in result.output
    assert f"\n  {op}(" in result.output


@pytest.mark.parametrize(
    ("op", "nodes", "backward"),
    [
        ("gelu", ["GeluBackward0"], ["gelu_backward"]),
        ("tanh", ["TanhBackward0"], ["tanh_backward"]),
        ("sub", ["SubBackward0"], ["neg"]),
    ],
)
def test_the_nodes_and_the_functions_of_torch(op, nodes, backward):
    found, _, ran = anatomy.anatomy(op)
    assert found == nodes
    assert ran == backward


def test_the_side_that_torch_follows_at_a_kink():
    found = {
        op: {(r["x"], r["left"], r["right"], r["torch"], r["convention"]) for r in rows}
        for op in ("relu", "leaky_relu", "hardtanh", "hardswish", "tanh")
        for rows in [list(elementwise.corners(op))]
    }
    assert found["relu"] == {(0, 0, 1, 0, "left")}
    assert (1, 1, 0, 0, "right") in found["hardtanh"]
    assert (-1, 0, 1, 0, "left") in found["hardtanh"]
    assert {r[4] for r in found["leaky_relu"]} == {"left"}
    assert {(r[0], r[4]) for r in found["hardswish"]} == {(-3, "left"), (3, "right")}
    assert not found["tanh"]


def test_value_and_slope_are_drawn(tmp_path):
    x, y, slope = elementwise.plotted("relu")
    assert np.array_equal(y, np.maximum(x, 0))
    assert np.array_equal(slope, x > 0)
    assert elementwise.plotted("matmul") is None
    output = shown("relu", "--save", tmp_path / "relu.png").output
    lines = output.rpartition("slope ∘\n")[2].splitlines()[:HEIGHT]
    rises = [line[9:].index("•") for line in lines if "•" in line]
    assert rises == sorted(rises, reverse=True)
    assert lines[-1].count("•") > WIDTH / 2 - 2
    assert sum(line.count("∘") for line in lines) > WIDTH / 3
    assert (tmp_path / "relu.png").read_bytes().startswith(b"\x89PNG")
    wrong = shown("matmul", "--save", tmp_path / "matmul.png")
    assert wrong.exit_code == 2
    assert "element by element" in " ".join(wrong.output.split())
    assert not (tmp_path / "matmul.png").exists()
