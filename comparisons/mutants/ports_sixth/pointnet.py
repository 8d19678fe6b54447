"""PointNet++ for parts of padded point clouds (farthest points, balls, grouping, shared layers with batch norms in training, three nearest neighbours), ported with flat gathers and scatters."""

import torch
import torch.nn.functional as F
import torch.utils.checkpoint
from torch import nn

from ..ports.kinds import Fault, Right


def square_distance(src, dst):
    return torch.sum((src[:, :, None] - dst[:, None]) ** 2, -1)


def index_points(points, idx):
    B = points.shape[0]
    view_shape = [B] + [1] * (idx.dim() - 1)
    batch_indices = torch.arange(B).view(view_shape).expand(idx.shape)
    return points[batch_indices, idx, :]


def farthest_point_sample(xyz, mask, npoint):
    B, N, _ = xyz.shape
    centroids = torch.zeros(B, npoint, dtype=torch.long)
    distance = torch.full((B, N), 1e10, dtype=xyz.dtype).masked_fill(~mask, -1.0)
    farthest = torch.zeros(B, dtype=torch.long)
    for i in range(npoint):
        centroids[:, i] = farthest
        centroid = xyz[torch.arange(B), farthest].view(B, 1, 3)
        dist = torch.sum((xyz - centroid) ** 2, -1)
        closer = dist < distance
        distance[closer] = dist[closer]
        farthest = torch.max(distance, -1)[1]
    return centroids


def query_ball_point(radius, nsample, xyz, mask, new_xyz):
    B, N, _ = xyz.shape
    S = new_xyz.shape[1]
    group_idx = torch.arange(N).view(1, 1, N).repeat([B, S, 1])
    sqrdists = square_distance(new_xyz, xyz)
    group_idx[(sqrdists > radius**2) | ~mask[:, None]] = N
    group_idx = group_idx.sort(dim=-1)[0][:, :, :nsample]
    group_first = group_idx[:, :, 0].view(B, S, 1).repeat([1, 1, nsample])
    outside = group_idx == N
    group_idx[outside] = group_first[outside]
    return group_idx


class PointNetSetAbstraction(nn.Module):
    def __init__(self, npoint, radius, nsample, in_channel, mlp):
        super().__init__()
        self.npoint, self.radius, self.nsample = npoint, radius, nsample
        self.mlp_convs = nn.ModuleList()
        self.mlp_bns = nn.ModuleList()
        last_channel = in_channel + 3
        for out_channel in mlp:
            self.mlp_convs.append(nn.Conv2d(last_channel, out_channel, 1))
            self.mlp_bns.append(nn.BatchNorm2d(out_channel))
            last_channel = out_channel

    def forward(self, xyz, points, mask):
        with torch.no_grad():
            fps_idx = farthest_point_sample(xyz, mask, self.npoint)
            idx = query_ball_point(self.radius, self.nsample, xyz, mask, index_points(xyz, fps_idx))
        new_xyz = index_points(xyz, fps_idx)
        grouped_xyz_norm = (index_points(xyz, idx) - new_xyz[:, :, None]) / self.radius
        new_points = torch.cat([grouped_xyz_norm, index_points(points, idx)], dim=-1)
        new_points = new_points.permute(0, 3, 2, 1)
        for conv, bn in zip(self.mlp_convs, self.mlp_bns):
            new_points = F.relu(bn(conv(new_points)))
        new_points = torch.max(new_points, 2)[0]
        return new_xyz, new_points.permute(0, 2, 1)


class PointNetFeaturePropagation(nn.Module):
    def __init__(self, in_channel, mlp):
        super().__init__()
        self.mlp_convs = nn.ModuleList()
        self.mlp_bns = nn.ModuleList()
        last_channel = in_channel
        for out_channel in mlp:
            self.mlp_convs.append(nn.Conv1d(last_channel, out_channel, 1))
            self.mlp_bns.append(nn.BatchNorm1d(out_channel))
            last_channel = out_channel

    def forward(self, xyz1, xyz2, points1, points2):
        dists = square_distance(xyz1, xyz2)
        dists, idx = dists.sort(dim=-1)
        dists, idx = dists[:, :, :3], idx[:, :, :3]
        dist_recip = 1.0 / (dists + 1e-3)
        weight = dist_recip / torch.sum(dist_recip, dim=2, keepdim=True)
        interpolated_points = torch.sum(index_points(points2, idx) * weight[..., None], dim=2)
        new_points = torch.cat([points1, interpolated_points], dim=-1).permute(0, 2, 1)
        for conv, bn in zip(self.mlp_convs, self.mlp_bns):
            new_points = F.relu(bn(conv(new_points)))
        return new_points.permute(0, 2, 1)


