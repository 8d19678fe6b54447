"""Names of version 0.1 keep working for a while, and say where they stand now."""

from importlib import import_module

import pytest

MOVED = {
    "gradtwin.comparisons.curves": {"compare": "divergence", "GRID": "grid"},
    "gradtwin.comparisons.training": {"Cell": "cells", "MODELS": "cells", "train": "loop"},
    "gradtwin.comparisons.gradients": {"rows": "table"},
    "gradtwin.comparisons.optimizers": {"rows": "table", "STREAMS": "streams"},
    "gradtwin.comparisons.schedules": {"rows": "table"},
    "gradtwin.comparisons.dialects": {"read": "trajectory"},
    "gradtwin.comparisons.check": {"check": "verify", "Report": "report"},
    "gradtwin.comparisons.trace": {"trace": "recorder", "Trace": "steps"},
}
ELEMENTARY = {
    **dict.fromkeys(("add", "sub", "mul", "div", "neg", "abs", "pow", "exp", "log"), "pointwise"),
    "sqrt": "pointwise",
    "matmul": "products",
    **dict.fromkeys(("sum", "mean"), "reductions"),
    **dict.fromkeys(("reshape", "transpose", "permute", "broadcast_to"), "views"),
    **dict.fromkeys(("where", "getitem"), "indexing"),
}


@pytest.mark.parametrize(
    ("package", "name", "place"),
    [(package, *pair) for package, names in MOVED.items() for pair in names.items()],
)
def test_a_name_of_a_package_is_in_one_of_its_files(package, name, place):
    with pytest.warns(DeprecationWarning, match=rf"{package}\.{name} is now {package}\.{place}\."):
        found = getattr(import_module(package), name)
    assert found is getattr(import_module(f"{package}.{place}"), name)


@pytest.mark.parametrize(("name", "family"), ELEMENTARY.items())
def test_a_rule_of_elementary_is_in_another_family(name, family):
    from gradtwin import manual

    with pytest.warns(DeprecationWarning, match=rf"elementary\.{name} is now .*\.{family}\.{name}"):
        found = getattr(manual.elementary, name)
    assert found is getattr(getattr(manual, family), name)


def test_what_the_readme_of_0_1_says_still_runs():
    with pytest.warns(DeprecationWarning, match="divergence"):
        from gradtwin.comparisons.curves import compare
    with pytest.warns(DeprecationWarning, match="cells"):
        from gradtwin.comparisons.training import Cell
    run = compare(Cell("linear_regression", "line", "sgd", lr=0.1, steps=5))
    assert run.row["class"] in ("identical", "rounding")
    assert run.drift.floor.shape == (5,)


@pytest.mark.parametrize("package", [*MOVED, "gradtwin.manual.elementary"])
def test_other_names_are_as_unknown_as_anywhere(package):
    name = "nothing"
    with pytest.raises(AttributeError, match=f"has no attribute '{name}'"):
        getattr(import_module(package), name)
