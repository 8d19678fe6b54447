"""A docstring for every public function of manual/, and what it raises is said there."""

import ast
import re
from pathlib import Path

import pytest

MANUAL = Path(__file__).parents[2] / "manual"
SHARED = ("arguments", "arrays", "steps")  # their functions check arguments for other modules


def parsed(path):
    return ast.parse(path.read_text(encoding="utf-8"))


def functions(tree):
    """{name: function} of a module, the methods of its classes as "Class.method"."""
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    owners = [("", tree), *((f"{node.name}.", node) for node in classes)]
    return {
        f"{prefix}{node.name}": node
        for prefix, owner in owners
        for node in owner.body
        if isinstance(node, ast.FunctionDef)
    }


def called(node):
    """The names of all functions that are called in it, or handed on."""
    return {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}


def raised(found, name, followed, seen=()):
    """The classes that a function raises, or one that it calls and whose name is to be followed."""
    classes = {
        ast.unparse(getattr(part.exc, "func", part.exc))
        for part in ast.walk(found[name])
        if isinstance(part, ast.Raise) and part.exc
    }
    for other in called(found[name]) & set(found) - {name, *seen}:
        if followed(other):
            classes |= raised(found, other, followed, (*seen, name))
    return classes


def checks(path, tree):
    """The names that raise, of those which a module imports from SHARED or, being one of them,
    defines."""
    sources = [(path, None)] if path.stem in SHARED else []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module in SHARED:
            folder = path.parents[node.level - 1]
            sources.append((folder / f"{node.module}.py", {alias.name for alias in node.names}))
    names = set()
    for source, imported in sources:
        own = functions(parsed(source))
        names |= {n for n in own if raised(own, n, lambda _: True)} & (imported or set(own))
    return names


def faults(path, tree):
    """What a reader of the docstrings of a module is not told."""
    found = functions(tree)
    if called(tree) & checks(path, tree):
        text = ast.get_docstring(tree) or ""
        if not re.search(r"\braises?\b.*\w+Error\b", text, re.DOTALL | re.IGNORECASE):
            yield f"{path.name}: what its functions raise"
    for name, function in found.items():
        if any(part.startswith("_") for part in name.split(".")):
            continue
        text = ast.get_docstring(function)
        if not text:
            yield f"{name}: anything"
            continue
        said = re.split(r"\braises?\b", text, maxsplit=1, flags=re.IGNORECASE)[1:]
        for error in sorted(raised(found, name, lambda other: other.startswith("_"))):
            if not any(re.search(rf"\b{error}\b", part) for part in said):
                yield f"{name}: that it raises {error}"


@pytest.mark.parametrize(
    "path", sorted(MANUAL.rglob("*.py")), ids=lambda path: path.relative_to(MANUAL).as_posix()
)
def test_docstrings_say_what_is_raised(path):
    assert not list(faults(path, parsed(path)))


PLANTED = '''
"""Doubles{module}"""

from .arguments import floating


def doubled(x):
    """2 x.{function}"""
    return 2 * _checked(floating(x=x))


def _checked(x):
    if not x.size:
        raise ValueError("x: expected an element, got none")
    return x
'''


@pytest.mark.parametrize(
    ("module", "function", "expected"),
    [
        (". All raise TypeError for another dtype.", " Raises ValueError for an empty x.", []),
        (
            ".",
            " Raises ValueError for an empty x.",
            ["planted.py: what its functions raise"],
        ),
        (
            ". All raise TypeError for another dtype.",
            " ValueError is another matter.",
            ["doubled: that it raises ValueError"],
        ),
    ],
)
def test_a_silent_docstring_is_seen(module, function, expected):
    tree = ast.parse(PLANTED.format(module=module, function=function))
    assert list(faults(MANUAL / "planted.py", tree)) == expected


def test_a_missing_docstring_is_seen():
    tree = ast.parse("def f(x):\n    return x\n\n\ndef _g(x):\n    return x\n")
    assert list(faults(MANUAL / "planted.py", tree)) == ["f: anything"]
