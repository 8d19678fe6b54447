"""The page of two modules: all that was found, whatever shows it."""

import json
import math
import re

import pytest
import torch
from gradtwin.comparisons.check.modules import page
from gradtwin.comparisons.check.modules.page import bar, tree
from gradtwin.comparisons.cli.app import app
from torch import nn
from typer.testing import CliRunner

from gradtwin import check

SUBJECTS = """
import numpy as np
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, eps=1e-5):
        super().__init__()
        self.a, self.n = nn.Linear(3, 4), nn.LayerNorm(4, eps=eps)

    def forward(self, x, scale=1.0):
        return self.n(self.a(x)).tanh() * scale

torch.manual_seed(0)
batch = (torch.randn(5, 3),)
named = {"x": torch.randn(5, 3), "scale": 2.0}

def wrong():
    return Net(1e-3)

def odd():
    return (torch.randn(5, 3), np.float32(2))
"""


class Inner(nn.Module):
    factor = 1.0

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(3, 3)

    def forward(self, x):
        return self.fc(x).tanh() * self.factor  # </pre><b>&amp;


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList(Inner() for _ in range(2))

    def forward(self, x):
        for block in self.blocks:
            x = block(x)
        return x


@pytest.fixture(scope="module")
def found():
    torch.manual_seed(0)
    port = Net()
    port.blocks[1].factor = 1.5
    return check(port, Net(), [torch.randn(4, 3)])


@pytest.fixture(scope="module")
def saved(found, tmp_path_factory):
    return found.save(tmp_path_factory.mktemp("page") / "modules.html")


def test_the_page_stands_alone(saved):
    text = saved.read_text(encoding="utf-8")
    own = re.sub(r"<script>\s*/\*! DataTables .*?</script>", "", text, flags=re.DOTALL)
    assert text.count("/*! DataTables") == 1
    assert not re.search(r"https?://|<script [^>]*src|<link rel=\"stylesheet|@import|url\(", own)
    assert "prefers-color-scheme: dark" in text


def test_every_submodule_and_result_stands_on_it_with_a_word(found, saved):
    text = saved.read_text(encoding="utf-8")
    text = text[: text.index("<main>")]  # above the table of all results
    for place in filter(None, found.table["place"]):
        assert f'<span class="name">{place.rpartition(".")[2]}</span>' in text
    rows = text.count("<tr>") - text.count("<thead>")
    assert rows == len(found.table)
    for kind, sign in (("different", "✗"), ("rounding", "✓")):
        assert text.count(f"{sign} {kind}</span>") >= sum(found.table["class"] == kind)


def test_what_is_wrong_stands_at_its_top(found, saved):
    text = saved.read_text(encoding="utf-8")
    top = text[text.index("<h1>") : text.index("Submodules, in the order")]
    first = found.failed.iloc[0]
    assert found.first == "output in blocks.1"
    for said in ("✗ WRONG", found.first, str(found.cause), first["index"], "Inner.forward"):
        assert said in top, said
    assert f"{first['port']:.4g}"[:4] in top
    assert "* self.factor  # &lt;/pre&gt;&lt;b&gt;&amp;amp;" in top
    assert text.count('<li class="first">') == 1
    assert re.search(r'<li class="first">.{,900}<details class="own" open>', text, re.DOTALL)


def test_a_right_pair_says_how_close_to_the_floor_each_came():
    report = check(Net(), Net(), [torch.ones(4, 3)])
    text = report._repr_html_()
    assert "✓ right" in text
    assert "<!doctype" not in text
    assert "<html" not in text
    assert report.source is None
    margins = [float(m) for m in re.findall(r'aria-label="margin ([^,]+),', text)]
    assert len(margins) == len(report.table) + report.table["place"].nunique()
    assert max(margins) <= 1


def test_a_bar_is_longer_for_more_and_reaches_the_limit_at_1(monkeypatch):
    lengths = [bar(m) for m in (math.nan, 0, 1e-9, 1e-2, 0.5, 1, 1.1, 30, 1e9, math.inf)]
    assert lengths == sorted(lengths)
    assert lengths[4] < lengths[5] < lengths[6]
    assert (lengths[0], lengths[-1]) == (0, 100)
    monkeypatch.setattr(page, "HIGH", 0)  # planted: a scale that ends at the limit
    assert bar(1) == bar(1.1)


