"""Logs of others, read and held against each other. What is in tests/data/logs was written by the
programs themselves."""

import json
import math
import struct
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from gradtwin.comparisons.cli.app import app
from gradtwin.comparisons.runs import events
from gradtwin.comparisons.runs.judging import FAR
from gradtwin.comparisons.runs.log_comparison import compare, told
from gradtwin.comparisons.runs.logs import read
from typer.testing import CliRunner

DATA = Path(__file__).parents[2] / "data" / "logs"
LOSSES = np.array(json.loads((DATA / "losses.json").read_text()))
EVENTS = [DATA / "simple.tfevents", DATA / "tensor.tfevents"]


def log(folder, text, name="log.csv"):
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def table(values, header="step,loss", start=1, form="{:.4f}"):
    rows = (f"{step},{form.format(float(value))}" for step, value in enumerate(values, start=start))
    return "\n".join([header, *rows]) + "\n"


def judged(folder, old, new, **settings):
    found = compare(read(log(folder, old, "old.csv")), read(log(folder, new, "new.csv")))
    print(told(found.row))
    assert {k: found.row[k] for k in settings} == settings
    return found.row["class"]


# Reading


@pytest.mark.parametrize("path", EVENTS, ids=lambda p: p.name)
def test_event_files_of_tensorboard(path):
    found = read(path, "loss/train")
    assert found.steps.tolist() == list(range(len(LOSSES)))
    assert np.array_equal(found.values, LOSSES.astype(np.float32), equal_nan=True)
    assert found.early
    assert not found.note
    assert read(path, "loss/val").steps.tolist() == [0, 4, 8]
    with pytest.raises(ValueError, match="scalar: expected one of loss/train, loss/val; got none"):
        read(path)


@pytest.mark.filterwarnings("ignore")  # of TensorBoard and what it brings
def test_what_tensorboard_reads_is_read(tmp_path):
    reason = "needs tensorboard, of the extra frameworks"
    loading = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason=reason
    )
    writing = pytest.importorskip("torch.utils.tensorboard", reason=reason)
    rng = np.random.default_rng(0)
    styles = {"a": False, "b/ü": True, "c" * 300: False}
    for restart in (None, 150):  # of a run that is taken up again
        with writing.SummaryWriter(
            tmp_path, purge_step=restart, filename_suffix=f".{restart}"
        ) as w:
            for step in rng.permutation(np.arange(restart or 0, 250)).tolist():
                value = float(rng.standard_normal()) * 10.0 ** int(rng.integers(-30, 30))
                for tag, new in styles.items():
                    if new or rng.random() < 0.5:  # of the new style it keeps what is void
                        w.add_scalar(tag, value, step, new_style=new)
    theirs = loading.EventAccumulator(str(tmp_path), {"scalars": 0, "tensors": 0}).Reload()
    for tag, new in styles.items():
        expected = (
            {e.step: e.tensor_proto.float_val[0] for e in theirs.Tensors(tag)}
            if new
            else {e.step: e.value for e in theirs.Scalars(tag)}
        )
        found = read(tmp_path, tag)
        assert dict(zip(found.steps.tolist(), found.values.tolist(), strict=True)) == expected


def test_a_folder_of_event_files_is_one_run(tmp_path):
    for number, path in enumerate(EVENTS):
        (tmp_path / f"events.out.tfevents.{number}").write_bytes(path.read_bytes())
    assert np.array_equal(
        read(tmp_path, "loss/val").values, read(EVENTS[0], "loss/val").values, equal_nan=True
    )
    with pytest.raises(ValueError, match="expected a folder with event files"):
        read(tmp_path / "..", "loss")


@pytest.mark.parametrize("data", [b"", b"a", b"123456789", bytes(range(256))])
def test_the_checksum_is_castagnolis(data):
    """The values of CRC-32C that are published, and those of an independent computation."""
    crc = 0xFFFFFFFF
    for byte in data:
        for bit in range(8):
            lowest = (crc ^ byte >> bit) & 1
            crc = crc >> 1 ^ (0x82F63B78 if lowest else 0)
    crc ^= 0xFFFFFFFF
    assert data != b"123456789" or crc == 0xE3069283
    assert events._masked(data) == ((crc >> 15 | crc << 17) + 0xA282EAD8) % 2**32


