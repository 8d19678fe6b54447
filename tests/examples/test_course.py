"""The course: each exercise is open and says so, its solution is right, and a wrong one is found,
with a cause that says what was forgotten."""

import ast
import re
import shlex
import sys
from difflib import ndiff
from pathlib import Path

import pytest
from gradtwin.comparisons.cli.app import app
from typer.testing import CliRunner

COURSE = Path(__file__).parents[2] / "examples/course"
EXERCISES = [
    "line",
    "softmax",
    "layer_norm",
    "attention",
    "convolution",
    "lstm_cell",
    "adam",
    "tape",
]
# What stands in the solution, what a student may write there, and what he is told.
WRONG = {
    "line": ("dy.sum(0)", "dy", "broadcast: the gradient of b .* not summed"),
    "softmax": ("(dy - (dy * y).sum(dim, keepdims=True))", "dy", "missing term: .* exp → sum"),
    "layer_norm": (" - x_hat * along", "", "missing term: .* x → var"),
    "attention": (" * scale\n        return", "\n        return", "factor: .* q is √3 times"),
    "convolution": (
        "columns] += ",
        "columns] = ",
        "overwritten: the gradient of x is the first of",
    ),
    "lstm_cell": (" * (1 - tanh_c**2)", "", "elementwise factor: .* without the slope of .* tanh"),
    "adam": ("v_hat.sqrt() + eps", "v_hat.sqrt()", "as if eps were 0"),
    "tape": ("each.grad + slope", "slope", "missing term: .* tanh → mul and tanh → add"),
}


def command(name):
    """The line that ends the docstring of an exercise, as arguments."""
    doc = ast.get_docstring(ast.parse((COURSE / f"{name}.py").read_text(encoding="utf-8")))
    (line,) = re.findall(r"^gradtwin (check .*)\Z", doc, re.MULTILINE | re.DOTALL)
    return shlex.split(line.replace("\\\n", " "))


@pytest.fixture
def graded(monkeypatch, tmp_path, sweep):
    """(exit status, what is said) of an exercise with this text. Without --sweep, quickly."""

    def run(name, text):
        (tmp_path / f"{name}.py").write_text(text, encoding="utf-8")
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "path", list(sys.path))
        asked = command(name)
        quick = (
            ["--quick"] if not sweep and "--inputs" not in asked else []
        )  # probes have modules none
        done = CliRunner().invoke(app, [*asked, *quick])
        return done.exit_code, done.output

    return run


def solution(name):
    return (COURSE / "solutions" / f"{name}.py").read_text(encoding="utf-8")


def test_the_exercises_are_these():
    for folder in (COURSE, COURSE / "solutions"):
        assert sorted(path.stem for path in folder.glob("*.py")) == sorted(EXERCISES)


@pytest.mark.parametrize("name", EXERCISES)
def test_a_solution_is_right_and_fills_in_one_place(graded, name):
    assert graded(name, solution(name))[0] == 0
    exercise = (COURSE / f"{name}.py").read_text(encoding="utf-8")
    lines = list(ndiff(exercise.splitlines(), solution(name).splitlines()))
    (left,) = [line for line in lines if line.startswith("- ")]
    assert "raise NotImplementedError(" in left
    changed = [i for i, line in enumerate(lines) if line[0] in "+-"]
    assert changed == list(range(changed[0], changed[-1] + 1))


@pytest.mark.parametrize("name", EXERCISES)
def test_an_exercise_is_open_and_says_what_is_missing(graded, name):
    text = (COURSE / f"{name}.py").read_text(encoding="utf-8")
    status, said = graded(name, text)
    (missing,) = re.findall(r'raise NotImplementedError\("(.*)"\)', text)
    assert status == 1
    assert f"raises NotImplementedError: {missing}" in said


@pytest.mark.thinned(4)
@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_solution_is_found_with_its_cause(graded, name):
    right, wrong, cause = WRONG[name]
    assert solution(name).count(right) == 1
    status, said = graded(name, solution(name).replace(right, wrong))
    assert status == 1
    print(said)
    assert re.search(f"cause: .*{cause}", said)
