"""pytest: the fixtures `check_gradient` and `assert_gradient`, and one report for the session; the
fixture `gradient_baseline`, which keeps arrays in files beside the tests, and the files of these
that no test has asked for.

Torch, and all the rest, is imported only where a gradient is checked.
"""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from .assertion import assert_gradient, checked, collected
from .comparisons.snapshots.orphans import Seen, orphans

OPTION = "--gradient-report"
# The keys under which a worker of xdist hands over what it collected, and what it has seen.
KEY, SEEN = "gradient_reports", "gradient_baselines"

# How the files of gradient_baseline are written anew.
REGENERATE = {
    "force_regen": "Write the baselines that differ anew, and fail their tests.",
    "regen_all": "Write the baselines that differ anew, and let their tests pass.",
    "regen_platform": "Where only bits differ, write a baseline for this platform beside the "
    "common one, and fail the test.",
}

BASELINE = pytest.StashKey["GradientBaseline"]()
SESSION = pytest.StashKey["_Session"]()


@pytest.fixture
def check_gradient() -> Callable[..., Any]:
    """`gradtwin.check`; what it finds is part of the session's report."""
    return checked


@pytest.fixture(name="assert_gradient")
def _assert_gradient() -> Callable[..., Any]:
    """`gradtwin.assert_gradient`."""
    return assert_gradient


class GradientBaseline:
    """The arrays that one test keeps, each check in a file of the folder named after its module."""

    def __init__(self, request: pytest.FixtureRequest, record: Path) -> None:
        self._request = request
        self._record = record
        self._session: _Session = request.config.stash[SESSION]
        self._files: Any = None
        self._over = False

    def check(
        self,
        name: str | None,
        arrays: Any,
        *,
        floor: Callable[[], Any] | None = None,
        ulps: int | None = None,
        rtol: float | None = None,
    ) -> None:
        """Fails unless `arrays` are bit for bit those of the file `name`; None is the test's name.

        They are NumPy arrays, tensors or numbers: one, or a tree of dicts and lists. A file that
        does not exist is written when the test is over, and the test fails.

        One of three may allow more than the same bits:

        floor  the call that has made the arrays, `functools.partial(function, *arguments)`: how far
               rounding moves each element is measured, when something differs, by calling it again
               while its arguments (arrays, tensors and modules, which are copied) and what it
               computes with torch, or with NumPy from these, move by one ulp; eight times that is
               allowed
        ulps   so many units in the last place, element by element
        rtol   so much of what is stored, element by element
        """
        __tracebackhide__ = True
        self._files = self._files or self._opened()
        self._files.check(name, arrays, floor=floor, ulps=ulps, rtol=rtol)
        self._session.seen.asked |= self._files.asked
        if self._over:  # another fixture checks while it is torn down
            self.finish()

    def finish(self) -> None:
        """Writes what has to be written, and fails the test that may not pass by writing."""
        __tracebackhide__ = True
        self._over = True
        told = self._files.finish() if self._files else []
        if told:
            pytest.fail("\n\n".join(told), pytrace=False)

    def _opened(self) -> Any:
        from .comparisons.snapshots.files import Files

        node, options = self._request.node, self._request.config.option
        classes = [part.name for part in node.listchain() if isinstance(part, pytest.Class)]
        return Files(
            folder=self._request.path.with_suffix(""),
            test=f"{node.parent.nodeid}::{node.name}",  # to that of the node, xdist adds its group
            own=".".join([*classes, node.name]),
            record=self._record,
            **{dest: getattr(options, dest, False) for dest in REGENERATE},
        )


@pytest.fixture
def gradient_baseline(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> GradientBaseline:
    """`gradient_baseline.check(name, arrays)` fails unless they are those of the last time, bit for
    bit."""
    base = tmp_path_factory.getbasetemp()
    worker = hasattr(request.config, "workerinput")  # its folder lies in that of the whole run
    baseline = GradientBaseline(request, (base.parent if worker else base) / "gradient_baseline")
    request.node.stash[BASELINE] = baseline
    return baseline


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, Any, Any]:
    result = yield
    failed = getattr(item, "_excinfo", None)  # what a unittest.TestCase does not let through
    if BASELINE in item.stash and not failed:
        item.stash[BASELINE].finish()
    return result


