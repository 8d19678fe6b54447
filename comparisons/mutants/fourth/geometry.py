"""Geometry: right functions, and the mistakes that are made in them."""

import numpy as np
import torch
import torch.nn.functional as F

from ..mistakes import Mistake, Subject, call, normal, uniform


def quaternion_rotate(q, v):
    """v (N, 3) turned by quaternions q (N, 4), w first, that are normalised here: v + 2 w (u × v) + 2 u × (u × v)."""
    n = np.sqrt((q * q).sum(-1, keepdims=True))
    unit = q / n
    w, u = unit[:, :1], unit[:, 1:]
    c = np.cross(u, v)
    y = v + 2 * w * c + 2 * np.cross(u, c)

    def pullback(dy):
        dc = 2 * w * dy + 2 * np.cross(dy, u)
        dw = 2 * (c * dy).sum(-1, keepdims=True)
        du = 2 * np.cross(c, dy) + np.cross(v, dc)
        dv = dy + np.cross(dc, u)
        dunit = np.concatenate([dw, du], -1)
        dq = (dunit - unit * (unit * dunit).sum(-1, keepdims=True)) / n
        return dq, dv

    return y, pullback


def quaternion_rotate_torch(q, v):
    w, x, y, z = (q / q.norm(dim=-1, keepdim=True)).unbind(-1)
    R = torch.stack([1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
                     2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
                     2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)], -1).reshape(-1, 3, 3)
    return (R @ v[..., None])[..., 0]


def quaternion_product_forward(p, q):
    """Hamilton's product, w first, of arrays (…, 4)."""
    a, b, c, d = (p[..., i] for i in range(4))
    e, f, g, h = (q[..., i] for i in range(4))
    out = np.stack([a * e - b * f - c * g - d * h, a * f + b * e + c * h - d * g,
                    a * g - b * h + c * e + d * f, a * h + b * g - c * f + d * e], axis=-1)
    return out, (p, q)


def quaternion_product_backward(cache, dout):
    p, q = cache
    a, b, c, d = (p[..., i] for i in range(4))
    e, f, g, h = (q[..., i] for i in range(4))
    w, x, y, z = (dout[..., i] for i in range(4))
    dp = np.stack([w * e + x * f + y * g + z * h, -w * f + x * e - y * h + z * g,
                   -w * g + x * h + y * e - z * f, -w * h - x * g + y * f + z * e], axis=-1)
    dq = np.stack([w * a + x * b + y * c + z * d, -w * b + x * a + y * d - z * c,
                   -w * c - x * d + y * a + z * b, -w * d + x * c - y * b + z * a], axis=-1)
    return dp, dq


quaternion_product = (quaternion_product_forward, quaternion_product_backward)


def quaternion_product_torch(p, q):
    pw, pv, qw, qv = p[..., :1], p[..., 1:], q[..., :1], q[..., 1:]
    return torch.cat([pw * qw - (pv * qv).sum(-1, keepdim=True), pw * qv + qw * pv + torch.linalg.cross(pv, qv)], -1)


def rotation_from_six(a, b):
    """Zhou's rotation of two vectors (N, 3): Gram and Schmidt, the third by a cross product; rows of (N, 3, 3)."""
    def unit(v):
        n = np.sqrt((v * v).sum(-1, keepdims=True))
        return v / n, n

    e1, n1 = unit(a)
    along = (e1 * b).sum(-1, keepdims=True)
    r = b - along * e1
    e2, n2 = unit(r)
    e3 = np.cross(e1, e2)

    def pullback(dR):
        d1, d2, d3 = dR[:, 0], dR[:, 1], dR[:, 2]
        g1 = d1 + np.cross(e2, d3)
        g2 = d2 + np.cross(d3, e1)
        dr = (g2 - e2 * (e2 * g2).sum(-1, keepdims=True)) / n2
        dalong = -(dr * e1).sum(-1, keepdims=True)
        g1 = g1 - along * dr + dalong * b
        db = dr + dalong * e1
        da = (g1 - e1 * (e1 * g1).sum(-1, keepdims=True)) / n1
        return da, db

    return np.stack([e1, e2, e3], 1), pullback


