"""The history of margins: in the order of recording, with gaps, and with a reason for what is no
baseline."""

import json

import numpy as np
import pandas as pd
import pytest
from gradtwin.comparisons.baselines import file, history
from gradtwin.comparisons.baselines.measure import Quantity
from gradtwin.comparisons.cli.app import app
from typer.testing import CliRunner


def quantity(name, margin, kind="rounding"):
    a = np.array([1.0])
    return Quantity(f"{name}/{margin}", "gradients", name, a, a, a, margin, kind, (margin,))


def written(path, at, torch, *found):
    entry = {"at": at, "reason": "", "revision": "", "classes": {}}
    about = {"environment": {"torch": torch, "numpy": "2.4.0"}, "history": [entry]}
    file.write(path, found, about)


@pytest.fixture
def folder(tmp_path):
    """Three baselines, whose names are not in the order of their times."""
    path = tmp_path / "baselines"
    path.mkdir()
    first = (quantity("relu", 0.0, "identical"), quantity("gelu", 0.1), quantity("gelu", 0.2))
    written(path / "c.parquet", "2026-01-05T10:00:00+00:00", "2.12.0", *first,
            quantity("tanh", 0.5))  # fmt: skip
    written(path / "a.parquet", "2026-02-05T10:00:00+00:00", "2.12.0",
            quantity("relu", 0.0, "identical"), quantity("gelu", 0.4))  # fmt: skip
    last = (quantity("relu", 0.0, "identical"), quantity("gelu", 3.0, "imprecise"))
    written(path / "b.parquet", "2026-03-05T10:00:00+00:00", "2.13.0", *last,
            quantity("selu", 0.3), quantity("tanh", 0.2))  # fmt: skip
    return path


def run_history(*arguments):
    return CliRunner().invoke(app, ["history", *map(str, arguments)])


def test_margins_over_three_recordings(folder, tmp_path):
    result = run_history(folder, "--out", tmp_path / "out", "--json")
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert [r["file"] for r in told["recordings"]] == ["c.parquet", "a.parquet", "b.parquet"]
    assert [row["name"] for row in told["names"]] == ["gelu", "selu", "relu", "tanh"]
    gelu, selu, relu, tanh = told["names"]
    assert (gelu["first"], gelu["last"], gelu["largest"]) == (0.2, 3.0, 3.0)
    assert (gelu["margins"], gelu["spark"]) == ([0.2, 0.4, 3.0], "▁▂█")
    assert (tanh["margins"], tanh["spark"]) == ([0.5, None, 0.2], "█ ▁")
    assert (selu["margins"], selu["spark"], selu["moved"]) == ([None, None, 0.3], "  ·", False)
    assert (relu["spark"], relu["moved"]) == ("···", False)

    frame = pd.read_csv(tmp_path / "out" / "history.csv")
    assert len(frame) == 9
    assert list(frame[frame["name"] == "gelu"]["margin"]) == [0.2, 0.4, 3.0]
    assert list(frame[frame["name"] == "gelu"]["class"])[-1] == "imprecise"
    assert (tmp_path / "out" / "history.png").read_bytes()[:4] == b"\x89PNG"
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["history.csv", "history.png"]


def test_named_and_missing_names(folder, tmp_path):
    (folder / "a.parquet").rename(folder / "z.parquet")
    written(folder / "d.parquet", "2026-04-05T10:00:00+00:00", "2.13.0", quantity("gelu", 0.4))
    result = run_history(folder, "relu", "gelu", "relu", "--out", tmp_path)
    assert result.exit_code == 0, result.output
    lines = {line.split()[0]: line for line in result.stdout.splitlines() if line.strip()}
    assert "unmoved" in lines["relu"]
    assert lines["relu"].rstrip().endswith("missing in the last")
    assert "+0.2" in lines["gelu"]
    assert "missing" not in lines["gelu"]
    assert "tanh" not in lines
    result = run_history(folder, "gelo", "--out", tmp_path)
    assert result.exit_code == 2
    assert "did you mean gelu" in " ".join(result.output.split())


def test_the_ten_that_grew_most_are_shown(tmp_path):
    names = [f"op{i}" for i in range(14)]
    for month, factor in ((1, 1), (2, 2)):
        found = [quantity(name, 0.01 * factor * i) for i, name in enumerate(names)]
        written(tmp_path / f"{month}.parquet", f"2026-0{month}-01", "2.13.0", *found)
    result = run_history(tmp_path, "--json", "--out", tmp_path)
    shown = [row["name"] for row in json.loads(result.stdout)["names"]]
    assert shown == names[:3:-1]
    assert len(pd.read_csv(tmp_path / "history.csv")) == 28


def test_what_is_no_baseline_is_told_and_skipped(folder, tmp_path):
    (folder / "broken.parquet").write_bytes(b"PAR1")
    file.write(folder / "part.parquet", [quantity("relu", 0.1)], {})
    pd.DataFrame({"a": [1]}).to_parquet(folder / "table.parquet")
    result = run_history(folder, "--out", tmp_path)
    assert result.exit_code == 0
    told = " ".join(result.output.split())
    assert "broken.parquet: no Parquet file, or damaged" in told
    assert "part.parquet: does not say when it was recorded" in told
    assert "table.parquet: expected a baseline of gradtwin, got another" in told
    assert "3 recordings, 2026-01-05 to 2026-03-05" in told


def test_without_a_baseline(tmp_path):
    (tmp_path / "in").mkdir()
    out = tmp_path / "out"
    result = run_history(tmp_path / "in", "--out", out)
    assert result.exit_code == 2
    told = " ".join(result.output.replace("│", "").split())
    assert "expected one baseline or more, got none among 0" in told
    assert run_history(tmp_path / "nowhere", "--out", out).exit_code == 2
    (tmp_path / "in" / "x.parquet").write_bytes(b"")
    assert run_history(tmp_path / "in", "--out", out).exit_code == 2
    assert not out.exists()


def test_one_baseline_is_a_history(folder, tmp_path):
    for name in ("a", "b"):
        (folder / f"{name}.parquet").unlink()
    result = run_history(folder, "--out", tmp_path)
    assert result.exit_code == 0, result.output
    assert result.stdout.count("unmoved") == 3


def test_margins_that_are_no_numbers(tmp_path):
    """They are beyond every limit, on the terminal and in the picture."""
    for day, margin in enumerate((0.1, float("nan"), float("inf")), 1):
        found = (quantity("gelu", margin), quantity("gelu", 0.05))
        written(tmp_path / f"{day}.parquet", f"2026-01-0{day}", "2.13.0", *found)
    found, _ = history.recordings(sorted(tmp_path.glob("*.parquet")))
    row = history.line("gelu", found)
    assert (row["last"], row["spark"]) == (float("inf"), "▁██")
    assert run_history(tmp_path, "--out", tmp_path).exit_code == 0


def test_the_picture(folder):
    found, _ = history.recordings(sorted(folder.glob("*.parquet")))
    (axes,) = history.figure(found, ["relu", "gelu"]).axes
    relu, gelu, limit = axes.lines
    assert axes.get_yscale() == "log"
    assert list(limit.get_ydata()) == [1, 1]
    assert list(gelu.get_ydata()) == [0.2, 0.4, 3.0]
    assert all(relu.get_ydata() > 0)  # a zero is drawn at the edge
    texts = [label.get_text() for label in axes.get_xticklabels()]
    assert texts == [
        "2026-01-05\ntorch 2.12.0\nnumpy 2.4.0",
        "2026-02-05",
        "2026-03-05\ntorch 2.13.0",
    ]
