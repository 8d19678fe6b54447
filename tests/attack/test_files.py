"""Every reader before damaged files, and every writer before targets that it cannot write.

`make attack` tries many times as many. What is tried is made from lists; a test holds that every
reader and every command that writes stands in them.
"""

import ast
import errno
import json
import os
import stat
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from gradtwin.comparisons.baselines import file as baseline
from gradtwin.comparisons.check.modules.record import Record, record_module
from gradtwin.comparisons.check.modules.stored import Reader, Writer
from gradtwin.comparisons.cli.app import COMMANDS, app
from gradtwin.comparisons.dialects import trajectory
from gradtwin.comparisons.report import files, parquet, pieces
from gradtwin.comparisons.runs import log_comparison, logs, parts, recording, version1
from gradtwin.comparisons.snapshots import arrays
from typer.testing import CliRunner

from gradtwin import record_run

ROOT = Path(__file__).parents[2]
DATA = ROOT / "tests" / "data" / "0.1"


def recorded(path):
    """A small baseline, written by this version."""
    whole = baseline.read(DATA / "baseline.parquet")
    few = list(whole.quantities.values())[:20]
    baseline.write(path, few, whole.about)


def trained(path):
    """As version 0.1 wrote it."""
    table, header = parquet.read(DATA / "training.parquet", version1.FIRST)
    parquet.write(path, version1.FIRST, table, header)


def sketched(path):
    """A training of two steps, and a perturbed run."""
    torch.manual_seed(0)
    for run in (0, 1):
        model = torch.nn.Linear(3, 2)
        torch.nn.init.ones_(model.weight)
        with record_run(path, model, perturb=run, gradients=True) as recorded:
            for _ in range(2):
                loss = model(torch.ones(2, 3))[:, 0].square().sum() * 0 + model.weight.sum()
                loss.backward()
                recorded.step(loss)


def stepped(path):
    rng = np.random.default_rng(0)
    np.savez(path, params=rng.standard_normal((9, 3)), grads=rng.standard_normal((8, 3)))


def kept(path):
    found = arrays.collect({"w": np.arange(6.0).reshape(2, 3), "b": np.float32(1.5)})
    path.write_bytes(arrays.encoded(found, "here"))


def held(path):
    torch.manual_seed(0)
    record_module(torch.nn.Sequential(torch.nn.Linear(2, 2)), path, [torch.ones(3, 2)])


def of_baseline(path):
    found = baseline.read(path)
    return found.about | {"rows": len(found.quantities)}


def of_recording(path):
    found = recording.read(path)
    return found.runs | {f"steps of {run}": list(found.walk(int(run))) for run in found.runs}


def of_trajectory(path):
    return trajectory.read(path).tensors


def of_module(path):
    found = Record(path)
    calls = [{n: repr(v) for n, v in vars(c).items() if n != "module"} for c in found.calls]
    return calls, found.module.state_dict(), list(found.gave.values()), found.note


# A reader: what writes a file that it reads, its suffix, and what it gives, to be compared.
READERS = {
    "baselines/file.py": (recorded, ".parquet", of_baseline),
    "runs/version1.py": (trained, ".parquet", of_recording),
    "runs/recording.py": (sketched, ".parquet", of_recording),
    "dialects/trajectory.py": (stepped, ".npz", of_trajectory),
    "snapshots/arrays.py": (kept, ".npz", arrays.load),
    "check/modules/stored.py": (held, ".npz", of_module),
}
EACH_READER = pytest.mark.parametrize("name", READERS)


def test_every_reader_is_attacked():
    """All that reads a file of its own through the readers of report/."""
    found = set()
    for path in (ROOT / "comparisons").rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        for node in ast.walk(ast.parse(text)):
            called = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
            if called in ("parquet.read", "npz.read", "pieces.Pieces"):
                found.add(path.relative_to(ROOT / "comparisons").as_posix())
            assert called not in ("np.load", "pq.read_table", "pickle.load"), path
    assert found == set(READERS)


def damages(content, rng, number):
    """The content, damaged in one of the ways in which files are."""
    for _ in range(number):
        at, end = sorted(rng.integers(0, len(content), 2))
        kind = rng.integers(6)
        if kind == 0:
            bit = 1 << int(rng.integers(8))
            yield content[:at] + bytes([content[at] ^ bit]) + content[at + 1 :]
        elif kind == 1:
            yield content[:at]
        elif kind == 2:
            yield content[:at] + rng.bytes(int(rng.integers(1, 30))) + content[at:]
        elif kind == 3:
            yield content[:at] + bytes(int(end - at)) + content[end:]
        elif kind == 4:
            yield content[:at] + content[end:]
        else:
            yield content[:at] + rng.bytes(int(min(end - at, 40))) + content[at + 40 :]


