"""Which arguments have no gradient: rules and mirrors say the same."""

import inspect

import pytest
from gradtwin.comparisons import ops
from gradtwin.manual.arguments import Constant


@pytest.mark.parametrize("op", ops.names())
def test_an_argument_is_annotated_where_the_mirror_names_it_constant(op):
    ours, twin = ops.named(op).pair
    parameters = inspect.signature(ours).parameters
    annotated = {name for name, p in parameters.items() if p.annotation is Constant}
    assert twin is None or annotated == set(parameters) & set(twin.facts.constant)
