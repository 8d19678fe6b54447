"""Activations and fused pointwise kernels: right functions, and the mistakes that are made in them."""

import numpy as np
import torch
import torch.nn.functional as F

from ..mistakes import Mistake, Subject, booleans, call, normal


class SwiGLU(torch.autograd.Function):
    """silu(x W) · (x V), x (N, D); only the two products are saved, the rest is computed again."""

    @staticmethod
    def forward(ctx, x, W, V):
        gate, up = x @ W, x @ V
        ctx.save_for_backward(x, W, V, gate, up)
        return gate * torch.sigmoid(gate) * up

    @staticmethod
    def backward(ctx, dy):
        x, W, V, gate, up = ctx.saved_tensors
        sig = torch.sigmoid(gate)
        silu = gate * sig
        dup = dy * silu
        dgate = dy * up * (sig + silu * (1 - sig))
        dW = x.t() @ dgate
        dV = x.t() @ dup
        dx = dgate @ W.t() + dup @ V.t()
        return dx, dW, dV


def swiglu_torch(x, W, V):
    return F.silu(x @ W) * (x @ V)


class BiasGelu(torch.autograd.Function):
    """gelu (with tanh) of x + b, fused; (…, D)."""

    @staticmethod
    def forward(ctx, x, b):
        ctx.save_for_backward(x, b)
        return F.gelu(x + b, approximate="tanh")

    @staticmethod
    def backward(ctx, dy):
        x, b = ctx.saved_tensors
        z = x + b
        u = 0.7978845608028654 * (z + 0.044715 * z**3)
        t = torch.tanh(u)
        slope = 0.5 * (1 + t) + 0.5 * z * (1 - t * t) * 0.7978845608028654 * (1 + 3 * 0.044715 * z * z)
        dx = dy * slope
        db = dx.reshape(-1, dx.shape[-1]).sum(0)
        return dx, db


def bias_gelu_torch(x, b):
    return F.gelu(x + b, approximate="tanh")


def softplus(x, beta=2.0, threshold=20.0):
    """log(1 + exp(βx)) / β, and x itself beyond the threshold of βx."""
    bx = beta * x
    y = np.where(bx > threshold, x, np.logaddexp(0, bx) / beta)

    def pullback(dy):
        e = np.exp(-np.abs(bx))
        slope = np.where(bx >= 0, 1, e) / (1 + e)
        return (dy * np.where(bx > threshold, 1, slope),)

    return y, pullback


def swish(x, scale):
    """x · σ(scale · x), one learnt scale per channel of (N, T, C)."""
    s = 0.5 * (1 + np.tanh(0.5 * scale * x))
    y = x * s

    def pullback(dy):
        inner = dy * x * s * (1 - s)
        dx = dy * s + inner * scale
        dscale = (inner * x).sum(axis=(0, 1))
        return dx, dscale

    return y, pullback


def swish_torch(x, scale):
    return x * torch.sigmoid(scale * x)


class PReLU:
    """x (N, C, *), one slope per channel."""

    def forward(self, x, a):
        self.x = x
        self.a = a.reshape((-1,) + (1,) * (x.ndim - 2))
        return np.where(x > 0, x, self.a * x)

    def backward(self, dout):
        other = tuple(i for i in range(dout.ndim) if i != 1)
        dx = np.where(self.x > 0, dout, self.a * dout)
        da = (dout * np.where(self.x > 0, 0, self.x)).sum(axis=other)
        return dx, da


def prelu_torch(x, a):
    return F.prelu(x, a)


def hardswish(x):
    y = x * np.minimum(np.maximum(x + 3, 0), 6) / 6

    def pullback(dy):
        dx = dy * np.where(x >= 3, 1, x / 3 + 0.5)
        dx[x <= -3] = 0
        return (dx,)

    return y, pullback


def dropout_add(x, residual, keep, p=0.25):
    """residual + x · keep / (1 − p), the mask given."""
    scale = 1 / (1 - p)
    y = residual + np.where(keep, x * scale, 0)

    def pullback(dy):
        dx = np.where(keep, dy * scale, 0)
        return dx, dy.copy(), None

    return y, pullback


def dropout_add_torch(x, residual, keep, p=0.25):
    return residual + x * keep.to(x.dtype) / (1 - p)


def mlp_forward(x, W1, b1, W2, b2):
    """Two layers with relu between."""
    z = x @ W1 + b1
    h = np.maximum(z, 0)
    return h @ W2 + b2, (x, W1, W2, z, h)


def mlp_backward(dout, cache):
    x, W1, W2, z, h = cache
    dW2 = h.T @ dout
    db2 = dout.sum(axis=0)
    dh = dout @ W2.T
    dz = np.where(z > 0, dh, 0)
    dW1 = x.T @ dz
    db1 = dz.sum(axis=0)
    dx = dz @ W1.T
    return dx, dW1, db1, dW2, db2


