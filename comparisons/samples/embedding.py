from . import array, call, classes, values

SAMPLES = {
    "embedding": [
        call(classes(2, 5, below=6), array(6, 3)),
        call(classes(below=4), array(4, 2), sparse=True),
        call(classes(1, 9, below=2), array(3, 4)),
    ],
    "embedding_bag": [
        *(call(classes(4, 3, below=6), array(6, 2), mode=m) for m in ("sum", "mean", "max")),
        call(classes(7, below=4), array(4, 3), values([0, 2, 2, 5]), mode="sum"),
        call(classes(7, below=4), array(4, 3), values([0, 2, 5, 7]), include_last_offset=True),
        call(classes(4, 3, below=5), array(5, 2), mode="sum", per_sample_weights=array(4, 3)),
        call(
            classes(7, below=4),
            array(4, 3),
            values([0, 2, 2, 5]),
            mode="sum",
            per_sample_weights=array(7),
            padding_idx=1,
        ),
        *(
            call(classes(4, 4, below=3), array(3, 2), mode=m, padding_idx=0)
            for m in ("mean", "max")
        ),
        call(classes(4, 3, below=5), array(5, 2), sparse=True),
    ],
    "one_hot": [
        *(call(classes(*shape, below=4)) for shape in ((5,), (2, 3), (1, 4), (2, 1, 3))),
        *(call(classes(6, below=4), count) for count in (4, 7)),
        call(classes(2, 2, below=3), num_classes=3),
        call(classes(1, below=4), 5),
    ],
}
CORNERS = {
    # padding_idx and scale_grad_by_freq change the slope, and the norm under max_norm has none.
    "embedding": [
        call(classes(8, below=4), array(4, 3), padding_idx=1),
        call(classes(8, below=4), array(4, 3), -2, scale_grad_by_freq=True),
        call(classes(2, 3, below=6), array(6, 3), max_norm=1.0),
        call(classes(5, below=6), array(6, 3), 2, 0.8, 1.0),
        call(classes(5, below=6), array(6, 3), max_norm=0.5, norm_type=float("inf")),
        call(values([0, 1]), values([[0.0, 0.0], [3e30, 4e30]]), max_norm=1.0),
        call(classes(0, below=4), array(4, 3)),
        call(classes(2, below=4), array(4, 0)),
    ],
    "embedding_bag": [
        *(
            call(classes(4, 3, below=5), array(5, 2), mode=m, scale_grad_by_freq=True)
            for m in ("sum", "mean")
        ),
        *(call(classes(4, 3, below=6), array(6, 2), max_norm=0.8, mode=m) for m in ("sum", "max")),
        call(classes(4, 3, below=6), array(6, 2), max_norm=0.8, norm_type=1.0),
        call(values([[0, 1, 0]]), values([[1.0, -2.0], [1.0, 3.0]]), mode="max"),  # a tie
        *(
            call(values([[1, 1]]), array(3, 2), mode=m, padding_idx=1)
            for m in ("sum", "mean", "max")
        ),
        call(classes(0, below=4), array(4, 3), values([0, 0])),
        call(classes(0, 3, below=4), array(4, 3)),
    ],
    "one_hot": [call(classes(0, 2, below=4), 3), call(values([7]))],
}
