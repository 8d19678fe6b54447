"""The fixture `gradient_baseline`, in projects of a few lines; and what it stores and compares."""

import io
import pickle
import re
import sys
import zipfile
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from gradtwin.comparisons.snapshots import MARK, files
from gradtwin.comparisons.snapshots.arrays import (
    BITS,
    Array,
    collect,
    differences,
    encoded,
    load,
    table,
)
from threadpoolctl import threadpool_limits

pytest_plugins = ["pytester"]

QUICK = ("-q", "-pgradtwin.pytest_plugin", "-pno:cacheprovider")


TEST = """
from given import arrays

def test_a(gradient_baseline):
    gradient_baseline.check("layer", arrays)
"""
LAYER = {"weight": np.array([[1.0, 2.0, -0.0]], np.float32), "bias": [torch.ones(2).bfloat16()]}


@pytest.fixture
def project(pytester, monkeypatch):
    """Runs pytest in a project whose tests import `arrays` from `given`."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # a test is rewritten within a second

    def run(*options, test=TEST, arrays=None):
        given = SimpleNamespace(arrays=LAYER if arrays is None else arrays)
        monkeypatch.setitem(sys.modules, "given", given)
        pytester.makepyfile(test_x=test)
        return pytester.inline_run(*QUICK, *options), pytester.path / "test_x"

    return run


def outcome(run):
    """How many passed and failed, and why."""
    recorder, _ = run
    passed, skipped, failed = recorder.listoutcomes()
    return len(passed), len(failed), "\n".join(str(r.longrepr) for r in failed + skipped)


def written(run):
    return {file.name: file.read_bytes() for file in run[1].iterdir()} if run[1].exists() else {}


def stored(arrays, tmp_path):
    path = tmp_path / "stored.npz"
    path.write_bytes(encoded(collect(arrays), "here"))
    return path


def change(array, index, step=1):
    """The array with one element moved by so many ulps, away from zero."""
    bits = array.copy().view(f"u{array.itemsize}")
    bits[index] += step
    return bits.view(array.dtype)


# Storage


def patterns(dtype):
    """Every bit pattern of 8 and 16 bits; of more, a number, both zeros, infinity and odd NaNs."""
    size = np.dtype(dtype).itemsize
    if size <= 2:
        return np.arange(256**size).astype(f"u{size}").view(dtype)
    info = np.finfo(dtype)
    bits = np.array([1.5, 0.0, -0.0, np.inf, info.smallest_subnormal], dtype).view(f"u{size}")
    nans = bits[3] + np.array([1, 5, 1 << (info.nmant - 1)], bits.dtype)
    return np.concatenate([bits, nans, nans | bits[2]]).view(dtype)


@pytest.mark.parametrize(
    "array",
    [
        *(patterns(dtype) for dtype in ("f2", "f4", "f8")),
        *(
            torch.from_numpy(patterns(bits)).view(getattr(torch, dtype))
            for dtype, bits in BITS.items()
            if hasattr(torch, dtype)
        ),
        np.array([True, False]),
        np.array([0, 2**64 - 1], np.uint64),
        np.arange(-3, 3, dtype=np.int8),
        np.zeros((0, 3)),
        np.float32(0.1),
        np.arange(24.0).reshape(2, 3, 4).transpose(2, 0, 1)[::-2],
        torch.arange(6).reshape(2, 3).T,
        np.arange(3, dtype=">f4"),
    ],
    ids=lambda a: f"{a.dtype}{list(a.shape)}",
)
def test_every_bit_is_kept(array, tmp_path):
    there, origin = load(stored(array, tmp_path))
    (a,), (b,) = collect(array).values(), there.values()
    whole = (
        array.view(torch.uint8 if array.itemsize == 1 else torch.uint16)
        if (a.dtype in BITS)
        else array
    )
    expected = np.asarray(whole)
    assert (b.dtype, b.bits.shape) == (a.dtype, expected.shape)
    assert b.dtype in str(array.dtype) or array.dtype == ">f4"
    assert b.bits.tobytes() == expected.astype(expected.dtype.newbyteorder("=")).tobytes()
    assert origin == "here"
    assert not differences({"array": a}, there)


def test_names_are_those_of_a_tree(tmp_path):
    tree = {"layer": [{"weight": 1.0}, {"weight": np.ones(1)}], "file": True, "x.npy": 1, "x": 2}
    there, _ = load(stored(tree, tmp_path))
    assert list(there) == ["layer.0.weight", "layer.1.weight", "file", "x.npy", "x"]
    assert [int(a.values().item()) for a in there.values()] == [1, 1, 1, 1, 2]
    readable = np.load(tmp_path / "stored.npz")
    assert list(readable)[:2] == [MARK, "layer.0.weight:float64"]


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({}, "holds no array"),
        ({"a": [{}, []]}, "holds no array"),
        ({"w": {"grad": None}}, "'w.grad' is NoneType"),
        ({"a.b": 1, "a": {"b": 2}}, "two are called 'a.b'"),
        ({"a\0": 1}, "one is called"),
        ("text", "'array' is str"),
        (2**70, "'array' is int"),
        (np.array([None]), "ndarray object"),
        (np.ones(2, complex), "ndarray complex128"),
        (np.ones(2, np.longdouble), "ndarray float128"),
        (np.array(["NaT"], "M8[s]"), "ndarray datetime64"),
        (np.ma.masked_equal([1, 2], 1), "MaskedArray int64"),
        (torch.ones(2).to_sparse(), "Tensor torch.float32"),
        (torch.ones(2, dtype=torch.complex64), "Tensor torch.complex64"),
    ],
    ids=str,
)
def test_what_is_no_array_is_refused(arrays, words):
    with pytest.raises((TypeError, ValueError), match=rf"^arrays: .*{words}.*; expected"):
        collect(arrays)


# Comparison

W = np.array([1.0, -2.0, 3.0], np.float32)
NAN = np.array([np.nan, 1.0])
HALF = torch.tensor([1.0, -2.0]).bfloat16()


@pytest.mark.parametrize(
    ("then", "now", "words"),
    [
        (W, change(W, 1), "1 of 3 1 (1,) -2.0 -2.0000002 6.4e-08"),
        (W, W + np.float32([0, 0, 1]), "1 of 3 4194304 (2,) 3.0 4.0 0.27"),
        (W * 0, -W * 0, "3 of 3 0 (0,) 0.0 -0.0 0"),
        (W, W.astype(float), "stored as float32 (3,), now float64 (3,)"),
        (W, W[None], "stored as float32 (3,), now float32 (1, 3)"),
        (W.astype("f2"), torch.from_numpy(W).bfloat16(), "stored as float16 (3,), now bfloat16"),
        (HALF, (HALF.view(torch.int16) + 1).view(torch.bfloat16), "2 of 2 1 (0,) 1.0 1.0078125"),
        (HALF, -HALF, "2 of 2 32768 (1,) -2.0 2.0 2"),
        (NAN, NAN * np.nan, "1 of 2 inf (1,) 1.0 nan inf"),
        (NAN, np.array([0.0, 1.0]), "1 of 2 inf (0,) nan 0.0 inf"),
        (W, np.where(W == 3, np.float32(np.inf), W), "1 of 3 1061158912 (2,) 3.0 inf inf"),
        (np.uint64(2**64 - 1), np.uint64(0), f"1 of 1 {2**64 - 1} () {2**64 - 1} 0 1"),
        (np.int64(-(2**63)), np.int64(2**63 - 1), f"1 of 1 {2**64 - 1} () "),
        (True, False, "1 of 1 1 () True False 1"),
        (np.zeros(2), np.array([0, 1e-300]), f"1 of 2 {118622047889322841} (1,) 0.0 1e-300 0"),
        (
            np.array([1e300, 1e300]),
            np.array([2e300, 1e300]),
            f"1 of 2 {2**52} (0,) 1e+300 2e+300 0.71",
        ),
    ],
)
def test_one_row_says_how_far(then, now, words):
    (found,) = differences(collect(now), collect(then))
    assert " ".join(found.cells[1:]).startswith(words)


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
def test_nans_are_equal_whatever_they_carry(dtype):
    nans = patterns(dtype)
    nans = nans[np.isnan(nans)]
    assert len({n.tobytes() for n in nans}) > 4
    assert not differences(collect(nans), collect(nans[::-1]))
    half = torch.from_numpy(patterns("u2")).view(torch.bfloat16)
    half = half[half.isnan()]
    assert not differences(collect(half), collect(half.flip(0)))


def test_the_table_begins_with_the_worst_and_ends_after_ten():
    then = {f"w{k:02}": np.ones(2) for k in range(15)}
    now = {k: change(v, 0, 1 + i) for i, (k, v) in enumerate(then.items())}
    now["w03"] = np.array([1, np.nan])
    now["new"] = now.pop("w05")
    found = differences(collect(now), collect(then))
    lines = table(found).splitlines()
    first = [line.split()[0] for line in lines[1:]]
    assert first == ["w05", "new", "w03", "w14", "w13", "w12", "w11", "w10", "w09", "w08", "…"]
    assert "missing" in lines[1]
    assert "new" in lines[2]
    assert lines[-1].strip() == "… and 6 more"


# Files that are none


def test_a_damaged_file_is_never_taken_for_another(tmp_path):
    path = stored({"w": W}, tmp_path)
    there, _ = load(path)
    whole = path.read_bytes()
    refused = 0
    for k in range(0, len(whole), 3):
        path.write_bytes(whole[:k] + bytes([whole[k] ^ 0x11]) + whole[k + 1 :])
        try:
            found, origin = load(path)
        except ValueError as error:
            refused += str(path) in str(error)
        else:
            assert not differences(found, there)
            assert origin == "here"
    assert refused > len(whole) / 6
    for k in range(0, len(whole), 25):
        path.write_bytes(whole[:k])
        with pytest.raises(ValueError, match="is refused: "):
            load(path)


class Trap:
    def __reduce__(self):
        return (print, ("unpickled",))


def foreign(kind):
    file = io.BytesIO()
    if kind == "pickled":
        np.savez(file, **{MARK: np.array(["here", ""]), "w:object": np.array([Trap()], object)})
    elif kind == "with one array less":
        members = dict(np.load(io.BytesIO(encoded(collect(LAYER), "here"))))
        members.popitem()
        np.savez(file, **members)
    elif kind == "with another value":
        members = dict(np.load(io.BytesIO(encoded(collect(LAYER), "here"))))
        members["weight:float32"][0, 0] = 7
        np.savez(file, **members)
    elif kind == "of a false dtype":
        return encoded({"w": Array("float64", np.ones(2, np.float32))}, "here")
    elif kind == "of no array":
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr(zipfile.ZipInfo("text"), "w")
    elif kind == "of another program":
        np.savez(file, weight=np.ones(2))
    elif kind == "a pickle":
        pickle.dump(Trap(), file)
    elif kind == "one array":
        np.save(file, np.ones(2))
    elif kind == "cut":
        return encoded(collect(LAYER), "here")[:-30]
    return file.getvalue()


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("pickled", "got object"),
        ("with one array less", "damaged, or changed"),
        ("with another value", "damaged, or changed"),
        ("of a false dtype", "'w:float64' is of float32"),
        ("of no array", "'text' cannot be read"),
        ("of another program", "another program"),
        ("a pickle", "an .npz file of arrays"),
        ("one array", "an .npz file of arrays"),
        ("cut", "an .npz file of arrays"),
        ("empty", "an .npz file of arrays"),
    ],
)
def test_a_foreign_file_is_refused_with_the_reason(tmp_path, kind, words):
    path = tmp_path / "foreign.npz"
    path.write_bytes(foreign(kind))
    with pytest.raises(ValueError, match=f"foreign.npz is refused: .*{words}"):
        load(path)


@pytest.mark.parametrize("kind", ["pickled", "cut", "of another program"])
def test_a_foreign_file_is_left_alone(project, pytester, kind):
    pytester.mkdir("test_x")
    file = pytester.path / "test_x" / "layer.npz"
    file.write_bytes(foreign(kind))
    for option in ("-q", "--regen-platform"):
        run = project(option)
        passed, failed, told = outcome(run)
        assert (passed, failed) == (0, 1)
        assert "layer.npz is refused: " in told
        assert "--force-regen" in told
        assert written(run) == {"layer.npz": foreign(kind)}
    for option, expected in (("--force-regen", (0, 1)), ("-q", (1, 0))):
        assert outcome(project(option))[:2] == expected


# The life of a file


def test_the_first_run_fails_and_the_second_compares(project):
    run = project()
    passed, failed, told = outcome(run)
    assert (passed, failed) == (0, 1)
    assert "Written, for it did not exist: " in told
    assert list(written(run)) == ["layer.npz"]
    assert outcome(project())[:2] == (1, 0)
    other = {**LAYER, "weight": change(LAYER["weight"], (0, 1))}
    passed, failed, told = outcome(second := project(arrays=other))
    assert (passed, failed) == (0, 1)
    assert "1 of 2 arrays differ" in told
    assert "weight  1 of 3  1     (0, 1)  2.0     2.0000002" in told
    assert "gradient_baseline.check(" in told  # the line of the test,
    assert "def check" not in told  # and not those of the fixture
    assert f"written on {files.here()}" in told
    assert "pytest test_x.py::test_a --force-regen" in told
    assert written(second) == written(run)


@pytest.mark.parametrize(
    ("option", "other"),
    [
        ("--force-regen", {**LAYER, "weight": change(LAYER["weight"], (0, 0))}),
        ("--force-regen", {**LAYER, "weight": LAYER["weight"] + 0}),
        ("--regen-all", {**LAYER, "weight": LAYER["weight"].astype(float)}),
        ("--regen-all", {"weight": LAYER["weight"]}),
    ],
    ids=["one ulp", "sign of zero", "dtype", "one missing"],
)
def test_what_differs_is_written_anew(project, option, other):
    before = written(project("--regen-all"))
    assert outcome(project(arrays=other))[:2] == (0, 1)
    passed, failed, told = outcome(run := project(option, arrays=other))
    assert (passed, failed) == ((1, 0) if option == "--regen-all" else (0, 1))
    assert ("The file is now written anew." in told) == bool(failed)
    assert written(run).keys() == before.keys()
    assert written(run) != before
    assert outcome(project(arrays=other))[:2] == (1, 0)


@pytest.mark.parametrize("option", ["--force-regen", "--regen-all", "--regen-platform"])
def test_what_is_equal_is_left_alone(project, option):
    _, folder = run = project("--regen-all")
    before = written(run)
    inode = (folder / "layer.npz").stat().st_ino
    assert outcome(project(option))[:2] == (1, 0)
    assert (folder / "layer.npz").stat().st_ino == inode
    assert written(run) == before


FAILURES = {
    "assert": "def test_a(gradient_baseline):\n    CHECK\n    assert False",
    "skip": "import pytest\ndef test_a(gradient_baseline):\n    CHECK\n    pytest.skip('no')",
    "unittest": (
        "import pytest, unittest\nclass TestA(unittest.TestCase):\n"
        "    @pytest.fixture(autouse=True)\n    def kept(self, gradient_baseline):\n"
        "        self.kept = gradient_baseline\n"
        "    def test_a(self):\n        gradient_baseline = self.kept\n        CHECK\n"
        "        self.fail()"
    ),
    "setup": (
        "import pytest\n@pytest.fixture\ndef broken(gradient_baseline):\n    CHECK\n    1 / 0\n"
        "def test_a(broken): pass"
    ),
    "name": "def test_a(gradient_baseline):\n    CHECK\n    gradient_baseline.check(3, arrays)",
    "twice": "def test_a(gradient_baseline):\n    CHECK\n    CHECK",
    "none": "def test_a(gradient_baseline):\n    CHECK\n    gradient_baseline.check('n', None)",
}


@pytest.mark.parametrize("kind", FAILURES)
def test_a_run_that_fails_for_another_reason_writes_nothing(project, kind):
    check = "gradient_baseline.check('layer', arrays)"
    test = "from given import arrays\n" + FAILURES[kind].replace("CHECK", check)
    run = project("--regen-all", test=test)
    assert outcome(run)[0] == 0
    assert written(run) == {}
    before = written(project("--regen-all"))
    assert written(project("--force-regen", test=test, arrays={"weight": W})) == before


def test_a_check_beyond_the_test_is_not_lost(project):
    test = (
        "import pytest\n@pytest.fixture\ndef late(gradient_baseline):\n    yield\n"
        "    gradient_baseline.check('late', 1)\ndef test_a(late): pass"
    )
    run = project(test=test)
    assert outcome(run)[:2] == (1, 1)  # the test, and what came after it
    assert list(written(run)) == ["late.npz"]
    assert outcome(project(test=test))[:2] == (1, 0)


def test_arrays_are_kept_as_they_were_when_they_were_checked(project):
    test = TEST + "    arrays['weight'][:] = 7\n"
    project("--regen-all", test=test, arrays={"weight": np.ones(3)})
    assert outcome(project(arrays={"weight": np.ones(3)}))[:2] == (1, 0)


def test_a_kill_between_writing_and_renaming_leaves_the_old_file(project, pytester):
    before = written(project("--regen-all", arrays=1.0))
    pytester.makeconftest(
        "import os, pathlib, signal, sys, types\n"
        "sys.modules['given'] = types.SimpleNamespace(arrays=2.0)\n"
        "def killed(self, target):\n"
        "    if target.suffix == '.npz':\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "pathlib.Path.replace = killed\n"
    )
    killed = pytester.runpytest_subprocess(*QUICK, "--regen-all")
    assert killed.ret == -9
    (pytester.path / "conftest.py").unlink()
    run = project(arrays=1.0)
    assert outcome(run)[:2] == (1, 0)
    assert written(run)["layer.npz"] == before["layer.npz"]
    assert outcome(project("--regen-all", arrays=2.0))[:2] == (1, 0)
    assert outcome(project(arrays=2.0))[:2] == (1, 0)


# Names


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("layer.0", "layer.0"),
        ("Größe [1,a=2]"[:5], "Größe"),
        ("a/b", "_a_b-c14cddc0"),
        ("a_b", "a_b"),
        ("../up", "_.._up-3a2f6d4c"),
        ("con", None),
        ("NUL.x", None),
        ("x" * 300, None),
        ("ü" * 100, None),
        ("\ud800", None),
    ],
)
def test_a_name_becomes_that_of_a_file(name, file, tmp_path):
    found = files.stem(name)
    (tmp_path / f"{found}.npz").write_bytes(b"")
    assert [path.name for path in tmp_path.iterdir()] == [f"{found}.npz"]
    if file in (name, None):
        assert (found == name) == (file is not None)
    else:
        assert found[:-9] == file[:-9]
    assert not found.lower().startswith(("con", "nul"))
    assert found != files.stem(name + "/")


MANY = """
import pytest
from given import arrays

