from ...manual.distances import cosine_similarity
from . import array, call, classes, log_probabilities, positive, signs, uniform, values

_NAN = float("nan")
_REDUCTIONS = ("none", "mean", "sum")
SAMPLES = {
    "mse_loss": [
        *(call(array(5, 3), array(5, 3), reduction=r) for r in _REDUCTIONS),
        *(call(array(5, 3), array(5, 3), reduction=r, weight=uniform(5, 3)) for r in _REDUCTIONS),
        call(array(2000, scale=3.0), array(2000)),
    ],
    "nll_loss": [
        *(call(array(6, 4), classes(6, below=4), reduction=r) for r in _REDUCTIONS),
        call(array(6, 4), classes(6, below=4), uniform(4)),
        call(array(6, 4), values([0, 3, 1, 3, 2, 0]), uniform(4), ignore_index=3),
        call(array(4), classes(below=4)),
        call(array(3, 4, 5, 2), classes(3, 5, 2, below=4), uniform(4), reduction="none"),
    ],
    "linear_cross_entropy": [
        *(call(array(6, 3), array(4, 3), classes(6, below=4), reduction=r) for r in _REDUCTIONS),
        call(array(3), array(4, 3), classes(below=4), linear_bias=array(4)),
        call(array(6, 3), array(4, 3), classes(6, below=4), weight=uniform(4)),
        call(
            array(6, 3),
            array(4, 2, 3),
            values([[0, 3], [1, 3], [2, 0], [1, 1], [2, 0], [3, 1]]),
            linear_bias=array(4, 2),
            ignore_index=3,
        ),
        call(array(6, 3), array(4, 3), uniform(6, 4), label_smoothing=0.1),
    ],
    "multi_margin_loss": [
        *(
            call(array(5, 4), classes(5, below=4), p=p, reduction=r)
            for p in (1, 2)
            for r in _REDUCTIONS
        ),
        call(array(5, 4), classes(5, below=4), 2, 0.3, uniform(4)),
        call(array(4), classes(below=4)),
    ],
    "multilabel_margin_loss": [
        *(
            call(array(3, 4), values([[3, 0, -1, 1], [-1, 1, 2, 3], [0, 1, 2, 3]]), reduction=r)
            for r in _REDUCTIONS
        ),
        call(array(4), values([2, -1, 0, 0])),
    ],
    "multilabel_soft_margin_loss": [
        *(call(array(5, 3, scale=3.0), uniform(5, 3), reduction=r) for r in _REDUCTIONS),
        call(array(5, 3), uniform(5, 3), uniform(3)),
        call(array(4), uniform(4), uniform(4)),
    ],
    "ctc_loss": [],  # see CORNERS
    "l1_loss": [
        *(call(array(5, 3), array(5, 3), reduction=r) for r in _REDUCTIONS),
        *(call(array(5, 3), array(5, 3), reduction=r, weight=uniform(5, 3)) for r in _REDUCTIONS),
        call(array(5, 3), array(3)),
    ],
    "huber_loss": [
        *(call(array(5, 3, scale=2.0), array(5, 3), r, 0.7) for r in _REDUCTIONS),
        *(call(array(5, 3), array(5, 3), reduction=r, weight=uniform(5, 3)) for r in _REDUCTIONS),
    ],
    "smooth_l1_loss": [
        *(call(array(5, 3, scale=2.0), array(5, 3), reduction=r, beta=0.7) for r in _REDUCTIONS),
        call(array(5, 3), array(3)),
        call(array(5, 3), array(5, 3), beta=0.0),
    ],
    "kl_div": [
        *(
            call(array(5, 3), uniform(5, 3), reduction=r, log_target=log)
            for r in (*_REDUCTIONS, "batchmean")
            for log in (False, True)
        ),
        call(array(5, 3), uniform(3)),
    ],
    "poisson_nll_loss": [
        call(array(5, 3), array(5, 3)),
        *(
            call(array(5, 3), positive(5, 3, scale=3.0), full=True, reduction=r)
            for r in _REDUCTIONS
        ),
        call(uniform(5, 3), array(5, 3), False, eps=0.1),
        call(uniform(5, 3), positive(3, scale=3.0), False, True),
    ],
    "gaussian_nll_loss": [
        *(call(array(5, 3), array(5, 3), uniform(5, 3), reduction=r) for r in _REDUCTIONS),
        call(array(5, 3), array(5, 3), uniform(5), True),
        call(array(5, 3), array(5, 3), uniform(5, 1)),
        call(array(5, 3), array(3), 0.7),
    ],
    "hinge_embedding_loss": [
        *(call(array(5, 3), signs(5, 3), reduction=r) for r in _REDUCTIONS),
        call(array(5, 3), signs(3), 0.3),
        call(array(5, 3), values([1, -1, 1])),
    ],
    "soft_margin_loss": [
        *(call(array(5, 3, scale=3.0), signs(5, 3), reduction=r) for r in _REDUCTIONS),
        call(array(4), values([1, -1, 1, 1])),
    ],
    "margin_ranking_loss": [
        *(call(array(9), array(9), signs(9), 3.0, reduction=r) for r in _REDUCTIONS),
        call(array(5), array(5), values([1.0, -1.0, 1.0, 1.0, -1.0])),
        call(array(5, 3), array(1, 3), signs(5, 1), 0.7),
        call(array(4), array(4), values([1, -1, 1, 1]), 0.5),
    ],
    "cosine_embedding_loss": [
        *(call(array(5, 3), array(5, 3), signs(5), reduction=r) for r in _REDUCTIONS),
        call(array(5, 3), array(5, 3), values([1, -1, 1, 1, -1]), -0.5),
        call(array(3), array(3), signs()),
    ],
    "triplet_margin_loss": [
        *(call(array(5, 3), array(5, 3), array(5, 3), reduction=r) for r in _REDUCTIONS),
        call(array(5, 3), array(5, 3), array(5, 3), 2.0, 3, 0.1, True),
        call(array(5, 3), array(1, 3), array(5, 3), 0.5, 1),
    ],
    "triplet_margin_with_distance_loss": [
        *(call(array(5, 3), array(5, 3), array(5, 3), reduction=r) for r in _REDUCTIONS),
        call(
            array(5, 3), array(5, 3), array(5, 3), distance_function=cosine_similarity, margin=2.0
        ),
        call(array(5, 3), array(5, 3), array(5, 3), swap=True),
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
        *(call(array(6, 4), uniform(6, 4), reduction=r) for r in _REDUCTIONS),
        call(array(3, 4, 2), uniform(3, 4, 2), uniform(4), label_smoothing=0.2),
        call(array(4), uniform(4)),
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
_PATHS = [
    log_probabilities(6, 3, 4),
    values([[1, 2, 2], [3, 1, 0], [2, 0, 0]]),
    (6, 5, 6),
    (3, 2, 1),
]
_END_TO_END = [
    log_probabilities(6, 3, 4),
    values([1, 2, 2, 3, 1, 2]),
    values([6, 5, 6]),
    values([3, 2, 1]),
]
CORNERS = {
    # The slope is torch's convention, not that of the value.
    "ctc_loss": [
        *(call(*_PATHS, reduction=r) for r in _REDUCTIONS),
        *(call(*_END_TO_END, reduction=r) for r in _REDUCTIONS),
        call(log_probabilities(6, 3, 4), values([[1, 2, 2], [0, 1, 0], [2, 0, 0]]), *_PATHS[2:], 3),
        call(log_probabilities(7, 5), values([1, 1, 2]), (7,), (3,)),
        call(
            log_probabilities(3, 2, 4), values([[1, 1], [2, 3]]), (2, 3), (2, 2), zero_infinity=True
        ),
        call(array(6, 3, 4), *_PATHS[1:]),  # no probabilities
        call(
            values([[-1.0, -0.5], [_NAN, -1.0], [-0.5, -1.0]]),
            values([1]),
            (3,),
            (1,),
            zero_infinity=True,
        ),
        call(log_probabilities(6, 4), values([1, 0, 0, 2]), (6,), (4,)),  # blanks as labels
    ],
    "nll_loss": [
        call(array(2, 3), values([-100, -100]), reduction="sum"),
        call(array(2, 3), values([-100, -100])),  # the mean over nothing is NaN
    ],
    "linear_cross_entropy": [call(array(2, 3), array(4, 3), values([-100, 2]))],
    "multi_margin_loss": [
        call(values([[1.0, 0.0, 3.0]]), values([0])),  # at the edge: no slope
        call(array(0, 3), classes(0, below=3), reduction="none"),
    ],
    "multilabel_margin_loss": [
        call(values([[1.0, 0.0, 3.0]]), values([[0, -1, 2]])),
        call(array(2, 3), values([[1, 1, -1], [-1, 0, 0]])),  # a label twice counts twice
    ],
    "multilabel_soft_margin_loss": [call(values([[1e3, -1e3, 0.0]]), values([[1.0, 1.0, 0.0]]))],
    "l1_loss": [call(values([1.0, 2.0, -1.0]), values([1.0, 0.0, 3.0])), call(array(), array())],
    "huber_loss": [
        call(values([1.0, 2.0, -1e3]), values([1.0, 1.0, 3.0])),  # at 0, at δ, far outside
        call(array(0, 3), array(0, 3)),
    ],
    "smooth_l1_loss": [
        call(values([1.0, 2.0, -1e3]), values([1.0, 1.0, 3.0])),
        call(array(0, 3), array(0, 3)),
    ],
    "kl_div": [
        call(array(), uniform()),
        call(array(2, 3), array(2, 3), log_target=True, reduction="batchmean"),
    ],
    "poisson_nll_loss": [
        call(values([50.0, -50.0]), values([3.0, 2.0])),
        call(array(), array()),
        call(values([0.3, 0.4]), values([3.0, -2.0]), full=True),
    ],  # torch: NaN
    "gaussian_nll_loss": [
        call(array(5, 3), array(5, 3), uniform(5, 3), eps=0.5),
        call(array(2), array(2), values([1e-9, 1.0])),  # torch lets the slope through below ε
        call(array(0, 3), array(0, 3), uniform(0, 3)),
    ],
    "hinge_embedding_loss": [
        call(values([1.0, 1.0, 0.5, 2.0]), values([1.0, -1.0, 0.0, -1.0])),  # edge; neither
        call(array(), signs()),
    ],
    "soft_margin_loss": [call(values([1e3, -1e3, 0.0]), signs(3)), call(array(), signs())],
    "margin_ranking_loss": [
        call(values([1.0, 2.0]), values([1.0, 1.0]), values([1.0, -1.0])),  # at the edge
        call(array(), array(), signs(), 0.5),
    ],
    "cosine_embedding_loss": [
        call(values([[0.0, 0.0], [3.0, 4.0]]), values([[1.0, 2.0], [6.0, -8.0]]), signs(2)),
        call(array(2, 3), array(2, 3), values([1.0, 0.0])),  # 0 is no class: loss 0
        call(array(5, 1), array(5, 3), signs(5)),  # one number has a direction, and no slope
    ],
    "triplet_margin_loss": [
        call(array(3), array(3), array(3)),
        call(array(0, 3), array(0, 3), array(0, 3)),
        call(  # torch overflows
            values([[6.0, 1.0078125]]), values([[2.0, 5.0]]), values([[6.0, 9.0]]), 5.0, 2000.0, 0.0
        ),
    ],
    "triplet_margin_with_distance_loss": [call(array(3), array(3), array(3))],
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
