from . import array, call

SAMPLES = {
    "matmul": [
        call(array(3, 4), array(4, 2)),
        call(array(4), array(4)),
        call(array(4), array(4, 2)),
        call(array(3, 4), array(4)),
        call(array(2, 1, 3, 4), array(5, 4, 2)),
        call(array(2, 3, 4), array(4)),
        call(array(4), array(2, 4, 3)),
    ],
}

CORNERS = {
    "matmul": [
        call(array(3, 0), array(0, 2)),
        call(array(0, 3), array(3, 2)),
        call(array(2, 0, 3), array(3)),
    ],
}
