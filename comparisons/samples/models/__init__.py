"""Calls of models."""

from . import dense, text, vision

SAMPLES = {**dense.SAMPLES, **text.SAMPLES, **vision.SAMPLES}
CORNERS = {**dense.CORNERS, **text.CORNERS, **vision.CORNERS}
