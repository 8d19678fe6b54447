from . import array, call

SAMPLES = {
    "reshape": [call(array(2, 6), (3, 4)), call(array(2, 6), (-1, 2, 2)), call(array(1), ())],
    "transpose": [call(array(2, 3, 4), 0, 2), call(array(2, 3), -1, -2)],
    "permute": [call(array(2, 3, 4), (2, 0, 1)), call(array(2, 3), (-1, 0))],
    "broadcast_to": [
        call(array(3, 1), (3, 4)),
        call(array(4), (2, 3, 4)),
        call(array(2, 1, 3), (5, -1, 4, -1)),
        call(array(), (2, 2)),
    ],
}

CORNERS = {
    "reshape": [call(array(0, 3), (3, 0)), call(array(), (1, 1))],
    "transpose": [call(array(), 0, -1)],
    "permute": [call(array(), ())],
    "broadcast_to": [call(array(1, 3), (0, 3))],
}
