import pytest
from gradtwin.comparisons.check import verify


@pytest.fixture
def no_cause(monkeypatch):
    """None is looked for, which takes most of the time, where only the verdict is asked about."""
    monkeypatch.setattr(verify, "diagnose", lambda done: None)
