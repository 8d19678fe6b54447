"""Calls of models."""

from . import dense

SAMPLES = {**dense.SAMPLES}
CORNERS = {**dense.CORNERS}
