"""Every command before strange words: made from the parameters of all commands."""

import re

import pytest
import typer
from gradtwin.comparisons.cli.app import app
from gradtwin.comparisons.report import text
from typer.testing import CliRunner

COMMANDS = typer.main.get_command(app).commands
WORDS = (
    *("[/x]", "[bold]", "\x1b[2J", "a\x07b\x85c", "λ → ∞", "", " ", "-", "nan"),
    *("x" * 400, "a\nb", "\u202e", "{x}", "%s", "../.."),
)
PATHS = ("out", "save", "old", "new", "folder", "run", "compare", "subject")
FREE = ("constant", "reason", "timeout")  # take any word
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]")


def parameters():
    """(command, arguments before a strange word) for each that takes words from a list."""
    for name, command in COMMANDS.items():
        needed = {"check": ["f.py:f"], "bench": ["tape"], "trace": ["mlp"], "show": ["relu"]}
        needed |= {"dialect": ["f.npz"], "diff": ["a.parquet"], "history": ["."], "versions": []}
        for param in command.params:
            if param.name in (*PATHS, *FREE) or getattr(param, "is_flag", False):
                continue
            if param.param_type_name == "argument":
                yield name, []
            elif param.opts[0] not in ("--help",):
                yield name, [*needed.get(name, []), param.opts[0]]


@pytest.fixture
def called(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def call(*args):
        result = CliRunner().invoke(app, list(args))
        said = result.output
        assert "Traceback" not in said
        assert "this is an error of gradtwin" not in said, (args, said)
        assert not CONTROL.search(said), (args, said)
        return result.exit_code, said

    return call


def test_there_are_parameters():
    assert len(list(parameters())) > 60
    assert {name for name, _ in parameters()} >= {*COMMANDS} - {"dialect"}


@pytest.mark.thinned(2)
@pytest.mark.parametrize("name", sorted({name for name, _ in parameters()}))
def test_a_strange_word_is_refused_in_one_line(name, called, sweep):
    for command, before in parameters():
        if command != name:
            continue
        for word in WORDS if sweep else WORDS[:3]:
            status, said = called(command, *before, word)
            assert status == 2, (before, word, said)
            assert 1 <= len(said.strip().splitlines()) <= 2, (before, word, said)


@pytest.mark.parametrize("word", ["gradient", "[/x]", "\x1b[2J", "-x", "--jso", "λ"])
def test_a_strange_command_is_refused(word, called):
    status, said = called(word)
    assert status == 2, said
    assert len(said.strip().splitlines()) == 1


@pytest.mark.parametrize("word", WORDS)
def test_text_is_harmless_wherever_it_is_shown(word):
    import io
    import xml.etree.ElementTree as ElementTree

    from gradtwin.comparisons.report.console import Terminal

    screen = Terminal()
    screen.file = io.StringIO()
    screen.print(word, soft_wrap=True)
    shown = screen.file.getvalue()
    assert not CONTROL.search(shown)
    if word.isprintable() and len(word) < 100:
        assert word.strip() in shown  # no markup, no emoji
    assert "\n" not in text.line(word)
    cell = text.markdown(word)
    assert "\n" not in cell
    assert not re.search(r"(?<!\\)\|", cell)
    page = ElementTree.fromstring(f"<a b={_quoted(text.xml(word))}/>")
    assert page.attrib["b"] == text.xml(word)


def _quoted(word):
    from xml.sax.saxutils import quoteattr

    return quoteattr(word)
