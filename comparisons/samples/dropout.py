from . import array, call

_ELEMENTS = [
    call(array(3, 4), training=True),
    call(array(7, scale=5.0), 0.1, True),
    call(array(2, 3, 5), 0.7, True),
    call(array(3, 4), training=False),
]
_CHANNELS = [
    call(array(3, 4, 2), training=True),
    call(array(4, 5), 0.2, True),
    call(array(3, 4, 2), 0.3, False),
    call(array(2, 3, 4), 0.0, True),
    call(array(6, 2), 0.4, True),
]
_VOLUMES = [
    call(array(3, 2, 2, 3, 2), training=True),
    call(array(7, 2, 3, 2), 0.2, True),
    call(array(3, 4, 2, 1, 2), 0.3, False),
]
_SETTINGS = [
    call(array(3, 4, 1), 0.0, True),
    call(array(3, 4, 1), 1.0, True),
    call(array(0, 3, 1), 0.4, True),
]
SAMPLES = {
    "dropout": _ELEMENTS,
    "dropout1d": _CHANNELS,
    "dropout2d": [*_CHANNELS, call(array(3, 4, 2, 2), 0.4)],
    "dropout3d": _VOLUMES,
    "alpha_dropout": _ELEMENTS,
    "feature_alpha_dropout": _CHANNELS,
}
CORNERS = {
    "dropout": [
        *_SETTINGS,
        call(array(), 0.5, True),
    ],
    "dropout1d": _SETTINGS,
    "dropout2d": [*_SETTINGS, call(array(5), 0.5, False)],
    "dropout3d": [*_SETTINGS, call(array(5), 0.5, True)],
    "alpha_dropout": [*_SETTINGS, call(array(), 0.5, True)],
    "feature_alpha_dropout": _SETTINGS,
}
