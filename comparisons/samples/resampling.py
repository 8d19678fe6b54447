from . import array, call, values

_INF, _NAN = float("inf"), float("nan")
_PLACES = values(
    [[[[-1.7, -0.3], [0.1, 0.9], [1.3, -0.8]], [[0.2, 2.6], [-0.6, -1.4], [0.7, 0.3]]]]
)
_ENDS = values([[[[-1.0, -1.0], [1.0, 1.0], [0.0, 0.0]], [[-1.0, 1.0], [1.5, -1.5], [-3.0, 3.0]]]])

SAMPLES = {
    "interpolate": [
        *(call(array(1, 2, 4), 7, mode=m) for m in ("nearest", "nearest-exact", "linear", "area")),
        *(call(array(1, 2, 5), 3, mode=m) for m in ("nearest", "nearest-exact", "linear", "area")),
        *(call(array(1, 1, 3, 4), (5, 3), mode=m) for m in ("nearest", "bilinear", "bicubic")),
        *(call(array(1, 1, 2, 3, 2), (3, 2, 4), mode=m) for m in ("nearest", "trilinear", "area")),
        *(call(array(1, 1, 3, 4), [5, 6], mode=m, align_corners=True)
          for m in ("bilinear", "bicubic")),
        call(array(1, 2, 4), 7, mode="linear", align_corners=True),
        call(array(1, 1, 2, 3, 2), (3, 2, 4), mode="trilinear", align_corners=True),
        *(call(array(1, 1, 4, 5), scale_factor=1.7, mode=m)
          for m in ("nearest", "nearest-exact", "bilinear", "bicubic", "area")),
        *(call(array(1, 1, 4, 5), scale_factor=(1.7, 0.6), mode=m, recompute_scale_factor=True)
          for m in ("nearest", "bilinear", "bicubic")),
        call(array(1, 2, 6), scale_factor=0.4, mode="linear", recompute_scale_factor=False),
        call(array(2, 2, 3, 3), scale_factor=2),
        *(call(array(1, 1, 7, 5), (3, 8), mode=m, antialias=True) for m in ("bilinear", "bicubic")),
        *(call(array(1, 1, 7, 5), (3, 8), mode=m, align_corners=True, antialias=True)
          for m in ("bilinear", "bicubic")),
        call(array(1, 1, 7, 5), scale_factor=(0.35, 1.3), mode="bilinear", antialias=True),
    ],
    "upsample": [
        call(array(1, 2, 3), 5),
        call(array(1, 2, 3), scale_factor=1.5, mode="linear"),
        call(array(1, 1, 3, 2), (2, 4), mode="bicubic"),
        call(array(1, 1, 2, 2, 3), (3, 2, 4), mode="area"),
        call(array(1, 1, 2, 3), (3, 5), mode="bilinear", align_corners=True),
    ],
    "upsample_nearest": [
        call(array(1, 2, 3), 5),
        call(array(1, 1, 2, 3), (3, 2)),
        call(array(1, 1, 2, 2, 3), scale_factor=1.6),
    ],
    "upsample_bilinear": [
        call(array(1, 2, 3, 2), (4, 5)),
        call(array(1, 1, 4, 3), scale_factor=(1.5, 0.7)),
    ],
    "grid_sample": [
        *(
            call(array(1, 2, 3, 4), _PLACES, mode, padding, align)
            for mode in ("bilinear", "nearest", "bicubic")
            for padding in ("zeros", "border", "reflection")
            for align in (False, True)
        ),
        call(array(2, 1, 3, 3), array(2, 2, 2, 2, scale=0.7)),
        *(
            call(array(1, 2, 2, 3, 2), array(1, 1, 2, 2, 3), mode, padding, align)
            for mode in ("bilinear", "nearest")
            for padding, align in (("zeros", False), ("border", True), ("reflection", False))
        ),
    ],
    "affine_grid": [
        call(array(2, 2, 3), (2, 1, 3, 4)),
        call(array(1, 2, 3), [1, 3, 2, 5], True),
        call(array(2, 3, 4), (2, 1, 2, 3, 2), align_corners=False),
        call(array(1, 3, 4), (1, 1, 3, 2, 2), align_corners=True),
    ],
    "pixel_shuffle": [
        call(array(2, 8, 2, 3), 2),
        call(array(9, 1, 2), 3),
        call(array(2, 1, 4, 2, 1), 2),
        call(array(1, 2, 2, 2), 1),
    ],
    "pixel_unshuffle": [
        call(array(2, 2, 4, 6), 2),
        call(array(1, 3, 6), 3),
        call(array(2, 1, 1, 4, 2), 2),
        call(array(1, 2, 2, 2), 1),
    ],
    "channel_shuffle": [
        call(array(2, 6, 2), 2),
        call(array(1, 6, 2, 2), 3),
        call(array(1, 4, 1, 2, 2), 4),
        call(array(2, 3, 2), 1),
    ],
}  # fmt: skip

