"""Activation functions, element by element: y and dy have the shape and dtype of x."""

import numpy as np

from .arrays import floating


def sigmoid(x):
    """σ(x) = 1 / (1 + e⁻ˣ); the slope is σ(x) σ(−x).

    With z = e^−|x|, which cannot overflow, σ(|x|) = 1 / (1 + z) and σ(−|x|) = z / (1 + z). Their
    product keeps its digits in both tails, where y (1 − y) has none left beyond x ≈ 17 (float32) or
    37 (float64).

    Verhulst, 1845
    """
    x = floating(x=x)
    z = np.exp(-abs(x))
    y = np.where(x >= 0, 1, z) / (1 + z)

    def pullback(dy):
        return dy * (z / (1 + z) ** 2)

    return y, pullback


def tanh(x):
    """(eˣ − e⁻ˣ) / (eˣ + e⁻ˣ); the slope is 1 − tanh² x = sech² x.

    sech x = 2h / (1 + h²) with h = e^−|x| has nothing to cancel, while 1 − y² is 0 from x ≈ 9
    (float32) or 19.

    LeCun, Bottou, Orr & Müller, 1998, "Efficient BackProp"
    """
    x = floating(x=x)
    y = np.tanh(x)

    def pullback(dy):
        h = np.exp(-abs(x))
        return dy * (2 * h / (1 + h * h)) ** 2

    return y, pullback


def relu(x):
    """max(x, 0); the slope is 1 above 0 and, by torch's convention, 0 at 0.

    Nair & Hinton, 2010, "Rectified Linear Units Improve Restricted Boltzmann Machines"
    """
    x = floating(x=x)
    y = np.where(x <= 0, 0, x)

    def pullback(dy):
        return np.where(x <= 0, 0, dy)

    return y, pullback
