"""A graph network in PyG style: attention over edges with edge features, GraphNorm, GIN, a principal aggregation (mean, deviation, maximum), pooling per graph."""

import torch
import torch.nn.functional as F
from torch import nn

from ..ports.kinds import Fault, Right


def scatter_sum(src, index, size):
    return src.new_zeros(size, *src.shape[1:]).index_add(0, index, src)


def scatter_mean(src, index, size):
    count = scatter_sum(torch.ones_like(index, dtype=src.dtype), index, size).clamp(min=1)
    return scatter_sum(src, index, size) / count.view(-1, *[1] * (src.dim() - 1))


def scatter_max(src, index, size):
    full = index.view(-1, *[1] * (src.dim() - 1)).expand_as(src)
    return src.new_zeros(size, *src.shape[1:]).scatter_reduce(0, full, src, "amax", include_self=False)


class GATConv(nn.Module):
    def __init__(self, in_channels, out_channels, heads, edge_dim, negative_slope=0.2):
        super().__init__()
        self.heads, self.out_channels, self.negative_slope = heads, out_channels, negative_slope
        self.lin = nn.Linear(in_channels, heads * out_channels, bias=False)
        self.lin_edge = nn.Linear(edge_dim, heads * out_channels, bias=False)
        self.att_src = nn.Parameter(torch.randn(1, heads, out_channels))
        self.att_dst = nn.Parameter(torch.randn(1, heads, out_channels))
        self.att_edge = nn.Parameter(torch.randn(1, heads, out_channels))
        self.bias = nn.Parameter(0.3 * torch.randn(heads * out_channels))

    def forward(self, x, edge_index, edge_attr):
        src, dst = edge_index
        size = x.size(0)
        h = self.lin(x).view(-1, self.heads, self.out_channels)
        e = self.lin_edge(edge_attr).view(-1, self.heads, self.out_channels)
        alpha = (h * self.att_src).sum(-1)[src] + (h * self.att_dst).sum(-1)[dst] + (e * self.att_edge).sum(-1)
        alpha = F.leaky_relu(alpha, self.negative_slope)
        alpha = (alpha - scatter_max(alpha.detach(), dst, size)[dst]).exp()
        alpha = alpha / (scatter_sum(alpha, dst, size)[dst] + 1e-16)
        out = scatter_sum(h[src] * alpha.unsqueeze(-1), dst, size)
        return out.reshape(size, -1) + self.bias


class GraphNorm(nn.Module):
    def __init__(self, channels, eps=1e-5):
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(1 + 0.2 * torch.randn(channels))
        self.bias = nn.Parameter(0.2 * torch.randn(channels))
        self.mean_scale = nn.Parameter(1 + 0.2 * torch.randn(channels))

    def forward(self, x, batch, num_graphs):
        mean = scatter_mean(x, batch, num_graphs)
        out = x - mean[batch] * self.mean_scale
        var = scatter_mean(out.pow(2), batch, num_graphs)
        return self.weight * out / (var + self.eps).sqrt()[batch] + self.bias


