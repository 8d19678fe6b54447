"""Functions of matrices and contractions: right functions, and the mistakes that are made in them."""

import numpy as np
import scipy.linalg
import torch

from ..mistakes import Mistake, Subject, call, normal


def bilinear_forward(x, y, W, b):
    """out[n, k] = x[n]ᵀ W[k] y[n] + b[k]."""
    out = np.einsum("ni,kij,nj->nk", x, W, y) + b
    return out, (x, y, W)


def bilinear_backward(dout, cache):
    x, y, W = cache
    dW = np.einsum("nk,ni,nj->kij", dout, x, y)
    dx = np.einsum("nk,kij,nj->ni", dout, W, y)
    dy = np.einsum("nk,kij,ni->nj", dout, W, x)
    return dx, dy, dW, dout.sum(axis=0)


bilinear = (bilinear_forward, bilinear_backward)


def bilinear_torch(x, y, W, b):
    return torch.nn.functional.bilinear(x, y, W, b)


def ridge_solve(A, b, shift=4.0):
    """x of (A Aᵀ + shift · 1) x = b, b (n, m)."""
    K = A @ A.T + shift * np.eye(len(A), dtype=A.dtype)
    x = np.linalg.solve(K, b)

    def pullback(dx):
        db = np.linalg.solve(K.T, dx)
        dK = -db @ x.T
        dA = (dK + dK.T) @ A
        return dA, db

    return x, pullback


def ridge_solve_torch(A, b, shift=4.0):
    return torch.linalg.solve(A @ A.T + shift * torch.eye(len(A), dtype=A.dtype), b)


def triangular_whiten(M, x):
    """z with L z = x, where L is the lower triangle of M, its diagonal softened: L[i, i] = exp(M[i, i])."""
    n = len(M)
    L = np.tril(M, -1) + np.diag(np.exp(np.diagonal(M)))
    z = scipy.linalg.solve_triangular(L, x, lower=True)

    def pullback(dz):
        dx = scipy.linalg.solve_triangular(L, dz, lower=True, trans="T")
        dL = -dx @ z.T
        dM = np.tril(dL)
        dM[np.arange(n), np.arange(n)] *= np.diagonal(L)
        return dM, dx

    return z, pullback


def triangular_whiten_torch(M, x):
    return torch.linalg.solve_triangular(M.tril(-1) + torch.diag(M.diagonal().exp()), x, upper=False)


def gaussian_logdet(A, r, jitter=3.0):
    """log det K + rᵀ K⁻¹ r of K = A Aᵀ + jitter · 1: what a Gaussian process minimises, in torch."""
    K = A @ A.T + jitter * torch.eye(len(A), dtype=A.dtype)
    L = torch.linalg.cholesky(K)
    alpha = torch.cholesky_solve(r[:, None], L)[:, 0]
    y = 2 * L.diagonal().log().sum() + r @ alpha

    def pullback(dy):
        dK = torch.cholesky_inverse(L) - torch.outer(alpha, alpha)
        dA = 2 * dy * dK @ A
        dr = 2 * dy * alpha
        return dA, dr

    return y, pullback


def gaussian_logdet_torch(A, r, jitter=3.0):
    K = A @ A.T + jitter * torch.eye(len(A), dtype=A.dtype)
    return torch.logdet(K) + r @ torch.linalg.solve(K, r)


class LoRALinear(torch.autograd.Function):
    """x Wᵀ + s · (x Aᵀ) Bᵀ, x (…, I), W (O, I), A (R, I), B (O, R), s = 16 / R."""

    @staticmethod
    def forward(ctx, x, W, A, B):
        ctx.save_for_backward(x, W, A, B)
        return x @ W.t() + (16 / A.shape[0]) * (x @ A.t()) @ B.t()

    @staticmethod
    def backward(ctx, dy):
        x, W, A, B = ctx.saved_tensors
        s = 16 / A.shape[0]
        flat_x, flat_dy = x.reshape(-1, x.shape[-1]), dy.reshape(-1, dy.shape[-1])
        dW = flat_dy.t() @ flat_x
        low = flat_dy @ B
        dA = s * low.t() @ flat_x
        dB = s * flat_dy.t() @ (flat_x @ A.t())
        dx = dy @ W + s * (low @ A).reshape(x.shape)
        return dx, dW, dA, dB


def lora_torch(x, W, A, B):
    return x @ (W + 16 / A.shape[0] * B @ A).T


def factorization_machine(x, V, w):
    """Σ w x + ½ Σ ((x V)² − x² V²): x (N, D), V (D, K), w (D,)."""
    s = x @ V
    y = x @ w + 0.5 * (s**2 - (x * x) @ (V * V)).sum(1)

    def pullback(dy):
        g = dy[:, None]
        dw = x.T @ dy
        dV = x.T @ (g * s) - V * ((x * x).T @ g)
        dx = g * (w + s @ V.T - x * (V * V).sum(1))
        return dx, dV, dw

    return y, pullback


