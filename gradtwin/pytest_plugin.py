"""pytest: the fixtures `check_gradient` and `assert_gradient`, and one report for the session.

Torch, and all the rest, is imported only where a gradient is checked.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

OPTION = "--gradient-report"
KEY = "gradient_reports"  # under which a worker of xdist hands over what it collected

_collected: list[dict[str, Any]] = []


def assert_gradient(subject: Any, against: Any = None, *args: Any, **kwargs: Any) -> Any:
    """As `gradtwin.check`, whose report it returns; AssertionError with the page if it is wrong."""
    __tracebackhide__ = True
    report = _checked(subject, against, *args, **kwargs)
    report.raise_for_failure()
    return report


def _checked(*args: Any, **kwargs: Any) -> Any:
    from .comparisons.check import check

    report = check(*args, **kwargs)
    test = os.environ.get("PYTEST_CURRENT_TEST", "").rpartition(" ")[0]
    rows = json.loads(report.table.to_json(orient="records", double_precision=15))
    _collected.append(
        {
            "test": test,
            "subject": report.subject,
            "against": report.against,
            "passed": report.passed,
            "page": str(report),
            "rows": rows,
        }
    )
    return report


@pytest.fixture
def check_gradient() -> Callable[..., Any]:
    """`gradtwin.check`; what it finds is part of the session's report."""
    return _checked


@pytest.fixture(name="assert_gradient")
def _assert_gradient() -> Callable[..., Any]:
    """`gradtwin.assert_gradient`."""
    return assert_gradient


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.getgroup("gradtwin").addoption(
        OPTION,
        metavar="PATH",
        help="Write every gradient check of the session to PATH.html and PATH.csv.",
    )


def pytest_configure(config: pytest.Config) -> None:
    _collected.clear()
    config.pluginmanager.register(_Handover(), "gradtwin_handover")


class _Handover:
    """What the workers of xdist collected goes to the process that writes."""

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        _collected.extend(json.loads(getattr(node, "workeroutput", {}).get(KEY, "[]")))


def pytest_sessionfinish(session: pytest.Session) -> None:
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        output[KEY] = json.dumps(_collected)


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    path = config.getoption(OPTION)
    if not path:
        return
    if not _collected:
        terminalreporter.write_line("gradient report: no gradient was checked, nothing written")
        return
    wrong = sum(not report["passed"] for report in _collected)
    try:
        files = ", ".join(map(str, _written(Path(path))))
    except OSError as error:
        terminalreporter.write_line(f"gradient report: cannot write {path}: {error.strerror}")
        return
    terminalreporter.write_line(
        f"gradient report: {len(_collected)} checks, {wrong} wrong: {files}", red=wrong > 0
    )


def _written(path: Path) -> Iterator[Path]:
    """One table and one page; the page begins with what each check said."""
    from .comparisons import report

    path = path.with_suffix("") if path.suffix in (".html", ".csv") else path
    report.folder(path.parent)
    ordered = sorted(_collected, key=lambda r: r["test"])
    rows = ({**row, "test": r["test"]} for r in ordered for row in r["rows"])
    frame = report.table({k: v for k, v in row.items() if k != "schema"} for row in rows)
    pages = "\n\n".join(f"{r['test']}\n{r['page']}" for r in ordered)
    html = report.page({"gradients": frame}, {}, f"{len(ordered)} checks.", pages)
    yield report.write(path.with_name(f"{path.name}.html"), html)
    yield report.write(path.with_name(f"{path.name}.csv"), frame.to_csv(index=False).encode())
