"""The settings of Sphinx, which `make docs` runs."""

import re
import shutil
import textwrap
from pathlib import Path

import gradtwin

project = "gradtwin"
author = "The gradtwin authors"
project_copyright = author
release = gradtwin.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx_gallery.gen_gallery"]
html_theme = "furo"
html_title = f"gradtwin {release}"
html_show_sphinx = False
html_static_path = ["static"]
html_css_files = ["tour.css"]

myst_heading_anchors = 3
nitpicky = True
nitpick_ignore_regex = [("py:.*", ".*")]  # types in signatures, of packages that are not looked up

# The tour is run where nothing else lies, and becomes a page and a notebook in docs/tour/.
HERE = Path(__file__).parent
TOUR = HERE.parent / "build/tour"
TOUR.mkdir(parents=True, exist_ok=True)
shutil.copy(HERE.parent / "examples/tour.py", TOUR)
(TOUR / "GALLERY_HEADER.rst").write_text(":orphan:\n\nThe tour\n========\n")
sphinx_gallery_conf = {
    "examples_dirs": str(TOUR),
    "gallery_dirs": "tour",
    "filename_pattern": "tour",
    "run_stale_examples": True,  # the rules that it shows may be others
    "capture_repr": (),
    "download_all_examples": False,
    "show_signature": False,
    "write_computation_times": False,
}

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
