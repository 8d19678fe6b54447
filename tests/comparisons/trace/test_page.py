"""The page of a trace: its graph, and what is done with it in a browser."""

import math
import re

import pytest
import torch
from gradtwin.comparisons.cli.app import app
from gradtwin.comparisons.trace.graph import graph
from gradtwin.comparisons.trace.models import traced
from gradtwin.comparisons.trace.page import page
from torch import nn
from typer.testing import CliRunner

from gradtwin import trace

READY = "html[data-laid][data-drawn]"
# Edges that go through a box which is not their end, boxes that cover each other, and words of
# edges upon boxes; edges are looked at every two pixels.
LAID_OUT = """() => {
  const { placed, svg, drawn } = document.getElementById("graph").graph;
  const boxes = [...placed].map(([id, { x, y, width: w, height: h }]) => (
    { id, left: x - w / 2, right: x + w / 2, top: y - h / 2, bottom: y + h / 2 }));
  const inside = (b, x, y) => x > b.left && x < b.right && y > b.top && y < b.bottom;
  const apart = (a, b) =>
    a.left >= b.right || b.left >= a.right || a.top >= b.bottom || b.top >= a.bottom;
  const edges = [...svg.querySelectorAll(".edge")];
  const through = edges.filter(e => {
    const path = e.querySelector("path");
    const others = boxes.filter(b => ![e.dataset.from, e.dataset.to].includes(b.id));
    for (let s = 0; s <= path.getTotalLength(); s += 2) {
      const { x, y } = path.getPointAtLength(s);
      if (others.some(b => inside(b, x, y))) return true;
    }
    return false;
  });
  const upon = edges.filter(e => {
    const { x, y, width, height } = e.querySelector("text").getBBox();
    const word = { left: x + 1, right: x + width - 1, top: y + 2, bottom: y + height - 2 };
    return boxes.some(b => !apart(b, word));
  });
  const covered = boxes.filter((a, i) => boxes.some((b, j) => i < j && !apart(a, b)));
  const faults = { through: through.length, upon: upon.length, covered: covered.length };
  return { boxes: boxes.length, edges: drawn.length, faults };
}"""


class Block(nn.Module):
    """Five steps and a way around them."""

    def __init__(self):
        super().__init__()
        self.up, self.down = nn.Linear(3, 3), nn.Linear(3, 3)

    def forward(self, x):
        y = self.down(self.up(x).tanh())
        return x + y * y.sigmoid()


class Net(nn.Module):
    def __init__(self, blocks):
        super().__init__()
        self.blocks = nn.ModuleList(Block() for _ in range(blocks))

    def forward(self, x):
        for block in self.blocks:
            x = block(x)
        return x.sum()


@pytest.fixture(scope="module")
def deep():
    torch.manual_seed(0)
    return trace(Net(17), torch.randn(2, 3))


