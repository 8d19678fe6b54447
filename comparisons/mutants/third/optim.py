"""Steps of optimizers as differentiable rules (as unrolled for meta-learning): the mistakes that are made in them.

A step returns the new parameter and the new state stacked along a new first axis, so that all have cotangents.
"""

import numpy as np
import torch
import torch.nn.functional as F

from ..mistakes import Mistake, Subject, booleans, call, integers, normal, uniform


POOL = {}  # buffers by size and dtype


def sgd_step(p, g, buf, lr=0.1, momentum=0.9, dampening=0.0, nesterov=False, weight_decay=0.0):
    """torch's, with the decay coupled: -> (p', buf')."""
    d = g + weight_decay * p
    new = momentum * buf + (1 - dampening) * d
    step = d + momentum * new if nesterov else new
    y = np.stack([p - lr * step, new])

    def pullback(dy):
        dstep = -lr * dy[0]
        if nesterov:
            dd = dstep
            dnew = dy[1] + momentum * dstep
        else:
            dd = np.zeros_like(dstep)
            dnew = dy[1] + dstep
        dd = dd + (1 - dampening) * dnew
        dp = dy[0] + weight_decay * dd
        return dp, dd, momentum * dnew

    return y, pullback


def sgd_step_torch(p, g, buf, lr=0.1, momentum=0.9, dampening=0.0, nesterov=False, weight_decay=0.0):
    d = g + weight_decay * p
    new = momentum * buf + (1 - dampening) * d
    return torch.stack([p - lr * (d + momentum * new if nesterov else new), new])


def adam_step(p, g, m, v, lr=1e-2, beta1=0.9, beta2=0.999, eps=1e-3, step=3, weight_decay=0.0):
    """Adam with the decay coupled; v holds the roots' squares and is squared here to stay above zero."""
    d = g + weight_decay * p
    m1 = beta1 * m + (1 - beta1) * d
    v1 = beta2 * v**2 + (1 - beta2) * d**2
    c1, c2 = 1 - beta1**step, 1 - beta2**step
    root = np.sqrt(v1 / c2)
    denom = root + eps
    y = np.stack([p - lr * (m1 / c1) / denom, m1, v1])

    def pullback(dy):
        dp0 = dy[0]
        dm1 = dy[1] - lr * dp0 / (c1 * denom)
        droot = lr * dp0 * m1 / (c1 * denom**2)
        dv1 = dy[2] + droot / (2 * np.where(root > 0, root, 1) * c2)
        dd = (1 - beta1) * dm1 + 2 * (1 - beta2) * d * dv1
        return dp0 + weight_decay * dd, dd, beta1 * dm1, 2 * beta2 * v * dv1

    return y, pullback


def adam_step_torch(p, g, m, v, lr=1e-2, beta1=0.9, beta2=0.999, eps=1e-3, step=3, weight_decay=0.0):
    d = g + weight_decay * p
    m1 = beta1 * m + (1 - beta1) * d
    v1 = beta2 * v**2 + (1 - beta2) * d**2
    vh = v1 / (1 - beta2**step)
    root = torch.sqrt(torch.where(vh > 0, vh, 1.0)) * (vh > 0)
    return torch.stack([p - lr * (m1 / (1 - beta1**step)) / (root + eps), m1, v1])


def adamw_forward(p, g, m, v, lr=1e-2, beta1=0.9, eps=1e-2, weight_decay=0.1, step=2):
    """Decoupled decay; the corrected second moment is given and stays: -> (p', m')."""
    m1 = beta1 * m + (1 - beta1) * g
    root = np.sqrt(v)
    denom = root + eps
    size = lr / (1 - beta1**step)
    y = np.stack([p * (1 - lr * weight_decay) - size * m1 / denom, m1])
    return y, (m1, root, denom, size, beta1, lr * weight_decay)


