"""What the tests of pages share: Chromium, and what a page must not do in it."""

import contextlib
import os
import shutil
from pathlib import Path

import pytest

CHROMIUM = shutil.which("chromium")
SCREENSHOTS = os.environ.get("SCREENSHOTS")  # a folder for pictures of the pages that fit
SIZES = {"wide": (1400, 900), "phone": (390, 844)}
SCHEMES = ("light", "dark")

# What lies outside of the width, unless a box scrolls; controls that cover each other; and lines of
# text of which the middle lies in another, or in a control, since letters may be higher than lines.
FAULTS = """() => {
  const found = [], said = e => e.outerHTML.slice(0, 90), shown = e => e.checkVisibility();
  if (document.documentElement.scrollWidth > innerWidth) found.push("the page scrolls sideways");
  const clips = e => e && e !== document.body &&
    (getComputedStyle(e).overflowX !== "visible" || clips(e.parentElement));
  const kinds = "h1, h2, p, button, input, select, summary, dd, img, svg";
  const all = [...document.querySelectorAll(kinds)];
  for (const e of all.filter(shown))
    if (e.getBoundingClientRect().right > innerWidth + 1 && !clips(e.parentElement))
      found.push(`outside: ${said(e)}`);
  const controls = all.filter(e => shown(e) && !e.matches("p, dd, svg") && !clips(e.parentElement));
  const boxes = controls.map(e => e.getBoundingClientRect());
  controls.forEach((e, i) => controls.slice(0, i).forEach((other, j) => {
    const a = boxes[i], b = boxes[j];
    const beside = a.left > b.right - 1 || b.left > a.right - 1;
    const beneath = a.top > b.bottom - 1 || b.top > a.bottom - 1;
    if (!beside && !beneath && !e.contains(other) && !other.contains(e))
      found.push(`overlap: ${said(other)} and ${said(e)}`);
  }));
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT), lines = [];
  for (let node; (node = walker.nextNode());) {
    const e = node.parentElement;
    if (!node.data.trim() || !shown(e) || clips(e) || e.closest("svg, select, option")) continue;
    const range = document.createRange();
    range.selectNodeContents(node);
    lines.push(...[...range.getClientRects()].filter(r => r.width).map(r => [node, r]));
  }
  const upon = (a, b) => a.left < b.right - 1 && b.left < a.right - 1 &&
    b.top < (a.top + a.bottom) / 2 && (a.top + a.bottom) / 2 < b.bottom;
  const solid = controls.map((e, i) => [e, boxes[i]]);
  for (const [node, box] of lines)
    for (const [other, under] of [...lines, ...solid])
      if (node !== other && !other.contains(node) && upon(box, under))
        found.push(`${node.data.trim().slice(0, 40)} lies on ${other.data ?? said(other)}`);
  return found;
}"""
COLOURS = """() => {
  const style = getComputedStyle(document.body);
  return [style.backgroundColor, style.color];
}"""


class Browser:
    """Pages of files, in windows of several sizes."""

    def __init__(self, browser):
        self.browser = browser

    @contextlib.contextmanager
    def opened(self, path, size="wide", scheme="light", ready="html[data-drawn]", **settings):
        """A page in a window. It fails if the page says anything, or asks for another file."""
        width, height = SIZES[size]
        context = self.browser.new_context(
            viewport={"width": width, "height": height},
            color_scheme=scheme,
            offline=True,
            **settings,
        )
        said, tab = [], context.new_page()
        tab.on("console", lambda message: said.append(message.text))
        tab.on("pageerror", lambda error: said.append(str(error)))
        tab.on("request", lambda request: said.append(request.url))
        tab.goto(path.as_uri())
        tab.wait_for_selector(ready, state="attached")
        yield tab
        context.close()
        assert [text for text in said if not text.startswith(("file:", "data:"))] == []

    def faults(self, tab):
        """What lies outside of the window, or upon another."""
        return tab.evaluate(FAULTS)

    def fits(self, path, ready="html[data-drawn]"):
        """A page fits into both widths, light and dark; a picture of each goes to the folder that
        the environment names in SCREENSHOTS."""
        for size in SIZES:
            with self.opened(path, size, ready=ready) as tab:
                assert self.faults(tab) == [], size
                for scheme in SCHEMES:
                    tab.emulate_media(color_scheme=scheme)
                    paper, ink = tab.evaluate(COLOURS)
                    assert (brightness(paper) > brightness(ink)) == (scheme == "light")
                    if SCREENSHOTS:
                        picture = Path(SCREENSHOTS, f"{path.stem}-{size}-{scheme}.png")
                        tab.screenshot(path=picture, full_page=True)


def brightness(colour):
    return sum(int(part) for part in colour.strip("rgb()").split(","))


@pytest.fixture(scope="module")
def browser():
    """Chromium, once for a module."""
    if CHROMIUM is None:
        pytest.skip("chromium is not installed")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        chromium = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield Browser(chromium)
        chromium.close()