def factorization_machine_torch(x, V, w):
    s = x[:, :, None] * V
    pairs = (s[:, :, None] * s[:, None]).sum(-1)
    return x @ w + pairs.triu(1).sum((1, 2))


def tiled_matmul(a, b, tile=3):
    """a @ b by tiles of all three axes; a (M, K), b (K, N)."""
    M, K = a.shape
    N = b.shape[1]

    def product(left, right):
        m, k, n = len(left), len(right), right.shape[1]
        out = np.zeros((m, n), left.dtype)
        for i in range(0, m, tile):
            for j in range(0, n, tile):
                acc = np.zeros((min(tile, m - i), min(tile, n - j)), left.dtype)
                for p in range(0, k, tile):
                    acc += left[i : i + tile, p : p + tile] @ right[p : p + tile, j : j + tile]
                out[i : i + tile, j : j + tile] = acc
        return out

    y = product(a, b)

    def pullback(dy):
        da = product(dy, b.T)
        db = np.zeros((K, N), b.dtype)
        for p in range(0, K, tile):
            for i in range(0, M, tile):
                db[p : p + tile] += a[i : i + tile, p : p + tile].T @ dy[i : i + tile]
        return da, db

    return y, pullback


def tiled_matmul_torch(a, b, tile=3):
    return a @ b


def gram_style(x, target):
    """Mean squared difference of Gram matrices, x (N, C, H, W), target (N, C, C)."""
    N, C, H, W = x.shape
    f = x.reshape(N, C, H * W)
    G = f @ f.transpose(0, 2, 1) / (C * H * W)
    d = G - target
    loss = (d * d).mean()

    def pullback(dy):
        dG = 2 * dy * d / float(d.size)
        df = (dG + dG.transpose(0, 2, 1)) @ f / (C * H * W)
        return df.reshape(x.shape), -dG

    return loss, pullback


def gram_style_torch(x, target):
    f = x.flatten(2)
    return ((f @ f.transpose(1, 2) / f[0].numel() - target) ** 2).mean()


def newton_schulz(X, steps=2):
    """The iteration of Muon, X ← a X + (b A + c A²) X with A = X Xᵀ, after X is divided by its norm."""
    a, b, c = 3.4445, -4.7750, 2.0315
    norm = float((X * X).sum()) ** 0.5 + 1e-7
    Y = X / norm
    saved = []
    for _ in range(steps):
        A = Y @ Y.T
        B = b * A + c * (A @ A)
        saved.append((Y, A, B))
        Y = a * Y + B @ Y

    def pullback(dY):
        for Y, A, B in reversed(saved):
            dB = dY @ Y.T
            dA = b * dB + c * (dB @ A.T + A.T @ dB)
            dY = a * dY + B.T @ dY + (dA + dA.T) @ Y
        first = saved[0][0] if saved else X / norm
        return (dY / norm - first * float((dY * first).sum()) / (norm - 1e-7),)

    return Y, pullback


def newton_schulz_torch(X, steps=2):
    Y = X / (torch.linalg.norm(X) + 1e-7)
    for _ in range(steps):
        A = Y @ Y.T
        Y = 3.4445 * Y + (-4.7750 * A + 2.0315 * A @ A) @ Y
    return Y