def rotation_from_six_torch(a, b):
    e1 = a / a.norm(dim=-1, keepdim=True)
    r = b - (e1 * b).sum(-1, keepdim=True) * e1
    e2 = r / r.norm(dim=-1, keepdim=True)
    return torch.stack([e1, e2, torch.linalg.cross(e1, e2)], 1)


def pairwise_distance(x, y, tile=3):
    """Euclidean distances of x (N, D) and y (M, D) by tiles; at distance zero the gradient is zero."""
    N, M = len(x), len(y)
    d = np.empty((N, M), x.dtype)
    for i in range(0, N, tile):
        for j in range(0, M, tile):
            diff = x[i : i + tile, None] - y[None, j : j + tile]
            d[i : i + tile, j : j + tile] = np.sqrt((diff * diff).sum(-1))

    def pullback(dd):
        dx, dy = np.zeros(x.shape, x.dtype), np.zeros(y.shape, y.dtype)
        for i in range(0, N, tile):
            for j in range(0, M, tile):
                diff = x[i : i + tile, None] - y[None, j : j + tile]
                at = d[i : i + tile, j : j + tile]
                w = np.where(at > 0, dd[i : i + tile, j : j + tile] / np.where(at > 0, at, 1), 0)
                g = w[..., None] * diff
                dx[i : i + tile] += g.sum(1)
                dy[j : j + tile] -= g.sum(0)
        return dx, dy

    return d, pullback


def pairwise_distance_torch(x, y, tile=3):
    return torch.linalg.vector_norm(x[:, None] - y[None], dim=-1)


def project(points, R, t, focal):
    """Points (N, 3) by a camera: R (3, 3), t (3,), focal (2,) → pixels (N, 2); z is 6 + what comes out."""
    c = points @ R.T + t
    depth = c[:, 2:] + 6
    flat = c[:, :2] / depth
    y = focal * flat

    def pullback(dy):
        dfocal = (dy * flat).sum(0)
        dflat = dy * focal
        dc = np.empty(c.shape, c.dtype)
        dc[:, :2] = dflat / depth
        dc[:, 2] = -(dflat * flat).sum(1) / depth[:, 0]
        dR = dc.T @ points
        return dc @ R, dR, dc.sum(0), dfocal

    return y, pullback


def project_torch(points, R, t, focal):
    c = torch.einsum("ij,nj->ni", R, points) + t
    return focal * c[:, :2] / (c[:, 2:] + 6)


def cosine_matrix(a, b):
    """Cosines of the rows of a (N, D) with those of b (M, D)."""
    na = np.sqrt((a * a).sum(1, keepdims=True))
    nb = np.sqrt((b * b).sum(1, keepdims=True))
    ua, ub = a / na, b / nb
    s = ua @ ub.T

    def pullback(ds):
        da = (ds @ ub - ua * (ds * s).sum(1)[:, None]) / na
        db = (ds.T @ ua - ub * (ds * s).sum(0)[:, None]) / nb
        return da, db

    return s, pullback


def cosine_matrix_torch(a, b):
    return F.cosine_similarity(a[:, None], b[None], dim=-1, eps=0.0)


def sample_line(signal, where):
    """signal (C, T) at real positions (P,), linearly; outside it is zero. The slope to the right at whole numbers."""
    T = signal.shape[1]
    lo = np.floor(where).astype(int)
    f = (where - lo).astype(where.dtype)

    def at(i):
        ok = (i >= 0) & (i < T)
        return np.where(ok, signal[:, np.clip(i, 0, T - 1)], 0), ok

    left, ok_left = at(lo)
    right, ok_right = at(lo + 1)
    y = left * (1 - f) + right * f

    def pullback(dy):
        dsignal = np.zeros(signal.shape, signal.dtype)
        for i, ok, w in ((lo, ok_left, 1 - f), (lo + 1, ok_right, f)):
            np.add.at(dsignal, (slice(None), i[ok]), (dy * w)[:, ok])
        dwhere = (dy * (right - left)).sum(0)
        return dsignal, dwhere

    return y, pullback


