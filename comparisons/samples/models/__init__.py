"""Calls of models."""

from . import dense, vision

SAMPLES = {**dense.SAMPLES, **vision.SAMPLES}
CORNERS = {**dense.CORNERS, **vision.CORNERS}
