from . import array, call

SAMPLES = {
    "linear": [
        call(array(5, 3), array(4, 3)),
        call(array(5, 3), array(4, 3), array(4)),
        call(array(5, 3), array(4, 3), bias=array(4)),
        call(array(2, 6, 3), array(4, 3), array(4)),
        call(array(3), array(4, 3), array(4)),
        call(array(200, 70), array(9, 70), array(9)),
    ],
    "bilinear": [
        call(array(5, 3), array(5, 2), array(4, 3, 2)),
        call(array(2, 3, 3), array(2, 3, 2), array(4, 3, 2), array(4)),
        call(array(3), array(2), array(4, 3, 2), array(4)),
    ],
}
CORNERS = {
    "linear": [
        call(array(5, 3), array(3)),  # a weight without an axis of outputs
        call(array(3), array(3), array()),
        call(array(5, 3), array(4, 3), array(1)),  # a bias that is stretched
        call(array(0, 3), array(4, 3), array(4)),
        call(array(5, 0), array(4, 0), array(4)),
        call(array(5, 3, scale=1e4), array(4, 3, scale=1e-4), array(4)),
    ],
    "bilinear": [
        call(array(0, 3), array(0, 2), array(4, 3, 2), array(4)),
    ],
}