SUBJECTS = {
    "bilinear": Subject(against=bilinear_torch, calls=[call(normal(5, 3), normal(5, 3), normal(2, 3, 3), normal(2))]),
    "ridge_solve": Subject(against=ridge_solve_torch, calls=[call(normal(4, 4), normal(4, 2))]),
    "triangular_whiten": Subject(against=triangular_whiten_torch, calls=[call(normal(4, 4, scale=0.5), normal(4, 3))]),
    "gaussian_logdet": Subject(against=gaussian_logdet_torch, calls=[call(normal(4, 3), normal(4))]),
    "LoRALinear": Subject(against=lora_torch, calls=[call(normal(2, 3, 4), normal(5, 4), normal(2, 4), normal(5, 2))]),
    "factorization_machine": Subject(against=factorization_machine_torch, calls=[call(normal(5, 4), normal(4, 3), normal(4))]),
    "tiled_matmul": Subject(against=tiled_matmul_torch, calls=[call(normal(5, 4), normal(4, 7))]),
    "gram_style": Subject(against=gram_style_torch, calls=[call(normal(2, 3, 2, 4), normal(2, 3, 3))]),
    "newton_schulz": Subject(against=newton_schulz_torch, calls=[call(normal(3, 4)), call(normal(3, 3), steps=1)]),
}
MISTAKES = [
    # square W, as nothing complains then
    Mistake("bilinear", "transpose / operand / swapped", '"nk,ni,nj->kij", dout, x, y', '"nk,ni,nj->kij", dout, y, x'),
    Mistake("bilinear", "swapped", "return dx, dy, dW,", "return dy, dx, dW,"),
    # the sample's own product is not kept apart from the others'
    Mistake("bilinear", "broadcast / operand", '"nk,kij,nj->ni", dout, W, y', '"nk,kij,mj->ni", dout, W, y'),
    # K is symmetric: half of the gradient of A
    Mistake("ridge_solve", "missing term / factor / transpose", "dA = (dK + dK.T) @ A", "dA = dK @ A"),
    Mistake("ridge_solve", "operand", "dK = -db @ x.T", "dK = -db @ b.T"),
    Mistake("ridge_solve", "sign", "dK = -db @ x.T", "dK = db @ x.T"),
    Mistake("triangular_whiten", "transpose", 'dx = scipy.linalg.solve_triangular(L, dz, lower=True, trans="T")', "dx = scipy.linalg.solve_triangular(L, dz, lower=True)"),
    Mistake("triangular_whiten", "elementwise factor / operand", "*= np.diagonal(L)", "*= np.diagonal(M)"),
    # the upper triangle is no argument of the function
    Mistake("triangular_whiten", "extra term / elementwise factor", "dM = np.tril(dL)", "dM = dL.copy()"),
    Mistake("triangular_whiten", "transpose", "dL = -dx @ z.T", "dL = -z @ dx.T"),
    Mistake("gaussian_logdet", "missing term / factor / elementwise factor", "dA = 2 * dy * dK @ A", "dA = 2 * dy * (dK - 0.5 * torch.diag(dK.diagonal())) @ A"),
    Mistake("gaussian_logdet", "sign", "torch.cholesky_inverse(L) - torch.outer", "torch.cholesky_inverse(L) + torch.outer"),
    Mistake("gaussian_logdet", "operand", "torch.outer(alpha, alpha)", "torch.outer(alpha, r)"),
    Mistake("gaussian_logdet", "factor", "dr = 2 * dy * alpha", "dr = dy * alpha"),
    Mistake("LoRALinear", "factor", "dB = s * flat_dy", "dB = flat_dy"),
    Mistake("LoRALinear", "missing term / overwritten", "dx = dy @ W + s * (low @ A).reshape(x.shape)", "dx = dy @ W"),
    # s was α over the rank; here over the width
    Mistake("LoRALinear", "variant / factor", "dA = s * low.t() @ flat_x", "dA = 16 / A.shape[1] * low.t() @ flat_x"),
    Mistake("factorization_machine", "missing term / extra term", "dV = x.T @ (g * s) - V * ((x * x).T @ g)", "dV = x.T @ (g * s)"),
    Mistake("factorization_machine", "elementwise factor / operand", "- x * (V * V).sum(1))", "- (V * V).sum(1))"),
    Mistake("factorization_machine", "cotangent / elementwise factor", "dw = x.T @ dy", "dw = x.sum(0)"),
    # the last, partial block of rows
    Mistake("tiled_matmul", "misplaced / missing term", "for i in range(0, M, tile):", "for i in range(0, M // tile * tile, tile):"),
    Mistake("tiled_matmul", "overwritten", "db[p : p + tile] += a[i", "db[p : p + tile] = a[i"),
    Mistake("tiled_matmul", "precision", "da = product(dy, b.T)", "da = product(dy.astype(np.float32), b.T.astype(np.float32)).astype(a.dtype)"),
    Mistake("gram_style", "missing term / factor", "df = (dG + dG.transpose(0, 2, 1)) @ f", "df = dG @ f"),
    Mistake("gram_style", "misplaced", "return df.reshape(x.shape), -dG", "return df.reshape(N, C, W, H).transpose(0, 1, 3, 2), -dG"),
    Mistake("gram_style", "factor / counts", "dG = 2 * dy * d / float(d.size)", "dG = 2 * dy * d / float(d[0].size)"),
    Mistake("gram_style", "cotangent", "dG = 2 * dy * d / float(d.size)", "dG = 2 * d / float(d.size)"),
    Mistake("newton_schulz", "missing term", "(dA + dA.T) @ Y", "dA @ Y"),
    Mistake("newton_schulz", "missing term", "(dY / norm - first * float((dY * first).sum()) / (norm - 1e-7),)", "(dY / norm,)"),
    # A² as if it were elementwise
    Mistake("newton_schulz", "operand / missing term / variant", "c * (dB @ A.T + A.T @ dB)", "c * (2 * dB * A)"),
]
