"""Calls of models."""

from . import dense, text

SAMPLES = {**dense.SAMPLES, **text.SAMPLES}
CORNERS = {**dense.CORNERS, **text.CORNERS}
