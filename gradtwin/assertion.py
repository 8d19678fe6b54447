"""`assert_gradient`, for any runner of tests, and what the checks of this process have found.

It needs no pytest. Torch, and all the rest, is imported only where a gradient is checked.
"""

from __future__ import annotations

import json
import os
from typing import Any

__unittest = True  # unittest leaves out the frames of a module that says so

collected: list[dict[str, Any]] = []  # a report for each check, which the plug-in of pytest writes


def assert_gradient(subject: Any, against: Any = None, *args: Any, **kwargs: Any) -> Any:
    """`gradtwin.check`, whose report it returns; raises AssertionError with the page if it is
    wrong."""
    __tracebackhide__ = True
    report = checked(subject, against, *args, **kwargs)
    report.raise_for_failure()
    return report


def checked(*args: Any, **kwargs: Any) -> Any:
    """`gradtwin.check`, whose report it returns and collects."""
    from .comparisons.check.verify import check

    report = check(*args, **kwargs)
    test = os.environ.get("PYTEST_CURRENT_TEST", "").rpartition(" ")[0]
    rows = json.loads(report.table.to_json(orient="records", double_precision=15))
    collected.append(
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
