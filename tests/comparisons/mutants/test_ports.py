"""Ports that were written blind: each fault can be planted; some of them are found where they are,
and what is right is quiet."""

import pytest
from gradtwin.comparisons.mutants import porting

ARCHITECTURES = porting.architectures()
SAMPLE = 26  # every so many faults are tried here, and all by `gradtwin mutants --ports`


def test_there_are_so_many_in_each_set():
    assert [len(porting.architectures(each)) for each in porting.FIRST_SIGHT] == [9, 9, 7, 8, 7, 5]
    assert len(set(ARCHITECTURES)) == 45


@pytest.mark.thinned(8)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_fault_can_be_planted(architecture):
    module = porting.made(architecture)
    for fault in (*module.FAULTS, *module.RIGHT):
        assert porting.made(architecture, fault.old, fault.new).Port().parameters()


def test_what_stands_nowhere_is_not_planted():
    with pytest.raises(ValueError, match="stands there 0 times"):
        porting.made("gpt", "nothing of that kind", "")


@pytest.mark.thinned(10)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_port_as_it_stands_is_quiet(architecture):
    row = porting.right_row(architecture, 0)
    assert row["class"] == "quiet", row


@pytest.mark.thinned(10)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_faults_are_found_where_they_are(architecture):
    for number in porting.faults(architecture)[::SAMPLE]:
        row = porting.fault_row(architecture, number)
        assert row["class"] == "caught", row
        # Submodules that take another form are judged with their parent, as docs/ports.md says.
        assert row["there"] or architecture in porting.architectures("ports_third"), row