@pytest.mark.parametrize("n", [1, 2])
class TestA:
    def test_own(self, gradient_baseline, n):
        gradient_baseline.check(None, arrays[n])

    def test_two(self, gradient_baseline, n):
        gradient_baseline.check("one", 1.0)
        gradient_baseline.check("two/", 1.0)

@pytest.mark.parametrize("n", ["a/b", "a_b"])
def test_own(gradient_baseline, n):
    gradient_baseline.check(None, n == "a/b")
"""


def test_every_check_has_its_file(project):
    run = project(test=MANY, arrays=[0, 1, 2])
    passed, failed, told = outcome(run)
    assert (passed, failed) == (0, 6)
    assert "Written in this run, by test_x.py::TestA::test_two[1]" in told
    names = {"TestA.test_own[1]", "TestA.test_own[2]", "one", "test_own[a_b]"}
    found = {name.removesuffix(".npz") for name in written(run)}
    assert names < found
    assert {name[:-9] for name in found - names} == {"_two_", "_test_own[a_b]"}
    assert outcome(project(test=MANY, arrays=[0, 1, 2]))[:2] == (6, 0)


SHARED = """
import pytest
from given import arrays

@pytest.mark.parametrize("n", [0, 1])
def test_a(gradient_baseline, n):
    gradient_baseline.check("shared", arrays[n])