def test_the_log_of_lightning():
    found = read(DATA / "lightning.csv", "train_loss")
    assert np.array_equal(found.values, LOSSES, equal_nan=True)
    assert (found.dtype, found.steps.tolist()) == ("float64", list(range(len(LOSSES))))
    assert read(DATA / "lightning.csv", "val_loss").steps.tolist() == [3, 7, 11]


def test_the_state_of_the_trainer_of_hugging_face():
    found = read(DATA / "trainer.json")
    assert (found.scalar, found.dtype, found.early) == ("loss", "float32", True)
    assert found.steps.tolist() == list(range(1, 13))
    assert read(DATA / "trainer.json", "train_loss").steps.tolist() == [12]


WANDB = """"Step","calm-dew-7 - loss","calm-dew-7 - loss__MIN","calm-dew-7 - loss__MAX"
"0","2.3031","2.3031","2.3031"
"1","","",""
"2","2.1","2.1","2.1"
"""


def test_an_export_of_weights_and_biases(tmp_path):
    path = log(tmp_path, WANDB)
    for scalar in (None, "loss", "calm-dew-7 - loss"):
        found = read(path, scalar)
        assert found.steps.tolist() == [0, 2]
        assert found.values.tolist() == [2.3031, 2.1]
        assert (found.early, found.note) == (True, "")
    mean = read(log(tmp_path, WANDB.replace('"2.3031"\n', '"2.4"\n')))
    assert (mean.early, mean.note) == (False, "its values are means of several steps")
    history = [{"_step": 0, "loss": 2.5, "_runtime": 1.5}, {"_step": 1, "acc": 0.5},
               {"_step": 2, "loss": "NaN", "_runtime": 2}, {"_step": 3, "loss": None}]  # fmt: skip
    path = log(tmp_path, "\n".join(map(json.dumps, history)), "history.jsonl")
    found = read(path)
    assert (found.scalar, found.steps.tolist()) == ("loss", [0, 2])
    assert np.array_equal(found.values, [2.5, np.nan], equal_nan=True)
    assert read(path, "acc").steps.tolist() == [1]


@pytest.mark.parametrize(
    "text",
    [
        "_step,_timestamp,loss,acc\n0,1700000000.5,2.5,\n20,1700000001,1.5,0.5\n",
        ",_runtime,acc,_step,loss,_timestamp\n0,0.5,,0,2.5,1.7e9\n1,0.7,0.2,20,1.5,1.7e9\n",
        "_step,loss,image\n0,2.5,{'_type': 'image-file'}\n20,1.5,\n",
        '"train/global_step","calm-dew-7 - train/loss","calm-dew-7 - train/loss__MIN",'
        '"calm-dew-7 - train/loss__MAX"\n"0","2.5","2.5","2.5"\n"20","1.5","1.5","1.5"\n',
        '"Step","a - _step","a - _step__MIN","a - _step__MAX","a - loss","a - loss__MIN",'
        '"a - loss__MAX"\n"0","0","0","0","2.5","2.5","2.5"\n'
        '"20","20","20","20","1.5","1.5","1.5"\n',
    ],
    ids=["history", "indexed", "media", "trainer", "steps"],
)
def test_tables_of_weights_and_biases_ask_nothing(tmp_path, text):
    found = read(log(tmp_path, text))
    assert (found.steps.tolist(), found.values.tolist()) == ([0, 20], [2.5, 1.5])
    assert (found.early, found.note) == (True, "")


