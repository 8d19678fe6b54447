"""`gradtwin trace FILE:NAME --inputs FILE:NAME`."""

import json
from pathlib import Path

import pytest
from gradtwin.comparisons.cli.app import app
from typer.testing import CliRunner

FILE = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(5, 3)

    def forward(self, x, scale=1.0):
        return {"y": self.layer(x) * scale}

def made():
    return Net()

def function(x):
    return x.exp() * x

net, x = Net(), torch.ones(2, 5, requires_grad=True)
named = {"x": x, "scale": 3.0}

def both():
    return (x,), {"scale": x.sum()}
"""


@pytest.fixture
def command(tmp_path, monkeypatch):
    (tmp_path / "net.py").write_text(FILE, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: CliRunner().invoke(app, ["trace", *arguments])


@pytest.mark.parametrize("model", ["Net", "made", "net", "function"])
def test_the_command_traces_a_model_of_a_file(command, model):
    result = command(f"net.py:{model}", "--inputs", "net.py:x", "--save", "page.html", "-q")
    assert result.exit_code == 0, result.output
    assert result.output == "100% of torch's nodes have a rule here.\n"
    assert "<svg" in Path("page.html").read_text(encoding="utf-8")
    assert Path(f"results/net+{model}/trace.csv").exists()


@pytest.mark.parametrize("inputs", ["x", "named", "both"])
def test_the_command_takes_arguments_in_each_form(command, inputs):
    result = command("net.py:net", "--inputs", f"net.py:{inputs}", "--json")
    rows = json.loads(result.stdout)
    assert [row["rule"] for row in rows if row["function"] in ("linear", "mul")] == [
        "linear",
        "mul",
    ]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["net.py:Net"], "--inputs: expected it beside FILE:NAME"),
        (["mlp", "--inputs", "net.py:x"], "--inputs: expected FILE:NAME beside it"),
        (["net.py:Net", "--inputs", "net.py:x", "--data", "digits"], "--data: not beside"),
        (["net.py:Net", "--inputs", "net.py:x", "--activation", "tanh"], "--activation: not"),
        (["net.py:Nett", "--inputs", "net.py:x"], "did you mean Net?"),
        (["net.py:x", "--inputs", "net.py:x"], "module: expected a torch callable, got a Tensor"),
        (["net.py:net", "--inputs", "net.py:function"], "expected what is called without"),
    ],
)
def test_the_command_says_what_was_wrong(command, arguments, words):
    result = command(*arguments)
    assert result.exit_code == 2
    assert words in " ".join(result.output.split())
