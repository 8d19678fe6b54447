"""Sets of mistakes that were written blind."""

import dataclasses

import pytest
from gradtwin.comparisons.mutants import sets, table
from gradtwin.comparisons.mutants.corpus import MUTANTS


@pytest.mark.thinned(2)
@pytest.mark.parametrize("name", sets.SETS)
def test_each_mistake_stands_once_in_a_function_that_is_there(name):
    places = list(sets.mistakes(name))
    assert len(set(places)) == len(places) > 40
    for module, number in places:
        content = sets.modules(name)[module]
        mistake = content.MISTAKES[number]
        assert mistake.of in content.SUBJECTS
        sets.planted(content, mistake)


def test_each_mistake_of_the_corpus_stands_once_in_its_rule():
    for op, mutants in MUTANTS.items():
        for mutant in mutants:
            assert callable(table.planted(op, mutant))


def test_a_text_that_is_not_there_is_refused():
    content = sets.modules("third")["norms"]
    with pytest.raises(ValueError, match="once in layer_norm, found it 0 times"):
        sets.planted(content, dataclasses.replace(content.MISTAKES[0], old="no such text"))


def test_what_is_found_is_counted():
    found = sets.mistake_row("third", "norms", 4, 0)  # γ forgotten
    assert (found["class"], found["named"], found["rightly"]) == (
        "caught",
        "elementwise factor",
        True,
    )
    right = sets.right_row("third", "norms", "layer_norm", 0)
    assert right["class"] == "quiet"
    assert sets.counted([found, right]) == {
        "mistakes": 1,
        "found": 1,
        "named rightly": 1,
        "named wrongly": 0,
        "right functions": 1,
        "alarms": 0,
    }


def test_the_first_sight_is_of_all():
    for name, first in sets.FIRST_SIGHT.items():
        assert first["mistakes"] == len(list(sets.mistakes(name)))
        assert first["right functions"] == len(list(sets.subjects(name)))
