"""Losses: right functions, and the mistakes that are made in them."""

import numpy as np
import torch
import torch.nn.functional as F

from ..mistakes import Mistake, Subject, booleans, call, integers, normal, uniform


def softmax_loss(x, y, smoothing=0.1):
    """Loss and gradient of the mean cross entropy with smoothed labels: x (N, C), y (N,)."""
    N, C = x.shape
    shifted = x - x.max(axis=1, keepdims=True)
    logp = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    target = np.full((N, C), smoothing / C, x.dtype)
    target[np.arange(N), y] += 1 - smoothing
    loss = -(target * logp).sum() / N
    dx = (np.exp(logp) - target) / N
    return loss, (dx,)


def softmax_loss_torch(x, y, smoothing=0.1):
    return F.cross_entropy(x, y, label_smoothing=smoothing)


def svm_loss(x, y, margin=1.0):
    """The hinge loss of many classes: x (N, C), y (N,)."""
    N = len(x)
    rows = np.arange(N)
    margins = np.maximum(0, x - x[rows, y][:, None] + margin)
    margins[rows, y] = 0
    loss = margins.sum() / N
    active = margins > 0
    dx = np.zeros(x.shape, x.dtype)
    dx[active] = 1
    dx[rows, y] -= active.sum(axis=1)
    dx /= N
    return loss, (dx,)


def svm_loss_torch(x, y, margin=1.0):
    d = x - x.gather(1, y[:, None]) + margin
    return (F.relu(d) * (1 - F.one_hot(y, x.shape[1]).to(x.dtype))).sum() / len(x)


def linear_cross_entropy(h, W, y, ignore=0, chunk=3):
    """Mean cross entropy of h @ W.T without the labels that are ignored; the logits live by chunks of tokens only."""
    keep = y != ignore
    count = max(int(keep.sum()), 1)
    total = 0.0
    dh, dW = np.zeros(h.shape, h.dtype), np.zeros(W.shape, W.dtype)
    for a in range(0, len(h), chunk):
        hc, yc, kc = h[a : a + chunk], y[a : a + chunk], keep[a : a + chunk]
        z = hc @ W.T
        z = z - z.max(1, keepdims=True)
        e = np.exp(z)
        norm = e.sum(1, keepdims=True)
        at = np.arange(len(yc))
        total = total + ((np.log(norm[:, 0]) - z[at, yc]) * kc).sum()
        g = e / norm
        g[at, yc] -= 1
        g = g * kc[:, None] / count
        dh[a : a + chunk] = g @ W
        dW += g.T @ hc

    def pullback(dy):
        return dy * dh, dy * dW, None

    return np.asarray(total / count, h.dtype), pullback


def linear_cross_entropy_torch(h, W, y, ignore=0, chunk=3):
    return F.cross_entropy(h @ W.T, y, ignore_index=ignore)


class HuberLoss:
    """Mean of Huber's loss over all elements."""

    def forward(self, x, target, delta=0.7):
        self.diff, self.delta = x - target, delta
        a = np.abs(self.diff)
        return np.where(a <= delta, 0.5 * self.diff**2, delta * (a - 0.5 * delta)).mean()

    def backward(self, dout=1.0):
        slope = np.clip(self.diff, -self.delta, self.delta)
        dx = dout * slope / float(self.diff.size)
        return dx, -dx


def huber_torch(x, target, delta=0.7):
    return F.huber_loss(x, target, delta=delta)


def info_nce(a, b, temperature=0.5):
    """Contrastive loss of both directions: a, b (N, D), already of the scale that is wanted."""
    N = len(a)
    s = a @ b.T / temperature
    def log_softmax(z, axis):
        z = z - z.max(axis, keepdims=True)
        return z - np.log(np.exp(z).sum(axis, keepdims=True))

    by_row, by_col = log_softmax(s, 1), log_softmax(s, 0)
    loss = -0.5 * (np.diagonal(by_row) + np.diagonal(by_col)).mean()

    def pullback(dy):
        eye = np.eye(N, dtype=s.dtype)
        rows, cols = np.exp(by_row), np.exp(by_col)
        ds = dy * 0.5 * ((rows - eye) + (cols - eye)) / N
        da = ds @ b / temperature
        db = ds.T @ a / temperature
        return da, db

    return loss, pullback


def info_nce_torch(a, b, temperature=0.5):
    s, at = a @ b.T / temperature, torch.arange(len(a))
    return 0.5 * (F.cross_entropy(s, at) + F.cross_entropy(s.T, at))


def triplet(anchor, positive, negative, margin=1.0):
    """max(0, |a − p|² − |a − n|² + margin), mean over the rows."""
    dp, dn = anchor - positive, anchor - negative
    raw = (dp * dp).sum(-1) - (dn * dn).sum(-1) + margin
    loss = np.maximum(raw, 0).mean()

    def pullback(dy):
        w = (2 * dy / len(raw) * (raw > 0))[:, None].astype(anchor.dtype)
        return w * (dp - dn), -w * dp, w * dn

    return loss, pullback


