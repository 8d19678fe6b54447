"""Real data that comes with scikit-learn, the textbook line, and text that comes with Python.
Nothing is downloaded."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import sklearn.datasets

from .. import english

_TABLE = ("N", "features")


@dataclass(frozen=True)
class Data:
    """x (N, features) float64; target (N, 1) float64, or (N,) int64 for more than two classes. Of
    language, x (N,) int64 is what is read and target what comes after each."""

    name: str
    x: np.ndarray
    target: np.ndarray
    task: str  # "regression", "binary", "multiclass" or "language"
    outputs: int

    def __post_init__(self) -> None:
        for name, a in (("x", self.x), ("target", self.target)):
            if not np.all(np.isfinite(a)):
                where = list(map(int, np.argwhere(~np.isfinite(a))[0]))
                got = f"{a[tuple(where)]} at {where}"
                raise ValueError(f"{name} of {self.name}: expected finite numbers, got {got}")
            a.setflags(write=False)
        shape, dtype = (("N",), np.int64) if self.task == "language" else (_TABLE, np.float64)
        if self.x.ndim != len(shape) or len(self.x) != len(self.target) or not len(self.x):
            raise ValueError(
                f"x and target of {self.name}: expected ({', '.join(shape)}) and N targets, "
                f"got shapes {self.x.shape} and {self.target.shape}"
            )
        if self.x.dtype != dtype:
            raise TypeError(f"x of {self.name}: expected {dtype.__name__}, got {self.x.dtype}")


def line() -> Data:
    """The textbook line y = 2x + 1 + 0.3·noise, 100 points between 0 and 2."""
    rng = np.random.default_rng(0)
    x = rng.uniform(0, 2, (100, 1))
    return Data("line", x, 2 * x + 1 + 0.3 * rng.standard_normal((100, 1)), "regression", 1)


def diabetes() -> Data:
    """442 patients, 10 measurements, progression after a year (Efron et al., 2004); all
    standardised."""
    x, target = sklearn.datasets.load_diabetes(return_X_y=True)
    return Data("diabetes", _standardised(x), _standardised(target[:, np.newaxis]), "regression", 1)


def breast_cancer() -> Data:
    """569 tumours, 30 measurements, standardised; malignant or benign (Street, Wolberg &
    Mangasarian, 1993)."""
    x, target = sklearn.datasets.load_breast_cancer(return_X_y=True)
    return Data("breast_cancer", _standardised(x), target[:, np.newaxis].astype(float), "binary", 1)


def digits() -> Data:
    """1,797 handwritten digits of 8×8 pixels between 0 and 1 (Alpaydin & Kaynak, 1998)."""
    x, target = sklearn.datasets.load_digits(return_X_y=True)
    return Data("digits", x / 16, target.astype(np.int64), "multiclass", 10)


def text() -> Data:
    """100,000 characters of what Python's help says of its topics, as places in an alphabet of 96;
    each is followed by the next."""
    places = {c: i for i, c in enumerate(english.ALPHABET)}
    tokens = np.array([places[c] for c in english.text()])
    return Data("text", tokens[:-1], tokens[1:], "language", len(places))


DATASETS = {f.__name__: f for f in (line, diabetes, breast_cancer, digits, text)}


@cache
def load(name: str) -> Data:
    return DATASETS[name]()


def _standardised(a: np.ndarray) -> np.ndarray:
    """Columns at zero mean and unit variance."""
    return (a - a.mean(axis=0)) / a.std(axis=0)