def sample_line_torch(signal, where):
    T = signal.shape[1]
    padded = F.pad(signal, (1, 1))
    lo = torch.floor(where.detach()).long()
    f = where - lo
    return padded[:, (lo + 1).clamp(0, T + 1)] * (1 - f) + padded[:, (lo + 2).clamp(0, T + 1)] * f


def axis_angle(v, p):
    """Rodrigues: points p (N, 3) turned by vectors v (N, 3), whose length is the angle; in torch."""
    sq = (v * v).sum(-1, keepdim=True)
    small = sq < 1e-4
    t2 = torch.where(small, torch.ones_like(sq), sq)
    t = t2.sqrt()
    A = torch.where(small, 1 - sq / 6 + sq**2 / 120, t.sin() / t)
    B = torch.where(small, 0.5 - sq / 24 + sq**2 / 720, 2 * (t / 2).sin() ** 2 / t2)
    c = torch.linalg.cross(v, p)
    cc = torch.linalg.cross(v, c)
    y = p + A * c + B * cc

    def pullback(dy):
        slope_A = torch.where(small, -1 / 3 + sq / 30, (t.cos() - t.sin() / t) / t2)
        slope_B = torch.where(small, -1 / 12 + sq / 180, (A - 2 * B) / t2)
        dA, dB = (dy * c).sum(-1, keepdim=True), (dy * cc).sum(-1, keepdim=True)
        dcc = B * dy
        dc = A * dy + torch.linalg.cross(dcc, v)
        dv = torch.linalg.cross(c, dcc) + torch.linalg.cross(p, dc) + (dA * slope_A + dB * slope_B) * v
        return dv, dy + torch.linalg.cross(dc, v)

    return y, pullback


def axis_angle_torch(v, p):
    zero = torch.zeros_like(v[:, 0])
    x, y, z = v.unbind(-1)
    K = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).reshape(-1, 3, 3)
    return (torch.linalg.matrix_exp(K) @ p[..., None])[..., 0]