def test_of_several_runs_in_one_export_the_columns_are_named(tmp_path):
    header = WANDB.splitlines()[0]
    other = header.removeprefix('"Step",').replace("calm-dew-7", "wise-owl-8")
    both = f"{header},{other}\n"
    row = ",".join(['"0"', *['"2.5"'] * 6])
    expected = "scalar: expected one of calm-dew-7 - loss, wise-owl-8 - loss; got none"
    with pytest.raises(ValueError, match=expected):
        read(log(tmp_path, both + row))
    with pytest.raises(ValueError, match=r"counts steps, .* got 'Relative Time \(Process\)'"):
        read(log(tmp_path, WANDB.replace("Step", "Relative Time (Process)")))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("tab.tsv", "Step\tloss\n1\t2.5\n2\t1.5\n"),
        ("semicolon.csv", "step;loss\n1;2.5\n2;1.5\n"),
        ("windows.csv", "\ufeffstep,loss\r\n1,2.5\r\n2,1.5\r\n"),
        ("spaces.csv", " step , loss \n1, 2.5\n\n2, 1.5\n"),
        ("tensorboard.csv", "Wall time,Step,Value\n1.7e9,1,2.5\n1.7e9,2,1.5\n"),
        ("alone.csv", "loss\n2.5\n1.5\n"),
        ("order.csv", "step,loss\n2,1.5\n1,2.5\n"),
        ("float.csv", "step,loss\n1.0,2.5\n2.0,1.5\n"),
        ("quoted.csv", 'step,loss,text\n1,2.5,"a\nb, c"\n2,1.5,\n'),
        ("again.csv", "step,loss\n1,9\n2,1.5\n1,2.5\n"),
        ("list.json", '[{"step": 1, "loss": 2.5}, {"step": 2, "loss": 1.5}]'),
        ("lines.ndjson", '{"step": 1, "loss": 2.5}\n\n{"step": 2, "loss": 1.5}\n'),
    ],
)
def test_tables_as_they_come(tmp_path, name, text):
    found = read(log(tmp_path, text, name))
    assert found.steps.tolist() == [1, 2]
    assert found.values.tolist() == [2.5, 1.5]
    assert ("the last counts" in found.note) == (name == "again.csv")


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.csv", "", "expected a header with the names of columns"),
        ("a.csv", "1,2.5\n2,1.5\n", "expected a header with the names of columns, got '1,2.5'"),
        ("a.csv", "step,loss\n1,2.5\n2\n", "line 3: expected 2 cells, got 1"),
        ("a.csv", "step,loss\n1,2.5\n2,no\n", "line 3: loss: expected a number, got 'no'"),
        ("a.csv", "step,loss\n1.5,2.5\n", "line 2: step: expected a whole number, got '1.5'"),
        ("a.csv", "step,loss\n1e300,2.5\n", "step: expected a whole number"),
        ("a.csv", "step,loss\nnan,2.5\n", "step: expected a whole number"),
        ("a.csv", "step,loss,loss\n1,2,3\n", "expected different names, got 'loss' twice"),
        ("a.csv", 'step,loss\n1,"2.5\n', "expected a table"),
        ("a.csv", "step,loss\n1,\n", "got no column of numbers"),
        ("a.csv", "step,a,b\n1,2,3\n", "scalar: expected one of a, b; got none"),
        ("a.csv", "step,a/loss,b/loss\n1,2,3\n", "expected one of a/loss, b/loss; got none"),
        ("a.jsonl", '{"loss": 1}\n{"loss"', "line 2: expected JSON"),
        ("a.jsonl", "[1, 2]\n", "line 1: expected an object, got list"),
        ("a.jsonl", "[" * 10_000, "expected JSON"),
        ("a.json", '{"loss": 1}', "expected a list of objects"),
        ("a.json", "[1]", "object 1: expected an object, got str"),
        ("a.wandb", "", "expected a recording"),
        ("a.tfevents", "", "less than one record"),
        ("a.tfevents", "step,loss\n1,2.5\n2,1.5\n", "expected an event file of TensorBoard"),
    ],
)
def test_what_is_no_log_is_refused_in_a_line(tmp_path, name, text, words):
    path = log(tmp_path, text, name)
    with pytest.raises(ValueError, match=r".") as error:
        read(path)
    assert words in str(error.value)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)
    path.write_bytes(b"\xff\xfe" + text.encode())
    with pytest.raises(ValueError, match=name):
        read(path)
    with pytest.raises(OSError, match="nowhere"):
        read(tmp_path / f"nowhere{path.suffix}" / "tfevents")


