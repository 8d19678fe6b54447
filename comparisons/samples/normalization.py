from . import array, call, positive, uniform, values

_TALL = values([[1e25, 2e25, -3e25, 5e25], [1e-25, 2e-25, -3e-25, 5e-25]])
_SAME = values([[0.1, 0.1, 0.1], [1.0, 2.0, 4.0]])  # no variance in the first row


def _offset(*shape):
    """Far from 0, and close together."""
    spread = array(*shape)
    return type(spread)(f"1e4 + {spread}", lambda rng, dtype: 10000 + spread.draw(rng, dtype))


SAMPLES = {
    "layer_norm": [
        call(array(3, 4), (4,)),
        call(array(3, 4), (4,), array(4)),
        call(array(3, 4), [4], array(4), array(4)),
        call(array(5, 7), (7,), bias=array(7), eps=0.1),
        call(array(2, 3, 4), (3, 4), array(3, 4), array(3, 4)),
        call(array(2, 3, 2), (2, 3, 2), array(2, 3, 2)),
        call(array(6), (6,), array(6), array(6)),
    ],
    "rms_norm": [
        call(array(3, 4), (4,)),
        call(array(3, 4), [4], array(4)),
        call(array(5, 7), (7,), eps=0.1),
        call(array(2, 3, 4), (3, 4), array(3, 4), 1e-3),
        call(array(6), (6,), array(6)),
        call(array(3, 1), (1,), array(1), 0.5),
    ],
    "batch_norm": [
        call(array(4, 3), None, None, training=True),
        call(array(4, 3), None, None, array(3), array(3), True),
        call(array(4, 3, 2), None, None, array(3), None, True, eps=0.1),
        call(array(2, 3, 2, 2), None, None, None, array(3), True),
        call(array(4, 3), array(3), uniform(3)),
        call(array(4, 3), array(3), uniform(3), array(3), array(3), eps=0.1),
        call(array(2, 3, 2, 2), array(3), uniform(3), array(3)),
        call(array(1, 2, 3), array(2), uniform(2), bias=array(2)),
    ],
    "instance_norm": [
        call(array(2, 3, 4)),
        call(array(2, 3, 4), weight=array(3), bias=array(3)),
        call(array(2, 3, 2, 2), weight=array(3), eps=0.1),
        call(array(1, 2, 2, 1, 3), bias=array(2)),
        call(array(2, 3, 4), array(3), uniform(3), use_input_stats=False),
        call(array(2, 3, 4), array(3), uniform(3), array(3), array(3), False, eps=0.1),
        call(array(2, 3), array(3), uniform(3), use_input_stats=False),
    ],
    "group_norm": [
        call(array(3, 4), 2),
        call(array(3, 4), 1, array(4), array(4)),
        call(array(2, 4, 3), 4, array(4)),
        call(array(2, 6, 2, 2), 3, array(6), array(6), 0.1),
        call(array(2, 6, 5), 2, bias=array(6)),
        call(array(1, 2, 2, 1, 2), 2, array(2), array(2)),
    ],
    "local_response_norm": [
        call(array(2, 5, 3), 3),
        call(array(2, 5, 3), 2, 0.5),
        call(array(2, 5, 2, 2), 4, 0.5, 1.5),
        call(array(2, 4, 3), 3, 1.0, 0.5, 2.0),
        call(array(1, 3, 2, 1, 2), 7, 0.3, 2.0, 0.5),
        call(array(2, 3, 2), 1, 0.7, -0.5),
    ],
    "normalize": [
        call(array(5, 3)),
        *(call(array(5, 3), p) for p in (1.0, 3.5, 0.5, float("inf"))),
        call(array(2, 3, 4), dim=-1),
        call(array(2, 3, 4), 3.0, 0, 2.5),
        call(array(6), dim=0),
        call(array(4, 3, 2), 2, (0, 2)),
    ],
}
_RUNNING = (array(3), positive(3))
CORNERS = {
    "layer_norm": [
        call(_offset(3, 16), (16,), array(16), array(16)),
        call(_SAME, (3,), array(3)),
        call(array(3, 2), (2,)),
        call(array(3, 1), (1,), array(1), array(1)),
        call(_TALL, (4,)),
        call(array(3, 4), (4,), array(4), eps=0.0),
        call(array(0, 4), (4,), array(4), array(4)),
        call(array(2, 0), (0,), array(0)),
    ],
    "rms_norm": [
        call(values([[0.0, 0.0, 0.0], [1.0, -1.0, 1.0]]), (3,), array(3)),
        call(_offset(3, 16), (16,), array(16)),
        call(_TALL, (4,)),
        call(array(3, 4), (4,), eps=0.0),
        call(array(0, 4), (4,), array(4)),
    ],
    "batch_norm": [  # the running statistics have no slope
        call(array(4, 3), *_RUNNING, array(3), array(3), True),
        call(array(2, 3, 2), *_RUNNING, training=True, momentum=0.5),
        call(_offset(8, 3), *_RUNNING, array(3), None, True, 1.0),
        call(values([[0.1, 1.0], [0.1, 2.0], [0.1, 4.0]]), None, None, array(2), training=True),
        call(array(2, 3), None, None, training=True),
        call(array(4, 2), values([1.0, 2.0]), values([0.25, 1.0]), eps=0.0),
        call(_offset(4, 2), values([1e4, 1.0]), values([0.25, 4.0]), array(2)),
        call(array(0, 3), array(3), uniform(3), array(3), array(3)),
    ],
    "instance_norm": [
        call(array(2, 3, 4), *_RUNNING, array(3), array(3)),
        call(array(2, 3, 2, 2), *_RUNNING, momentum=0.5),
        call(_offset(2, 3, 8), *_RUNNING, array(3)),
        call(values([[[0.1, 0.1, 0.1], [1.0, 2.0, 4.0]]]), weight=array(2)),
        call(array(2, 3, 0), *_RUNNING, array(3), array(3)),
        call(array(0, 3, 4)),
    ],
    "group_norm": [
        call(_offset(2, 4, 6), 2, array(4), array(4)),
        call(values([[[0.1, 0.1], [0.1, 0.1], [1.0, 2.0], [4.0, 8.0]]]), 2, array(4)),
        call(array(2, 4, 1), 2, array(4), eps=0.0),
        call(array(0, 4, 3), 2, array(4), array(4)),
    ],
    "local_response_norm": [
        call(values([[[0.0, 1.0], [-0.0, 1.0], [0.0, 100.0]]]), 3, 1.0, 0.75, 1.0),
        call(array(1, 3, 2, scale=1e3), 3, 1.0),
        call(array(0, 3, 2), 3),
        call(array(2, 3, 0), 3),
    ],
    "normalize": [
        call(values([[0.0, 0.0], [3.0, 4.0]])),
        call(values([[0.5, 0.0], [3.0, 4.0]]), eps=0.5),  # the norm is ε
        call(values([[3.0, -3.0, 1.0], [0.0, 2.0, 2.0]]), float("inf")),  # ties
        call(values([[3e25, 4e25], [3e-25, 4e-25]]), dim=1, eps=0.0),
        call(array(3, 4), 0.0),
        call(array(3, 4), -1.5),
        call(array(), dim=0),
        call(array(0, 3)),
        call(array(3, 0), dim=0),
    ],
}
