"""The page of a report: what stands on it, and what is found on it in a browser."""

import contextlib
import gzip
import json
import re
from base64 import b64decode
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from gradtwin.comparisons.baselines import diff_report
from gradtwin.comparisons.baselines.classes import FAILING
from gradtwin.comparisons.baselines.diff import Diff
from gradtwin.comparisons.cli.app import app
from gradtwin.comparisons.report import columns, interactive, pages, tables
from gradtwin.comparisons.report.kinds import KINDS
from gradtwin.comparisons.verdict.classes import CLASSES
from typer.testing import CliRunner

EXAMPLES = Path(__file__).parents[3] / "examples"
ROWS = 10_000
MEGABYTES = 3
KIND = np.array(["identical", "rounding", "imprecise", "different"])


def frame(rows, ops=300, seed=0):
    """A table as `gradients` makes it: numbers of which no two are alike."""
    rng, number = np.random.default_rng(seed), np.arange(rows)
    kind = KIND[rng.choice(4, rows, p=[0.5, 0.45, 0.04, 0.01])]
    factor = np.where(kind == "identical", 0, np.where(kind == "rounding", 0.5, 1e4))
    theirs = rng.standard_normal(rows)
    texts = {
        "op": [f"op_{i:03}" for i in rng.permutation(number % ops)],
        "sample": [f"array({i % 7}, {i % 31}), eps={abs(t):.3g}" for i, t in enumerate(theirs)],
        "argument": [("y", "x", "weight")[i % 3] for i in number],
        "dtype": [("float64", "float32")[i % 2] for i in number],
    }
    return pd.DataFrame(
        {
            "schema": 1,
            "id": ["/".join(words) for words in zip(*texts.values(), strict=True)],
            **texts,
            "kind": "sample",
            "max_ulp": (10 ** rng.uniform(0, 18, rows)).astype(np.uint64),
            "index": [f"[{i % 9}, {i % 4}]" for i in number],
            "manual": theirs * (1 + 1e-15),
            "reference": theirs,
            **{name: rng.random(rows) * 1e-15 for name in ("error", "floor", "resolution")},
            "margin": factor * rng.uniform(0.1, 1, rows),
            "class": kind,
            "note": "",
        }
    )


def unpacked(html):
    """The columns of each table of a page."""
    packed = re.findall(r'class="packed">([^<]+)<', html)
    found = [json.loads(gzip.decompress(b64decode(text)))["columns"] for text in packed]
    return [{c["name"]: c for c in table} for table in found]


@pytest.fixture(scope="module")
def found():
    table = frame(ROWS)
    table.loc[77, ["reference", "margin", "class"]] = [np.nan, np.inf, "different"]
    return table


def written(folder, table):
    picture = pages.Picture(b"\x89PNG", "a curve that <falls>")
    html = pages.page("A & B", "9 of 10", {"gradients": table}, {"gradients": {"a.png": picture}})
    (folder / "gradients.html").write_bytes(html)
    return folder / "gradients.html"


@pytest.fixture(scope="module")
def saved(found, tmp_path_factory):
    return written(tmp_path_factory.mktemp("page"), found)


@pytest.fixture(scope="module")
def few(found, tmp_path_factory):
    return written(tmp_path_factory.mktemp("few"), found.head(600))


def test_ten_thousand_rows_are_packed(saved):
    assert saved.stat().st_size < MEGABYTES * 1e6
    html = saved.read_text(encoding="utf-8")
    assert "op_123" not in html
    assert html.count("/*! DataTables") == 1


def test_every_class_has_a_rank_a_sign_and_a_meaning():
    assert set(CLASSES) <= set(KINDS)
    ranked = [kind for kind in KINDS if kind in CLASSES]
    assert ranked == list(CLASSES)


