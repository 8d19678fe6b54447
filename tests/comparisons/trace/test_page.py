"""The page of a trace, in a browser."""

import shutil

import pytest
import torch
from gradtwin.comparisons.cli.app import app
from gradtwin.comparisons.trace.models import traced
from gradtwin.comparisons.trace.page import page
from typer.testing import CliRunner

from gradtwin import trace

CHROMIUM = shutil.which("chromium")


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "trace.html"
    path.write_bytes(page(traced("mlp", "digits")))
    return path


def test_the_page_stands_alone(saved):
    text = saved.read_text()
    assert "http://" not in text
    assert "https://" not in text
    assert text.count('class="step') == 4
    assert "<line" in text
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

    text = page(trace(module, torch.linspace(-1, 1, 5, requires_grad=True))).decode()
    assert text.count('<line class="different"') == lines
    assert text.count("<line") == 3
    assert text.count('<tr class="edge">') == 4
    assert text.count('<td class="different">') == (fault == "node")
    assert "x → TanhBackward0" in text


def test_the_command_saves_it(tmp_path):
    def call(path):
        arguments = ["trace", "linear_regression", "--out", str(tmp_path), "--save", str(path)]
        return CliRunner().invoke(app, arguments).exit_code

    assert call(tmp_path / "page.html") == 0
    assert "def mse_loss" in (tmp_path / "page.html").read_text()
    assert call(tmp_path / "nowhere/page.html") == 2


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
def test_a_click_shows_the_values_of_a_step(saved):
    from playwright.sync_api import sync_playwright

    said = []
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        tab = browser.new_page(viewport={"width": 1200, "height": 800})
        tab.on("console", lambda message: said.append(message.text))
        tab.on("pageerror", lambda error: said.append(str(error)))
        tab.goto(saved.as_uri())
        for number, title in ((2, "tanh"), (4, "cross_entropy")):
            tab.click(f'.step[data-step="{number}"]')
            section = tab.locator(f"#step-{number}")
            assert section.is_visible()
            assert title in section.locator("h2").inner_text()
            assert f"def {title}" in section.locator(".source").inner_text()
            assert any(c.isdigit() for c in section.locator(".value").inner_text())
            assert any(c.isdigit() for c in section.locator(".cotangent").inner_text())
            assert "x → AddmmBackward0" in section.locator(".edge").first.inner_text()
            assert tab.locator("section:visible").count() == 1
        tab.mouse.move(300, 300)
        for wheel, compare in ((-300, "<"), (300, ">")):
            width = tab.evaluate("box.width")
            tab.mouse.wheel(0, wheel)
            tab.wait_for_function(f"width => box.width {compare} width", arg=width)
        tab.screenshot(path=saved.with_suffix(".png"))
        browser.close()
    assert said == []
