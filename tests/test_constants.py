"""Which arguments have no gradient: rules and mirrors say the same."""

import inspect

import pytest
from gradtwin.comparisons import gradients, samples
from gradtwin.manual.arrays import Constant


@pytest.mark.parametrize("op", samples.ops())
def test_an_argument_is_annotated_where_the_mirror_names_it_constant(op):
    ours, twin = gradients.rule_pair(op)
    parameters = inspect.signature(ours).parameters
    annotated = {name for name, p in parameters.items() if p.annotation is Constant}
    assert twin is None or annotated == set(parameters) & twin.constant