def adamw_backward(cache, dout):
    m1, root, denom, size, beta1, decay = cache
    dm1 = dout[1] - size * dout[0] / denom
    ddenom = size * dout[0] * m1 / denom**2
    dp = dout[0] * (1 - decay)
    dv = ddenom / (2 * root)
    return dp, dm1 * (1 - beta1), dm1 * beta1, dv


adamw = (adamw_forward, adamw_backward)


def adamw_torch(p, g, m, v, lr=1e-2, beta1=0.9, eps=1e-2, weight_decay=0.1, step=2):
    m1 = beta1 * m + (1 - beta1) * g
    p = p - lr * weight_decay * p
    return torch.stack([p - lr * (m1 / (1 - beta1**step)) / (torch.sqrt(v) + eps), m1])


def clip_by_norm(g, max_norm=1.0, eps=1e-6):
    """g times min(1, max_norm / (|g| + eps)), as torch's clip_grad_norm_ has it."""
    norm = np.sqrt((g**2).sum())
    scale = max_norm / (norm + eps)
    clipped = scale < 1
    y = g * scale if clipped else g.copy()

    def pullback(dy):
        if not clipped:
            return (dy.copy(),)
        inner = (g * dy).sum()
        return (scale * dy - max_norm / (norm + eps) ** 2 * inner * g / norm,)

    return y, pullback


def clip_by_norm_torch(g, max_norm=1.0, eps=1e-6):
    norm = torch.sqrt((g * g).sum())
    return g * (max_norm / (norm + eps)) if max_norm / (norm + eps) < 1 else g * 1


class ClipGlobal(torch.autograd.Function):
    """Two gradients by their common norm, at most 1, into one flat vector."""

    @staticmethod
    def forward(ctx, a, b):
        norm = torch.sqrt((a * a).sum() + (b * b).sum())
        ctx.save_for_backward(a, b, norm)
        scale = 1 / torch.clamp(norm, min=1.0)
        return torch.cat([(a * scale).reshape(-1), (b * scale).reshape(-1)])

    @staticmethod
    def backward(ctx, dy):
        a, b, norm = ctx.saved_tensors
        da, db = dy[: a.numel()].reshape(a.shape), dy[a.numel() :].reshape(b.shape)
        if norm < 1:
            return da, db
        inner = (a * da).sum() + (b * db).sum()
        return da / norm - a * inner / norm**3, db / norm - b * inner / norm**3


def clip_global_torch(a, b):
    flat = torch.cat([a.reshape(-1), b.reshape(-1)])
    norm = torch.sqrt((flat * flat).sum())
    return flat / norm if norm >= 1 else flat * 1


def clip_rows(g, max_norm=1.0, block=4):
    """Each row (each sample's gradient, as in DP-SGD) to at most max_norm, then their mean; blocks of rows, the norms
    kept and the rows made again."""
    n = len(g)
    norms = np.empty(n, g.dtype)
    total = np.zeros(g.shape[1:], g.dtype)
    for start in range(0, n, block):
        rows = g[start : start + block]
        norms[start : start + block] = np.sqrt((rows**2).sum(axis=1))
        total = total + (rows / np.maximum(norms[start : start + block, None] / max_norm, 1)).sum(axis=0)
    y = total / n

    def pullback(dy):
        dg = np.empty(g.shape, g.dtype)
        for start in range(0, n, block):
            rows, norm = g[start : start + block], norms[start : start + block, None]
            over = norm > max_norm
            scale = np.where(over, max_norm / np.where(over, norm, 1), 1)
            inner = (rows * dy).sum(axis=1, keepdims=True)
            along = np.where(over, scale * inner / np.where(over, norm**2, 1), 0)
            dg[start : start + block] = (scale * dy - along * rows) / n
        return (dg,)

    return y, pullback


def clip_rows_torch(g, max_norm=1.0, block=4):
    sq = (g * g).sum(1, keepdim=True)
    norm = torch.sqrt(torch.where(sq > 0, sq, 1.0)) * (sq > 0)
    return torch.where(norm > max_norm, g * max_norm / torch.where(norm > max_norm, norm, 1.0), g).mean(0)


