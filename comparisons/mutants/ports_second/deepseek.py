"""A mixture-of-experts decoder in Hugging Face style: routed and shared experts, interleaved partial RoPE, grouped keys, sliding window, auxiliary losses."""

import torch
import torch.nn.functional as F
from torch import nn

from ..ports.kinds import Fault, Right


class MoeRMSNorm(nn.Module):
    def __init__(self, hidden_size, eps=1e-5):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(hidden_size))
        self.variance_epsilon = eps

    def forward(self, hidden_states):
        variance = hidden_states.pow(2).mean(-1, keepdim=True)
        hidden_states = hidden_states * torch.rsqrt(variance + self.variance_epsilon)
        return self.weight * hidden_states


def rotate_every_two(x):
    x1, x2 = x[..., ::2], x[..., 1::2]
    return torch.stack((-x2, x1), dim=-1).flatten(-2)


def repeat_kv(hidden_states, n_rep):
    batch, heads, length, dim = hidden_states.shape
    hidden_states = hidden_states[:, :, None].expand(batch, heads, n_rep, length, dim)
    return hidden_states.reshape(batch, heads * n_rep, length, dim)


class MoeAttention(nn.Module):
    def __init__(self, hidden_size=48, num_heads=4, num_kv_heads=2, head_dim=12, rotary_dim=8, window=4, theta=50000.0):
        super().__init__()
        self.num_heads, self.num_kv_heads, self.head_dim = num_heads, num_kv_heads, head_dim
        self.rotary_dim, self.window, self.theta = rotary_dim, window, theta
        self.q_proj = nn.Linear(hidden_size, num_heads * head_dim, bias=True)
        self.k_proj = nn.Linear(hidden_size, num_kv_heads * head_dim, bias=True)
        self.v_proj = nn.Linear(hidden_size, num_kv_heads * head_dim, bias=True)
        self.o_proj = nn.Linear(num_heads * head_dim, hidden_size, bias=False)

    def rotate(self, x):
        length = x.shape[-2]
        inv_freq = self.theta ** (-torch.arange(0, self.rotary_dim, 2, dtype=x.dtype, device=x.device) / self.rotary_dim)
        freqs = torch.arange(length, dtype=x.dtype, device=x.device)[:, None] * inv_freq
        freqs = freqs.repeat_interleave(2, dim=-1)
        rotated, passed = x[..., : self.rotary_dim], x[..., self.rotary_dim :]
        rotated = rotated * freqs.cos() + rotate_every_two(rotated) * freqs.sin()
        return torch.cat((rotated, passed), dim=-1)

    def forward(self, hidden_states):
        bsz, q_len, _ = hidden_states.size()
        query = self.q_proj(hidden_states).view(bsz, q_len, self.num_heads, self.head_dim).transpose(1, 2)
        key = self.k_proj(hidden_states).view(bsz, q_len, self.num_kv_heads, self.head_dim).transpose(1, 2)
        value = self.v_proj(hidden_states).view(bsz, q_len, self.num_kv_heads, self.head_dim).transpose(1, 2)
        query, key = self.rotate(query), self.rotate(key)
        key = repeat_kv(key, self.num_heads // self.num_kv_heads)
        value = repeat_kv(value, self.num_heads // self.num_kv_heads)
        weights = torch.matmul(query, key.transpose(2, 3)) / self.head_dim**0.5
        position = torch.arange(q_len, device=hidden_states.device)
        distance = position[:, None] - position[None, :]
        weights = weights.masked_fill((distance < 0) | (distance >= self.window), float("-inf"))
        weights = F.softmax(weights, dim=-1)
        output = torch.matmul(weights, value).transpose(1, 2).reshape(bsz, q_len, -1)
        return self.o_proj(output)


class MoeMLP(nn.Module):
    def __init__(self, hidden_size, intermediate_size):
        super().__init__()
        self.gate_proj = nn.Linear(hidden_size, intermediate_size, bias=False)
        self.up_proj = nn.Linear(hidden_size, intermediate_size, bias=False)
        self.down_proj = nn.Linear(intermediate_size, hidden_size, bias=False)
        self.act_fn = nn.SiLU()

    def forward(self, x):
        return self.down_proj(self.act_fn(self.gate_proj(x)) * self.up_proj(x))


class SparseMoeBlock(nn.Module):
    def __init__(self, hidden_size=48, num_experts=5, top_k=2):
        super().__init__()
        self.num_experts, self.top_k = num_experts, top_k
        self.gate = nn.Linear(hidden_size, num_experts, bias=False)
        self.experts = nn.ModuleList([MoeMLP(hidden_size, 32) for _ in range(num_experts)])
        self.shared_expert = MoeMLP(hidden_size, 40)
        self.shared_expert_gate = nn.Linear(hidden_size, 1, bias=False)

    def forward(self, hidden_states):
        batch_size, sequence_length, hidden_dim = hidden_states.shape
        hidden_states = hidden_states.view(-1, hidden_dim)
        router_logits = self.gate(hidden_states)
        routing_weights = F.softmax(router_logits, dim=1)
        routing_weights, selected_experts = torch.topk(routing_weights, self.top_k, dim=-1)
        routing_weights = routing_weights / routing_weights.sum(dim=-1, keepdim=True)
        final = torch.zeros_like(hidden_states)
        expert_mask = F.one_hot(selected_experts, num_classes=self.num_experts).permute(2, 1, 0)
        for expert_idx in range(self.num_experts):
            idx, top_x = torch.where(expert_mask[expert_idx])
            current = self.experts[expert_idx](hidden_states[top_x]) * routing_weights[top_x, idx, None]
            final.index_add_(0, top_x, current)
        shared = self.shared_expert(hidden_states)
        final = final + torch.sigmoid(self.shared_expert_gate(hidden_states)) * shared
        return final.reshape(batch_size, sequence_length, hidden_dim), router_logits


class MoeDecoderLayer(nn.Module):
    def __init__(self):
        super().__init__()
        self.input_layernorm = MoeRMSNorm(48)
        self.self_attn = MoeAttention()
        self.post_attention_layernorm = MoeRMSNorm(48)
        self.mlp = SparseMoeBlock()

    def forward(self, hidden_states):
        residual = hidden_states
        hidden_states = residual + self.self_attn(self.input_layernorm(hidden_states))
        residual = hidden_states
        hidden_states, router_logits = self.mlp(self.post_attention_layernorm(hidden_states))
        return residual + hidden_states, router_logits


class Original(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed_tokens = nn.Embedding(61, 48)
        self.layers = nn.ModuleList([MoeDecoderLayer() for _ in range(2)])
        self.norm = MoeRMSNorm(48)
        self.lm_head = nn.Linear(48, 61, bias=False)
        for name, p in self.named_parameters():
            if "norm" in name:
                nn.init.normal_(p, 1.0, 0.2)
            elif "gate.weight" in name:
                nn.init.normal_(p, 0.0, 0.2)

    def forward(self, input_ids):
        hidden_states = self.embed_tokens(input_ids)
        all_router_logits = []
        for layer in self.layers:
            hidden_states, router_logits = layer(hidden_states)
            all_router_logits.append(router_logits)
        logits = self.lm_head(self.norm(hidden_states))
        concatenated = torch.cat(all_router_logits, dim=0)
        probabilities = F.softmax(concatenated, dim=-1)
        _, selected = torch.topk(probabilities, 2, dim=-1)
        mask = F.one_hot(selected, 5)
        tokens_per_expert = mask.to(probabilities.dtype).mean(dim=0)
        prob_per_expert = probabilities.mean(dim=0)
        aux_loss = 5 * torch.sum(tokens_per_expert * prob_per_expert.unsqueeze(0))
        z_loss = torch.logsumexp(concatenated, dim=-1).square().mean()
        return logits, aux_loss, z_loss


def inputs():
    g = torch.Generator().manual_seed(12)
    return (torch.randint(0, 61, (2, 9), generator=g),)


# The port ------------------------------------------------------------------------------------


class Norm(nn.Module):
    def __init__(self, dim, eps=1e-5):
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x):
        inverse = (x.square().sum(-1, keepdim=True) / x.shape[-1] + self.eps).sqrt().reciprocal()
        return x * inverse * self.weight


def rope_angles(length, like, dim=8, base=50000.0):
    exponent = torch.arange(dim // 2, dtype=like.dtype, device=like.device) * 2 / dim
    return torch.outer(torch.arange(length, dtype=like.dtype, device=like.device), base ** -exponent)


def apply_rope(x, angles):
    """x: batch, length, heads, dim"""
    cos, sin = angles.cos()[:, None], angles.sin()[:, None]
    half = angles.shape[-1]
    turned, rest = x.split([2 * half, x.shape[-1] - 2 * half], -1)
    a, b = turned.unflatten(-1, (half, 2)).unbind(-1)
    return torch.cat((torch.stack((a * cos - b * sin, b * cos + a * sin), -1).flatten(-2), rest), -1)


class Attention(nn.Module):
    def __init__(self, dim=48, heads=4, groups=2, size=12, window=4):
        super().__init__()
        self.heads, self.groups, self.size, self.window = heads, groups, size, window
        self.q_proj = nn.Linear(dim, heads * size)
        self.k_proj = nn.Linear(dim, groups * size)
        self.v_proj = nn.Linear(dim, groups * size)
        self.o_proj = nn.Linear(heads * size, dim, bias=False)

    def forward(self, x):
        n = x.shape[1]
        q = self.q_proj(x).unflatten(-1, (self.heads, self.size))
        k = self.k_proj(x).unflatten(-1, (self.groups, self.size))
        v = self.v_proj(x).unflatten(-1, (self.groups, self.size))
        angles = rope_angles(n, x)
        q, k = apply_rope(q, angles), apply_rope(k, angles)
        k, v = (z.repeat_interleave(self.heads // self.groups, 2) for z in (k, v))
        ones = torch.ones(n, n, dtype=torch.bool, device=x.device)
        seen = ones.tril() & ones.triu(1 - self.window)
        scores = torch.einsum("bihd,bjhd->bhij", q, k) * self.size**-0.5
        p = scores.where(seen, scores.new_tensor(float("-inf"))).softmax(-1)
        y = torch.einsum("bhij,bjhd->bihd", p, v)
        return self.o_proj(y.flatten(-2))


class SwiGLU(nn.Module):
    def __init__(self, dim, hidden):
        super().__init__()
        self.gate_proj = nn.Linear(dim, hidden, bias=False)
        self.up_proj = nn.Linear(dim, hidden, bias=False)
        self.down_proj = nn.Linear(hidden, dim, bias=False)

    def forward(self, x):
        gate, up = self.gate_proj(x), self.up_proj(x)
        return self.down_proj(F.silu(gate) * up)


class Mixture(nn.Module):
    def __init__(self, index, dim=48, experts=5, k=2):
        super().__init__()
        self.index, self.k = index, k
        self.gate = nn.Linear(dim, experts, bias=False)
        self.experts = nn.ModuleList(SwiGLU(dim, 32) for _ in range(experts))
        self.shared_expert = SwiGLU(dim, 40)
        self.shared_expert_gate = nn.Linear(dim, 1, bias=False)

    def forward(self, x):
        flat = x.reshape(-1, x.shape[-1])
        logits = self.gate(flat)
        p = logits.softmax(-1)
        top, chosen = p.topk(self.k, -1)
        top = top / top.sum(-1, keepdim=True)
        dense = torch.zeros_like(p).scatter(-1, chosen, top)
        routed = 0
        for e, expert in enumerate(self.experts):
            tokens = dense[:, e].nonzero().squeeze(-1)
            routed = routed + torch.zeros_like(flat).index_copy(0, tokens, expert(flat[tokens]) * dense[tokens, e, None])
        shared = self.shared_expert(flat)
        shared = shared * self.shared_expert_gate(flat).sigmoid()
        return (routed + shared).view_as(x), logits


class Layer(nn.Module):
    def __init__(self, index):
        super().__init__()
        self.input_layernorm = Norm(48)
        self.self_attn = Attention()
        self.post_attention_layernorm = Norm(48)
        self.mlp = Mixture(index)

    def forward(self, x):
        x = x + self.self_attn(self.input_layernorm(x))
        h = self.post_attention_layernorm(x)
        y, logits = self.mlp(h)
        return x + y, logits


def balance(logits, k=2):
    p = logits.softmax(-1)
    tokens, experts = p.shape
    counts = torch.bincount(p.topk(k, -1).indices.flatten(), minlength=experts).to(p.dtype)
    return experts * (counts / tokens * p.mean(0)).sum()


class Port(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed_tokens = nn.Embedding(61, 48)
        self.layers = nn.ModuleList(Layer(i) for i in range(2))
        self.norm = Norm(48, eps=1e-5)
        self.lm_head = nn.Linear(48, 61, bias=False)

    def forward(self, ids):
        x = self.embed_tokens(ids)
        routers = []
        for layer in self.layers:
            x, logits = layer(x)
            routers.append(logits)
        routers = torch.cat(routers)
        return self.lm_head(self.norm(x)), balance(routers), routers.logsumexp(-1).pow(2).mean()


NAMES = {}

FAULTS = [
    Fault("eps_of_last_norm", "self.norm = Norm(48, eps=1e-5)", "self.norm = Norm(48, eps=1e-6)", "norm", "output", "eps"),
    Fault("rope_in_halves", "a, b = turned.unflatten(-1, (half, 2)).unbind(-1)\n    return torch.cat((torch.stack((a * cos - b * sin, b * cos + a * sin), -1).flatten(-2), rest), -1)",
          "a, b = turned.chunk(2, -1)\n    return torch.cat((a * cos - b * sin, b * cos + a * sin, rest), -1)", "layers.0.self_attn", "output", "rope"),
    Fault("rope_base", "base=50000.0", "base=10000.0", "layers.0.self_attn", "output", "rope"),
    Fault("rope_second_sign", "torch.stack((a * cos - b * sin, b * cos + a * sin), -1)", "torch.stack((a * cos - b * sin, b * cos - a * sin), -1)", "layers.0.self_attn", "output", "rope"),
    Fault("rope_over_whole_head", "exponent = torch.arange(dim // 2, dtype=like.dtype, device=like.device) * 2 / dim", "exponent = torch.arange(dim // 2, dtype=like.dtype, device=like.device) * 2 / 12", "layers.0.self_attn", "output", "rope"),
    Fault("groups_tiled", "(z.repeat_interleave(self.heads // self.groups, 2) for z in (k, v))", "(z.repeat(1, 1, self.heads // self.groups, 1) for z in (k, v))", "layers.0.self_attn", "output", "repeat"),
    Fault("window_one_longer", "ones.triu(1 - self.window)", "ones.triu(-self.window)", "layers.0.self_attn", "output", "mask"),
    Fault("size_before_heads", "q = self.q_proj(x).unflatten(-1, (self.heads, self.size))", "q = self.q_proj(x).unflatten(-1, (self.size, self.heads)).transpose(-1, -2)", "layers.0.self_attn", "output", "heads"),
    Fault("not_renormalised", "        top = top / top.sum(-1, keepdim=True)\n", "", "layers.0.mlp", "output", "missing"),
    Fault("renormalised_by_detached_sum", "top = top / top.sum(-1, keepdim=True)", "top = top / (top.sum(-1, keepdim=True).detach() if self.index else top.sum(-1, keepdim=True))", "layers.1.mlp", "gradient", "detached"),
    Fault("router_weights_detached", "dense = torch.zeros_like(p).scatter(-1, chosen, top)", "dense = torch.zeros_like(p).scatter(-1, chosen, top.detach() if self.index == 0 else top)", "layers.0.mlp", "gradient", "detached"),
    Fault("shared_gate_of_output", "self.shared_expert_gate(flat).sigmoid()", "self.shared_expert_gate(shared).sigmoid()", "layers.0.mlp", "output", "operand"),
    Fault("gate_and_up_exchanged", "F.silu(gate) * up", "gate * F.silu(up)", "layers.0.mlp.experts.0", "output", "operand"),
    Fault("residual_of_normed", "return x + y, logits", "return h + y, logits", "layers.0", "output", "residual"),
    Fault("balance_over_choices", "(counts / tokens * p.mean(0))", "(counts / counts.sum() * p.mean(0))", "", "output", "count"),
    Fault("balance_without_gradient", "(counts / tokens * p.mean(0)).sum()", "(counts / tokens * p.mean(0).detach()).sum()", "", "gradient", "detached"),
    Fault("z_loss_by_max", "routers.logsumexp(-1).pow(2).mean()", "routers.amax(-1).pow(2).mean()", "", "output", "approximate"),
    Fault("z_loss_without_gradient", "routers.logsumexp(-1).pow(2).mean()", "routers.detach().logsumexp(-1).pow(2).mean()", "", "gradient", "detached"),
]

RIGHT = [
    Right("softmax_of_the_chosen", "        top, chosen = p.topk(self.k, -1)\n        top = top / top.sum(-1, keepdim=True)\n", "        top, chosen = logits.topk(self.k, -1)\n        top = top.softmax(-1)\n"),
    Right("complex_rope", """    cos, sin = angles.cos()[:, None], angles.sin()[:, None]
    half = angles.shape[-1]
    turned, rest = x.split([2 * half, x.shape[-1] - 2 * half], -1)
    a, b = turned.unflatten(-1, (half, 2)).unbind(-1)
    return torch.cat((torch.stack((a * cos - b * sin, b * cos + a * sin), -1).flatten(-2), rest), -1)
""", """    turn = torch.polar(torch.ones_like(angles), angles)[:, None]
    half = angles.shape[-1]
    z = torch.view_as_complex(x[..., : 2 * half].unflatten(-1, (half, 2)).contiguous())
    return torch.cat((torch.view_as_real(z * turn).flatten(-2), x[..., 2 * half :]), -1)
"""),
    Right("grouped_einsum", """        k, v = (z.repeat_interleave(self.heads // self.groups, 2) for z in (k, v))
""", """        k, v = (z[:, :, :, None].expand(-1, -1, -1, self.heads // self.groups, -1).flatten(2, 3) for z in (k, v))
"""),
    Right("attention_sdpa", """        scores = torch.einsum("bihd,bjhd->bhij", q, k) * self.size**-0.5
        p = scores.where(seen, scores.new_tensor(float("-inf"))).softmax(-1)
        y = torch.einsum("bhij,bjhd->bihd", p, v)
        return self.o_proj(y.flatten(-2))
""", """        q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=seen)
        return self.o_proj(y.transpose(1, 2).flatten(-2))
"""),
    Right("attention_online_softmax", """        p = scores.where(seen, scores.new_tensor(float("-inf"))).softmax(-1)
        y = torch.einsum("bhij,bjhd->bihd", p, v)
""", """        scores = scores.masked_fill(~seen, -1e30)
        top = torch.full_like(scores[..., 0], -1e30)
        total, y = torch.zeros_like(top), 0.0
        for s, vs in zip(scores.split(2, -1), v.split(2, 1)):
            new = torch.maximum(top, s.amax(-1)).detach()
            weight = (s - new[..., None]).exp()
            keep = (top - new).exp()
            total = total * keep + weight.sum(-1)
            y = y * keep[..., None] + torch.einsum("bhij,bjhd->bhid", weight, vs)
            top = new
        y = (y / total[..., None]).transpose(1, 2)
"""),
    Right("norm_upcast", """        inverse = (x.square().sum(-1, keepdim=True) / x.shape[-1] + self.eps).sqrt().reciprocal()
        return x * inverse * self.weight
""", """        y = x.to(torch.promote_types(x.dtype, torch.float32))
        y = y * torch.rsqrt(torch.linalg.vector_norm(y, dim=-1, keepdim=True).pow(2) / y.shape[-1] + self.eps)
        return self.weight * y.to(x.dtype)
"""),
    Right("experts_over_all_tokens", """            tokens = dense[:, e].nonzero().squeeze(-1)
            routed = routed + torch.zeros_like(flat).index_copy(0, tokens, expert(flat[tokens]) * dense[tokens, e, None])
""", """            routed = routed + expert(flat) * dense[:, e, None]
"""),
    Right("balance_by_loops", """    counts = torch.bincount(p.topk(k, -1).indices.flatten(), minlength=experts).to(p.dtype)
    return experts * (counts / tokens * p.mean(0)).sum()
""", """    chosen = p.topk(k, -1).indices
    loss = 0.0
    for e in range(experts):
        loss = loss + (chosen == e).sum() * p[:, e].sum()
    return loss * experts / tokens**2
"""),
    Right("stacked_experts", """        self.experts = nn.ModuleList(SwiGLU(dim, 32) for _ in range(experts))
        self.shared_expert = SwiGLU(dim, 40)
        self.shared_expert_gate = nn.Linear(dim, 1, bias=False)

    def forward(self, x):
        flat = x.reshape(-1, x.shape[-1])
        logits = self.gate(flat)
        p = logits.softmax(-1)
        top, chosen = p.topk(self.k, -1)
        top = top / top.sum(-1, keepdim=True)
        dense = torch.zeros_like(p).scatter(-1, chosen, top)
        routed = 0
        for e, expert in enumerate(self.experts):
            tokens = dense[:, e].nonzero().squeeze(-1)
            routed = routed + torch.zeros_like(flat).index_copy(0, tokens, expert(flat[tokens]) * dense[tokens, e, None])
""", """        self.w1 = nn.Parameter(torch.randn(experts * 32, dim))
        self.w3 = nn.Parameter(torch.randn(experts * 32, dim))
        self.w2 = nn.Parameter(torch.randn(experts * dim, 32))
        self.shared_expert = SwiGLU(dim, 40)
        self.shared_expert_gate = nn.Linear(dim, 1, bias=False)

    def forward(self, x):
        flat = x.reshape(-1, x.shape[-1])
        logits = self.gate(flat)
        top, chosen = logits.softmax(-1).topk(self.k, -1)
        top = top / top.sum(-1, keepdim=True)
        w1, w3, w2 = (w.unflatten(0, (logits.shape[-1], -1))[chosen] for w in (self.w1, self.w3, self.w2))
        hidden = F.silu(torch.einsum("tkfd,td->tkf", w1, flat)) * torch.einsum("tkfd,td->tkf", w3, flat)
        routed = torch.einsum("tkdf,tkf,tk->td", w2, hidden, top)
""", fused=True, names={f"layers.{i}.mlp.{a}": "cat(" + ", ".join(f"layers.{i}.mlp.experts.{e}.{b}_proj.weight" for e in range(5)) + ")"
                        for i in range(2) for a, b in (("w1", "gate"), ("w3", "up"), ("w2", "down"))}),
    Right("packed_query_key_value", """        self.q_proj = nn.Linear(dim, heads * size)
        self.k_proj = nn.Linear(dim, groups * size)
        self.v_proj = nn.Linear(dim, groups * size)
        self.o_proj = nn.Linear(heads * size, dim, bias=False)

    def forward(self, x):
        n = x.shape[1]
        q = self.q_proj(x).unflatten(-1, (self.heads, self.size))
        k = self.k_proj(x).unflatten(-1, (self.groups, self.size))
        v = self.v_proj(x).unflatten(-1, (self.groups, self.size))
""", """        self.qkv_proj = nn.Linear(dim, (heads + 2 * groups) * size)
        self.o_proj = nn.Linear(heads * size, dim, bias=False)

    def forward(self, x):
        n = x.shape[1]
        q, k, v = self.qkv_proj(x).unflatten(-1, (-1, self.size)).split([self.heads, self.groups, self.groups], 2)
""", fused=True, names={f"layers.{i}.self_attn.qkv_proj.{p}": "cat(" + ", ".join(f"layers.{i}.self_attn.{x}_proj.{p}" for x in "qkv") + ")"
                        for i in range(2) for p in ("weight", "bias")}),
    Right("gate_and_up_in_one", """        self.gate_proj = nn.Linear(dim, hidden, bias=False)
        self.up_proj = nn.Linear(dim, hidden, bias=False)
        self.down_proj = nn.Linear(hidden, dim, bias=False)

    def forward(self, x):
        gate, up = self.gate_proj(x), self.up_proj(x)
""", """        self.gate_up_proj = nn.Linear(dim, 2 * hidden, bias=False)
        self.down_proj = nn.Linear(hidden, dim, bias=False)

    def forward(self, x):
        gate, up = self.gate_up_proj(x).chunk(2, -1)
""", fused=True, names={f"layers.{i}.mlp.{e}.gate_up_proj.weight": f"cat(layers.{i}.mlp.{e}.gate_proj.weight, layers.{i}.mlp.{e}.up_proj.weight)"
                        for i in range(2) for e in [f"experts.{j}" for j in range(5)] + ["shared_expert"]}),
]