def triplet_torch(anchor, positive, negative, margin=1.0):
    return F.relu(((anchor - positive) ** 2).sum(-1) - ((anchor - negative) ** 2).sum(-1) + margin).mean()


def focal_forward(z, target, gamma=2.0, alpha=0.25):
    """Sum of the focal loss of logits, targets of 0 and 1 (boolean)."""
    sign = np.where(target, 1, -1).astype(z.dtype)
    u = sign * z
    p = 0.5 * (1 + np.tanh(0.5 * u))
    logp = -np.logaddexp(0, -u)
    weight = np.where(target, alpha, 1 - alpha).astype(z.dtype)
    return (-weight * (1 - p) ** gamma * logp).sum(), (sign, p, logp, weight, gamma)


def focal_backward(cache, dout):
    sign, p, logp, weight, gamma = cache
    through_weight = gamma * (1 - p) ** gamma * p * logp
    through_log = -((1 - p) ** (gamma + 1))
    return (dout * weight * sign * (through_weight + through_log),)


focal = (focal_forward, focal_backward)


def focal_torch(z, target, gamma=2.0, alpha=0.25):
    u = torch.where(target, z, -z)
    w = torch.where(target, torch.tensor(alpha, dtype=z.dtype), torch.tensor(1 - alpha, dtype=z.dtype))
    return -(w * torch.sigmoid(-u) ** gamma * F.logsigmoid(u)).sum()


def distillation(student, teacher, T=2.0):
    """T² · KL(teacher ‖ student) at temperature T, mean over rows; both have gradients."""
    def log_softmax(z):
        z = z - z.max(-1, keepdims=True)
        return z - np.log(np.exp(z).sum(-1, keepdims=True))

    ls, lt = log_softmax(student / T), log_softmax(teacher / T)
    pt = np.exp(lt)
    gap = lt - ls
    kl = (pt * gap).sum(-1)
    loss = T * T * kl.mean()

    def pullback(dy):
        scale = dy * T / len(kl)
        dstudent = scale * (np.exp(ls) - pt)
        dteacher = scale * pt * (gap - kl[:, None])
        return dstudent, dteacher

    return loss, pullback


def distillation_torch(student, teacher, T=2.0):
    return T * T * F.kl_div(F.log_softmax(student / T, -1), F.log_softmax(teacher / T, -1), reduction="batchmean", log_target=True)


def gaussian_nll(mu, log_var, x, floor=-7.0):
    """Mean of ½ (s + (x − μ)² e^{−s}) with s = max(log σ², floor)."""
    s = np.maximum(log_var, floor)
    r = x - mu
    prec = np.exp(-s)
    loss = 0.5 * (s + r * r * prec).mean()

    def pullback(dy):
        n = float(r.size)
        dmu = -dy * r * prec / n
        ds = dy * 0.5 * (1 - r * r * prec) / n
        return dmu, ds * (log_var >= floor), -dmu

    return loss, pullback


def gaussian_nll_torch(mu, log_var, x, floor=-7.0):
    s = log_var.clamp(min=floor)
    return 0.5 * (s + (x - mu) ** 2 * torch.exp(-s)).mean()


def masked_mse(pred, target, mask):
    """Per sequence the mean over the steps that count, then the mean over sequences: (N, T, D), mask (N, T)."""
    steps = mask.sum(1)
    weight = mask / np.maximum(steps, 1)[:, None] / (len(pred) * pred.shape[2])
    weight = weight.astype(pred.dtype)
    diff = pred - target
    loss = (weight[..., None] * diff**2).sum()

    def pullback(dy):
        dpred = 2 * dy * weight[..., None] * diff
        return dpred, -dpred, None

    return loss, pullback


def masked_mse_torch(pred, target, mask):
    m = mask.to(pred.dtype)
    per = (((pred - target) ** 2).mean(-1) * m).sum(1) / m.sum(1).clamp(min=1)
    return per.mean()