CORNERS = {
    "interpolate": [
        call(values([[[_INF, 1.0, 2.0, 3.0]]]), 7, mode="linear"),
        call(values([[[0.0, -0.0, _INF, -_INF, _NAN, 1.0]]]), 9),
        call(values([[[1.0, _INF, 2.0, 3.0, 4.0], [1.0, 2.0, 3.0, _NAN, 5.0]]]), 3, mode="area"),
        call(array(1, 2, 4), 1, mode="linear", align_corners=True),
        *(call(array(1, 1, 1, 1), (2, 3), mode=m) for m in ("bilinear", "bicubic")),
        *(call(array(0, 2, 3), 5, mode=m) for m in ("nearest", "linear", "area")),
        call(array(1, 1, 4, scale=1e30), 7, mode="linear"),
        call(array(1, 1, 4), scale_factor=1.2),  # as long as before, and not the same
        *(call(array(1, 1, 5), scale_factor=f, mode=m)
          for f in (1.999, 0.51) for m in ("nearest", "nearest-exact", "linear")),
        # Torch repeats the first row where the last axis has one element, and copies an axis whose
        # length stays, but with another slope.
        call(array(1, 1, 4, 3), (5, 1), mode="bilinear", antialias=True),
        call(array(1, 1, 4, 3), scale_factor=(1.2, 1.5), mode="bicubic", antialias=True),
        call(array(1, 1, 2), 82),  # 41 · (2 / 82) is below 1 in float32, as torch's backward has it
    ],
    "upsample": [call(array(0, 1, 2), 3)],
    "upsample_nearest": [call(array(1, 1, 4), scale_factor=1.2)],
    "upsample_bilinear": [call(array(1, 1, 2, 2), 1)],
    "grid_sample": [
        *(
            call(array(1, 2, 3, 4), _ENDS, mode, padding, align)
            for mode in ("bilinear", "nearest", "bicubic")
            for padding in ("zeros", "border", "reflection")
            for align in (False, True)
        ),
        *(call(array(1, 1, 1, 1), _PLACES, padding_mode=p, align_corners=a)
          for p in ("border", "reflection") for a in (False, True)),
        *(call(values([[[[1.0, _INF], [2.0, 3.0]]]]), _PLACES, m, p, True)
          for m in ("bilinear", "bicubic") for p in ("zeros", "border")),
        call(array(1, 1, 2, 3), values([[[[1e10, 0.0], [-1e10, 0.5]]]]), padding_mode="border"),
        call(array(0, 1, 2, 2), array(0, 1, 2, 2)),
        call(array(1, 0, 2, 2), array(1, 1, 2, 2)),
        call(array(1, 2, 2, 2), array(1, 0, 2, 2)),
    ],
    "affine_grid": [
        call(array(1, 2, 3), (1, 1, 1, 3)),
        call(array(1, 2, 3), (1, 1, 1, 3), True),
        call(array(1, 2, 3, scale=1e30), (1, 1, 2, 2)),
    ],
    "pixel_shuffle": [call(array(0, 4, 2, 2), 1), call(array(1, 4, 0, 2), 1)],
    "pixel_unshuffle": [call(array(0, 1, 2, 2), 1), call(array(1, 1, 0, 2), 1)],
    "channel_shuffle": [call(array(0, 4, 2), 2), call(array(2, 4, 0), 2)],
}  # fmt: skip
