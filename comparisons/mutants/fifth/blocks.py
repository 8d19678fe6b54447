"""Embeddings, gathers and modern blocks: right functions, and the mistakes that are made in them."""

import math

import numpy as np
import torch
import torch.nn.functional as F
from scipy.special import ndtr

from ..mistakes import Mistake, Subject, call, integers, normal

# --- tokens and positions; row 0 is padding and is not trained


def embed_forward(ids, W, P):
    B, T = ids.shape
    if T > P.shape[0]:
        raise ValueError("too long")
    root = math.sqrt(W.shape[1])
    return W[ids] * root + P[:T], (ids, W, P, root)


def embed_backward(dout, cache):
    ids, W, P, root = cache
    dP = np.zeros_like(P)
    dP[: ids.shape[1]] = dout.sum(axis=0)
    dW = np.zeros(W.shape, W.dtype)
    np.add.at(dW, ids, dout * root)
    dW[0] = 0
    return dW, dP


embed = (embed_forward, embed_backward)


def embed_torch(ids, W, P):
    if ids.shape[1] > P.shape[0]:
        raise ValueError("too long")
    return F.embedding(ids, W, padding_idx=0) * math.sqrt(W.shape[1]) + P[: ids.shape[1]]


# --- an affine layer and ReLU, as in a course


def affine_relu_forward(x, w, b):
    flat = x.reshape(x.shape[0], -1)
    z = flat @ w + b
    return np.maximum(z, 0), (x.shape, flat, w, z)


def affine_relu_backward(dout, cache):
    shape, flat, w, z = cache
    dz = dout * (z > 0)
    dx = (dz @ w.T).reshape(shape)
    dw = flat.T @ dz
    db = dz.sum(axis=0)
    return dx, dw, db


affine_relu = (affine_relu_forward, affine_relu_backward)


def affine_relu_torch(x, w, b):
    return torch.relu(x.reshape(x.shape[0], -1) @ w + b)


# --- the gated MLP of Llama, a torch.autograd.Function


class SwiGLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, Wg, Wu, Wd):
        g, u = x @ Wg, x @ Wu
        ctx.save_for_backward(x, Wg, Wu, Wd, g, u)
        return (g * torch.sigmoid(g) * u) @ Wd

    @staticmethod
    def backward(ctx, dy):
        x, Wg, Wu, Wd, g, u = ctx.saved_tensors
        sig = torch.sigmoid(g)
        act = g * sig
        dWd = (act * u).T @ dy
        dh = dy @ Wd.T
        du = dh * act
        dg = dh * u * sig * (1 + g * (1 - sig))
        dx = dg @ Wg.T + du @ Wu.T
        dWg, dWu = x.T @ dg, x.T @ du
        return dx, dWg, dWu, dWd


def swiglu_torch(x, Wg, Wu, Wd):
    return (F.silu(x @ Wg) * (x @ Wu)) @ Wd


# --- GeGLU on the halves of one projection, tanh's GELU


def geglu(x, W, b):
    h = x @ W + b
    if h.shape[-1] % 2:
        raise ValueError("two halves")
    half = h.shape[-1] // 2
    value, gate = h[..., :half], h[..., half:]
    k = math.sqrt(2 / math.pi)
    t = np.tanh(k * (gate + 0.044715 * gate**3))
    gelu = 0.5 * gate * (1 + t)
    y = value * gelu

    def pullback(dy):
        slope = 0.5 * (1 + t) + 0.5 * gate * (1 - t * t) * k * (1 + 3 * 0.044715 * gate**2)
        dvalue, dgate = dy * gelu, dy * value * slope
        dh = np.concatenate([dvalue, dgate], axis=-1)
        dx = dh @ W.T
        dW = x.reshape(-1, x.shape[-1]).T @ dh.reshape(-1, dh.shape[-1])
        db = dh.reshape(-1, dh.shape[-1]).sum(0)
        return dx, dW, db

    return y, pullback


def geglu_torch(x, W, b):
    h = x @ W + b
    if h.shape[-1] % 2:
        raise ValueError("two halves")
    value, gate = h.chunk(2, -1)
    return value * F.gelu(gate, approximate="tanh")


# --- a mixture of experts: the routes are given, their weights are renormalized


def mixture(x, router, W, experts):
    T, E = x.shape[0], W.shape[0]
    if router.shape[1] != E or experts.shape[0] != T:
        raise ValueError("experts differ")
    logits = x @ router
    e = np.exp(logits - logits.max(-1, keepdims=True))
    p = e / e.sum(-1, keepdims=True)
    picked = np.take_along_axis(p, experts, axis=1)
    total = picked.sum(-1, keepdims=True)
    gates = picked / total
    y = np.zeros((T, W.shape[2]), x.dtype)
    for i in range(E):
        rows, slot = np.nonzero(experts == i)
        np.add.at(y, rows, gates[rows, slot][:, None] * (x[rows] @ W[i]))

    def pullback(dy):
        dx, dW, dgates = np.zeros_like(x), np.zeros_like(W), np.zeros_like(gates)
        for i in range(E):
            rows, slot = np.nonzero(experts == i)
            dout = dy[rows] * gates[rows, slot][:, None]
            dW[i] = x[rows].T @ dout
            dgates[rows, slot] = (dy[rows] * (x[rows] @ W[i])).sum(-1)
            np.add.at(dx, rows, dout @ W[i].T)
        dpicked = (dgates - (dgates * gates).sum(-1, keepdims=True)) / total
        dp = np.zeros_like(p)
        np.add.at(dp, (np.arange(T)[:, None], experts), dpicked)
        dlogits = p * (dp - (dp * p).sum(-1, keepdims=True))
        drouter = x.T @ dlogits
        return dx + dlogits @ router.T, drouter, dW

    return y, pullback