SUBJECTS = {
    "softmax_loss": Subject(against=softmax_loss_torch, calls=[call(normal(5, 4), integers(5, below=4))]),
    "svm_loss": Subject(against=svm_loss_torch, calls=[call(normal(9, 4), integers(9, below=4))]),
    "linear_cross_entropy": Subject(against=linear_cross_entropy_torch, calls=[call(normal(8, 3), normal(3, 3), integers(8, below=3)),
                                                          call(normal(10, 3), normal(4, 3), integers(10, below=4), ignore=1, chunk=4)]),
    "HuberLoss": Subject(against=huber_torch, calls=[call(normal(4, 3), normal(4, 3))]),
    "info_nce": Subject(against=info_nce_torch, calls=[call(normal(4, 3), normal(4, 3))]),
    "triplet": Subject(against=triplet_torch, calls=[call(normal(12, 3), normal(12, 3), normal(12, 3))]),
    "focal": Subject(against=focal_torch, calls=[call(normal(4, 3), booleans(4, 3)), call(normal(6), booleans(6), gamma=1.5)]),
    "distillation": Subject(against=distillation_torch, calls=[call(normal(4, 5), normal(4, 5))]),
    "gaussian_nll": Subject(against=gaussian_nll_torch, calls=[call(normal(4, 3), normal(4, 3), normal(4, 3))]),
    "masked_mse": Subject(against=masked_mse_torch, calls=[call(normal(4, 5, 2), normal(4, 5, 2), booleans(4, 5))]),
}
MISTAKES = [
    # smoothing shared among the C − 1 other classes, and 1 − smoothing for the right one: another convention, in the gradient only
    Mistake("softmax_loss", "variant / missing term", "dx = (np.exp(logp) - target) / N",
            "target = np.where(target > smoothing / C, 1 - smoothing, smoothing / (C - 1))\n    dx = (np.exp(logp) - target) / N"),
    Mistake("softmax_loss", "factor", "target) / N", "target) / N / C"),
    Mistake("svm_loss", "missing term / overwritten / counts", "dx[rows, y] -= active.sum(axis=1)", "dx[rows, y] -= 1"),
    # where a margin is exactly zero: whole numbers
    Mistake("svm_loss", "kink", "active = margins > 0", "active = x - x[rows, y][:, None] + margin >= 0\n    active[rows, y] = False"),
    # each chunk divides by its own count
    Mistake("linear_cross_entropy", "counts / factor", "g = g * kc[:, None] / count", "g = g * kc[:, None] / max(int(kc.sum()), 1) * len(kc) / len(h)"),
    Mistake("linear_cross_entropy", "overwritten", "dW += g.T @ hc", "dW = g.T @ hc"),
    Mistake("linear_cross_entropy", "elementwise factor / missing term / extra term", "g = g * kc[:, None] / count", "g = g / count"),
    # the loss is scaled before (by an AMP scaler, by accumulation): dy is no one
    Mistake("linear_cross_entropy", "cotangent", "return dy * dh, dy * dW, None", "return dh, dW, None"),
    # smooth_l1's gradient, which is Huber's over delta
    Mistake("HuberLoss", "variant / factor", "slope = np.clip(self.diff, -self.delta, self.delta)", "slope = np.clip(self.diff / self.delta, -1, 1)"),
    Mistake("HuberLoss", "cotangent", "dx = dout * slope", "dx = slope"),
    Mistake("HuberLoss", "sign / swapped", "return dx, -dx", "return dx, dx"),
    # rows divided, columns forgotten: one direction of two
    Mistake("info_nce", "missing term / factor", "0.5 * ((rows - eye) + (cols - eye)) / N", "(rows - eye) / N"),
    Mistake("info_nce", "transpose", "db = ds.T @ a / temperature", "db = ds @ a / temperature"),
    Mistake("info_nce", "factor", "da = ds @ b / temperature", "da = ds @ b"),
    Mistake("triplet", "missing term", "return w * (dp - dn), -w * dp, w * dn", "return w * dp, -w * dp, w * dn"),
    Mistake("triplet", "swapped", "return w * (dp - dn), -w * dp, w * dn", "return w * (dp - dn), w * dn, -w * dp"),
    Mistake("triplet", "elementwise factor", "(2 * dy / len(raw) * (raw > 0))[:, None]", "(2 * dy / len(raw) * np.ones_like(raw))[:, None]"),
    # where the loss just vanishes: whole numbers
    Mistake("triplet", "kink", "(raw > 0))[:, None]", "(raw >= 0))[:, None]"),
    Mistake("focal", "missing term", "sign * (through_weight + through_log)", "sign * through_log"),
    # right for the default of the setting, wrong at the second call
    Mistake("focal", "variant", "through_log = -((1 - p) ** (gamma + 1))", "through_log = -((1 - p) ** 3)"),
    Mistake("focal", "sign / elementwise factor", "dout * weight * sign * (", "dout * weight * ("),
    # the factors of T: T² of the loss and 1/T of each logit
    Mistake("distillation", "factor", "scale = dy * T / len(kl)", "scale = dy * T * T / len(kl)"),
    Mistake("distillation", "missing term", "pt * (gap - kl[:, None])", "pt * gap"),
    Mistake("distillation", "extra term / missing term", "pt * (gap - kl[:, None])", "pt * (gap - kl[:, None] + 1)"),
    # below the floor only: small log variances
    Mistake("gaussian_nll", "range / elementwise factor / kink", "ds * (log_var >= floor)", "ds"),
    # in one of the three
    Mistake("gaussian_nll", "cotangent", "ds = dy * 0.5", "ds = 0.5"),
    Mistake("gaussian_nll", "missing term", "(1 - r * r * prec) / n", "(-r * r * prec) / n"),
    # one mean over all the steps that count
    Mistake("masked_mse", "counts", "dpred = 2 * dy * weight[..., None] * diff", "dpred = 2 * dy * mask[..., None] * diff / (float(mask.sum()) * diff.shape[-1])"),
]