mlp = (mlp_forward, mlp_backward)


def mlp_torch(x, W1, b1, W2, b2):
    return F.relu(x @ W1 + b1) @ W2 + b2


class Logit(torch.autograd.Function):
    """log(p / (1 − p)) of p = σ(3 x) clamped to [0.05, 0.95]: a chain that is written as one."""

    @staticmethod
    def forward(ctx, x):
        p = torch.sigmoid(3 * x)
        ctx.save_for_backward(p)
        q = p.clamp(0.05, 0.95)
        return torch.log(q / (1 - q))

    @staticmethod
    def backward(ctx, dy):
        (p,) = ctx.saved_tensors
        inside = (p >= 0.05) & (p <= 0.95)
        return torch.where(inside, 3 * dy, torch.zeros_like(dy))


def logit_torch(x):
    q = torch.sigmoid(3 * x).clamp(0.05, 0.95)
    return torch.log(q) - torch.log1p(-q)


_SCRATCH = {}


def geglu(x, W):
    """x W = [a, b], y = gelu(a) · b with gelu in its exact form; the halves lie in one array; in torch."""
    z = x @ W
    a, b = z.chunk(2, -1)
    half = 0.5 * (1 + torch.erf(a * 0.7071067811865476))
    y = a * half * b

    def pullback(dy):
        density = torch.exp(-0.5 * a * a) * 0.3989422804014327
        da = dy * b * (half + a * density)
        db = dy * a * half
        dz = torch.empty(z.shape, dtype=z.dtype)
        dz[..., : a.shape[-1]] = da
        dz[..., a.shape[-1] :] = db
        return dz @ W.T, x.reshape(-1, x.shape[-1]).T @ dz.reshape(-1, dz.shape[-1])

    return y, pullback


def geglu_torch(x, W):
    a, b = (x @ W).chunk(2, -1)
    return F.gelu(a) * b