SUBJECTS = {
    "quaternion_rotate": Subject(against=quaternion_rotate_torch, calls=[call(normal(5, 4), normal(5, 3))]),
    "quaternion_product": Subject(against=quaternion_product_torch, calls=[call(normal(5, 4), normal(5, 4))]),
    "rotation_from_six": Subject(against=rotation_from_six_torch, calls=[call(normal(4, 3), normal(4, 3))]),
    "pairwise_distance": Subject(against=pairwise_distance_torch, calls=[call(normal(5, 2), normal(4, 2))]),
    "project": Subject(against=project_torch, calls=[call(normal(5, 3), normal(3, 3, scale=0.5), normal(3), normal(2))]),
    "cosine_matrix": Subject(against=cosine_matrix_torch, calls=[call(normal(4, 3), normal(5, 3)), call(normal(3, 3), normal(3, 3))]),
    "sample_line": Subject(against=sample_line_torch, calls=[call(normal(2, 5), normal(8, scale=2.0, shift=2.1))]),
    "axis_angle": Subject(against=axis_angle_torch, calls=[call(normal(4, 3), normal(4, 3)), call(normal(4, 3, scale=0.003), normal(4, 3))]),
}
MISTAKES = [
    Mistake("quaternion_rotate", "missing term", "dq = (dunit - unit * (unit * dunit).sum(-1, keepdims=True)) / n", "dq = dunit / n"),
    # the inverse is what turns back; the order of a cross product
    Mistake("quaternion_rotate", "rotation / sign", "dv = dy + np.cross(dc, u)", "dv = dy + np.cross(u, dc)"),
    Mistake("quaternion_rotate", "missing term", "du = 2 * np.cross(c, dy) + np.cross(v, dc)", "du = np.cross(v, dc)"),
    # w last, as another library has it
    Mistake("quaternion_rotate", "misplaced", "dunit = np.concatenate([dw, du], -1)", "dunit = np.concatenate([du, dw], -1)"),
    Mistake("quaternion_product", "sign / rotation", "-w * c - x * d + y * a + z * b", "-w * c + x * d + y * a - z * b"),
    Mistake("quaternion_product", "swapped", "return dp, dq", "return dq, dp"),
    Mistake("rotation_from_six", "missing term", "g1 = g1 - along * dr + dalong * b", "g1 = g1 - along * dr"),
    Mistake("rotation_from_six", "sign / swapped", "g2 = d2 + np.cross(d3, e1)", "g2 = d2 + np.cross(e1, d3)"),
    Mistake("rotation_from_six", "elementwise factor / factor", "g2).sum(-1, keepdims=True)) / n2", "g2).sum(-1, keepdims=True))"),
    Mistake("rotation_from_six", "operand", "db = dr + dalong * e1", "db = g2 + dalong * e1"),
    Mistake("pairwise_distance", "overwritten", "dy[j : j + tile] -= g.sum(0)", "dy[j : j + tile] = -g.sum(0)"),
    # at equal points: the division by zero gives NaN
    Mistake("pairwise_distance", "kink", "w = np.where(at > 0, dd[i : i + tile, j : j + tile] / np.where(at > 0, at, 1), 0)", "w = dd[i : i + tile, j : j + tile] / at"),
    # the second of the two accumulators in the default type
    Mistake("pairwise_distance", "dtype", "np.zeros(y.shape, y.dtype)", "np.zeros(y.shape)"),
    # of the square, not of the root
    Mistake("pairwise_distance", "elementwise factor / variant", "w = np.where(at > 0, dd[i : i + tile, j : j + tile] / np.where(at > 0, at, 1), 0)", "w = 2 * dd[i : i + tile, j : j + tile]"),
    Mistake("project", "elementwise factor / operand", "-(dflat * flat).sum(1) / depth[:, 0]", "-(dflat * c[:, :2]).sum(1) / depth[:, 0]"),
    Mistake("project", "transpose", "dR = dc.T @ points", "dR = points.T @ dc"),
    Mistake("project", "transpose", "return dc @ R, dR", "return dc @ R.T, dR"),
    Mistake("project", "variant / elementwise factor", "dc[:, :2] = dflat / depth", "dc[:, :2] = dflat / (c[:, 2:] + 5)"),
    # of the second call (square) as well: rows for columns
    Mistake("cosine_matrix", "broadcast / operand / misplaced", "da = (ds @ ub - ua * (ds * s).sum(1)[:, None]) / na", "da = (ds @ ub - ua * (ds * s).sum(1).mean()) / na"),
    Mistake("cosine_matrix", "operand / elementwise factor", "db = (ds.T @ ua - ub", "db = (ds.T @ a - ub"),
    Mistake("cosine_matrix", "elementwise factor", "sum(0)[:, None]) / nb", "sum(0)[:, None])"),
    Mistake("sample_line", "swapped / misplaced", "((lo, ok_left, 1 - f), (lo + 1, ok_right, f))", "((lo, ok_left, f), (lo + 1, ok_right, 1 - f))"),
    # outside: clamped indices get what should get lost
    Mistake("sample_line", "misplaced / range / variant / extra term", "np.add.at(dsignal, (slice(None), i[ok]), (dy * w)[:, ok])", "np.add.at(dsignal, (slice(None), np.clip(i, 0, T - 1)), dy * w)"),
    Mistake("sample_line", "overwritten", "np.add.at(dsignal, (slice(None), i[ok]), (dy * w)[:, ok])", "dsignal[:, i[ok]] += (dy * w)[:, ok]"),
    Mistake("sample_line", "sign", "dwhere = (dy * (right - left)).sum(0)", "dwhere = (dy * (left - right)).sum(0)"),
    # near no rotation at all (the second call's small v): the series of the slope is left out
    Mistake("axis_angle", "range / missing term", "slope_A = torch.where(small, -1 / 3 + sq / 30,", "slope_A = torch.where(small, torch.zeros_like(sq),"),
    Mistake("axis_angle", "missing term", "+ (dA * slope_A + dB * slope_B) * v", "+ dA * slope_A * v"),
    Mistake("axis_angle", "rotation / sign / swapped", "dy + torch.linalg.cross(dc, v)", "dy + torch.linalg.cross(v, dc)"),
]