@pytest.hookimpl(wrapper=True)
def pytest_load_initial_conftests(
    early_config: pytest.Config, parser: pytest.Parser
) -> Generator[None, Any, Any]:
    """Only now is it known whether pytest-regressions, or a conftest, has options of these names;
    they are then shared."""
    result = yield
    known = parser.parse_known_args(list(early_config.invocation_params.args))
    for dest, text in REGENERATE.items():
        if not hasattr(known, dest):
            flag = f"--{dest.replace('_', '-')}"
            parser.getgroup("gradtwin").addoption(flag, action="store_true", help=text)
    return result


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.getgroup("gradtwin").addoption(
        OPTION,
        metavar="PATH",
        help="Write every gradient check of the session to PATH.html and PATH.csv.",
    )


def pytest_configure(config: pytest.Config) -> None:
    collected.clear()
    config.stash[SESSION] = _Session(config)
    config.pluginmanager.register(config.stash[SESSION], "gradtwin_session")


class _Session:
    """What a session has seen of baselines; and what the workers of xdist hand over to the process
    that writes."""

    def __init__(self, config: pytest.Config) -> None:
        self.seen = Seen()
        self.passed: set[str] = set()
        # Of single tests, and of those that failed the last time, pytest leaves out the others
        # without a word; a worker that dies takes with it what it has seen.
        self.whole = not any("::" in arg for arg in config.args) and not getattr(
            config.option, "lf", False
        )

    def pytest_deselected(self, items: list[pytest.Item]) -> None:
        self.seen.parts.update(str(item.path) for item in items)

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        for item in session.items:
            self.seen.tests.setdefault(str(item.path), []).append(item.nodeid)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" and report.passed:
            self.passed.add(report.nodeid)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        output = getattr(node, "workeroutput", {})
        collected.extend(json.loads(output.get(KEY, "[]")))
        if SEEN in output:
            self.seen.add(json.loads(output[SEEN]))
        else:
            self.whole = False

    def orphans(self) -> list[Path]:
        return list(orphans(self.seen, self.passed)) if self.whole else []


def pytest_sessionfinish(session: pytest.Session) -> None:
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        output[KEY] = json.dumps(collected)
        output[SEEN] = json.dumps(session.config.stash[SESSION].seen.packed())


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    if lost := config.stash[SESSION].orphans():
        terminalreporter.write_line("gradient baselines that no test has asked for:", yellow=True)
        for path in lost:
            terminalreporter.write_line(f"  {os.path.relpath(path)}", yellow=True)
    _write_report(terminalreporter, config)


def _write_report(terminalreporter: Any, config: pytest.Config) -> None:
    path = config.getoption(OPTION)
    if not path:
        return
    if not collected:
        terminalreporter.write_line("gradient report: no gradient was checked, nothing written")
        return
    wrong = sum(not report["passed"] for report in collected)
    try:
        files = ", ".join(map(str, _written(Path(path), config.invocation_params.args)))
    except OSError as error:
        terminalreporter.write_line(f"gradient report: cannot write {path}: {error.strerror}")
        return
    terminalreporter.write_line(
        f"gradient report: {len(collected)} checks, {wrong} wrong: {files}", red=wrong > 0
    )


def _written(path: Path, arguments: Sequence[str]) -> Iterator[Path]:
    """One table and one page; the page begins with what each check said. `arguments` are those of
    the command line."""
    from .comparisons.report import files, pages, tables

    path = path.with_suffix("") if path.suffix in (".html", ".csv") else path
    files.folder(path.parent)
    ordered = sorted(collected, key=lambda r: r["test"])
    rows = ({**row, "test": r["test"]} for r in ordered for row in r["rows"])
    frame = tables.table({k: v for k, v in row.items() if k != "schema"} for row in rows)
    wrong = sum(not r["passed"] for r in ordered)
    html = pages.page(
        f"Gradients of {len({r['test'] for r in ordered})} tests",
        f"{len(ordered)} checks, {wrong} wrong.",
        {"gradients": frame},
        checks=[pages.Check(r["test"], r["passed"], r["page"]) for r in ordered],
        command=shlex.join(["pytest", *arguments]),
        file=f"{path.name}.csv",
    )
    yield files.write(path.with_name(f"{path.name}.html"), html)
    yield files.write(path.with_name(f"{path.name}.csv"), frame.to_csv(index=False).encode())