def outcome(read, path):
    """What is read; None where it is refused in one line that names the file."""
    try:
        return read(path)
    except (ValueError, OSError) as error:
        text = str(error)
        assert str(path) in text, text
        assert "\n" not in text.strip(), text
        return None


def same(a, b):
    return repr(a) == repr(b)


@EACH_READER
def test_a_damaged_file_is_refused_or_is_what_it_was(name, tmp_path, sweep):
    write, suffix, read = READERS[name]
    path = tmp_path / f"file{suffix}"
    write(path)
    whole, content = read(path), path.read_bytes()
    rng = np.random.default_rng(0)
    refused, number = 0, 2_600 if sweep else 120
    for damaged in damages(content, rng, number):
        path.write_bytes(damaged)
        found = outcome(read, path)
        refused += found is None
        assert found is None or same(found, whole), damaged[:40]
    assert refused > number / 2


LOGS = {  # each with the scalar that is asked
    "simple.tfevents": "loss/train",
    "tensor.tfevents": "loss/val",
    "lightning.csv": "train_loss",
    "trainer.json": None,
    "lines.jsonl": None,
}


@pytest.mark.parametrize("name", LOGS)
def test_a_damaged_log_is_refused_in_a_line_or_read(name, tmp_path, sweep):
    """Text has no checksum: what is read may be another text."""
    whole = ROOT / "tests" / "data" / "logs" / name
    lines = b'{"step": 1, "loss": 2.5, "of": {"a": [1]}}\n{"step": 2, "loss": "NaN"}\n' * 9
    content = whole.read_bytes() if whole.exists() else lines
    path, refused = tmp_path / name, 0
    rng = np.random.default_rng(0)
    for damaged in damages(content, rng, 5_000 if sweep else 100):
        path.write_bytes(damaged)
        found = outcome(lambda path: logs.read(path, LOGS[name]), path)
        refused += found is None
        if found is not None:
            assert len(found.steps) == len(found.values) == len(found.slack) > 0
            assert np.all(np.diff(found.steps) > 0)
            assert np.all(found.slack >= 0)
            row = log_comparison.compare(found, found).row
            assert row["class"] == "identical"
    assert 0 < refused < (5_000 if sweep else 100)


STRANGE = [None, -1, 10**30, 1.5, float("nan"), "x", "", [], [None], {}, {"0": None}, True]


def changed(header):
    """The header with one value, at any depth, in place of which stands something strange."""

    def places(value, where):
        yield where
        if isinstance(value, dict | list):
            for key in value if isinstance(value, dict) else range(len(value)):
                yield from places(value[key], (*where, key))

    for where in [w for w in places(header, ()) if w]:
        for strange in STRANGE:
            copy = json.loads(json.dumps(header))
            inner = copy
            for key in where[:-1]:
                inner = inner[key]
            inner[where[-1]] = strange
            yield copy