def test_a_damaged_event_file_is_refused_or_is_its_beginning(tmp_path):
    path = tmp_path / "a.tfevents"
    content = EVENTS[0].read_bytes()
    path.write_bytes(content)
    whole, _ = events.read(path)
    rng = np.random.default_rng(0)
    for _ in range(80):
        at, bit = int(rng.integers(len(content))), 1 << int(rng.integers(8))
        path.write_bytes(content[:at] + bytes([content[at] ^ bit]) + content[at + 1 :])
        with pytest.raises(ValueError, match=r"TensorBoard|damaged"):
            events.read(path)
    for cut in range(120, len(content), 97):  # a program that was killed
        path.write_bytes(content[:cut])
        found, within = events.read(path)
        assert repr(found) == repr(whole[: len(found)])
        assert within or cut == len(content) or len(found) < len(whole)
    assert "ends within a record" in read(path, "loss/train").note


def record(data):
    head = struct.pack("<Q", len(data))
    sums = (struct.pack("<I", events._masked(part)) for part in (head, data))
    return head + next(sums) + data + next(sums)


@pytest.mark.parametrize(
    "data",
    [b"\x2a\x05\x0a", b"\x10" + b"\xff" * 11, b"\x2b", b"\x2a\x04\x0a\x02\x0a\x09", b"\x10",
     b"\x2a\x05\x0a\x03\x0a\x01\xff", b"\x2a\x09\x0a\x07\x15\x00\x00\x80\x3f\x0a\x01"],
)  # fmt: skip
def test_a_record_that_is_no_event_is_refused(tmp_path, data):
    path = tmp_path / "a.tfevents"
    path.write_bytes(record(b"\x10\x01") + record(data))
    with pytest.raises(ValueError, match=r"a.tfevents: record 2: expected an Event"):
        read(path)


def test_a_step_may_be_negative(tmp_path):
    value = b"\x0a\x01a\x15\x00\x00\x80\x3f"
    summary = b"\x0a" + bytes([len(value)]) + value
    event = b"\x10" + b"\xff" * 9 + b"\x01" + b"\x2a" + bytes([len(summary)]) + summary
    path = tmp_path / "a.tfevents"
    path.write_bytes(record(event))
    assert events.read(path)[0] == [(-1, "a", 1.0)]


# Judging

CURVE = 4.5678 * np.exp(-np.arange(40) / 20)


def test_what_is_printed_alike_is_identical(tmp_path):
    assert judged(tmp_path, table(CURVE), table(CURVE), first_step=None) == "identical"
    full = table(CURVE, form="{!r}")
    assert judged(tmp_path, table(CURVE), full) == "identical"
    assert judged(tmp_path, full, table(CURVE, form="{:.3g}")) == "identical"
    assert judged(tmp_path, full, table(CURVE * (1 + 1e-14), form="{!r}")) == "undecided"
    found = compare(read(EVENTS[0], "loss/train"), read(DATA / "lightning.csv", "train_loss"))
    assert found.row["class"] == "identical"


@pytest.mark.parametrize(
    ("form", "wrong", "kind"),
    [
        ("{:.4f}", 3.0, "different"),
        ("{:.4f}", 4.5682 / 4.5678, "undecided"),  # 2e-4 of it, less than FAR u in float32
        ("{:.4f}", 4.5698 / 4.5678, "different"),
        ("{:.2f}", 4.5698 / 4.5678, "identical"),
        ("{:.2f}", 4.58 / 4.5678, "identical"),  # 4.57 and 4.58 may be 4.575
        ("{:.2f}", 4.6 / 4.5678, "different"),
        ("{!r}", 1 + 1e-13, "undecided"),
        ("{!r}", 1 + 1e-10, "different"),  # in float64
        ("{:.9g}", 1 + 1e-6, "undecided"),
    ],
)
def test_the_first_value_decides_what_it_can(tmp_path, form, wrong, kind):
    new = CURVE.copy()
    new[0] *= wrong
    at = {"outside_step": 1 if kind == "different" else None}
    assert judged(tmp_path, table(CURVE, form=form), table(new, form=form), **at) == kind


