from . import array, call, classes, uniform, values

_REDUCTIONS = ("none", "mean", "sum")

SAMPLES = {
    "mse_loss": [
        *(call(array(5, 3), array(5, 3), reduction=r) for r in _REDUCTIONS),
        *(call(array(5, 3), array(5, 3), reduction=r, weight=uniform(5, 3)) for r in _REDUCTIONS),
        call(array(2000, scale=3.0), array(2000)),
    ],
    "binary_cross_entropy": [
        *(call(uniform(5, 3), uniform(5, 3), reduction=r) for r in _REDUCTIONS),
        *(call(uniform(5, 3), uniform(5, 3), uniform(5, 3), reduction=r) for r in _REDUCTIONS),
        call(uniform(5, 3), uniform(5, 3), weight=uniform(3)),
    ],
    "binary_cross_entropy_with_logits": [
        *(call(array(5, 3), uniform(5, 3), reduction=r) for r in _REDUCTIONS),
        *(call(array(5, 3), uniform(5, 3), uniform(5, 3), reduction=r) for r in _REDUCTIONS),
        call(array(5, 3), uniform(5, 3), pos_weight=uniform(3)),
        call(array(5, 3, scale=4.0), uniform(5, 3), weight=uniform(5, 1), pos_weight=uniform(5, 3)),
    ],
    "cross_entropy": [
        *(call(array(6, 4), classes(6, below=4), reduction=r) for r in _REDUCTIONS),
        *(call(array(6, 4), classes(6, below=4), uniform(4), reduction=r) for r in _REDUCTIONS),
        *(call(array(6, 4), classes(6, below=4), label_smoothing=s) for s in (0.1, 1.0)),
        call(array(6, 4), classes(6, below=4), weight=uniform(4), label_smoothing=0.2),
        call(array(6, 4), values([0, 3, 1, 3, 2, 0]), ignore_index=3),
        call(array(6, 4), values([0, -100, 1, 3, -100, 0]), reduction="sum"),
        call(
            array(6, 4), values([2, 3, 1, 3, 2, 0]), uniform(4), ignore_index=1, label_smoothing=0.3
        ),
        call(array(4), classes(below=4)),
        call(array(3, 4, 5, 2, scale=3.0), classes(3, 5, 2, below=4)),
        call(
            array(3, 4, 5),
            classes(3, 5, below=4),
            uniform(4),
            reduction="none",
            label_smoothing=0.1,
        ),
    ],
}

CORNERS = {
    "mse_loss": [
        call(values([1.0, 2.0, -3.0]), values([1.0, 2.0, -3.0])),
        call(values([1e-30, 1e18, -1e18]), values([0.0, 1.0, 1e18]), reduction="none"),
        call(array(), array()),
        call(array(0, 3), array(0, 3)),
        call(array(0, 3), array(0, 3), reduction="sum"),
    ],
    "binary_cross_entropy": [
        # a logarithm of 0 is −100, and p (1 − p) at least 1e-12
        call(values([0.0, 0.0, 1.0, 1.0]), values([0.0, 1.0, 0.0, 1.0]), reduction="none"),
        call(values([1e-20, 1e-20, 1e-12, 1e-6]), values([1.0, 0.0, 1.0, 1.0]), reduction="none"),
        call(values([0.99999994, 0.5, 1e-30]), values([1.0, 0.5, 1.0])),
        call(uniform(), uniform()),
        call(uniform(0, 3), uniform(0, 3)),
    ],
    "binary_cross_entropy_with_logits": [
        call(values([1e3, 1e3, -1e3, -1e3]), values([0.0, 1.0, 0.0, 1.0]), reduction="none"),
        call(values([17.0, -17.0, 37.0, -37.0]), values([1.0, 0.0, 1.0, 0.0]), reduction="none"),
        call(values([0.0, -0.0, 1e-20]), values([0.5, 0.5, 0.0])),
        call(array(), uniform()),
        call(array(0, 3), uniform(0, 3)),
    ],
    "cross_entropy": [
        call(values([[1e3, 0.0, -1e3], [-1e3, 1e3, 1e3]]), values([0, 0]), reduction="none"),
        call(
            values([[20.0, 0.0, 1.0], [40.0, 0.0, 1.0]]), values([0, 0]), reduction="none"
        ),  # one winner
        call(values([[2.0, 2.0, 2.0], [0.0, -0.0, 0.0]]), values([0, 2])),  # ties
        call(values([[1.0, float("-inf"), 2.0]]), values([2])),  # a class masked out
        call(array(4, 3, scale=100.0), classes(4, below=3), label_smoothing=0.1),
        call(array(2, 1), values([0, 0]), reduction="none"),  # a single class
        call(array(2, 3), values([-100, -100])),  # nothing counts: the mean is NaN
        call(array(2, 3), values([-100, -100]), reduction="sum"),
        call(array(0, 3), classes(0, below=3), reduction="sum"),
    ],
}
