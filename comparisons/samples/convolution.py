from . import array, call, values

SAMPLES = {
    "conv1d": [
        call(array(2, 2, 5), array(3, 2, 3)),
        call(array(2, 2, 5), array(3, 2, 3), array(3)),
        call(array(4, 5), array(2, 2, 2), array(2), groups=2),
        call(array(1, 2, 7), array(1, 2, 3), None, 2, 1, 2),
        call(array(1, 3, 6), array(3, 1, 4), array(3), (3,), [2], (1,), 3),
        call(array(1, 2, 5), array(2, 2, 4), padding="same", dilation=1),
        call(array(1, 2, 5), array(2, 2, 3), padding="valid", stride=2),
    ],
    "conv2d": [
        call(array(2, 2, 4, 3), array(3, 2, 3, 2)),
        call(array(1, 2, 4, 4), array(2, 2, 3, 3), array(2), padding=1),
        call(array(2, 4, 4), array(2, 2, 2, 3), array(2), 2, (0, 1), 1),
        call(array(1, 4, 3, 4), array(4, 2, 2, 2), array(4), groups=2),
        call(array(1, 2, 5, 6), array(1, 2, 2, 3), None, (1, 2), [1, 2], (2, 1)),
        call(array(1, 1, 4, 5), array(2, 1, 2, 4), padding="same", dilation=(2, 1)),
    ],
    "conv3d": [
        call(array(1, 2, 3, 2, 3), array(2, 2, 2, 2, 2)),
        call(array(2, 1, 2, 3, 2), array(2, 1, 2, 1, 2), array(2), padding=(1, 0, 0)),
        call(array(2, 3, 3, 2), array(2, 1, 2, 2, 1), array(2), (2, 1, 1), 1, (1, 2, 1), 2),
        call(array(1, 1, 2, 3, 2), array(1, 1, 2, 2, 3), padding="same"),
    ],
    "conv_transpose1d": [
        call(array(2, 2, 3), array(2, 3, 3)),
        call(array(2, 2, 3), array(2, 3, 3), array(3), 2, 1, 1),
        call(array(4, 3), array(4, 1, 2), groups=2),
        call(array(1, 2, 3), array(2, 1, 3), None, (1,), [2], [1], 1, 2),
        call(array(1, 2, 3), array(2, 2, 2), array(2), 3, output_padding=2),
    ],
    "conv_transpose2d": [
        call(array(1, 2, 2, 3), array(2, 2, 3, 2)),
        call(array(2, 2, 2, 2), array(2, 1, 3, 3), array(1), 2, 1, 1),
        call(array(2, 2, 3), array(2, 2, 2, 2), array(4), (1, 2), (0, 1), (0, 1), 2),
        call(array(1, 1, 2, 3), array(1, 2, 2, 2), dilation=(2, 1), output_padding=(1, 0)),
    ],
    "conv_transpose3d": [
        call(array(1, 2, 2, 1, 2), array(2, 1, 2, 2, 2)),
        call(array(2, 1, 1, 2, 2), array(1, 2, 2, 1, 2), array(2), 2, (0, 0, 1), 1),
        call(array(2, 2, 2, 1), array(2, 1, 2, 1, 2), array(2), 1, 0, 0, 2, (2, 1, 1)),
    ],
    "unfold": [
        call(array(2, 2, 3, 4), 2),
        call(array(2, 4, 5), (2, 3), 1, (0, 1), 2),
        call(array(1, 1, 4, 5), [3, 2], (1, 2), 1, [2, 1]),
        call(array(1, 2, 3, 3), (1, 2), dilation=2, stride=2),
    ],
    "fold": [
        call(array(2, 8, 6), (3, 4), 2),
        call(array(6, 6), (4, 5), (2, 3), 1, (0, 1), 2),
        call(array(1, 6, 10), [4, 5], [3, 2], (1, 2), 1, [2, 1]),
        call(array(1, 4, 4), 3, (2, 1), (1, 2), stride=(1, 2), padding=0),
        call(array(4, 4), 6, 2, 2, stride=3),
        call(array(1, 4, 4), 5, 2, padding=1, stride=3),
    ],
}
CORNERS = {
    "conv1d": [
        call(array(0, 2, 5), array(3, 2, 3), array(3)),
        call(array(1, 2, 3), array(2, 2, 3), array(2)),  # one place
        call(array(1, 2, 7), array(2, 2, 1), stride=3),  # some of x is not seen
        call(array(1, 1, 2), array(1, 1, 2), padding=3),  # some windows see nothing
        call(array(1, 2, 4, scale=1e-25), array(2, 2, 2, scale=1e25), array(2)),
    ],
    "conv2d": [
        call(array(0, 2, 3, 3), array(2, 2, 2, 2), array(2)),
        call(array(2, 3, 1, 1), array(3, 3, 1, 1), array(3)),
        call(array(1, 3, 4, 4), array(6, 1, 3, 3), groups=3),  # a kernel for each channel
        call(array(1, 1, 5, 5), array(1, 1, 2, 2), stride=3, padding=1),
        call(values([[[[0.0, -0.0], [0.0, 1.0]]]]), array(1, 1, 1, 2), values([-0.0])),
        call(array(1, 8, 9, 9, scale=1e4), array(2, 8, 3, 3, scale=1e-4), padding=1),
    ],
    "conv3d": [
        call(array(0, 1, 2, 2, 2), array(2, 1, 2, 2, 2), array(2)),
        call(array(1, 2, 1, 1, 1), array(1, 2, 1, 1, 1), array(1)),
        call(array(1, 2, 3, 1, 2), array(2, 1, 2, 1, 2), groups=2, stride=(2, 1, 1)),
    ],
    "conv_transpose1d": [
        call(array(0, 2, 3), array(2, 3, 3), array(3)),
        call(array(1, 2, 4), array(2, 1, 3), padding=2),
        call(array(1, 2, 2), array(2, 1, 2), array(1), stride=4),  # the bias alone in between
        call(array(1, 1, 3), array(1, 1, 2), dilation=4, output_padding=3),
    ],
    "conv_transpose2d": [
        call(array(0, 2, 2, 2), array(2, 1, 2, 2), array(1)),
        call(array(1, 1, 1, 1), array(1, 1, 1, 1), array(1), stride=2, output_padding=1),
        call(array(1, 3, 2, 2), array(3, 2, 2, 2), groups=3, stride=2),
    ],
    "conv_transpose3d": [
        call(array(0, 1, 1, 1, 1), array(1, 1, 2, 2, 2), array(1)),
        call(array(1, 2, 1, 1, 2), array(2, 1, 1, 1, 2), stride=(1, 1, 3)),
    ],
    "unfold": [
        call(array(0, 2, 3, 3), 2),
        call(array(1, 1, 2, 2), 2),
        call(array(1, 1, 3, 3), 1, padding=1, stride=3),
    ],
    "fold": [
        call(array(0, 8, 4), 3, 2),
        call(array(1, 4, 1), 2, 2),
        call(array(1, 4, 1), 3, 2, stride=5),  # some of y is in no window
        call(values([[1e25, 1.0], [1.0, -1e25]]), (1, 3), (1, 2)),
    ],
}