def mixture_torch(x, router, W, experts):
    if router.shape[1] != W.shape[0] or experts.shape[0] != x.shape[0]:
        raise ValueError("experts differ")
    picked = torch.softmax(x @ router, -1).gather(1, experts)
    gates = picked / picked.sum(-1, keepdim=True)
    outs = torch.einsum("td,edf->tef", x, W)
    outs = outs.gather(1, experts[:, :, None].expand(-1, -1, W.shape[2]))
    return (gates[..., None] * outs).sum(1)


# --- the mean of the nodes of each graph


def scatter_mean(x, index, size=4):
    if len(index) != len(x):
        raise ValueError("one index per row")
    counts = np.bincount(index, minlength=size)
    share = np.maximum(counts, 1).astype(x.dtype)[:, None]
    total = np.zeros((size, x.shape[1]), x.dtype)
    np.add.at(total, index, x)
    y = total / share

    def pullback(dy):
        dx = (dy / share)[index]
        return (dx,)

    return y, pullback


def scatter_mean_torch(x, index, size=4):
    if len(index) != len(x):
        raise ValueError("one index per row")
    total = x.new_zeros(size, x.shape[1]).index_add(0, index, x)
    counts = x.new_zeros(size).index_add(0, index, torch.ones_like(x[:, 0]))
    return total / counts.clamp(min=1)[:, None]


SUBJECTS = {
    "embed": Subject(
        against=embed_torch,
        calls=[call(integers(2, 4, below=5), normal(5, 3), normal(6, 3)), call(integers(3, 2, below=3), normal(3, 4), normal(2, 4))],
    ),
    "affine_relu": Subject(
        against=affine_relu_torch,
        calls=[call(normal(3, 2, 2), normal(4, 5), normal(5)), call(normal(2, 3), normal(3, 2), normal(2))],
    ),
    "SwiGLU": Subject(
        against=swiglu_torch,
        calls=[
            call(normal(4, 3), normal(3, 5), normal(3, 5), normal(5, 3)),
            call(normal(2, 2), normal(2, 3), normal(2, 3), normal(3, 4)),
        ],
    ),
    "geglu": Subject(
        against=geglu_torch,
        calls=[call(normal(2, 3, 4), normal(4, 6), normal(6)), call(normal(5, 2), normal(2, 4), normal(4))],
    ),
    "mixture": Subject(
        against=mixture_torch,
        calls=[
            call(normal(5, 3), normal(3, 4), normal(4, 3, 2), integers(5, 2, below=4)),
            call(normal(3, 2), normal(2, 3), normal(3, 2, 2), integers(3, 3, below=3)),
        ],
    ),
    "scatter_mean": Subject(
        against=scatter_mean_torch,
        calls=[call(normal(7, 3), integers(7, below=4)), call(normal(5, 2), integers(5, below=2), size=2)],
    ),
}
MISTAKES = [
    # float64 by default, whatever W is (seen in float32 alone)
    Mistake("embed", "dtype", "dW = np.zeros(W.shape, W.dtype)", "dW = np.zeros(W.shape)"),
    # the output's gradient masked where it stands
    Mistake("affine_relu", "mutation", "dz = dout * (z > 0)\n", "dz = dout\n    dz[z <= 0] = 0\n"),
    # the gate alone, where the product went into the last projection
    Mistake("SwiGLU", "operand / elementwise factor", "dWd = (act * u).T @ dy", "dWd = act.T @ dy"),
    # gate and up in the order of another checkpoint
    Mistake("SwiGLU", "swapped", "return dx, dWg, dWu, dWd", "return dx, dWu, dWg, dWd"),
    # the slope of the exact GELU
    Mistake("geglu", "variant", "slope = 0.5 * (1 + t) + 0.5 * gate * (1 - t * t) * k * (1 + 3 * 0.044715 * gate**2)", "slope = ndtr(gate) + gate * np.exp(-0.5 * gate**2) / math.sqrt(2 * math.pi)"),
    # gate first, value second
    Mistake("geglu", "misplaced", "np.concatenate([dvalue, dgate], axis=-1)", "np.concatenate([dgate, dvalue], axis=-1)"),
    # the renormalization taken for a constant
    Mistake("mixture", "missing term", "(dgates - (dgates * gates).sum(-1, keepdims=True)) / total", "dgates / total"),
    # a mean of equal groups
    Mistake("scatter_mean", "counts", "dx = (dy / share)[index]", "dx = dy[index] / (len(index) / size)"),
]