@pytest.fixture(scope="module")
def saved(deep, tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    (folder / "trace.html").write_bytes(page(traced("mlp", "digits")))
    (folder / "deep.html").write_bytes(page(deep))
    return folder


def test_the_page_stands_alone(saved):
    text = (saved / "trace.html").read_text(encoding="utf-8")
    own = re.sub(r"<script>\s*/\*! DataTables .*?</script>", "", text, flags=re.DOTALL)
    assert not re.search(r"https?://(?!www.w3.org)|<script [^>]*src|sourceMappingURL", own)
    assert text.count('class="step"') == 4
    assert text.count("The above copyright notice") <= 1
    assert "def cross_entropy" in text


@pytest.mark.parametrize(("fault", "lines"), [(None, 0), ("node", 1), ("tensor", 2)])
def test_an_edge_that_is_different_is_red(fault, lines):
    def module(x):
        a = x.tanh()
        b = a.sigmoid()
        c = a * b
        if fault == "node":
            c.grad_fn.register_hook(lambda passed, _: (passed[0], passed[1] * 1.001))
        if fault == "tensor":
            a.register_hook(lambda grad: grad * 1.001)
        return c

    found = trace(module, torch.linspace(-1, 1, 5, requires_grad=True))
    edges = graph(found)["edges"]
    between = [e for e in edges if e["to"].startswith("step")]
    assert sum(e["different"] for e in between) == lines
    assert len(between) == 3
    assert len(edges) == 4  # and that to x
    text = page(found).decode()
    assert text.count('<tr class="edge">') == 4
    assert ('<td class="wrong">different' in text) == bool(fault)
    assert "x → TanhBackward0" in text


def test_leaves_are_named_and_edges_have_norms():
    linear = nn.Linear(3, 2)
    x = torch.ones(4, 3, requires_grad=True)
    found = trace(lambda x, scale: (linear(x) * scale).sum(), [x, torch.tensor(3.0)])
    nodes, edges = graph(found).values()
    named = {n["title"]: n["id"] for n in nodes if n["kind"] == "leaf"}
    assert set(named) == {"x", "weight", "bias", "scale"}
    norms = {e["to"]: e["norm"] for e in edges}
    assert norms[named["bias"]] == f"{3 * 4 * math.sqrt(2):.3g}"
    assert norms[named["scale"]] == ""  # nobody asked
    leaf = next(leaf for leaf in found.leaves.values() if leaf.name == "x")
    assert leaf.gradient.shape == (4, 3)
    (given,) = [s.given for s in found.steps if s.given]
    assert given["scale"] == 3


def test_steps_stand_in_their_submodules(deep):
    nodes = graph(deep)["nodes"]
    places = [n["place"] for n in nodes if n["kind"] != "leaf"]
    assert places[0] == ["blocks.0", "up"]
    assert places[-1] == []
    assert len(places) > 100
    assert ["blocks.16", "down"] in [n["place"] for n in nodes if n["kind"] == "leaf"]
    assert {"blocks.3.up", "blocks.3", ""} <= set(deep.table["module"])


def test_one_that_raises_leaves_its_submodule():
    class Careful(Block):
        def forward(self, x):
            try:
                self.up(x[:, :2])
            except RuntimeError:
                return self.down(x).tanh()

    steps = trace(Careful(), torch.ones(2, 3)).steps
    assert [s.place for s in steps] == ["down", ""]


def test_the_command_saves_it(tmp_path):
    def call(path):
        arguments = ["trace", "linear_regression", "--out", str(tmp_path), "--save", str(path)]
        return CliRunner().invoke(app, arguments).exit_code

    assert call(tmp_path / "page.html") == 0
    assert "def mse_loss" in (tmp_path / "page.html").read_text()
    assert call(tmp_path / "nowhere/page.html") == 2


@pytest.mark.browser
def test_it_fits(browser, saved):
    browser.fits(saved / "trace.html", READY)


@pytest.mark.browser
def test_a_hundred_nodes_stay_readable(browser, saved):
    with browser.opened(saved / "deep.html", ready=READY) as tab:
        graph = "document.getElementById('graph').graph"
        closed = tab.evaluate(LAID_OUT)
        assert closed["boxes"] == 17 + 1 + 1  # blocks, the input and the sum
        assert tab.evaluate(f"{graph}.scale()") >= 0.7 - 1e-6
        tab.set_viewport_size({"width": 390, "height": 844})
        assert tab.evaluate(f"{graph}.scale()") > 0.3
        assert browser.faults(tab) == []
        tab.get_by_role("button", name="open all").click()
        opened = tab.evaluate(LAID_OUT)
        assert opened["boxes"] == 103 + 4 * 17 + 1
        for found in (closed, opened):
            assert found["faults"] == {"through": 0, "upon": 0, "covered": 0}
        assert tab.evaluate(f"{graph}.scale()") >= 0.7 - 1e-6
        # They follow each other, and none stands beside another.
        assert tab.evaluate(f"{graph}.size.width") < 1200
        tab.get_by_role("button", name="fit").click()
        assert tab.evaluate(f"{graph}.view.height >= {graph}.size.height - 1")


@pytest.mark.browser
@pytest.mark.parametrize(
    ("planted", "fault"),
    [
        ("for (const box of graph.placed.values()) box.x = 0", "covered"),
        ("graph.svg.querySelector('.edge path').setAttribute('d', 'M0 0L999 999')", "through"),
        ("graph.svg.querySelector('.edge text').setAttribute('y', 30)", "upon"),
    ],
)
def test_what_is_laid_out_badly_is_seen(browser, saved, planted, fault):
    with browser.opened(saved / "trace.html", ready=READY) as tab:
        assert tab.evaluate(LAID_OUT)["faults"][fault] == 0
        tab.evaluate(f"() => {{ const {{ graph }} = document.getElementById('graph'); {planted} }}")
        assert tab.evaluate(LAID_OUT)["faults"][fault] > 0


@pytest.mark.browser
def test_a_click_shows_the_values_of_a_step(browser, saved):
    with browser.opened(saved / "trace.html", ready=READY) as tab:
        for number, title in ((2, "tanh"), (4, "cross_entropy")):
            tab.click(f'.node[data-id="step-{number}"]')
            section = tab.locator(f"#step-{number}")
            assert section.is_visible()
            assert title in section.locator("h2").inner_text()
            assert f"def {title}" in section.locator(".source").inner_text()
            assert any(c.isdigit() for c in section.locator(".value").inner_text())
            assert any(c.isdigit() for c in section.locator(".cotangent").inner_text())
            assert "x → AddmmBackward0" in section.locator(".edge").first.inner_text()
            assert tab.locator("#panel > section:visible").count() == 1
        tab.mouse.move(300, 400)
        scale = "document.getElementById('graph').graph.scale()"
        for wheel, compare in ((-300, ">"), (300, "<")):
            before = tab.evaluate(scale)
            tab.mouse.wheel(0, wheel)
            tab.wait_for_function(f"before => {scale} {compare} before", arg=before)


@pytest.mark.browser
def test_keys_go_from_box_to_box(browser, saved):
    focused = "document.activeElement.dataset.id ?? document.activeElement.dataset.group"
    with browser.opened(saved / "trace.html", ready=READY) as tab:
        tab.locator('.node[data-id="step-4"]').focus()
        for id in ("step-3", "step-2", "step-1"):
            tab.keyboard.press("ArrowUp")
            assert tab.evaluate(focused) == id
            rect = tab.locator(f'.node[data-id="{id}"] rect')
            assert rect.evaluate("e => getComputedStyle(e).strokeWidth") == "5px"  # seen
        tab.keyboard.press("Enter")
        assert tab.locator("#step-1").is_visible()
        assert tab.locator(".node[tabindex='0']").count() == 1
    with browser.opened(saved / "deep.html", ready=READY) as tab:
        tab.locator('.node[data-id="blocks.3"]').focus()
        tab.keyboard.press("Enter")
        assert tab.locator('.group[data-group="blocks.3"]').count() == 1
        assert tab.evaluate(focused).startswith("step-")
        tab.locator('.group[data-group="blocks.3"]').focus()
        tab.keyboard.press("Enter")
        assert tab.locator(".group").count() == 0
        assert tab.evaluate(focused) == "blocks.3"
