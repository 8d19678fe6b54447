"""Draws front.png, the picture at the top of README: python docs/front.py"""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from gradtwin.manual import activations

from gradtwin import check

EDGES = 1e-4, 1e16  # what lies further out is drawn there


def forgetful(x, dim):
    y, _ = activations.softmax(x, dim)

    def pullback(dy):
        return y * dy  # the sum of y dy is missing

    return y, pullback


def a_millionth(x, dim):
    y, right = activations.softmax(x, dim)

    def pullback(dy):
        return right(dy) * (1 + 1e-6)

    return y, pullback


def margins(subject):
    """The distance of each result in float64 from what is right, over what rounding can explain."""
    x = np.random.default_rng(0).standard_normal((3, 4))
    table = check(subject, "softmax", [x], {"dim": -1}, dtypes=["float64"]).table
    return np.clip(table["margin"].dropna().to_numpy(float), *EDGES)


def main():
    subjects = {
        "right": activations.softmax,
        "forgets a term": forgetful,
        "off by 1e-6": a_millionth,
    }
    plt.rcParams.update({"font.size": 10, "axes.spines.top": False, "axes.spines.right": False})
    fig, ax = plt.subplots(figsize=(7, 2.6), layout="constrained", dpi=110)
    scatter = np.random.default_rng(1)
    for row, subject in enumerate(subjects.values()):
        margin = margins(subject)
        height = -row + scatter.uniform(-0.25, 0.25, len(margin))
        right = margin <= 1
        ax.scatter(margin[right], height[right], s=14, color="#2a78b5", linewidths=0)
        ax.scatter(margin[~right], height[~right], s=18, color="#c8432b", marker="D", linewidths=0)
    ax.axvspan(EDGES[0] / 2, 1, color="0.92", zorder=0)
    ax.text(0.8, 0.42, "rounding", ha="right", color="0.35")
    ax.text(1.25, 0.42, "wrong", color="#c8432b")
    ax.set(xscale="log", xlim=(EDGES[0] / 2, EDGES[1] * 2), ylim=(-2.45, 0.7))
    ax.set_yticks([0, -1, -2], list(subjects))
    ax.set_xlabel("distance from the right value / what rounding can explain")
    fig.savefig(Path(__file__).with_name("front.png"))


if __name__ == "__main__":
    main()