@pytest.mark.parametrize(
    ("name", "kind"),
    [("baselines/file.py", baseline.BASELINE), ("runs/version1.py", version1.FIRST)],
)
def test_a_strange_header_is_refused_or_understood(name, kind, tmp_path, sweep):
    """Also where its digest is right."""
    write, _, read = READERS[name]
    path = tmp_path / "file.parquet"
    write(path)
    table, header = parquet.read(path, kind)
    every = list(changed(header))
    chosen = every if sweep else every[:: max(1, len(every) // 150)]
    for strange in chosen:
        parquet.write(path, kind, table, strange)
        outcome(read, path)
    assert len(chosen) >= 100


@pytest.mark.parametrize(
    ("name", "kind"),
    [("baselines/file.py", baseline.BASELINE), ("runs/version1.py", version1.FIRST)],
)
def test_strange_cells_are_refused(name, kind, tmp_path):
    write, _, read = READERS[name]
    path = tmp_path / "file.parquet"
    write(path)
    table, header = parquet.read(path, kind)
    plain = table.replace_schema_metadata(None)
    strange = [plain.drop_columns([column]) for column in plain.column_names]
    strange += [pa.concat_tables([plain, plain.slice(0, 1)])]
    for i, column in enumerate(plain.column_names):
        if column not in kind.optional:
            nulls = pa.nulls(len(plain), plain.schema.field(column).type)
            strange.append(plain.set_column(i, column, nulls))
        if pa.types.is_string(plain.schema.field(column).type) and column not in ("id", "name"):
            other = pa.array(["strange"] * len(plain))
            strange.append(plain.set_column(i, column, other))
        if pa.types.is_integer(plain.schema.field(column).type):
            other = pa.array([-1] * len(plain), plain.schema.field(column).type)
            strange.append(plain.set_column(i, column, other))
    for wrong in strange:
        parquet.write(path, kind, wrong, header)
        assert outcome(read, path) is None, wrong.schema


def rewritten(path, kind, tables, header):
    with pieces.writing(path, kind) as writer:
        for table in tables:
            writer.add(table)
        writer.head(header)


def test_a_strange_header_of_pieces_is_refused_or_understood(tmp_path, sweep):
    path = tmp_path / "file.parquet"
    sketched(path)
    file = pieces.Pieces(path, recording.RECORDING)
    tables = [file.piece(i) for i in range(len(file.digests))]
    every = list(changed(file.header))
    chosen = every if sweep else every[:: max(1, len(every) // 100)]
    refused = 0
    for strange in chosen:
        rewritten(path, recording.RECORDING, tables, strange)
        refused += outcome(of_recording, path) is None
    assert len(chosen) >= 100
    assert refused > len(chosen) / 3


def test_strange_rows_of_a_recording_are_refused(tmp_path):
    path = tmp_path / "file.parquet"
    sketched(path)
    file = pieces.Pieces(path, recording.RECORDING)
    table = file.piece(0)
    strange = [
        table.set_column(1, table.schema.field(1), pa.array([3, 4], pa.int64())),
        table.set_column(3, table.schema.field(3), pa.array(["strange", "[]"])),
        table.set_column(3, table.schema.field(3), pa.nulls(2, pa.string())),
        table.set_column(4, table.schema.field(4), pa.array([b"", b"1"], pa.large_binary())),
        table.slice(0, 1),
    ]
    for wrong in strange:
        rewritten(path, recording.RECORDING, [wrong, file.piece(1)], file.header)
        assert outcome(of_recording, path) is None, wrong
        sketched(path)
        file = pieces.Pieces(path, recording.RECORDING)


def test_a_damaged_stream_is_cut_off_or_refused(tmp_path):
    """What a killed run has left."""
    path = tmp_path / "run.parquet"
    stream = parts.Stream(parts.folder(path), 0)
    sketched(tmp_path / "other.parquet")
    whole = recording.read(tmp_path / "other.parquet")
    for step in whole.walk(0):
        stream.add(step.number, step.loss, step.layout, step.data, whole.runs["0"])
        stream.flush()
    stream.close()
    content, rng = stream.file.read_bytes(), np.random.default_rng(0)
    steps = list(whole.walk(0))
    for cut in range(0, len(content), 97):
        stream.file.write_bytes(content[:cut])
        found = outcome(lambda path: list(recording.read(path).walk(0)), path)
        assert found is None or found == steps[: len(found)]
    for damaged in damages(content, rng, 60):
        stream.file.write_bytes(damaged)
        outcome(lambda path: list(recording.read(path).walk(0)), path)


def test_a_strange_header_of_a_module_is_refused_or_understood(tmp_path, sweep):
    path = tmp_path / "file.npz"
    held(path)
    reader = Reader(path)
    every = list(changed(reader.header))
    chosen = every if sweep else every[:: max(1, len(every) // 150)]
    refused = 0
    for strange in chosen:
        writer = Writer()
        for array in reader.arrays.values():
            writer.array(array)
        writer.write(path, strange)
        refused += outcome(of_module, path) is None
    assert len(chosen) >= 100
    assert refused > len(chosen) / 2


@EACH_READER
def test_what_is_no_file_is_refused(name, tmp_path):
    _, suffix, read = READERS[name]
    pipe = tmp_path / f"pipe{suffix}"
    os.mkfifo(pipe)  # which would wait for ever
    folder = tmp_path / f"folder{suffix}"
    folder.mkdir()
    closed = tmp_path / f"none{suffix}"
    for path in (pipe, folder, closed, Path("/dev/null")):
        assert outcome(read, path) is None


# What a command that writes takes for its work, short; OUT stands for the target.
WRITERS = {
    "gradients": ["gradients", "relu", "--jobs", "1", "--out", "OUT"],
    "optimizers": ["optimizers", "sgd", "--stream", "fading", "--jobs", "1", "--out", "OUT"],
    "schedules": ["schedules", "step_lr", "--jobs", "1", "--out", "OUT"],
    "curves": ["curves", "--steps", "2", "--hidden", "2", "--jobs", "1", "--out", "OUT"],
    "coverage": ["coverage", "relu", "--jobs", "1", "--out", "OUT"],
    "mutants": ["mutants", "relu", "--no-speed", "--jobs", "1", "--out", "OUT"],
    "calibrate": ["calibrate", "--only", "curves", "--jobs", "1", "--out", "OUT"],
    "bench": ["bench", "tape", "--out", "OUT"],
    "check": ["check", "SUBJECT", "--against", "relu", "--out", "OUT"],
    "trace": ["trace", "mlp", "--out", "PLACE", "--save", "OUT.html"],
    "show": ["show", "gelu", "--save", "OUT.png"],
    "record": ["record", "step_lr", "--repeats", "0", "--jobs", "1", "--out", "OUT.parquet"],
    "record-run": ["record-run", "subject.py", "--out", "OUT.parquet"],
    "diff": ["diff", "BASELINE", "BASELINE", "--save", "OUT.md"],
    "history": ["history", "FOLDER", "--out", "OUT"],
    "versions": ["versions", "numpy==0.0.1", "--out", "OUT"],
}  # fmt: skip
QUIET = ("dialect",)  # commands that write nothing


def test_every_command_that_writes_is_attacked():
    every = {name for group in COMMANDS.values() for name in group}
    assert every == {*WRITERS, *QUIET}


@pytest.fixture
def call(tmp_path, monkeypatch):
    """Calls a command with a target, and gives its status and what it said."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "baselines").mkdir()
    recorded(tmp_path / "baselines" / "a.parquet")
    (tmp_path / "subject.py").write_text(
        "import numpy as np\ndef relu(x):\n    y = np.maximum(x, 0)\n"
        "    def pullback(dy):\n        return np.where(x > 0, dy, 0)\n    return y, pullback\n"
    )
    given = {
        "SUBJECT": "subject.py:relu",
        "BASELINE": "baselines/a.parquet",
        "FOLDER": "baselines",
        "PLACE": str(tmp_path / "place"),
    }

    def called(name, target):
        args = [given.get(a, a.replace("OUT", str(target))) for a in WRITERS[name]]
        result = CliRunner().invoke(app, args)
        said = result.output
        assert "Traceback" not in said
        assert "this is an error of gradtwin" not in said, said
        return result.exit_code, said

    return called


@pytest.mark.parametrize("name", WRITERS)
def test_a_target_that_cannot_be_written_is_one_line_and_status_2(name, call, tmp_path):
    (tmp_path / "file").write_text("mine")
    for target in (tmp_path / "file" / "below", Path("/proc/x"), tmp_path / ("n" * 300)):
        status, said = call(name, target)
        assert status == 2, (target, said)
        assert len(said.strip().splitlines()) <= 2, said
    assert (tmp_path / "file").read_text() == "mine"


def full(handle):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


QUICK = ("gradients", "schedules", "check", "trace", "show", "record", "diff", "history")


@pytest.mark.parametrize("name", QUICK)
def test_on_a_full_disk_old_files_stay_whole(name, call, tmp_path, monkeypatch):
    status, said = call(name, tmp_path / "found")
    assert status in (0, 1), said
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    assert not [p for p in before if p.name.startswith(".gradtwin")]
    monkeypatch.setattr(os, "fsync", full)
    if name == "record":
        monkeypatch.setitem(WRITERS, name, [*WRITERS[name], "--reason", "again"])
    status, said = call(name, tmp_path / "found")
    assert status == 2, said
    assert "No space left on device" in said
    after = {
        p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file() and ".parts" not in str(p)
    }
    assert after == before


def test_a_target_is_written_as_the_system_wants(tmp_path):
    """The umask is kept, a link stays one, long names work, and what is no file is left alone."""
    before = os.umask(0o027)
    try:
        path = files.write(tmp_path / "new", b"1")
        assert stat.S_IMODE(path.stat().st_mode) == 0o640
    finally:
        os.umask(before)
    path.chmod(0o600)
    link = tmp_path / "link"
    link.symlink_to(path)
    files.write(link, b"2")
    assert link.is_symlink()
    assert path.read_bytes() == b"2"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert files.write(tmp_path / ("n" * 250), b"3").read_bytes() == b"3"
    for target in (Path("/dev/null"), Path("/dev/full"), tmp_path):
        with pytest.raises(OSError, match="expected a file"):
            files.write(target, b"4")
    with pytest.raises(OSError, match="expected a file, got a folder"):
        files.write_all({tmp_path / "other": b"5", tmp_path: b"6"})
    assert not (tmp_path / "other").exists()
    assert {p.name for p in tmp_path.iterdir()} == {"new", "link", "n" * 250}