class RMSpropStep:
    """-> p' of torch's RMSprop, centered or not; v and mean are the averages so far."""

    def forward(self, p, g, v, mean, lr=0.05, alpha=0.9, eps=1e-2, centered=False):
        self.lr, self.alpha, self.centered, self.g = lr, alpha, centered, g
        v1 = alpha * v + (1 - alpha) * g**2
        self.mean1 = alpha * mean + (1 - alpha) * g
        self.root = np.sqrt(v1 - self.mean1**2 if centered else v1)
        self.denom = self.root + eps
        return p - lr * g / self.denom

    def backward(self, dout):
        a = self.alpha
        dg = -self.lr * dout / self.denom
        ddenom = self.lr * dout * self.g / self.denom**2
        dv1 = ddenom / (2 * self.root)
        dmean1 = -2 * self.mean1 * dv1 if self.centered else np.zeros_like(dv1)
        dg = dg + 2 * (1 - a) * self.g * dv1 + (1 - a) * dmean1
        return dout.copy(), dg, a * dv1, a * dmean1


def rmsprop_torch(p, g, v, mean, lr=0.05, alpha=0.9, eps=1e-2, centered=False):
    v1 = alpha * v + (1 - alpha) * g**2
    m1 = alpha * mean + (1 - alpha) * g
    return p - lr * g / (torch.sqrt(v1 - m1 * m1 if centered else v1) + eps) + 0 * m1


def lars_step(p, g, lr=0.1, trust=0.5, weight_decay=0.1):
    """The layer's own rate, trust |p| / (|g| + wd |p|), for g + wd p."""
    np_, ng = np.sqrt((p**2).sum()), np.sqrt((g**2).sum())
    denom = ng + weight_decay * np_
    ratio = trust * np_ / denom
    d = g + weight_decay * p
    y = p - lr * ratio * d

    def pullback(dy):
        dd = -lr * ratio * dy
        dratio = -lr * (d * dy).sum()
        dnp = dratio * trust * (1 / denom - weight_decay * np_ / denom**2)
        dng = -dratio * trust * np_ / denom**2
        return dy + weight_decay * dd + dnp * p / np_, dd + dng * g / ng

    return y, pullback


def lars_step_torch(p, g, lr=0.1, trust=0.5, weight_decay=0.1):
    a, b = torch.sqrt((p * p).sum()), torch.sqrt((g * g).sum())
    return p - lr * trust * a / (b + weight_decay * a) * (g + weight_decay * p)


def far(*shape):
    return normal(*shape, shift=4.0, scale=0.3)


