"""Processes of a distributed training, which are compared together."""

import multiprocessing
import warnings

import pytest
import torch
from gradtwin.comparisons.cli.app import app
from gradtwin.comparisons.runs.names import of_rank
from gradtwin.comparisons.runs.ranks import compare_ranks, files_of
from torch import distributed, nn
from typer.testing import CliRunner

from gradtwin import record_run


def process(rank, path, alone):
    """One of two; `alone` is the rank whose gradient is off in the third step."""
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", init_method=f"file://{path}.init", rank=rank, world_size=2
    )
    torch.manual_seed(0)
    model = nn.parallel.DistributedDataParallel(nn.Linear(4, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    torch.manual_seed(1 + rank)  # data of its own
    with record_run(f"{path}-{{rank}}.parquet", model) as run:
        for step in range(4):
            loss = model(torch.randn(8, 4)).square().mean()
            optimizer.zero_grad()
            loss.backward()
            if alone == rank and step == 2:
                model.module.bias.grad *= 1 + 1e-6
            run.step(loss)
            optimizer.step()
    distributed.destroy_process_group()


def trained(path, alone=-1):
    """Both, as forks: torch is there already."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forks beside threads
        context = multiprocessing.get_context("fork")
        started = [context.Process(target=process, args=(rank, path, alone)) for rank in (0, 1)]
        for one in started:
            one.start()
    for one in started:
        one.join(120)
    assert [one.exitcode for one in started] == [0, 0]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    trained(folder / "old")
    trained(folder / "new", alone=1)
    return folder


def test_each_rank_writes_a_file_of_its_own(folder):
    assert list(files_of(folder / "old-{rank}.parquet")) == ["0", "1"]
    same = compare_ranks(folder / "old-{rank}.parquet", folder / "old-{rank}.parquet")
    assert [(one.row["rank"], one.row["class"]) for one in same] == [
        ("0", "identical"), ("1", "identical"),
    ]  # fmt: skip


def test_a_rank_that_parts_from_the_others_is_named(folder):
    """One gradient of one rank, behind the all-reduce, off by a few roundings: without a floor."""
    pair = folder / "old-{rank}.parquet", folder / "new-{rank}.parquet"
    found = {one.row["rank"]: one.row for one in compare_ranks(*pair)}
    assert found["1"]["class"] == "different"
    assert "rank 1 parts from rank 0 at step 4, parameter bias" in found["1"]["note"]
    out = ["--out", str(folder / "out")]
    result = CliRunner().invoke(app, ["curves", "--compare", *map(str, pair), *out])
    assert result.exit_code == 1, result.output
    said = " ".join(result.output.split())
    assert "rank 1: different" in said
    assert (folder / "out/compare1.png").exists()


def test_the_rank_is_in_the_path(monkeypatch, tmp_path):
    monkeypatch.delenv("RANK", raising=False)
    assert of_rank("run-{rank}.parquet").name == "run-0.parquet"
    monkeypatch.setenv("RANK", "3")
    assert of_rank("run-{rank}.parquet").name == "run-3.parquet"
    assert of_rank("run.parquet").name == "run.parquet"
    with pytest.raises(FileNotFoundError, match="no file of any rank"):
        files_of(tmp_path / "run-{rank}.parquet")