def test_a_later_value_decides_nothing(tmp_path):
    new = CURVE.copy()
    new[3:] *= 2
    old = table(CURVE)
    assert judged(tmp_path, old, table(new), first_step=4, max_drift_step=4) == "undecided"
    for settings in ({"start": 50}, {"header": "epoch,loss"}):
        texts = (table(values, **settings) for values in (CURVE, 2 * CURVE))
        assert judged(tmp_path, *texts) == "undecided"
    assert judged(tmp_path, table(CURVE, start=0), table(CURVE, start=1)) == "undecided"


def test_unequal_steps_and_missing_values(tmp_path):
    rows = table(CURVE).splitlines()
    row = compare(
        read(log(tmp_path, "\n".join(rows[:21]), "old.csv")),
        read(log(tmp_path, "\n".join([rows[0], *rows[2:]]), "new.csv")),
    ).row
    assert (row["class"], row["steps"], row["steps_old"], row["steps_new"]) == (
        "identical", 19, 20, 39,
    )  # fmt: skip
    assert "1 of its steps are in old.csv alone, as 1" in row["note"]
    assert "20 of its steps are in new.csv alone, as 21" in row["note"]
    with pytest.raises(ValueError, match=r"expected some of the 1 to 40 of .*, got 90 to 99"):
        judged(tmp_path, table(CURVE), table(CURVE[:10], start=90))


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite(tmp_path, wrong):
    new = CURVE.copy()
    new[5] = wrong
    assert judged(tmp_path, table(new), table(new)) == "identical"
    assert judged(tmp_path, table(CURVE), table(new), max_drift=math.inf) == "undecided"
    new[0] = wrong
    assert judged(tmp_path, table(CURVE), table(new)) == "different"


def call(folder, *args):
    result = CliRunner().invoke(app, ["curves", *map(str, args), "--out", str(folder / "out")])
    return result.exit_code, " ".join(result.output.split())


def test_the_command(tmp_path):
    old, new = log(tmp_path, table(CURVE), "old.csv"), log(tmp_path, table(4 * CURVE), "new.csv")
    status, output = call(tmp_path, "--compare", old, new)
    assert status == 1
    assert "different: step 1, loss 18.27 instead of 4.568, before any update" in output
    (row,) = pd.read_csv(tmp_path / "out" / "compare.csv").to_dict("records")
    assert (row["class"], row["steps"], row["max_drift_step"]) == ("different", 40, 1)
    assert (tmp_path / "out" / "compare.png").stat().st_size > 10_000
    assert call(tmp_path, "--compare", *EVENTS, "--scalar", "loss/train")[0] == 0
    status, output = call(tmp_path, "--compare", EVENTS[0], DATA / "lightning.csv")
    assert (status, "expected one of loss/train, loss/val; got none" in output) == (2, True)
    drifting = log(tmp_path, table(CURVE + np.arange(40) / 1e3), "drifting.csv")
    status, output = call(tmp_path, "--compare", old, drifting)
    assert status == 2
    assert "A log has no floor" in output
    assert "First difference: step 2, loss 4.346 instead of 4.345." in output


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--scalar", "loss"], "goes with --compare"),
        (["--compare", "a.parquet", "b.parquet", "--scalar", "a"], "goes with two logs alone"),
        (["--compare", "a.csv", "b.parquet"], "expected two recordings or two logs"),
        (["--compare", "a.csv", "b.csv", "--lr", "1"], "goes without the options of a grid"),
        (["--compare", "nowhere.csv", "b.csv"], "No such file"),
        (["--compare", "nowhere", "b.csv"], "expected a recording"),
    ],
)
def test_wrong_usage_is_a_line(tmp_path, args, words):
    status, output = call(tmp_path, *args)
    assert status == 2
    assert words in output


def test_what_is_far_is_far_beyond_right_rewrites():
    assert FAR > 8 * 237