"""


@pytest.mark.parametrize(
    ("option", "start"),
    [
        ("-q", None),
        ("-q", 1.0),
        ("--force-regen", 3.0),
        ("--regen-all", None),
        ("--regen-all", 1.0),
        ("--regen-all", 2.0),
    ],
)
def test_two_tests_of_one_name_must_agree(project, option, start):
    if start:
        project("--regen-all", test=SHARED, arrays=[start, start])
    run = project(option, test=SHARED, arrays=[1.0, 2.0])
    passed, failed, told = outcome(run)
    assert failed
    shared = "All parameters of the test share this file" in told
    assert shared or "test_x.py::test_a[0] has given other arrays" in told
    if option == "--regen-all":
        assert (passed, failed) == (1, 1)
        assert outcome(project(test=SHARED, arrays=[1.0, 1.0]))[:2] == (2, 0)


def test_two_workers(pytester):
    pytester.makepyfile(
        test_x="import pytest\n"
        "each = pytest.mark.parametrize('n', [\n"
        "    pytest.param(n, marks=pytest.mark.xdist_group(str(n % 2))) for n in range(4)\n"
        "])\n"
        "@each\ndef test_own(gradient_baseline, n):\n    gradient_baseline.check(None, n)\n"
        "@each\ndef test_same(gradient_baseline, n):\n    gradient_baseline.check('same', 1)\n"
        "@each\ndef test_odd(gradient_baseline, n):\n    gradient_baseline.check('odd', n % 2)\n"
    )
    options = ("-n2", "--dist=loadgroup", "-pno:cacheprovider", "-pno:hypothesispytest")
    pytester.makepyfile(
        test_y="import pytest\n"
        "@pytest.mark.parametrize('n', range(4))\n"
        "def test_own(gradient_baseline, n):\n    gradient_baseline.check(None, n)\n"
    )
    (pytester.mkdir("test_y") / "old.npz").write_bytes(encoded(collect(1.0), "here"))
    first = pytester.runpytest_subprocess("--regen-all", *options)
    first.assert_outcomes(passed=14, failed=2)  # a worker of the two is late with test_odd
    assert named(first) == ["test_y/old.npz"]  # both know together what was asked for
    first.stdout.re_match_lines([r"Not written: test_x.py::test_odd\[\d\] has given other arrays"])
    there = {path.stem for path in (pytester.path / "test_x").iterdir()}
    assert there == {"same", "odd", *(f"test_own[{n}]" for n in range(4))}


# Platforms


@pytest.fixture
def platform(monkeypatch):
    return lambda tag: monkeypatch.setattr(files, "platform_tag", lambda: tag)


def test_a_platform_keeps_its_own_file(project, platform):
    here, there = {"w": W}, {"w": change(W, 1)}
    platform("linux-a")
    common = written(project("--regen-all", arrays=here))
    platform("linux-b")
    told = outcome(project(arrays=there))[2]
    assert "(layer.linux-b.npz): pytest test_x.py::test_a --regen-platform" in told
    assert "written on linux-a" in told
    passed, failed, told = outcome(run := project("--regen-platform", arrays=there))
    assert (passed, failed) == (0, 1)
    assert "Written for this platform: " in told
    assert written(run) == common | {"layer.linux-b.npz": written(run)["layer.linux-b.npz"]}
    assert outcome(project("--regen-platform", arrays=there))[:2] == (1, 0)
    assert outcome(project(arrays=there))[:2] == (1, 0)
    told = outcome(project(arrays=here))[2]  # its own file comes first
    assert "layer.linux-b.npz" in told
    assert "--regen-platform" not in told
    platform("linux-a")
    assert outcome(project(arrays=here))[:2] == (1, 0)
    assert outcome(project(arrays=there))[:2] == (0, 1)
    platform("linux-b")
    assert outcome(run := project("--force-regen", arrays=here))[:2] == (0, 1)
    assert written(run)["layer.npz"] == common["layer.npz"]
    assert outcome(project(arrays=here))[:2] == (1, 0)


def test_a_platform_file_is_for_bits_alone(project):
    assert list(written(project("--regen-platform"))) == ["layer.npz"]
    before = written(project())
    for other in ({"weight": W}, {**LAYER, "weight": LAYER["weight"].astype(float)}):
        passed, failed, told = outcome(run := project("--regen-platform", arrays=other))
        assert (passed, failed) == (0, 1)
        assert "nothing but bits differ" in told
        assert written(run) == before
    other = {**LAYER, "weight": -LAYER["weight"]}
    assert outcome(project("--regen-platform", "--regen-all", arrays=other))[:2] == (1, 0)
    assert outcome(run := project(arrays=other))[:2] == (1, 0)
    assert len(written(run)) == 2
    assert written(run)["layer.npz"] == before["layer.npz"]


NORM = """
import torch
from given import arrays

