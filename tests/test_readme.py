"""What README shows, in order: its blocks are run, and print what stands beneath them.

A block of `python` is run in one namespace for all, or written to the file that its first line
names; one of `sh` is a line for gradtwin, pytest or python. A block of `text` behind either is what
it prints, where `…` stands for anything within a line, and alone on one for any lines. What is too
dear has a comment before it, `<!-- not run: why -->`.
"""

import contextlib
import io
import re
import runpy
import shlex
import sys
from pathlib import Path

import pytest
import torch
from gradtwin.comparisons.cli.app import app
from typer.testing import CliRunner

pytest_plugins = ["pytester"]

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(
    r"^(?P<dear><!-- not run: .+ -->\n\n)?```(?P<language>\w*)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)


def printed(shown, output):
    """Whether the output is what is shown."""
    lines = [
        r"(?:.*\n)*?" if line == "…" else re.escape(line).replace("…", ".*") + r" *\n"
        for line in shown.splitlines()
    ]
    return re.fullmatch("".join(lines), output if output.endswith("\n") else output + "\n")


class Reader:
    """She pastes one block after the other, in an empty folder beside the examples."""

    def __init__(self, pytester):
        self.pytester = pytester
        (pytester.path / "examples").symlink_to(ROOT / "examples")
        self.names = {}

    def run(self, language, text):
        return getattr(self, language)(text)

    def python(self, text):
        file = re.match(r"# (\w+\.py)\n", text)
        with contextlib.redirect_stdout(io.StringIO()) as out:
            if file:
                (self.pytester.path / file[1]).write_text(text)
            else:
                exec(compile(text, "README.md", "exec"), self.names)
        return out.getvalue()

    def sh(self, text):
        program, *arguments = shlex.split(text, comments=True)
        return {"gradtwin": self.gradtwin, "pytest": self.pytest, "python": self.file}[program](
            *arguments
        )

    def gradtwin(self, *arguments):
        done = CliRunner().invoke(app, list(arguments))
        assert done.exit_code in (0, 1), done.output
        return done.output

    def pytest(self, *arguments):
        return self.pytester.runpytest_inprocess("-p", "no:cacheprovider", *arguments).stdout.str()

    def file(self, name):
        with contextlib.redirect_stdout(io.StringIO()) as out:
            runpy.run_path(name, run_name="__main__")
        return out.getvalue()


def wrong(page, reader):
    """The blocks that print something else than is shown, with that."""
    found, output, ran = [], None, False
    for block in BLOCK.finditer(page):
        language, text = block["language"], block["text"]
        if block["dear"]:
            output, ran = None, False
        elif language == "text":
            if not ran:
                found.append(f"nothing was run that would print\n{text}")
            elif not printed(text, output):
                found.append(f"shown\n{text}\nbut printed\n{output}")
            ran = False
        elif language in ("python", "sh"):
            output, ran = reader.run(language, text), True
        else:
            found.append(f"a block in {language!r}, of which nobody knows how to run it\n{text}")
    return found


@pytest.fixture
def modules():
    """Those that are loaded when a test ends. `pytester` forgets what was loaded after it, and
    parts of NumPy and torch cannot be loaded twice."""
    loaded = {}
    yield loaded
    sys.modules.update(loaded)


@pytest.fixture
def reader(modules, pytester):
    yield Reader(pytester)
    modules.update(sys.modules)


def test_every_block_prints_what_it_says(reader):
    page = (ROOT / "README.md").read_text()
    torch.manual_seed(0)
    found = wrong(page, reader)
    assert not found, "\n\n".join(found)


def test_it_is_a_front_page():
    page = (ROOT / "README.md").read_text()
    assert len(page.splitlines()) <= 180
    assert len(list(BLOCK.finditer(page))) == page.count("\n```") / 2


@pytest.mark.parametrize(
    ("page", "number"),
    [
        ("```python\nprint(1)\n```\n\n```text\n1\n```\n", 0),
        ("```python\nprint(1)\n```\n\n```text\n2\n```\n", 1),
        ("```python\nprint(0.123456)\n```\n\n```text\n0.12…\n```\n", 0),
        ("```python\nprint(0.123456)\n```\n\n```text\n0.13…\n```\n", 1),
        ("```python\nprint('a\\nb\\nc')\n```\n\n```text\na\n…\n```\n", 0),
        ("```python\nprint('a\\nb\\nc')\n```\n\n```text\na\nc\n```\n", 1),
        ("```python\nprint('a\\nb\\nc')\n```\n\n```text\na…c\n```\n", 1),
        ("```text\n1\n```\n", 1),
        ("<!-- not run: dear -->\n\n```text\n1\n```\n", 0),
        ("```\n1\n```\n", 1),
        ("```yaml\na: 1\n```\n", 1),
        ("```sh\ngradtwin --version\n```\n\n```text\ngradtwin 9.9.9\n```\n", 1),
    ],
)
def test_what_is_stale_is_seen(page, number, reader):
    assert len(wrong(page, reader)) == number
