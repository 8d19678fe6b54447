"""The settings of Sphinx, which `make docs` runs."""

import re
import textwrap

import gradtwin

project = "gradtwin"
author = "The gradtwin authors"
project_copyright = author
release = gradtwin.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc"]
html_theme = "furo"
html_title = f"gradtwin {release}"
html_show_sphinx = False

myst_heading_anchors = 3
nitpicky = True
nitpick_ignore_regex = [("py:.*", ".*")]  # types in signatures, of packages that are not looked up

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"


def as_restructured_text(app, what, name, obj, options, lines):
    """Docstrings are written to be read in a terminal. A paragraph of theirs flows, with `code`;
    one with lines further in, a formula, stands as it is; a table of arguments becomes a list."""
    paragraphs = re.split(r"\n\s*\n", textwrap.dedent("\n".join(lines)).strip("\n"))
    lines[:] = "\n\n".join(map(_paragraph, paragraphs)).split("\n")


def _paragraph(text):
    if text.startswith("* "):
        points = re.split(r"^\* ", text, flags=re.MULTILINE)[1:]
        return "\n".join(f"* {_flowing(point)}" for point in points)
    entries = re.split(r"\n(?! )", text)
    terms = [re.fullmatch(r"(\S+(?:, \S+)*) {2,}(.+)", entry, re.DOTALL) for entry in entries]
    if all(terms):
        return "\n".join(f"``{term[1]}``\n    {_flowing(term[2])}" for term in terms)
    if re.search(r"^ ", text, flags=re.MULTILINE):
        return ".. code-block:: text\n\n" + textwrap.indent(textwrap.dedent(text), "    ")
    return _flowing(text)


def _flowing(text):
    parts = re.split(r"`([^`]*)`", " ".join(text.split()))
    parts[::2] = [re.sub(r"([\\*|_])", r"\\\1", part) for part in parts[::2]]
    parts[1::2] = [f"``{code}``" for code in parts[1::2]]
    return r"\ ".join(part for part in parts if part)


def setup(app):
    app.connect("autodoc-process-docstring", as_restructured_text)