def test_a(gradient_baseline):
    torch.manual_seed(0)
    torch.set_num_threads(arrays)
    norm = torch.nn.LayerNorm(64)
    (norm(torch.randn(256, 64)) * torch.randn(256, 64)).sum().backward()
    gradient_baseline.check("layer", {n: p.grad for n, p in norm.named_parameters()})
"""


@pytest.fixture
def torch_threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.skipif(not torch.backends.openmp.is_available(), reason="torch without OpenMP")
def test_the_number_of_threads_is_part_of_the_platform(project, torch_threads):
    assert outcome(project("--regen-all", test=NORM, arrays=1))[:2] == (1, 0)
    passed, failed, told = outcome(project(test=NORM, arrays=2))
    assert (passed, failed) == (0, 1)
    assert re.search("written on .*-threads1[-,]", told)
    assert re.search("this is    .*-threads2[-,]", told)
    assert outcome(run := project("--regen-platform", test=NORM, arrays=2))[:2] == (0, 1)
    assert len(written(run)) == 2
    for number in (1, 2, 1):
        assert outcome(project(test=NORM, arrays=number))[:2] == (1, 0)


def test_the_tag_has_the_threads_of_blas_where_these_are_others(torch_threads):
    torch.set_num_threads(2)
    with threadpool_limits(2, "blas"):
        assert files.platform_tag().endswith("-threads2")
    with threadpool_limits(1, "blas"):
        assert files.platform_tag().endswith("-threads2-blas1")


def test_a_file_of_a_machine_of_before_threads_were_known_is_still_its_own(project):
    here, there = {"w": W}, {"w": change(W, 1)}
    _, folder = run = project("--regen-all", arrays=here)
    old = folder / f"layer.{files._machine()}.npz"
    old.write_bytes(encoded(collect(there), f"{files._machine()}, torch 2.13.0, NumPy 2.4.6"))
    assert outcome(project(arrays=there))[:2] == (1, 0)
    told = outcome(project(arrays=here))[2]
    assert str(old) in told
    assert f"(layer.{files.platform_tag()}.npz)" in told
    assert outcome(project("--regen-platform", arrays=here))[:2] == (0, 1)
    assert outcome(project(arrays=here))[:2] == (1, 0)
    assert len(written(run)) == 3


def test_the_tag_is_made_of_words():
    words = files.platform_tag().split("-")
    assert words[0] in ("linux", "darwin", "windows")
    assert torch.backends.cpu.get_cpu_capability().lower().replace(" ", "_") in words


# Options


@pytest.mark.parametrize("option", ["--force-regen", "--regen-all"])
def test_options_of_others_are_shared(project, pytester, option):
    pytester.makeconftest(
        "def pytest_addoption(parser):\n"
        "    for flag in ('--force-regen', '--regen-all'):\n"
        "        parser.addoption(flag, action='store_true')\n"
    )
    project("--regen-all", arrays=1.0)
    assert outcome(project(option, arrays=2.0))[0] == (option == "--regen-all")
    assert outcome(project(arrays=2.0))[:2] == (1, 0)


# What no test asks for


THREE = """
import pytest
from given import arrays

