from . import array, call, values

_INF = float("inf")
SAMPLES = {
    "pairwise_distance": [
        *(call(array(5, 3), array(5, 3), p) for p in (2.0, 1.0, 3.5, _INF)),
        call(array(5, 3), array(3), eps=0.1, keepdim=True),
        call(array(2, 1, 3), array(4, 3), keepdim=True),
        call(array(4), array(4)),
    ],
    "pdist": [*(call(array(5, 3), p) for p in (2.0, 1.0, 3.5, 0.5, _INF)), call(array(4, 2))],
    "cdist": [
        *(call(array(4, 3), array(5, 3), p) for p in (2.0, 1.0, 3.5, 0.5, _INF)),
        call(array(2, 1, 4, 3), array(3, 2, 3)),
        call(array(3, 2), array(2, 2), compute_mode="donot_use_mm_for_euclid_dist"),
    ],
    "cosine_similarity": [
        call(array(5, 3), array(5, 3)),
        call(array(2, 5, 3), array(2, 1, 3), dim=0),
        call(array(6), array(6), dim=0),
    ],
}
CORNERS = {
    "pairwise_distance": [
        call(values([[1.0, 2.0], [0.0, 0.0]]), values([[1.0, 2.0], [3.0, 0.0]])),
        call(array(3, 4), array(3, 4), 0.0),
        call(array(3, 4), array(3, 4), -1.5),
        call(array(3, 4), array(3, 4), -_INF),
        call(values([[6.0, 2.0, 4.0], [1.0, 1.0, 1.0]]), values([[2.0, 2.0, 0.0]]), _INF, 0.0),
        call(values([[6.0, 1.0078125], [1.0, 1.0]]), values([[2.0, 5.0]]), 2000.0, 0.0),
        call(values([[6.0, 0.9921875], [1.0, 1.0]]), values([[2.0, 5.0]]), -2000.0, 0.0),
        call(values([[6.0, 2.0]]), values([[2.0, 5.0]]), 1e308, 0.0),
        call(array(0, 3), array(0, 3)),
    ],
    "pdist": [
        call(values([[1.0, 2.0], [1.0, 2.0], [3.0, 2.0]])),  # equal points: 0
        call(values([[1.0, 2.0], [1.0, 2.0], [3.0, 2.0]]), 1.0),
        call(values([[6.0, 2.0, 20.0], [-2.0, -2.0, 20.0]]), _INF),  # one coordinate is equal
        call(values([[1.0, 2.0], [1.0, 2.0], [3.0, 4.0]]), _INF),  # equal points, and a tie
        call(array(4, 3), 0.0),
        call(array(1, 3)),  # no rows at all crash torch
    ],
    "cdist": [
        call(values([[1.0, 2.0], [3.0, 4.0]]), values([[1.0, 2.0]])),  # equal points: 0
        call(values([[6.0, 2.0, 20.0]]), values([[-2.0, -2.0, 20.0], [6.0, 2.0, 20.0]]), _INF),
        call(array(3, 4), array(2, 4), 0.0),
        call(array(0, 3), array(2, 3)),
        call(array(2, 0), array(3, 0)),
    ],
    "cosine_similarity": [
        call(values([[0.0, 0.0], [3.0, 4.0]]), values([[1.0, 2.0], [3.0, 4.0]])),  # 0, parallel
        call(values([[1e-5, 0.0]]), values([[1.0, 2.0]]), eps=1e-3),  # where eps counts
        call(array(4, 3), array(4, 3), -1, 10.0),
        call(array(0, 3), array(0, 3)),
    ],
}
