"""The house: a folder a subject, imports that only go down, and nothing too long."""

import ast
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TREES = ("manual", "reference", "comparisons", "gradtwin")
# The floors of comparisons/: what stands here may import itself and what stands before.
FLOORS = (
    ("english", "cluster"),
    ("verdict", "samples", "exact", "parallel", "environment", "moved"),
    ("ops", "report"),
    ("training",),
    *[("check", "gradients", "optimizers", "schedules", "curves", "dialects", "runs", "snapshots")],
    ("trace", "show", "baselines", "mutants", "bench"),
    ("cli",),
)
FLOOR = {folder: floor for floor, folders in enumerate(FLOORS) for folder in folders}
# These may use import_module.
BY_NAME = (
    *("comparisons/ops", "comparisons/cli", "comparisons/moved.py"),
    *("manual/__init__.py", "gradtwin/__init__.py"),
)
UNBOUND = ("comparisons/mutants/", "comparisons/samples/")
MODULE, CLASS, FUNCTION = 500, 250, 80  # lines of code, without docstrings, comments, blank lines


def sources():
    return [path for tree in TREES for path in sorted((ROOT / tree).rglob("*.py"))]


def place(path):
    return path.relative_to(ROOT).as_posix()


def absolute(path, text):
    """The parts of a relative name of a module, from the package on: comparisons, verdict, ulps."""
    dots = len(text) - len(text.lstrip("."))
    package = path.relative_to(ROOT).parent.parts
    package = package[1:] if package[:1] == ("gradtwin",) else package
    above = package[: len(package) - dots + 1]
    return [*above, *filter(None, text.lstrip(".").split("."))]


def imported(path):
    """(line, parts of the name) of every module of this package that a file imports, wherever in it
    and however: also by a string."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            names = [f"{module.rstrip('.')}.{alias.name}" if node.module else module + alias.name
                     for alias in node.names]  # fmt: skip
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            assert place(path).startswith(BY_NAME), f"{place(path)}:{node.lineno}: import_module"
        for name in names:
            if name.startswith("."):
                yield node.lineno, absolute(path, name)
            elif name.split(".")[0] == "gradtwin":
                yield node.lineno, name.split(".")[1:]
            else:
                yield node.lineno, [f"/{name.split('.')[0]}"]


def folder(parts):
    """Of comparisons/, the folder or the file there."""
    return parts[1] if len(parts) > 1 else ""


@pytest.mark.parametrize("path", sources(), ids=place)
def test_imports_go_down(path):
    own = path.relative_to(ROOT).with_suffix("").parts
    wrong = []
    for line, parts in imported(path):
        tree = parts[0] if parts else ""
        allowed = True
        if own[0] == "manual":
            known = ("/numpy", "/scipy", "/ml_dtypes")
            allowed = tree == "manual" or tree in known or is_standard(tree)
        elif own[0] == "reference":
            allowed = tree not in ("manual", "comparisons")
        elif own[0] == "comparisons" and tree == "comparisons":
            floors = FLOOR[folder(own)], FLOOR[folder(parts)]
            allowed = floors[1] < floors[0] or folder(parts) == folder(own)
        if not allowed:
            wrong.append(f"{place(path)}:{line}: {'.'.join(parts)}")
    assert not wrong


def is_standard(name):
    import sys

    return name.removeprefix("/") in sys.stdlib_module_names


def test_every_folder_has_a_floor():
    found = {p.stem for p in (ROOT / "comparisons").iterdir() if p.is_dir() or p.suffix == ".py"}
    assert found - {"__init__", "__pycache__"} == set(FLOOR)


def code_lines(node, text):
    """The lines of a module, class or function that hold code: without docstrings, comments and
    blank lines."""
    silent = set()
    for part in ast.walk(node):
        body = getattr(part, "body", None)
        first = body[0] if isinstance(body, list) and body else None
        if isinstance(first, ast.Expr) and isinstance(getattr(first.value, "value", None), str):
            silent.update(range(first.lineno, first.end_lineno + 1))
    first, last = getattr(node, "lineno", 1), getattr(node, "end_lineno", len(text))
    lines = ((n, text[n - 1].strip()) for n in range(first, last + 1) if n not in silent)
    return sum(bool(line) and not line.startswith("#") for _, line in lines)


@pytest.mark.parametrize("path", sources(), ids=place)
def test_nothing_is_too_long(path):
    if place(path).startswith(UNBOUND):
        return
    text = path.read_text(encoding="utf-8").splitlines()
    tree = ast.parse("\n".join(text))
    found = {place(path): (code_lines(tree, text), MODULE)}
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            found[node.name] = (code_lines(node, text), CLASS)
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            found[node.name] = (code_lines(node, text), FUNCTION)
    assert not {name: lines for name, (lines, most) in found.items() if lines > most}


def named_twice(text):
    """The names that a module gives to two things."""
    given = Counter()
    for node in ast.parse(text).body:
        if isinstance(node, ast.Assign):
            given.update(n.id for t in node.targets for n in ast.walk(t) if isinstance(n, ast.Name))
        elif isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            given[node.name] += not node.decorator_list
    return sorted(name for name, times in given.items() if times > 1)


@pytest.mark.parametrize("path", sources(), ids=place)
def test_a_name_of_a_module_means_one_thing(path):
    assert not named_twice(path.read_text(encoding="utf-8"))


def test_a_name_that_is_given_again_is_seen():
    assert named_twice("SMALL, LARGE = 32, 64\nLARGE = 8\n") == ["LARGE"]
    assert named_twice("def f(): pass\nf = 1\n") == ["f"]


@pytest.mark.parametrize(
    ("name", "line", "fault"),
    [
        ("comparisons/verdict/ulps.py", "from ..report import files", "report"),
        ("comparisons/verdict/ulps.py", "def f():\n    from ..cli import app", "cli"),
        ("comparisons/verdict/ulps.py", "from ..samples import array", "samples"),
        (
            "comparisons/curves/grid.py",
            "if TYPE_CHECKING:\n    from ..check import probes",
            "check",
        ),
        ("comparisons/trace/page.py", 'import_module("..cli.app", __package__)', "import_module"),
        ("manual/linear.py", "import torch", "/torch"),
        ("manual/linear.py", "from ..reference import linear", "reference"),
        ("reference/linear.py", "from .. import manual", "manual"),
    ],
)
def test_a_wrong_import_is_seen(name, line, fault, tmp_path, monkeypatch):
    path = tmp_path / name
    path.parent.mkdir(parents=True)
    path.write_text(f"{line}\n", encoding="utf-8")
    monkeypatch.setattr(f"{__name__}.ROOT", tmp_path)
    with pytest.raises(AssertionError, match=fault):
        test_imports_go_down(path)