def test_a(gradient_baseline):
    gradient_baseline.check("layer", 1.0)

def test_b(gradient_baseline):
    gradient_baseline.check(None, 2.0)

def test_c(gradient_baseline):
    assert arrays != "fails"
    if arrays == "skips":
        pytest.skip()
    gradient_baseline.check("last", 3.0)
"""
HEADING = "gradient baselines that no test has asked for:"


@pytest.fixture
def lost(pytester, monkeypatch):
    """Runs pytest on test_x.py, and gives the files that the end of the session names."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def run(*options, test=THREE, arrays="passes"):
        monkeypatch.setitem(sys.modules, "given", SimpleNamespace(arrays=arrays))
        pytester.makepyfile(test_x=test)
        return named(pytester.runpytest_inprocess(*QUICK, *options))

    return run


def named(result):
    lines = result.outlines
    at = lines.index(HEADING) + 1 if HEADING in lines else len(lines)
    return [line.strip() for line in lines[at:] if line.startswith("  test_")]


@pytest.fixture
def three(pytester, lost):
    """A folder with what THREE keeps, and with an array of another program."""
    assert lost("--regen-all") == []
    folder = pytester.path / "test_x"
    assert {p.name for p in folder.iterdir()} == {"layer.npz", "test_b.npz", "last.npz"}
    np.savez(folder / "another.npz", x=np.ones(2))
    (folder / "torn.npz").write_bytes(b"PK")
    return folder


