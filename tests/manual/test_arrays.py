"""What rules share."""

import numpy as np
import pytest
from gradtwin.manual import arrays

SIZES = (1, arrays.LARGE - 1, arrays.LARGE, 3 * arrays.LARGE)
SPECIAL = (np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-310, 65504.0)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("size", SIZES)
def test_where_is_that_of_numpy_to_the_bit(size, dtype):
    rng = np.random.default_rng(size)
    with np.errstate(over="ignore"):
        x, y = (
            np.where(rng.random(size) < 0.3, rng.choice(SPECIAL, size), rng.random(size)).astype(
                dtype
            )
            for _ in range(2)
        )
    condition = rng.random(size) < 0.5
    rows = np.asfortranarray(np.broadcast_to(x, (2, size)))
    for c, a, b in (
        *((condition, x, y), (condition, x, 0), (condition, 0, y), (condition, x, -0.0)),
        *((condition, np.nan, y), (condition[::-1], x[::-1], y), (condition, 1, 0.5)),
        *((condition, x, y[:1]), (condition, rows, y), (np.array(True), x, y), (True, x, 0)),
        *((condition, x, y.astype(np.float64)), (condition, np.arange(size), 7)),
        *((np.asfortranarray([condition, ~condition]), rows, rows[::-1]), (condition, x, x > 1)),
    ):
        found, expected = arrays.where(c, a, b), np.where(c, a, b)
        assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
        assert found.tobytes() == expected.tobytes()