def test_numbers_are_kept_to_where_they_are_read(found, saved):
    (table,) = unpacked(saved.read_text(encoding="utf-8"))
    assert list(table)[:3] == ["class", "op", "margin"]
    assert table["manual"]["values"] == found["manual"].tolist()
    assert table["reference"]["values"][77] == "NaN"
    assert table["margin"]["values"][77] == "Infinity"
    assert table["manual"]["partner"] == "reference"
    assert table["error"]["label"] == "error (norm)"
    assert "id" not in table


def test_a_nan_is_a_number_only_where_something_was_computed():
    rows = [
        {"id": 1, "op": "f", "kind": kind, "index": index, "manual": 1.0, "reference": np.nan,
         "exact": np.nan, "error": np.nan, "resolution": np.nan, "class": "different"}
        for kind, index in (("sample", "[0]"), ("corner", "[0]"), ("sample", ""))
    ]  # fmt: skip
    table = tables.table(rows)
    assert columns.values("reference", table) == ["NaN", "NaN", None]
    assert columns.values("exact", table) == [None, "NaN", None]
    assert columns.values("resolution", table) == [None] * 3
    markdown = tables.contents(table, "t")["t.md"].decode()
    assert markdown.count("NaN") == 2


def test_what_users_write_does_nothing(tmp_path):
    evil = "</script><img src=x onerror=alert(1)>\u202e"
    rows = [{"id": 1, "op": evil, "margin": 0.5, "note": evil, "class": evil}]
    html = pages.page(
        evil, evil, {evil: tables.table(rows)}, {evil: {evil: pages.Picture(b"", evil)}},
        checks=[pages.Check(evil, False, evil)], text=evil, command=evil,
    ).decode()  # fmt: skip
    assert "<img src=x" not in html
    assert "\u202e" not in html


def test_the_legend_explains_what_there_is():
    table = frame(40)
    said = interactive.legend({"t": table})
    assert {"margin", "floor", "error (norm)", "ULPs", "resolution", "rounding"} <= set(said)
    assert "undecided" not in said
    html = pages.page("t", "", {"t": table}, command="gradtwin gradients 'a b'").decode()
    assert "the error of its norm" in html
    assert "gradtwin gradients &#39;a b&#39;" in html
    for name in ("numpy", "torch", "processor", "blas"):
        assert f"<dt>{name}</dt>" in html


@pytest.mark.browser
def test_it_fits_and_says_nothing(browser, saved):
    browser.fits(saved)


@pytest.mark.browser
def test_what_tests_found_comes_first(browser, found, tmp_path):
    name = "tests/test_" + "long_" * 30 + "name.py::test_it[some-words]"
    checks = [
        pages.Check(name, False, "f: WRONG\n" + "  x" * 90),
        pages.Check("g", True, "g: right"),
    ]
    frame = found.head(30).assign(test=name)
    html = pages.page(
        "Gradients of 2 tests", "2 checks, 1 wrong.", {"gradients": frame}, checks=checks
    )
    (tmp_path / "tests.html").write_bytes(html)
    browser.fits(tmp_path / "tests.html")
    with browser.opened(tmp_path / "tests.html", "phone") as tab:
        top = tab.locator("details.check").first
        assert top.bounding_box()["y"] < 200
        assert name in top.inner_text()
        assert "WRONG" in top.locator("pre").inner_text()
        assert not tab.locator("details.check pre").nth(1).is_visible()
        assert tab.locator("tbody tr td:nth-child(2)").first.inner_text() == name


def moved(rows):
    """A diff as `compare` makes it, of which every row has moved."""
    found = frame(rows, seed=1)
    names = {"op": "name", "max_ulp": "ulp", "error": "size", "manual": "before"}
    kinds = {"identical": "worse", "imprecise": "removed"}
    table = found.rename(columns={**names, "reference": "now"}).assign(
        **{"group": np.resize(["losses", "pooling"], rows), "class": found["class"].replace(kinds)},
        side=np.where(found["dtype"] == "float64", "manual", "torch"),
        margin_old=found["margin"] / 2, margin_new=found["margin"],
        explained="numpy kernels AVX512 → AVX2",
    )  # fmt: skip
    return Diff(table, {"torch": ("2.6.0", "2.14.0")}, ["a reason that goes on: " + "word " * 60])