class AttentionPool(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.score = nn.Linear(width, 1)
        self.value = nn.Linear(width, width)

    def forward(self, points, mask):
        score = self.score(points).squeeze(-1).masked_fill(~mask, float("-inf"))
        return torch.sum(score.softmax(-1).unsqueeze(-1) * self.value(points), dim=1)


class Original(nn.Module):
    def __init__(self):
        super().__init__()
        self.sa1 = PointNetSetAbstraction(10, 1.3, 6, 3, [12, 16])
        self.sa2 = PointNetSetAbstraction(5, 1.9, 4, 16, [20])
        self.fp2 = PointNetFeaturePropagation(36, [20])
        self.fp1 = PointNetFeaturePropagation(27, [16])
        self.pool = AttentionPool(16)
        self.conv1 = nn.Conv1d(32, 16, 1)
        self.bn1 = nn.BatchNorm1d(16)
        self.conv2 = nn.Conv1d(16, 5, 1)
        g = torch.Generator().manual_seed(37)
        with torch.no_grad():
            for p in self.parameters():
                p.add_(torch.randn(p.shape, generator=g) * (0.2 if p.dim() == 1 else 0.1))
            for name, b in self.named_buffers():
                if "running" in name:
                    b.add_(torch.rand(b.shape, generator=g) * 0.3)

    def forward(self, xyz, features, mask, labels):
        l1_xyz, l1_points = self.sa1(xyz, features, mask)
        all_points = torch.ones(l1_xyz.shape[:2], dtype=torch.bool)
        l2_xyz, l2_points = self.sa2(l1_xyz, l1_points, all_points)
        l1_points = self.fp2(l1_xyz, l2_xyz, l1_points, l2_points)
        l0_points = self.fp1(xyz, l1_xyz, torch.cat([xyz, features, features.pow(2).sum(-1, keepdim=True)], -1), l1_points)
        pooled = self.pool(l0_points, mask)
        x = torch.cat([l0_points, pooled.unsqueeze(1).repeat(1, l0_points.shape[1], 1)], dim=-1).permute(0, 2, 1)
        x = F.leaky_relu(self.bn1(self.conv1(x)), 0.2)
        logits = self.conv2(x).permute(0, 2, 1)
        log_probs = F.log_softmax(logits, dim=-1)
        loss = F.nll_loss(log_probs[mask], labels[mask])
        return loss, log_probs


def inputs():
    g = torch.Generator().manual_seed(41)
    xyz = torch.randn(3, 24, 3, generator=g)
    mask = torch.arange(24)[None] < torch.tensor([24, 19, 15])[:, None]
    features = torch.randn(3, 24, 3, generator=g) * mask[..., None]
    return torch.where(mask[..., None], xyz, 1.6 * xyz), features, mask, torch.randint(0, 5, (3, 24), generator=g)


# The port ------------------------------------------------------------------------------------


@torch.no_grad()
def spread(xyz, real, count):
    """The places of points, each the farthest from all before it; the first is the first."""
    nearest = torch.where(real, float("inf"), -1.0).to(xyz.dtype)
    chosen = [torch.zeros(len(xyz), dtype=torch.long)]
    while len(chosen) < count:
        last = xyz.gather(1, chosen[-1].view(-1, 1, 1).expand(-1, 1, 3))
        nearest = torch.minimum(nearest, (xyz - last).square().sum(-1))
        chosen.append(nearest.argmax(1))
    return torch.stack(chosen, 1)


@torch.no_grad()
def around(xyz, real, centre, radius, size):
    """The first so many points within the radius of each centre; the first of all again, where there are fewer."""
    apart = (centre.unsqueeze(2) - xyz.unsqueeze(1)).square().sum(-1)
    inside = (apart <= radius * radius) & real.unsqueeze(1)
    order = torch.where(inside, inside.cumsum(-1), xyz.size(1) + 1)
    rank, place = order.topk(size, dim=-1, largest=False)
    return torch.where(rank <= size, place, place[..., :1])


def pick(x, place):
    """Rows of x (batch, n, c) at places (batch, ...)."""
    start = torch.arange(len(x)).view(-1, *[1] * (place.dim() - 1)) * x.size(1)
    return x.flatten(0, 1)[place + start]


class SetAbstraction(nn.Module):
    def __init__(self, count, radius, size, cin, widths):
        super().__init__()
        self.count, self.radius, self.size = count, radius, size
        widths = [cin + 3, *widths]
        self.mlp_convs = nn.ModuleList(nn.Conv2d(a, b, 1) for a, b in zip(widths, widths[1:]))
        self.mlp_bns = nn.ModuleList(nn.BatchNorm2d(b) for b in widths[1:])

    def forward(self, xyz, x, real):
        chosen = spread(xyz, real, self.count)
        centre = pick(xyz, chosen)
        place = around(xyz, real, centre, self.radius, self.size)
        local = (pick(xyz, place) - centre.unsqueeze(2)) / self.radius
        x = torch.cat((local, pick(x, place)), -1)
        x = x.transpose(1, 3)
        for conv, norm in zip(self.mlp_convs, self.mlp_bns):
            x = conv(x)
            x = norm(x).relu()
        return centre, x.amax(2).transpose(1, 2)


class FeaturePropagation(nn.Module):
    def __init__(self, cin, widths):
        super().__init__()
        widths = [cin, *widths]
        self.mlp_convs = nn.ModuleList(nn.Conv1d(a, b, 1) for a, b in zip(widths, widths[1:]))
        self.mlp_bns = nn.ModuleList(nn.BatchNorm1d(b) for b in widths[1:])

    def forward(self, fine, coarse, x, y):
        apart = (fine.unsqueeze(2) - coarse.unsqueeze(1)).square().sum(-1)
        near, place = apart.topk(3, dim=-1, largest=False)
        weight = 1 / (near + 1e-3)
        weight = weight / weight.sum(-1, keepdim=True)
        spreading = torch.zeros_like(apart).scatter(2, place, weight)
        carried = torch.bmm(spreading, y)
        z = torch.cat((x, carried), 2).mT
        for conv, norm in zip(self.mlp_convs, self.mlp_bns):
            z = norm(conv(z)).clamp(min=0)
        return z.mT


class Pool(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.score, self.value = nn.Linear(width, 1), nn.Linear(width, width)

    def forward(self, x, real):
        scores = self.score(x)[..., 0]
        e = torch.exp(scores - scores.amax(1, keepdim=True).detach()) * real
        share = e / e.sum(1, keepdim=True)
        return torch.einsum("bn,bnc->bc", share, self.value(x))


class Port(nn.Module):
    def __init__(self):
        super().__init__()
        self.sa1 = SetAbstraction(10, 1.3, 6, 3, [12, 16])
        self.sa2 = SetAbstraction(5, 1.9, 4, 16, [20])
        self.fp2 = FeaturePropagation(36, [20])
        self.fp1 = FeaturePropagation(27, [16])
        self.pool = Pool(16)
        self.head = nn.Conv1d(32, 16, 1)
        self.norm = nn.BatchNorm1d(16, eps=1e-5, momentum=0.1)
        self.classify = nn.Conv1d(16, 5, 1)

    def forward(self, xyz, features, real, labels):
        xyz1, x1 = self.sa1(xyz, features, real)
        xyz2, x2 = self.sa2(xyz1, x1, torch.ones_like(x1[..., 0], dtype=torch.bool))
        x1 = self.fp2(xyz1, xyz2, x1, x2)
        size = torch.einsum("bnc,bnc->bn", features, features)[..., None]
        x0 = self.fp1(xyz, xyz1, torch.cat((xyz, features, size), 2), x1)
        whole = self.pool(x0, real)
        x = torch.cat((x0, whole[:, None].expand_as(x0)), 2)
        x = self.norm(self.head(x.mT))
        x = torch.where(x > 0, x, 0.2 * x)
        logits = self.classify(x).mT
        logp = logits - logits.logsumexp(-1, keepdim=True)
        each = logp.gather(2, labels.unsqueeze(2)).squeeze(2)
        loss = -(each * real).sum() / real.sum()
        return loss, logp


NAMES = {"head": "conv1", "norm": "bn1", "classify": "conv2"}

_SHARED = dict(NAMES)
for _m, _n in (("sa1", 2), ("sa2", 1)):
    for _i in range(_n):
        for _k in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"):
            _SHARED[f"{_m}.norms.{_i}.{_k}"] = f"{_m}.mlp_bns.{_i}.{_k}"

FAULTS = [
    Fault("first_point_is_last", "chosen = [torch.zeros(len(xyz), dtype=torch.long)]", "chosen = [real.sum(1) - 1]", "sa1", "output", "initial"),
    Fault("padding_chosen", "nearest = torch.where(real, float(\"inf\"), -1.0).to(xyz.dtype)", "nearest = torch.full_like(xyz[..., 0], float(\"inf\"))", "sa1", "output", "mask"),
    Fault("nearest_forgotten", "nearest = torch.minimum(nearest, (xyz - last).square().sum(-1))", "nearest = (xyz - last).square().sum(-1).masked_fill(~real, -1)", "sa1", "output", "missing"),
    Fault("points_by_absolute_distance", "nearest = torch.minimum(nearest, (xyz - last).square().sum(-1))", "nearest = torch.minimum(nearest, (xyz - last).abs().sum(-1))", "sa1", "output", "operand"),
    Fault("radius_not_squared", "inside = (apart <= radius * radius) & real.unsqueeze(1)", "inside = (apart <= radius) & real.unsqueeze(1)", "sa1", "output", "scale"),
    Fault("padding_in_balls", "inside = (apart <= radius * radius) & real.unsqueeze(1)", "inside = apart <= radius * radius", "sa1", "output", "mask"),
    Fault("nearest_in_balls_not_first", "order = torch.where(inside, inside.cumsum(-1), xyz.size(1) + 1)\n    rank, place = order.topk(size, dim=-1, largest=False)\n    return torch.where(rank <= size, place, place[..., :1])", "rank, place = apart.masked_fill(~inside, float(\"inf\")).topk(size, dim=-1, largest=False)\n    return torch.where(rank < float(\"inf\"), place, place[..., :1])", "sa1", "output", "order"),
    Fault("fewer_filled_with_centre_of_all", "return torch.where(rank <= size, place, place[..., :1])", "return torch.where(rank <= size, place, 0)", "sa1", "output", "padding"),
    Fault("one_of_a_ball_missing", "return torch.where(rank <= size, place, place[..., :1])", "return torch.where(rank < size, place, place[..., :1])", "sa1", "output", "count"),
    Fault("batch_start_missing", "return x.flatten(0, 1)[place + start]", "return x.flatten(0, 1)[place]", "sa1", "output", "operand"),
    Fault("not_centred", "local = (pick(xyz, place) - centre.unsqueeze(2)) / self.radius", "local = pick(xyz, place) / self.radius", "sa1", "output", "missing"),
    Fault("not_scaled_by_radius", "local = (pick(xyz, place) - centre.unsqueeze(2)) / self.radius", "local = pick(xyz, place) - centre.unsqueeze(2)", "sa1", "output", "scale"),
    Fault("centre_detached", "local = (pick(xyz, place) - centre.unsqueeze(2)) / self.radius", "local = (pick(xyz, place) - centre.unsqueeze(2).detach()) / self.radius", "sa1", "gradient", "detached"),
    Fault("centres_given_without_gradient", "return centre, x.amax(2).transpose(1, 2)", "return centre.detach(), x.amax(2).transpose(1, 2)", "sa1", "gradient", "detached"),
    Fault("features_before_places", "x = torch.cat((local, pick(x, place)), -1)", "x = torch.cat((pick(x, place), local), -1)", "sa1", "output", "order"),
    Fault("mean_over_balls", "x.amax(2).transpose(1, 2)", "x.mean(2).transpose(1, 2)", "sa1", "output", "operand"),
    Fault("norm_after_activation", "x = conv(x)\n            x = norm(x).relu()", "x = norm(conv(x).relu())", "sa1", "output", "order"),
    Fault("activation_missing_after_last", "x = norm(x).relu()\n        return", "x = norm(x) if norm is self.mlp_bns[-1] else norm(x).relu()\n        return", "sa1", "output", "missing"),
    Fault("leaky_relu_in_abstraction", "x = norm(x).relu()", "x = F.leaky_relu(norm(x))", "sa1", "output", "activation"),
    Fault("momentum_of_abstraction", "self.mlp_bns = nn.ModuleList(nn.BatchNorm2d(b) for b in widths[1:])", "self.mlp_bns = nn.ModuleList(nn.BatchNorm2d(b, momentum=0.01) for b in widths[1:])", "sa1.mlp_bns.0", "buffer", "momentum"),
    Fault("eps_of_abstraction", "self.mlp_bns = nn.ModuleList(nn.BatchNorm2d(b) for b in widths[1:])", "self.mlp_bns = nn.ModuleList(nn.BatchNorm2d(b, eps=1e-3) for b in widths[1:])", "sa1.mlp_bns.0", "output", "eps"),
    Fault("eps_of_head", "self.norm = nn.BatchNorm1d(16, eps=1e-5, momentum=0.1)", "self.norm = nn.BatchNorm1d(16, eps=1e-4, momentum=0.1)", "bn1", "output", "eps"),
    Fault("momentum_of_head", "self.norm = nn.BatchNorm1d(16, eps=1e-5, momentum=0.1)", "self.norm = nn.BatchNorm1d(16, eps=1e-5, momentum=0.9)", "bn1", "buffer", "momentum"),
    Fault("head_norm_keeps_no_count", "x = self.norm(self.head(x.mT))", "x = F.batch_norm(self.head(x.mT), self.norm.running_mean, self.norm.running_var, self.norm.weight, self.norm.bias, True, 0.1, 1e-5)", "", "buffer", "count"),
    Fault("head_norm_in_eval", "self.norm = nn.BatchNorm1d(16, eps=1e-5, momentum=0.1)", "self.norm = nn.BatchNorm1d(16, eps=1e-5, momentum=0.1).eval()", "bn1", "output", "mode"),
    Fault("propagation_norms_in_eval", "self.fp2 = FeaturePropagation(36, [20])", "self.fp2 = FeaturePropagation(36, [20]).eval()", "fp2.mlp_bns.0", "output", "mode"),
    Fault("statistics_of_real_points_only", "x = self.norm(self.head(x.mT))", "h = self.head(x.mT)\n        m = real[:, None].to(h.dtype)\n        mean = (h * m).sum((0, 2)) / m.sum()\n        var = ((h - mean[:, None]).square() * m).sum((0, 2)) / m.sum()\n        self.norm(h.detach())\n        x = (h - mean[:, None]) / (var[:, None] + 1e-5).sqrt() * self.norm.weight[:, None] + self.norm.bias[:, None]", "", "output", "mask"),
    Fault("two_neighbours", "apart.topk(3, dim=-1, largest=False)", "apart.topk(2, dim=-1, largest=False)", "fp2", "output", "count"),
    Fault("farthest_neighbours", "apart.topk(3, dim=-1, largest=False)", "apart.topk(3, dim=-1)", "fp2", "output", "order"),
    Fault("weights_of_distance_itself", "weight = 1 / (near + 1e-3)", "weight = 1 / (near.sqrt() + 1e-3)", "fp2", "output", "operand"),
    Fault("eps_of_distance", "weight = 1 / (near + 1e-3)", "weight = 1 / (near + 1e-8)", "fp2", "output", "eps"),
    Fault("distance_clamped", "weight = 1 / (near + 1e-3)", "weight = 1 / near.clamp(min=1e-3)", "fp2", "output", "eps"),
    Fault("weights_not_normalised", "weight = weight / weight.sum(-1, keepdim=True)", "weight = weight / 3", "fp2", "output", "missing"),
    Fault("weights_of_neighbours_detached", "weight = 1 / (near + 1e-3)", "weight = 1 / (near.detach() + 1e-3)", "fp2", "gradient", "detached"),
    Fault("weights_by_softmax", "weight = weight / weight.sum(-1, keepdim=True)", "weight = weight.softmax(-1)", "fp2", "output", "operand"),
    Fault("carried_first", "z = torch.cat((x, carried), 2).mT", "z = torch.cat((carried, x), 2).mT", "fp2", "output", "order"),
    Fault("skip_detached", "z = torch.cat((x, carried), 2).mT", "z = torch.cat((x.detach(), carried), 2).mT", "fp2", "gradient", "detached"),
    Fault("relu6_in_propagation", "z = norm(conv(z)).clamp(min=0)", "z = norm(conv(z)).clamp(0, 2)", "fp2", "output", "activation"),
    Fault("pool_over_padding", "e = torch.exp(scores - scores.amax(1, keepdim=True).detach()) * real", "e = torch.exp(scores - scores.amax(1, keepdim=True).detach())", "pool", "output", "mask"),
    Fault("mask_before_softmax_as_zero", "e = torch.exp(scores - scores.amax(1, keepdim=True).detach()) * real", "e = torch.exp(scores * real)", "pool", "output", "mask"),
    Fault("share_unmasked_total", "share = e / e.sum(1, keepdim=True)", "share = e / torch.exp(scores - scores.amax(1, keepdim=True)).sum(1, keepdim=True)", "pool", "output", "mask"),
    Fault("pool_of_points_not_values", "\"bn,bnc->bc\", share, self.value(x)", "\"bn,bnc->bc\", share, x", "pool", "output", "missing"),
    Fault("share_detached", "share = e / e.sum(1, keepdim=True)", "share = (e / e.sum(1, keepdim=True)).detach()", "pool", "gradient", "detached"),
    Fault("features_of_last_level_exchanged", "torch.cat((xyz, features, size), 2)", "torch.cat((features, xyz, size), 2)", "", "output", "order"),
    Fault("size_as_mean", "size = torch.einsum(\"bnc,bnc->bn\", features, features)[..., None]", "size = features.square().mean(-1, keepdim=True)", "", "output", "count"),
    Fault("slope_of_head", "x = torch.where(x > 0, x, 0.2 * x)", "x = torch.where(x > 0, x, 0.01 * x)", "", "output", "activation"),
    Fault("whole_detached", "whole[:, None].expand_as(x0)", "whole.detach()[:, None].expand_as(x0)", "", "gradient", "detached"),
    Fault("second_level_without_features", "xyz2, x2 = self.sa2(xyz1, x1, ", "xyz2, x2 = self.sa2(xyz1, x1 * 0, ", "", "output", "operand"),
    Fault("loss_by_cloud", "loss = -(each * real).sum() / real.sum()", "loss = -((each * real).sum(1) / real.sum(1)).mean()", "", "output", "count"),
    Fault("loss_over_padding", "loss = -(each * real).sum() / real.sum()", "loss = -each.mean()", "", "output", "mask"),
]

RIGHT = [
    Right("neighbours_gathered", "spreading = torch.zeros_like(apart).scatter(2, place, weight)\n        carried = torch.bmm(spreading, y)", "carried = torch.einsum(\"bnk,bnkc->bnc\", weight, pick(y, place))"),
    Right("neighbours_one_by_one", "spreading = torch.zeros_like(apart).scatter(2, place, weight)\n        carried = torch.bmm(spreading, y)", "carried = 0\n        for j in range(3):\n            rows = y.gather(1, place[..., j, None].expand(-1, -1, y.size(2)))\n            carried = torch.addcmul(rows * 0, rows, weight[..., j, None]) + carried"),
    Right("neighbours_by_sorting", "near, place = apart.topk(3, dim=-1, largest=False)", "place = apart.argsort(dim=-1)[..., :3]\n        near = apart.gather(2, place)"),
    Right("picked_by_gather", "start = torch.arange(len(x)).view(-1, *[1] * (place.dim() - 1)) * x.size(1)\n    return x.flatten(0, 1)[place + start]", "flat = place.flatten(1)\n    return x.gather(1, flat[..., None].expand(-1, -1, x.size(2))).unflatten(1, place.shape[1:])"),
    Right("picked_by_one_hot", "start = torch.arange(len(x)).view(-1, *[1] * (place.dim() - 1)) * x.size(1)\n    return x.flatten(0, 1)[place + start]", "hot = F.one_hot(place.flatten(1), x.size(1)).to(x.dtype)\n    return torch.bmm(hot, x).unflatten(1, place.shape[1:])"),
    Right("balls_by_sorting", "order = torch.where(inside, inside.cumsum(-1), xyz.size(1) + 1)\n    rank, place = order.topk(size, dim=-1, largest=False)\n    return torch.where(rank <= size, place, place[..., :1])", "place = torch.argsort(~inside, dim=-1, stable=True)[..., :size]\n    return torch.where(inside.gather(2, place), place, place[..., :1])"),
    Right("points_by_a_matrix", "last = xyz.gather(1, chosen[-1].view(-1, 1, 1).expand(-1, 1, 3))\n        nearest = torch.minimum(nearest, (xyz - last).square().sum(-1))", "every = (xyz[:, :, None] - xyz[:, None]).square().sum(-1)\n        nearest = torch.minimum(nearest, every[torch.arange(len(xyz)), chosen[-1]])"),
    Right("maximum_by_pooling", "x.amax(2).transpose(1, 2)", "F.max_pool2d(x, (x.size(2), 1)).squeeze(2).transpose(1, 2)"),
    Right("shared_layers_as_products", "x = conv(x)\n            x = norm(x).relu()", "x = torch.einsum(\"bcks,oc->boks\", x, conv.weight[:, :, 0, 0]) + conv.bias[:, None, None]\n            x = norm(x).relu()", True),
    Right("norms_of_flat_rows", "class FeaturePropagation(nn.Module):", '''class SetAbstraction(SetAbstraction):
    def __init__(self, count, radius, size, cin, widths):
        super().__init__(count, radius, size, cin, widths)
        del self.mlp_bns
        self.norms = nn.ModuleList(nn.BatchNorm1d(b) for b in widths)

    def forward(self, xyz, x, real):
        centre = pick(xyz, spread(xyz, real, self.count))
        place = around(xyz, real, centre, self.radius, self.size)
        rows = torch.cat(((pick(xyz, place) - centre[:, :, None]) / self.radius, pick(x, place)), -1)
        for conv, norm in zip(self.mlp_convs, self.norms):
            flat = F.linear(rows.flatten(0, 2), conv.weight.flatten(1), conv.bias)
            rows = norm(flat).relu().unflatten(0, rows.shape[:3])
        return centre, rows.amax(2)


class FeaturePropagation(nn.Module):''', True, _SHARED),
    Right("head_norm_by_hand", "x = self.norm(self.head(x.mT))", '''h = self.head(x.mT)
        n = h.numel() // 16
        mean = h.mean((0, 2))
        var = (h - mean[:, None]).square().mean((0, 2))
        with torch.no_grad():
            self.norm.running_mean.lerp_(mean, 0.1)
            self.norm.running_var.lerp_(var * (n / (n - 1)), 0.1)
            self.norm.num_batches_tracked.add_(1)
        x = (h - mean[:, None]) * ((var + self.norm.eps).rsqrt() * self.norm.weight)[:, None] + self.norm.bias[:, None]''', True),
    Right("pool_by_filling", "e = torch.exp(scores - scores.amax(1, keepdim=True).detach()) * real\n        share = e / e.sum(1, keepdim=True)", "share = torch.softmax(torch.where(real, scores, -1e30), 1)"),
    Right("pool_value_after_sum", "return torch.einsum(\"bn,bnc->bc\", share, self.value(x))", "return self.value.bias + torch.einsum(\"bn,bnd,cd->bc\", share, x, self.value.weight)", True),
    Right("head_in_two_parts", "x = torch.cat((x0, whole[:, None].expand_as(x0)), 2)\n        x = self.norm(self.head(x.mT))", "own, shared = self.head.weight[:, :, 0].split(16, 1)\n        x = x0 @ own.t() + F.linear(whole, shared, self.head.bias)[:, None]\n        x = self.norm(x.mT)", True),
    Right("loss_of_torch", "loss = -(each * real).sum() / real.sum()", "loss = F.cross_entropy(logits.mT, labels.masked_fill(~real, -100))"),
    Right("slope_of_torch", "x = torch.where(x > 0, x, 0.2 * x)", "x = F.leaky_relu(x, negative_slope=0.2)"),
    Right("checkpointed_pool", "whole = self.pool(x0, real)", "whole = torch.utils.checkpoint.checkpoint(self.pool, x0, real, use_reentrant=False)"),
]