class GINConv(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.eps = nn.Parameter(torch.tensor([0.3]))
        self.nn = nn.Sequential(nn.Linear(channels, channels), nn.ELU(), nn.Linear(channels, channels))

    def forward(self, x, edge_index):
        src, dst = edge_index
        return self.nn((1 + self.eps) * x + scatter_sum(x[src], dst, x.size(0)))


class PNAConv(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.pre = nn.Linear(2 * channels, channels)
        self.post = nn.Linear(4 * channels, channels)

    def forward(self, x, edge_index):
        src, dst = edge_index
        size = x.size(0)
        m = self.pre(torch.cat([x[dst], x[src]], dim=-1))
        mean = scatter_mean(m, dst, size)
        var = scatter_mean(m * m, dst, size) - mean * mean
        std = torch.sqrt(F.relu(var) + 1e-5)
        return self.post(torch.cat([x, mean, std, scatter_max(m, dst, size)], dim=-1))


class Original(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Linear(6, 16)
        self.conv1 = GATConv(16, 8, 2, 4)
        self.norm1 = GraphNorm(16)
        self.conv2 = GINConv(16)
        self.norm2 = GraphNorm(16)
        self.conv3 = PNAConv(16)
        self.head = nn.Linear(32, 3)

    def forward(self, x, edge_index, edge_attr, batch):
        num_graphs = 3
        x = self.encoder(x)
        x = x + F.elu(self.norm1(self.conv1(x, edge_index, edge_attr), batch, num_graphs))
        x = x + F.elu(self.norm2(self.conv2(x, edge_index), batch, num_graphs))
        x = self.conv3(x, edge_index)
        pooled = torch.cat([scatter_mean(x, batch, num_graphs), scatter_max(x, batch, num_graphs)], dim=-1)
        return self.head(pooled), x


def inputs():
    g = torch.Generator().manual_seed(19)
    batch = torch.tensor([0] * 5 + [1] * 8 + [2] * 4)
    same = batch[:, None] == batch
    edges = (same & (torch.rand(17, 17, generator=g) < 0.6)).nonzero().t().contiguous()
    order = torch.randperm(edges.shape[1], generator=g)
    edges = edges[:, order]
    return torch.randn(17, 6, generator=g), edges, torch.randn(edges.shape[1], 4, generator=g), batch


# The port ------------------------------------------------------------------------------------


def incidence(index, size, like):
    """size, edges: one where the edge (or the node) belongs"""
    return (torch.arange(size, device=index.device)[:, None] == index).to(like.dtype)


def largest(values, member):
    """values: items, channels; member: groups, items; groups without items get nothing"""
    top = values[None].masked_fill(member[..., None] == 0, float("-inf")).amax(1)
    return torch.where(member.any(1)[:, None], top, 0.0)


class GraphAttention(nn.Module):
    def __init__(self, n, heads=2, size=8, edge=4):
        super().__init__()
        self.heads, self.size = heads, size
        self.lin = nn.Linear(n, heads * size, bias=False)
        self.lin_edge = nn.Linear(edge, heads * size, bias=False)
        self.att_src, self.att_dst, self.att_edge = (nn.Parameter(torch.zeros(1, heads, size)) for _ in range(3))
        self.bias = nn.Parameter(torch.zeros(heads * size))

    def forward(self, x, edge_index, edge_attr):
        src, dst = edge_index.unbind(0)
        to = incidence(dst, len(x), x)
        h = self.lin(x).unflatten(-1, (self.heads, self.size))
        e = self.lin_edge(edge_attr).unflatten(-1, (self.heads, self.size))
        sent = torch.einsum("nhc,hc->nh", h, self.att_src[0])
        received = torch.einsum("nhc,hc->nh", h, self.att_dst[0])
        along = torch.einsum("nhc,hc->nh", e, self.att_edge[0])
        logits = F.leaky_relu(sent[src] + received[dst] + along, 0.2)
        weight = torch.exp(logits - logits.amax(0).detach())
        total = to.t() @ (to @ weight)
        alpha = weight / total
        out = torch.einsum("ne,eh,ehc->nhc", to, alpha, h[src])
        return out.flatten(1) + self.bias


class NormOfGraph(nn.Module):
    def __init__(self, n, eps=1e-5):
        super().__init__()
        self.eps = eps
        self.weight, self.bias, self.mean_scale = nn.Parameter(torch.ones(n)), nn.Parameter(torch.zeros(n)), nn.Parameter(torch.ones(n))

    def forward(self, x, batch, num_graphs):
        done = torch.empty_like(x)
        for graph in range(num_graphs):
            nodes = (batch == graph).nonzero().squeeze(1)
            part = x[nodes]
            part = part - self.mean_scale * part.mean(0)
            var = part.square().mean(0)
            done = done.index_copy(0, nodes, part * (var + self.eps).rsqrt())
        return torch.addcmul(self.bias, done, self.weight)


class Isomorphism(nn.Module):
    def __init__(self, n):
        super().__init__()
        self.eps = nn.Parameter(torch.zeros(1))
        self.nn = nn.Sequential(nn.Linear(n, n), nn.ELU(), nn.Linear(n, n))

    def forward(self, x, edge_index):
        adjacency = torch.zeros(len(x), len(x), dtype=x.dtype, device=x.device)
        adjacency = adjacency.index_put((edge_index[1], edge_index[0]), torch.ones((), dtype=x.dtype), accumulate=True)
        total = adjacency @ x
        return self.nn(x + self.eps * x + total)


class Aggregation(nn.Module):
    def __init__(self, n):
        super().__init__()
        self.pre, self.post = nn.Linear(2 * n, n), nn.Linear(4 * n, n)

    def forward(self, x, edge_index):
        src, dst = edge_index
        m = self.pre(torch.cat((x[dst], x[src]), 1))
        to = incidence(dst, len(x), x)
        count = to.sum(1, keepdim=True).clamp(min=1)
        mean = to @ m / count
        var = to @ (m - mean[dst]).square() / count
        spread = (var + 1e-5).sqrt()
        return self.post(torch.cat((x, mean, spread, largest(m, to)), 1))


class Port(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Linear(6, 16)
        self.conv1, self.norm1 = GraphAttention(16), NormOfGraph(16)
        self.conv2, self.norm2 = Isomorphism(16), NormOfGraph(16, eps=1e-5)
        self.conv3 = Aggregation(16)
        self.head = nn.Linear(32, 3)

    def forward(self, nodes, edge_index, edge_attr, batch):
        x = self.encoder(nodes)
        x = x + F.elu(self.norm1(self.conv1(x, edge_index, edge_attr), batch, 3))
        h = self.norm2(self.conv2(x, edge_index), batch, 3)
        x = x + F.elu(h)
        x = self.conv3(x, edge_index)
        member = incidence(batch, 3, x)
        mean = member @ x / member.sum(1, keepdim=True)
        top = largest(x, member)
        return self.head(torch.cat((mean, top), 1)), x


NAMES = {}

FAULTS = [
    Fault("slope_of_torch", "sent[src] + received[dst] + along, 0.2)", "sent[src] + received[dst] + along, 0.01)", "conv1", "output", "activation"),
    Fault("against_the_edges", "src, dst = edge_index.unbind(0)", "dst, src = edge_index.unbind(0)", "conv1", "output", "transposed"),
    Fault("normalised_over_all_edges", "total = to.t() @ (to @ weight)", "total = weight.sum(0)", "conv1", "output", "order"),
    Fault("ends_exchanged", "sent[src] + received[dst]", "sent[dst] + received[src]", "conv1", "output", "operand"),
    Fault("heads_inside", "h = self.lin(x).unflatten(-1, (self.heads, self.size))", "h = self.lin(x).unflatten(-1, (self.size, self.heads)).mT", "conv1", "output", "heads"),
    Fault("heads_repeated_for_edges", "torch.einsum(\"nhc,hc->nh\", e, self.att_edge[0])", "torch.einsum(\"nhc,hc->nh\", e, self.att_edge[0, :1].repeat(2, 1))", "conv1", "output", "repeat"),
    Fault("weights_detached", "alpha = weight / total", "alpha = (weight / total).detach()", "conv1", "gradient", "detached"),
    Fault("total_detached", "alpha = weight / total", "alpha = weight / total.detach()", "conv1", "gradient", "detached"),
    Fault("small_number_in_total", "alpha = weight / total", "alpha = weight / (total + 1e-3)", "conv1", "output", "eps"),
    Fault("sample_variance_of_graph", "var = part.square().mean(0)", "var = part.square().sum(0) / (len(part) - 1)", "norm1", "output", "variance"),
    Fault("variance_about_mean", "var = part.square().mean(0)", "var = part.var(0, unbiased=False)", "norm1", "output", "variance"),
    Fault("eps_of_second_norm", "NormOfGraph(16, eps=1e-5)", "NormOfGraph(16, eps=1e-6)", "norm2", "output", "eps"),
    Fault("own_node_not_counted", "return self.nn(x + self.eps * x + total)", "return self.nn(self.eps * x + total)", "conv2", "output", "missing"),
    Fault("own_weight_detached", "return self.nn(x + self.eps * x + total)", "return self.nn(x + self.eps.item() * x + total)", "conv2", "gradient", "detached"),
    Fault("adjacency_transposed", "(edge_index[1], edge_index[0])", "(edge_index[0], edge_index[1])", "conv2", "output", "transposed"),
    Fault("sample_variance_of_messages", "var = to @ (m - mean[dst]).square() / count\n", "var = to @ (m - mean[dst]).square() / (count - 1).clamp(min=1)\n", "conv3", "output", "variance"),
    Fault("mean_in_deviation_detached", "var = to @ (m - mean[dst]).square() / count\n        spread = (var + 1e-5).sqrt()", "var = to @ m.square() / count - mean.detach().square()\n        spread = (var.clamp(min=0) + 1e-5).sqrt()", "conv3", "gradient", "detached"),
    Fault("eps_outside_root", "spread = (var + 1e-5).sqrt()", "spread = (var + 1e-12).sqrt() + 1e-5", "conv3", "output", "eps"),
    Fault("residual_after_activation", "        x = x + F.elu(h)\n", "        x = F.elu(x + h)\n", "", "output", "residual"),
    Fault("mean_over_batch", "member @ x / member.sum(1, keepdim=True)", "member @ x / (len(x) / 3)", "", "output", "count"),
]

RIGHT = [
    Right("softmax_over_dense_edges", """        weight = torch.exp(logits - logits.amax(0).detach())
        total = to.t() @ (to @ weight)
        alpha = weight / total
        out = torch.einsum("ne,eh,ehc->nhc", to, alpha, h[src])
""", """        wide = logits.t()[:, None].masked_fill(to[None] == 0, -1e9)
        alpha = wide.softmax(-1) * to
        out = torch.einsum("hne,ehc->nhc", alpha, h[src])
"""),
    Right("softmax_node_by_node", """        weight = torch.exp(logits - logits.amax(0).detach())
        total = to.t() @ (to @ weight)
        alpha = weight / total
        out = torch.einsum("ne,eh,ehc->nhc", to, alpha, h[src])
""", """        out = []
        for node in range(len(x)):
            edges = (dst == node).nonzero().squeeze(1)
            alpha = logits[edges].softmax(0)
            out.append((alpha[..., None] * h[src[edges]]).sum(0))
        out = torch.stack(out)
"""),
    Right("attention_folded_into_weight", """        e = self.lin_edge(edge_attr).unflatten(-1, (self.heads, self.size))
        sent = torch.einsum("nhc,hc->nh", h, self.att_src[0])
        received = torch.einsum("nhc,hc->nh", h, self.att_dst[0])
        along = torch.einsum("nhc,hc->nh", e, self.att_edge[0])
""", """        sent, received = torch.einsum("nhc,khc->knh", h, torch.cat((self.att_src, self.att_dst)))
        edge = torch.einsum("hc,hcf->fh", self.att_edge[0], self.lin_edge.weight.unflatten(0, (self.heads, -1)))
        along = edge_attr @ edge
""", fused=True),
    Right("norm_by_incidence", """        done = torch.empty_like(x)
        for graph in range(num_graphs):
            nodes = (batch == graph).nonzero().squeeze(1)
            part = x[nodes]
            part = part - self.mean_scale * part.mean(0)
            var = part.square().mean(0)
            done = done.index_copy(0, nodes, part * (var + self.eps).rsqrt())
        return torch.addcmul(self.bias, done, self.weight)
""", """        member = incidence(batch, num_graphs, x)
        share = member / member.sum(1, keepdim=True)
        mean = share @ x
        moment = share @ x.square()
        shift = self.mean_scale * mean
        var = moment - 2 * shift * mean + shift.square()
        scale = self.weight / torch.sqrt(var + self.eps)
        return x * scale[batch] + (self.bias - shift * scale)[batch]
"""),
    Right("isomorphism_by_running_sums", """        adjacency = torch.zeros(len(x), len(x), dtype=x.dtype, device=x.device)
        adjacency = adjacency.index_put((edge_index[1], edge_index[0]), torch.ones((), dtype=x.dtype), accumulate=True)
        total = adjacency @ x
""", """        order = edge_index[1].argsort(stable=True)
        running = F.pad(x[edge_index[0, order]].cumsum(0), (0, 0, 1, 0))
        ends = torch.bincount(edge_index[1], minlength=len(x)).cumsum(0)
        total = running[ends] - running[F.pad(ends, (1, 0))[:-1]]
"""),
    Right("message_projection_split", "        m = self.pre(torch.cat((x[dst], x[src]), 1))\n", "        here, there = self.pre.weight.chunk(2, 1)\n        m = F.linear(x, here, self.pre.bias)[dst] + F.linear(x, there)[src]\n", fused=True),
    Right("isomorphism_layers_inlined", "return self.nn(x + self.eps * x + total)", "y = F.linear((1 + self.eps) * x + total, self.nn[0].weight, self.nn[0].bias)\n        y = torch.where(y > 0, y, torch.expm1(y.clamp(max=0)))\n        return F.linear(y, self.nn[2].weight, self.nn[2].bias)", fused=True),
    Right("head_split_in_two", "return self.head(torch.cat((mean, top), 1)), x", "return torch.addmm(self.head.bias, mean, self.head.weight[:, :16].t()) + top @ self.head.weight[:, 16:].t(), x", fused=True),
]