@pytest.mark.browser
def test_check_and_diff_fit_and_their_rows_are_found(browser, tmp_path):
    from playwright.sync_api import expect

    pair = "wrong_softmax.py:softmax", "torch.nn.functional.softmax"
    call = [pair[0], "--against", pair[1], "--shape", "3,4", "--settings", "dim=-1", "--quick"]
    with contextlib.chdir(EXAMPLES):
        done = CliRunner().invoke(app, ["check", *call, "--out", str(tmp_path)])
    assert done.exit_code == 1, done.output
    browser.fits(tmp_path / "check.html")
    with browser.opened(tmp_path / "check.html", "phone") as tab:
        assert "missing term" in tab.locator("details.check pre").inner_text()
        assert tab.locator("tbody tr").first.inner_text().startswith("✗")

    diff = moved(1000)
    (tmp_path / "diff.html").write_bytes(diff_report.html(diff, FAILING))
    browser.fits(tmp_path / "diff.html")
    with browser.opened(tmp_path / "diff.html", "phone") as tab:
        info = tab.locator(".pages [role=status]")
        assert tab.locator("tbody tr").first.inner_text().startswith("✗")
        tab.locator(".chip", has_text="removed").click()
        removed = diff.table[diff.table["class"] == "removed"]
        expect(info).to_have_text(f"rows 1 to {len(removed)} of {len(removed)} (of 1,000)")
        tab.locator("thead th", has_text="now").locator(".dt-column-order").click()
        expect(tab.locator("tbody tr").first).to_contain_text(f"{removed['now'].max():.3f}")
        name, side = removed[["name", "side"]].iloc[0]
        tab.get_by_role("searchbox").fill(f"{name} {side}")
        left = removed[(removed["name"] == name) & (removed["side"] == side)]
        expect(info).to_have_text(f"rows 1 to {len(left)} of {len(left)} (of 1,000)")


@pytest.mark.browser
def test_rows_are_sorted_filtered_and_searched(browser, found, saved):
    from playwright.sync_api import expect

    with browser.opened(saved) as tab:
        info = tab.locator(".pages [role=status]")
        cell = [tab.locator(f"tbody tr:first-child td:nth-child({n})") for n in (1, 2, 3)]
        head = tab.locator("thead th", has_text="op")

        def left(rows):
            shown = f"rows 1 to {min(50, len(rows))} of {len(rows)} (of 10,000)"
            expect(info).to_have_text(shown if len(rows) else "no rows (of 10,000)")

        assert info.inner_text() == "rows 1 to 50 of 10,000"
        assert tab.locator("tbody tr").count() == 50
        assert tab.evaluate("document.querySelectorAll('*').length") < 3000
        assert cell[0].inner_text().strip() == "✗ different"  # what is wrong stands on top
        assert cell[2].inner_text() == "inf"
        assert "NaN" in tab.locator("tbody tr").first.inner_text()
        assert "·10" in tab.locator("tbody").inner_text()  # ULPs as a power

        head.locator(".dt-column-order").focus()  # by keys alone
        for name in ("op_000", "op_299"):
            tab.keyboard.press("Enter")
            expect(cell[1]).to_have_text(name)
        assert head.get_attribute("aria-sort") == "descending"

        imprecise = found[found["class"] == "imprecise"]
        tab.locator(".chip", has_text="imprecise").click()
        left(imprecise)
        op = imprecise["op"].iloc[0]
        tab.locator(".filters select").first.select_option(op)
        left(imprecise[imprecise["op"] == op])
        tab.get_by_role("button", name="show all").click()
        expect(info).to_have_text("rows 1 to 50 of 10,000")
        tab.get_by_role("searchbox").fill("op_123 float32 weight")
        words = {"op": "op_123", "dtype": "float32", "argument": "weight"}
        left(found[(found[[*words]] == list(words.values())).all(axis=1)])