SUBJECTS = {
    "sgd_step": Subject(against=sgd_step_torch, calls=[
        call(normal(4, 3), normal(4, 3), normal(4, 3), dampening=0.3, weight_decay=0.2),
        call(normal(5), normal(5), normal(5), nesterov=True, weight_decay=0.1)]),
    "adam_step": Subject(against=adam_step_torch, calls=[
        call(normal(3, 4), normal(3, 4), normal(3, 4), uniform(3, 4)),
        call(normal(6), normal(6), normal(6), uniform(6), weight_decay=0.3, step=1, beta2=0.9)]),
    "adamw": Subject(against=adamw_torch, calls=[
        call(normal(4, 2), normal(4, 2), normal(4, 2), uniform(4, 2)),
        call(normal(5), normal(5), normal(5), uniform(5), lr=0.3, beta1=0.5, weight_decay=0.5)]),
    "clip_by_norm": Subject(against=clip_by_norm_torch, calls=[
        call(normal(4, 3)), call(normal(5), max_norm=50.0), call(normal(2, 3), max_norm=0.5, eps=0.1)]),
    "ClipGlobal": Subject(against=clip_global_torch, calls=[call(normal(3, 2), normal(4)), call(normal(2, 2), normal(3, 3))]),
    "clip_rows": Subject(against=clip_rows_torch, calls=[call(normal(6, 2)), call(normal(9, 3), max_norm=1.5)]),
    "RMSpropStep": Subject(against=rmsprop_torch, calls=[
        call(normal(3, 4), normal(3, 4), uniform(3, 4), normal(3, 4)),
        call(normal(5), normal(5), far(5), normal(5, scale=0.2), centered=True)]),
    "lars_step": Subject(against=lars_step_torch, calls=[call(normal(4, 3), normal(4, 3)), call(normal(6), normal(6), weight_decay=0.7)]),
}
MISTAKES = [
    # the decay's path to the parameter: d p' / d p is taken for 1
    Mistake("sgd_step", "missing term", "dp = dy[0] + weight_decay * dd", "dp = dy[0]"),
    Mistake("sgd_step", "factor / variant", "dd = dd + (1 - dampening) * dnew", "dd = dd + dnew"),
    # nesterov: the direct part of the gradient (second call)
    Mistake("sgd_step", "missing term", "            dd = dstep\n", "            dd = np.zeros_like(dstep)\n"),
    Mistake("sgd_step", "missing term", "dnew = dy[1] + dstep", "dnew = dstep"),  # the state's own cotangent
    Mistake("sgd_step", "swapped", "return dp, dd, momentum * dnew", "return dp, momentum * dnew, dd"),
    # only as a state, not as the second moment's source
    Mistake("adam_step", "missing term", "(1 - beta1) * dm1 + 2 * (1 - beta2) * d * dv1", "(1 - beta1) * dm1"),
    # before for after: the moment that came in
    Mistake("adam_step", "operand", "lr * dp0 * m1 / (c1", "lr * dp0 * m / (c1"),
    # the gradient without its decay (second call)
    Mistake("adam_step", "operand", "2 * (1 - beta2) * d * dv1", "2 * (1 - beta2) * g * dv1"),
    Mistake("adam_step", "factor", "(2 * np.where(root > 0, root, 1) * c2)", "(np.where(root > 0, root, 1) * c2)"),
    # the bias correction of the second moment
    Mistake("adam_step", "factor / variant", "(2 * np.where(root > 0, root, 1) * c2)", "(2 * np.where(root > 0, root, 1))"),
    # eps inside the root: the root's slope at denom
    Mistake("adam_step", "variant / elementwise factor", "(2 * np.where(root > 0, root, 1) * c2)", "(2 * denom * c2)"),
    Mistake("adam_step", "sign", "droot = lr * dp0", "droot = -lr * dp0"),
    # decoupled, as AdamW has it: the decay's path through the moments is missing (second call)
    Mistake("adam_step", "variant / missing term", "return dp0 + weight_decay * dd, dd", "return dp0 * (1 - lr * weight_decay), dd"),
    # the moments are updated where they are
    Mistake("adam_step", "mutation", "m1 = beta1 * m + (1 - beta1) * d", "m *= beta1\n    m1 = m + (1 - beta1) * d"),
    # the decay by lambda alone, as the paper writes it; saved so
    Mistake("adamw", "factor / variant", "beta1, lr * weight_decay)", "beta1, weight_decay)"),
    Mistake("adamw", "missing term / factor", "dp = dout[0] * (1 - decay)", "dp = dout[0]"),
    # eps inside the root: the root's slope at denom
    Mistake("adamw", "variant / elementwise factor / operand", "dv = ddenom / (2 * root)", "dv = ddenom / (2 * denom)"),
    Mistake("adamw", "swapped / factor", "dm1 * (1 - beta1), dm1 * beta1", "dm1 * beta1, dm1 * (1 - beta1)"),
    # the uncorrected rate was saved
    Mistake("adamw", "factor / variant", "(m1, root, denom, size, beta1", "(m1, root, denom, lr, beta1"),
    # the cotangent of the new parameter is made smaller where it lies
    Mistake("adamw", "mutation", "dp = dout[0] * (1 - decay)", "dp = dout[0]\n    dp *= 1 - decay"),
    # the norm taken for a constant, as under no_grad
    Mistake("clip_by_norm", "missing term", "(scale * dy - max_norm / (norm + eps) ** 2 * inner * g / norm,)", "(scale * dy,)"),
    # scaled also where nothing is clipped (second call)
    Mistake("clip_by_norm", "variant / factor", "return (dy.copy(),)", "return (scale * dy,)"),
    # without eps in the second part: what is left differs by eps
    Mistake("clip_by_norm", "variant", "max_norm / (norm + eps) ** 2 * inner * g / norm", "max_norm / norm**3 * inner * g"),
    Mistake("clip_by_norm", "elementwise factor / operand / cotangent", "inner = (g * dy).sum()", "inner = (g * g).sum()"),
    # per row, as if it were a batch
    Mistake("clip_by_norm", "broadcast", "inner = (g * dy).sum()", "inner = (g * dy).sum(axis=-1, keepdims=True)"),
    # each tensor's own part of the inner product
    Mistake("ClipGlobal", "missing term", "inner = (a * da).sum() + (b * db).sum()", "inner = (b * db).sum()"),
    Mistake("ClipGlobal", "elementwise factor / factor", "da / norm - a * inner / norm**3", "da / norm - a * inner / norm**2"),
    Mistake("ClipGlobal", "sign", "db / norm - b * inner", "db / norm + b * inner"),
    # over the rows instead of along them
    Mistake("clip_rows", "broadcast / misplaced", "inner = (rows * dy).sum(axis=1, keepdims=True)", "inner = (rows * dy).sum(axis=0, keepdims=True)"),
    Mistake("clip_rows", "counts", "(scale * dy - along * rows) / n", "(scale * dy - along * rows) / len(rows)"),
    # the norms of the first block, for every block
    Mistake("clip_rows", "misplaced / operand", "rows, norm = g[start : start + block], norms[start : start + block, None]", "rows = g[start : start + block]\n            norm = norms[: len(rows), None]"),
    Mistake("clip_rows", "missing term", "(scale * dy - along * rows) / n", "np.broadcast_to(scale * dy, rows.shape) / n"),
    # also the rows that were not clipped are projected
    Mistake("clip_rows", "extra term / variant", "along = np.where(over, scale * inner / np.where(over, norm**2, 1), 0)", "along = scale * inner / np.where(norm > 0, norm**2, 1)"),
    # centered: the mean is not thought of
    Mistake("RMSpropStep", "missing term", "* self.g * dv1 + (1 - a) * dmean1", "* self.g * dv1"),
    Mistake("RMSpropStep", "factor", "dv1 = ddenom / (2 * self.root)", "dv1 = ddenom / self.root"),
    Mistake("RMSpropStep", "elementwise factor / operand", "ddenom = self.lr * dout * self.g / self.denom**2", "ddenom = self.lr * dout * self.g / self.denom"),
    Mistake("RMSpropStep", "variant / missing term", "-2 * self.mean1 * dv1 if self.centered else np.zeros_like(dv1)", "np.zeros_like(dv1)"),
    # the trust ratio taken for a constant
    Mistake("lars_step", "missing term", "dd + dng * g / ng", "dd"),
    Mistake("lars_step", "missing term", "(1 / denom - weight_decay * np_ / denom**2)", "(1 / denom)"),
    Mistake("lars_step", "operand", "dratio = -lr * (d * dy).sum()", "dratio = -lr * (g * dy).sum()"),
    Mistake("lars_step", "broadcast / cotangent", "dratio = -lr * (d * dy).sum()", "dratio = -lr * d * dy"),
    # the norms stay in a buffer that the next call of that size writes over: forward, another forward, then the pullback
    Mistake("clip_rows", "state", "norms = np.empty(n, g.dtype)", "norms = POOL.setdefault((n, g.dtype), np.empty(n, g.dtype))"),
    # saved in single, to save memory
    Mistake("adamw", "precision", "return y, (m1, root, denom, size", "return y, (m1, root, denom.astype(np.float32), size"),
]