def test_the_tree_has_what_was_never_called():
    rows = [
        {"place": p, "module": "M", "class": kind, "margin": 0.1, "note": note}
        for p, kind, note in (
            *(("a.0.x", "rounding", ""), ("a.0", "different", "")),
            *(("b", "n/a", "no partner"), ("", "rounding", "")),
        )
    ]
    root = tree(rows)
    a, b = root.inside
    assert (a.name, a.kind, a.kind_inside) == ("a", "", "different")
    assert [n.name for n in a.inside[0].inside] == ["x"]
    assert (b.kind, b.notes) == ("n/a", ["no partner"])
    assert root.kind_inside == "different"


@pytest.fixture
def call(tmp_path, monkeypatch):
    (tmp_path / "nets.py").write_text(SUBJECTS, encoding="utf-8")
    monkeypatch.chdir(tmp_path)

    def called(*arguments):
        done = CliRunner().invoke(app, ["check", *arguments])
        return done.exit_code, done.output

    return called


def test_the_command_saves_the_page(call, tmp_path):
    pair = ("nets.py:wrong", "--against", "nets.py:Net", "--inputs", "nets.py:batch")
    assert call(*pair, "--save", "page.html")[0] == 1
    assert "LayerNorm.forward" in (tmp_path / "page.html").read_text(encoding="utf-8")
    assert call(*pair, "--save", "nowhere/page.html")[0] == 2


def test_the_command_records_and_holds_to_it(call, tmp_path):
    status, said = call("nets.py:Net", "--inputs", "nets.py:named", "--record", "old.npz")
    assert (status, said) == (0, "recorded in old.npz; --against old.npz holds a port to it\n")
    assert call("nets.py:Net", "--against", "old.npz")[0] == 0
    status, said = call("nets.py:wrong", "--against", "old.npz", "--save", "page.html", "--json")
    assert status == 1
    assert json.loads(said)["first"] == "output in n"
    assert "judged by a record" in (tmp_path / "page.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--record", "o.npz"], "--record: expected --inputs beside it"),
        (["--save", "p.html"], "--save: expected --inputs beside it"),
        (["--record", "o.npz", "--inputs", "nets.py:batch", "--against", "x"], "--against: not"),
        (["--record", "o.npz", "--inputs", "nets.py:batch", "--shape", "3"], "--shape: not"),
        (["--record", "o", "--inputs", "nets.py:batch"], "path: expected a name that ends in .npz"),
        (["--record", "o.npz", "--inputs", "nets.py:odd"], "Net.1: a float32 cannot be kept"),
        (["--record", "none/o.npz", "--inputs", "nets.py:batch"], "there is no folder"),
        (["--against", "old.npz", "--inputs", "nets.py:batch"], "--inputs: not beside a record"),
        (["--against", "none.npz"], "none.npz: No such file"),
        (["--against", "nets.py:Net", "--save", "p.html"], "--save: expected --inputs beside it"),
    ],
)
def test_what_the_command_refuses(call, tmp_path, arguments, said):
    status, output = call("nets.py:Net", *arguments)
    assert status == 2
    assert said in " ".join(output.split())
    assert {p.name for p in tmp_path.iterdir()} <= {"nets.py", "__pycache__"}


@pytest.mark.browser
def test_a_click_shows_the_results_without_a_script(browser, saved):
    with browser.opened(saved, ready="body", java_script_enabled=False) as tab:
        row = tab.locator("li", has=tab.locator("summary .name", has_text="fc")).last
        assert not row.locator("table").is_visible()
        row.locator("summary").click()
        assert row.locator("table").is_visible()
        assert "gradient of weight" in row.inner_text()
        assert tab.locator(".first table").first.is_visible()


@pytest.mark.browser
def test_it_fits_and_has_all_results_in_one_table(browser, found, saved):
    browser.fits(saved)
    with browser.opened(saved) as tab:
        assert tab.locator("main tbody tr").count() == len(found.table)
        assert "different" in tab.locator("main tbody tr").first.inner_text()