SUBJECTS = {
    "SwiGLU": Subject(against=swiglu_torch, calls=[call(normal(4, 3), normal(3, 5), normal(3, 5))]),
    "BiasGelu": Subject(against=bias_gelu_torch, calls=[call(normal(2, 3, 4), normal(4))]),
    "softplus": Subject(against="torch.nn.functional.softplus", calls=[call(normal(4, 3), beta=2.0), call(normal(4, 3, scale=4.0), beta=1.0, threshold=3.0)]),
    "swish": Subject(against=swish_torch, calls=[call(normal(2, 3, 4), normal(4))]),
    "PReLU": Subject(against=prelu_torch, calls=[call(normal(2, 3, 4), normal(3))]),
    "hardswish": Subject(against="torch.nn.functional.hardswish", calls=[call(normal(4, 5, scale=3.0))]),
    "dropout_add": Subject(against=dropout_add_torch, calls=[call(normal(4, 5), normal(4, 5), booleans(4, 5))]),
    "mlp": Subject(against=mlp_torch, calls=[call(normal(5, 3), normal(3, 4), normal(4), normal(4, 2), normal(2))]),
    "Logit": Subject(against=logit_torch, calls=[call(normal(4, 3))]),
    "geglu": Subject(against=geglu_torch, calls=[call(normal(2, 3, 4), normal(4, 6))]),
}
MISTAKES = [
    Mistake("SwiGLU", "elementwise factor / operand / missing term", "(sig + silu * (1 - sig))", "sig"),
    Mistake("SwiGLU", "missing term / overwritten", "dx = dgate @ W.t() + dup @ V.t()", "dx = dgate @ W.t()"),
    Mistake("SwiGLU", "swapped", "return dx, dW, dV", "return dx, dV, dW"),
    # the values after the gate's silu where the product before belongs
    Mistake("SwiGLU", "operand / elementwise factor", "dup = dy * silu", "dup = dy * sig"),
    # the exact gelu's gradient beside the forward of tanh
    Mistake("BiasGelu", "variant", "slope = 0.5 * (1 + t) + 0.5 * z * (1 - t * t) * 0.7978845608028654 * (1 + 3 * 0.044715 * z * z)",
            "slope = 0.5 * (1 + torch.erf(z / 2**0.5)) + z * torch.exp(-0.5 * z * z) * 0.3989422804014327"),
    # what an older kernel saved: x without its bias
    Mistake("BiasGelu", "operand / missing term", "z = x + b", "z = x"),
    # the inner derivative's 3
    Mistake("BiasGelu", "variant / factor / elementwise factor", "(1 + 3 * 0.044715 * z * z)", "(1 + 0.044715 * z * z)"),
    Mistake("BiasGelu", "elementwise factor / operand", "db = dx.reshape(-1, dx.shape[-1]).sum(0)", "db = dy.reshape(-1, dx.shape[-1]).sum(0)"),
    # exp overflows far out, to the left, where no threshold helps
    Mistake("softplus", "range", "slope = np.where(bx >= 0, 1, e) / (1 + e)", "e = np.exp(-bx)\n        slope = 1 - e / (1 + e)"),
    # the setting is forgotten in the backward: the second call
    Mistake("softplus", "variant", "np.where(bx > threshold, 1, slope)", "np.where(bx > 20, 1, slope)"),
    Mistake("softplus", "factor", "return (dy * np.where(", "return (dy * beta * np.where("),
    Mistake("swish", "missing term", "dx = dy * s + inner * scale", "dx = dy * s"),
    Mistake("swish", "elementwise factor", "dx = dy * s + inner * scale", "dx = dy * s + inner"),
    Mistake("swish", "broadcast / shape", "(inner * x).sum(axis=(0, 1))", "(inner * x).sum(axis=0)"),
    Mistake("swish", "operand / elementwise factor", "dscale = (inner * x)", "dscale = (inner * scale)"),
    # at zero (ties, kinks): the other branch
    Mistake("PReLU", "kink", "dx = np.where(self.x > 0, dout, self.a * dout)", "dx = np.where(self.x >= 0, dout, self.a * dout)"),
    Mistake("PReLU", "operand", "da = (dout * np.where(self.x > 0, 0, self.x))", "da = (dout * np.where(self.x > 0, 0, self.a * self.x))"),
    Mistake("PReLU", "shape", "self.x)).sum(axis=other)", "self.x)).sum(axis=other, keepdims=True)"),
    Mistake("PReLU", "elementwise factor / extra term", "np.where(self.x > 0, 0, self.x)", "self.x"),
    Mistake("hardswish", "variant / factor / extra term", "x / 3 + 0.5", "x / 6 + 0.5"),
    # outside, to the right, below three and beyond: as in hardsigmoid
    Mistake("hardswish", "range / variant / elementwise factor", "np.where(x >= 3, 1, x / 3 + 0.5)", "np.where(x >= 3, 0, x / 3 + 0.5)"),
    # dy itself is written
    Mistake("hardswish", "mutation", "dx = dy * np.where(x >= 3, 1, x / 3 + 0.5)", "dx = np.multiply(dy, np.where(x >= 3, 1, x / 3 + 0.5), out=dy)"),
    Mistake("dropout_add", "factor", "dx = np.where(keep, dy * scale, 0)", "dx = np.where(keep, dy, 0)"),
    # the residual's gradient is the masked dy: its buffer was reused
    Mistake("dropout_add", "mutation", "dx = np.where(keep, dy * scale, 0)\n        return dx, dy.copy(), None",
            "residual_grad = dy.copy()\n        dy *= scale\n        dx = np.where(keep, dy, 0)\n        return dx, residual_grad, None"),
    Mistake("dropout_add", "elementwise factor", "return dx, dy.copy(), None", "return dx, np.where(keep, dy, 0), None"),
    Mistake("mlp", "operand", "dW2 = h.T @ dout", "dW2 = z.T @ dout"),
    Mistake("mlp", "elementwise factor", "db1 = dz.sum(axis=0)", "db1 = dh.sum(axis=0)"),
    Mistake("mlp", "kink", "np.where(z > 0, dh, 0)", "np.where(z >= 0, dh, 0)"),
    Mistake("mlp", "factor / cotangent / broadcast", "db2 = dout.sum(axis=0)", "db2 = dout.mean(axis=0)"),
    Mistake("mlp", "shape", "db2 = dout.sum(axis=0)", "db2 = dout.sum(axis=0, keepdims=True)"),
    # where the clamp acts: straight through
    Mistake("Logit", "range / elementwise factor", "return torch.where(inside, 3 * dy, torch.zeros_like(dy))", "return 3 * dy"),
    Mistake("Logit", "range / misplaced / elementwise factor", "inside = (p >= 0.05) & (p <= 0.95)", "inside = p <= 0.95"),
    # one factor of the product rule
    Mistake("geglu", "elementwise factor / operand", "db = dy * a * half", "db = dy * half"),
    Mistake("geglu", "misplaced / swapped", "dz[..., : a.shape[-1]] = da\n        dz[..., a.shape[-1] :] = db", "dz[..., 0::2] = da\n        dz[..., 1::2] = db"),
    # a buffer of z by its shape is kept: a second forward before the first backward
    Mistake("geglu", "state", "z = x @ W", "z = _SCRATCH.setdefault((x.shape, W.shape, x.dtype), torch.empty(*x.shape[:-1], W.shape[1], dtype=x.dtype))\n    torch.matmul(x, W, out=z)"),
]