def test_a_file_that_no_test_asks_for_is_named(lost, three):
    for name in ("layer.linux-a-threads9.npz", "layer.1.npz", "old.linux-b.npz"):
        (three / name).write_bytes((three / "layer.npz").read_bytes())
    expected = ["test_x/layer.1.npz", "test_x/old.linux-b.npz"]
    assert lost() == expected
    without_b = THREE.replace("def test_b", "def not_b")
    assert lost(test=without_b) == [*expected, "test_x/test_b.npz"]
    renamed = THREE.replace('"last"', '"end"')
    assert lost("--regen-all", test=renamed) == ["test_x/last.npz", *expected]


@pytest.mark.parametrize(
    ("options", "arrays"),
    [
        (["-k", "test_a"], "passes"),
        (["test_x.py::test_a", "test_x.py::test_c"], "passes"),
        (["--deselect", "test_x.py::test_c"], "passes"),
        ([], "fails"),
        ([], "skips"),
        (["--collect-only"], "passes"),
    ],
    ids=str,
)
def test_nothing_is_said_of_files_whose_tests_were_left_out(lost, three, options, arrays):
    (three / "old.npz").write_bytes((three / "layer.npz").read_bytes())
    assert lost(*options, arrays=arrays) == []


def test_of_the_last_failed_alone_nothing_is_said(lost, three):
    options = ("-p", "cacheprovider")
    (three / "old.npz").write_bytes((three / "layer.npz").read_bytes())
    assert lost(*options, arrays="fails") == []
    assert lost(*options, "--lf") == []
    assert lost(*options) == ["test_x/old.npz"]
