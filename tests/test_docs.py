"""README, docs/ and the other pages: links lead somewhere, commands and names exist."""

import ast
import importlib
import itertools
import re
import shlex
from pathlib import Path

import pytest
import typer
from gradtwin.comparisons.cli.app import app

import gradtwin
from gradtwin import manual

ROOT = Path(__file__).parents[1]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```(?P<language>.*)\n(?P<text>(?:.*\n)*?)```$", re.MULTILINE)
LINK = re.compile(r"!?\[[^][]*\]\(([^()\s]+)\)")
COMMANDS = typer.main.get_command(app).commands


def prose(page):
    return re.sub(r"`[^`\n]*`", "", BLOCK.sub("", page))


def anchors(page):
    """Of its headings, as GitHub and MyST name them."""
    titles = re.findall(r"^#+ (.+)$", BLOCK.sub("", page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def broken_links(page, path):
    """The relative links of a page that lead nowhere."""
    for link in LINK.findall(prose(page)):
        file, _, anchor = link.partition("#")
        target = path.parent / file if file else path
        if re.match(r"\w+:", link):
            continue
        if not target.exists() or (anchor and anchor not in anchors(target.read_text())):
            yield link


def commands(page):
    """The lines for gradtwin in blocks and in the text."""
    for block in BLOCK.finditer(page):
        text = block["text"].replace("\\\n", " ")
        lines = text.splitlines() if block["language"] in ("sh", "console", "yaml") else ()
        for line in lines:
            if found := re.match(r"(?:\$ |- run: )?(?:[A-Z_]+=\S+ )*(gradtwin\b.*)", line):
                yield found[1]
    yield from re.findall(r"`(?:[A-Z_]+=\S+ )*(gradtwin [a-z-][^`]*)`", BLOCK.sub("", page))


def unknown_words(line):
    """The command or the options of a line that do not exist."""
    words = shlex.split(line.replace("\n", " "), comments=True)
    words = list(itertools.takewhile(lambda word: word not in ("|", ">", ">>", "&&"), words))
    name = next((word for word in words[1:] if not word.startswith("-")), None)
    if name is None:
        return {word for word in words[1:] if word not in ("--help", "--version", "--out")}
    if name not in COMMANDS:
        return {name}
    params = COMMANDS[name].params
    known = {option for param in params for option in (*param.opts, *param.secondary_opts)}
    given = {word.partition("=")[0] for word in words if re.match(r"--?[a-z]", word)}
    return given - known - {"--help", "-h"}


def unknown_names(code):
    """What a block of Python takes from this package and is not there."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "gradtwin":
            module = importlib.import_module(node.module)
            yield from (alias.name for alias in node.names if not hasattr(module, alias.name))
        elif isinstance(node, ast.Attribute) and getattr(node.value, "id", "") == "gradtwin":
            yield from () if hasattr(gradtwin, node.attr) else (node.attr,)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_page(path):
    page = path.read_text()
    assert not list(broken_links(page, path))
    assert not {line: unknown_words(line) for line in commands(page) if unknown_words(line)}
    for block in BLOCK.finditer(page):
        if block["language"] == "python":
            assert not list(unknown_names(block["text"]))


def test_what_leads_nowhere_is_seen(tmp_path):
    here = tmp_path / "a.md"
    here.write_text("# A title, `long`\n")
    right = "[a](a.md) [b](#a-title-long) [c](a.md#a-title-long) [d](https://a.b) `[e](f)`"
    assert not list(broken_links(right, here))
    assert list(broken_links("[a](b.md) [b](a.md#c) ![c](d.png)", here)) == [
        *("b.md", "a.md#c", "d.png"),
    ]


@pytest.mark.parametrize(
    ("page", "words"),
    [
        ("`gradtwin gradients relu --truth`", set()),
        ("`gradtwin gradeints relu`", {"gradeints"}),
        ("```sh\ngradtwin check a.py:f \\\n    --agianst b\n```\n", {"--agianst"}),
        ("```console\n$ gradtwin curves --compare a b  # --that\n```\n", set()),
        ("```yaml\n- run: gradtwin diff a --sav b\n```\n", {"--sav"}),
        ("`A=b gradtwin bench rules --againts=c`", {"--againts"}),
    ],
)
def test_what_is_no_command_is_seen(page, words):
    assert set().union(*map(unknown_words, commands(page))) == words
    assert list(commands(page))


def test_what_is_no_name_is_seen():
    assert list(unknown_names("from gradtwin import chek\ngradtwin.recrod_run()")) == [
        *("chek", "recrod_run"),
    ]


def test_the_reference_is_whole():
    api = (ROOT / "docs/api.md").read_text()
    assert set(re.findall(r"^\.\. auto\w+:: (\w+)$", api, re.MULTILINE)) == set(gradtwin.__all__)
    rules = (ROOT / "docs/manual.md").read_text()
    shown = re.findall(r"automodule:: gradtwin\.manual\.(\w+)$", rules, re.MULTILINE)
    assert set(shown) >= set(manual.__all__)
    table = (ROOT / "docs/commands.md").read_text()
    assert all(f"`gradtwin {name}" in table for name in COMMANDS)


def test_every_page_is_in_the_table_of_contents():
    index = (ROOT / "docs/index.md").read_text()
    named = {line for block in BLOCK.finditer(index) for line in block["text"].splitlines()}
    pages = {path.stem for path in (ROOT / "docs").glob("*.md")} - {"index"}
    assert pages <= named
