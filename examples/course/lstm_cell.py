"""6. A cell of an LSTM: one step of a network that remembers.

    a = x Wᵀ + h Uᵀ + b, whose four parts are those of i, f, g and o
    i = σ(aᵢ)   f = σ(a_f)   g = tanh(a_g)   o = σ(aₒ)
    c′ = f ∘ c + i ∘ g
    h′ = o ∘ tanh(c′)

x (N, I), h and c (N, H), W (4H, I), U (4H, H), b (4H) → h′ and c′ (N, H).
(Hochreiter & Schmidhuber, 1997; the gate f: Gers, Schmidhuber & Cummins, 2000)

To derive: two slopes arrive, dh′ and dc′. The c′ is used twice, as a result and in h′: both ways
add up. Then each gate: σ′(a) = σ (1 − σ), tanh′(a) = 1 − tanh². Put the four parts of da beside one
another, and the first line is a line.

gradtwin check lstm_cell.py:lstm_cell --against lstm_cell.py:truth \
    --shape 3,5 --shape 3,4 --shape 3,4 --shape 16,5 --shape 16,4 --shape 16
"""

import numpy as np
import torch
from scipy.special import expit


def lstm_cell(x, h, c, w, u, b):
    a = x @ w.T + h @ u.T + b
    a_i, a_f, a_g, a_o = np.split(a, 4, axis=-1)
    i, f, g, o = expit(a_i), expit(a_f), np.tanh(a_g), expit(a_o)
    new_c = f * c + i * g
    tanh_c = np.tanh(new_c)
    new_h = o * tanh_c

    def pullback(dy):
        raise NotImplementedError("dh, dc = dy; return dx, dh, dc, dw, du, db")

    return (new_h, new_c), pullback


def truth(x, h, c, w, u, b):
    return torch.lstm_cell(x, (h, c), w, u, b, torch.zeros_like(b))