@pytest.mark.browser
def test_a_cell_of_the_map_shows_its_rows_and_keys_go_from_cell_to_cell(browser, found, few):
    with browser.opened(few) as tab:
        found = found.head(600)
        cells = tab.locator(".cells button:enabled")
        assert cells.count() == len(found[["op", "dtype"]].drop_duplicates())
        labels = [cell.get_attribute("aria-label") for cell in cells.all()[:2]]
        assert f"{found['op'][77]} {found['dtype'][77]}: margin inf, different" in labels
        name, dtype = re.match(r"(\S+) (\S+):", labels[0]).groups()
        cells.first.click()
        chosen = found[(found["op"] == name) & (found["dtype"] == dtype)]
        info = tab.locator(".pages [role=status]")
        assert info.inner_text() == f"rows 1 to {len(chosen)} of {len(chosen)} (of 600)"
        tab.keyboard.press("ArrowRight")
        assert tab.evaluate("document.activeElement.ariaLabel") == labels[1]
        assert tab.locator(".cells button[tabindex='0']").count() == 1


@pytest.mark.browser
def test_names_stay_in_sight_and_pictures_have_words(browser, few):
    with browser.opened(few, "phone") as tab:
        box = tab.locator(".rows")
        name = tab.locator("tbody tr td:nth-child(2)").first
        before = name.bounding_box()
        box.evaluate("e => { e.scrollLeft = 700 }")
        assert name.bounding_box() == before
        box.evaluate("e => { e.scrollTop = 500 }")
        top = box.bounding_box()["y"]
        assert abs(tab.locator("thead th").first.bounding_box()["y"] - top) < 3
        image = tab.locator("figure img")
        assert image.get_attribute("alt") == "a curve that <falls>"
        tab.locator("figure button").focus()
        tab.keyboard.press("Enter")
        assert tab.locator("figure.full").count() == 1


@pytest.mark.browser
def test_on_paper_stand_the_first_rows_and_a_note(browser, few):
    with browser.opened(few) as tab:
        tab.evaluate("window.dispatchEvent(new Event('beforeprint'))")
        assert tab.locator("tbody tr").count() == 500
        assert tab.locator(".printed").text_content() == (
            "The first 500 of 600 rows. The others are in gradients.csv."
        )
        tab.emulate_media(media="print")
        assert not tab.locator(".filters").is_visible()
        assert tab.locator(".rows").evaluate("e => getComputedStyle(e).overflowY") == "visible"
        tab.evaluate("window.dispatchEvent(new Event('afterprint'))")
        assert tab.locator("tbody tr").count() == 50


@pytest.mark.browser
def test_what_does_not_fit_is_seen(browser, few):
    planted = {
        "h2 { width: 120rem }": "outside: <h2",
        ".filters { margin-top: -4rem }": "overlap: <",
        ".summary { margin-top: -2.4rem }": "9 of 10 lies on A & B",
    }
    with browser.opened(few) as tab:
        assert browser.faults(tab) == []
        for style, fault in planted.items():
            tag = tab.add_style_tag(content=style)
            assert fault in "\n".join(browser.faults(tab)), style
            tag.evaluate("e => e.remove()")


@pytest.mark.browser
@pytest.mark.parametrize("script", ["console.log('planted')", "setTimeout(() => planted())"])
def test_a_page_that_says_something_is_seen(browser, tmp_path, script):
    page = tmp_path / "page.html"
    page.write_text(f"<!doctype html><html data-drawn><script>{script}</script>")
    with pytest.raises(AssertionError, match="planted"), browser.opened(page) as tab:
        tab.wait_for_timeout(50)
