"""The selective state space of Jamba after Hugging Face's slow path (channels first, a loop, norms of step, B and C, padding zeroed twice), ported with an associative scan by odds and evens."""

import torch
import torch.nn.functional as F
import torch.utils.checkpoint
from torch import nn

from ..ports.kinds import Fault, Right


class RMSNorm(nn.Module):
    def __init__(self, hidden_size, eps=1e-6):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(hidden_size))
        self.variance_epsilon = eps

    def forward(self, hidden_states):
        variance = hidden_states.pow(2).mean(-1, keepdim=True)
        return self.weight * (hidden_states * torch.rsqrt(variance + self.variance_epsilon))


class MambaMixer(nn.Module):
    def __init__(self, hidden_size=20, intermediate_size=28, ssm_state_size=4, time_step_rank=3, conv_kernel_size=4):
        super().__init__()
        self.intermediate_size, self.ssm_state_size = intermediate_size, ssm_state_size
        self.time_step_rank = time_step_rank
        self.time_step_limit = (0.05, 0.9)
        self.conv1d = nn.Conv1d(intermediate_size, intermediate_size, conv_kernel_size, groups=intermediate_size, padding=conv_kernel_size - 1)
        self.act = nn.SiLU()
        self.in_proj = nn.Linear(hidden_size, intermediate_size * 2, bias=False)
        self.x_proj = nn.Linear(intermediate_size, time_step_rank + ssm_state_size * 2, bias=False)
        self.dt_proj = nn.Linear(time_step_rank, intermediate_size)
        A = torch.arange(1, ssm_state_size + 1, dtype=torch.float32)[None, :].expand(intermediate_size, -1).contiguous()
        self.A_log = nn.Parameter(torch.log(A))
        self.D = nn.Parameter(torch.ones(intermediate_size))
        self.out_proj = nn.Linear(intermediate_size, hidden_size, bias=False)
        self.dt_layernorm = RMSNorm(time_step_rank)
        self.b_layernorm = RMSNorm(ssm_state_size)
        self.c_layernorm = RMSNorm(ssm_state_size)

    def forward(self, input_states, attention_mask=None):
        batch_size, seq_len, _ = input_states.shape
        projected_states = self.in_proj(input_states).transpose(1, 2)
        hidden_states, gate = projected_states.chunk(2, dim=1)
        if attention_mask is not None:
            hidden_states = hidden_states * attention_mask.unsqueeze(1)
        hidden_states = self.act(self.conv1d(hidden_states)[..., :seq_len])
        if attention_mask is not None:
            hidden_states = hidden_states * attention_mask.unsqueeze(1)
        ssm_parameters = self.x_proj(hidden_states.transpose(1, 2))
        time_step, B, C = torch.split(ssm_parameters, [self.time_step_rank, self.ssm_state_size, self.ssm_state_size], dim=-1)
        time_step = self.dt_layernorm(time_step)
        B = self.b_layernorm(B)
        C = self.c_layernorm(C)
        discrete_time_step = F.softplus(self.dt_proj(time_step)).transpose(1, 2)
        discrete_time_step = torch.clamp(discrete_time_step, self.time_step_limit[0], self.time_step_limit[1])
        A = -torch.exp(self.A_log)
        discrete_A = torch.exp(A[None, :, None, :] * discrete_time_step[:, :, :, None])
        discrete_B = discrete_time_step[:, :, :, None] * B[:, None, :, :]
        deltaB_u = discrete_B * hidden_states[:, :, :, None]
        ssm_state = torch.zeros((batch_size, self.intermediate_size, self.ssm_state_size), dtype=input_states.dtype)
        scan_outputs = []
        for i in range(seq_len):
            ssm_state = discrete_A[:, :, i, :] * ssm_state + deltaB_u[:, :, i, :]
            scan_output = torch.matmul(ssm_state, C[:, i, :].unsqueeze(-1))
            scan_outputs.append(scan_output[:, :, 0])
        scan_output = torch.stack(scan_outputs, dim=-1)
        scan_output = scan_output + hidden_states * self.D[None, :, None]
        scan_output = scan_output * self.act(gate)
        return self.out_proj(scan_output.transpose(1, 2))


class MambaDecoderLayer(nn.Module):
    def __init__(self):
        super().__init__()
        self.mamba = MambaMixer()
        self.input_layernorm = RMSNorm(20)

    def forward(self, hidden_states, attention_mask=None):
        residual = hidden_states
        hidden_states = self.input_layernorm(hidden_states)
        hidden_states = self.mamba(hidden_states, attention_mask)
        return residual + hidden_states


class MambaModel(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed_tokens = nn.Embedding(31, 20, padding_idx=0)
        self.layers = nn.ModuleList([MambaDecoderLayer() for _ in range(2)])
        self.final_layernorm = RMSNorm(20)

    def forward(self, input_ids, attention_mask):
        hidden_states = self.embed_tokens(input_ids)
        for layer in self.layers:
            hidden_states = layer(hidden_states, attention_mask)
        return self.final_layernorm(hidden_states)


class Original(nn.Module):
    def __init__(self):
        super().__init__()
        self.model = MambaModel()
        self.lm_head = nn.Linear(20, 31, bias=False)
        self.lm_head.weight = self.model.embed_tokens.weight
        g = torch.Generator().manual_seed(11)
        with torch.no_grad():
            for name, p in self.named_parameters():
                noise = torch.randn(p.shape, generator=g)
                if "embed" in name:
                    p.copy_(0.7 * noise)
                elif "dt_proj.bias" in name:
                    p.copy_(noise - 1.0)
                elif p.dim() == 1 or "A_log" in name:
                    p.add_(0.2 * noise)
                elif "conv" not in name:
                    p.copy_(noise * p.shape[-1] ** -0.5)

    def forward(self, input_ids, attention_mask):
        logits = self.lm_head(self.model(input_ids, attention_mask))
        shift_logits = logits[..., :-1, :].contiguous()
        shift_labels = input_ids.masked_fill(attention_mask == 0, -100)[..., 1:].contiguous()
        loss = F.cross_entropy(shift_logits.view(-1, 31), shift_labels.view(-1))
        return loss, logits


def inputs():
    g = torch.Generator().manual_seed(23)
    mask = (torch.arange(13)[None] >= torch.tensor([0, 4])[:, None]).long()
    return torch.randint(1, 31, (2, 13), generator=g) * mask, mask


# The port ------------------------------------------------------------------------------------


class Norm(nn.Module):
    def __init__(self, dim, eps=1e-6):
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x):
        scale = (x * x).mean(-1, True).add(self.eps).rsqrt()
        return x * scale * self.weight


def associative_scan(a, b):
    """All h[t] = a[t] h[t - 1] + b[t] from h = 0; time is axis 1. Pairs are joined, and their scan is of half the length."""
    length = a.shape[1]
    if length == 1:
        return b
    pairs = length // 2
    even_a, odd_a = a[:, : 2 * pairs : 2], a[:, 1::2]
    even_b, odd_b = b[:, : 2 * pairs : 2], b[:, 1::2]
    odd = associative_scan(odd_a * even_a, odd_a * even_b + odd_b)
    later = a[:, 2::2] * odd[:, : (length - 1) // 2] + b[:, 2::2]
    even = torch.cat((b[:, :1], later), 1)
    joined = torch.stack((even[:, :pairs], odd), 2).flatten(1, 2)
    return torch.cat((joined, even[:, pairs:]), 1)


class SelectiveSSM(nn.Module):
    def __init__(self, index, dim=20, inner=28, state=4, rank=3):
        super().__init__()
        self.index, self.sizes = index, (rank, state, state)
        self.in_proj = nn.Linear(dim, 2 * inner, bias=False)
        self.conv1d = nn.Conv1d(inner, inner, kernel_size=4, groups=inner, padding=3)
        self.x_proj = nn.Linear(inner, rank + 2 * state, bias=False)
        self.dt_norm, self.b_norm, self.c_norm = Norm(rank), Norm(state), Norm(state)
        self.dt_proj = nn.Linear(rank, inner)
        self.A_log = nn.Parameter(torch.zeros(inner, state))
        self.D = nn.Parameter(torch.zeros(inner))
        self.out_proj = nn.Linear(inner, dim, bias=False)

    def convolve(self, u):
        """(batch, time, channel), each place with the three before it."""
        y = self.conv1d(u.transpose(1, 2))
        return y[:, :, : u.size(1)].transpose(1, 2)

    def steps(self, low):
        dt = F.softplus(self.dt_proj(low))
        return dt.clamp(min=0.05, max=0.9)

    def forward(self, x, keep):
        u, z = self.in_proj(x).chunk(2, dim=-1)
        real = keep.unsqueeze(-1).to(x.dtype)
        u = u * real
        u = F.silu(self.convolve(u))
        u = u * real
        low, write, read = self.x_proj(u).split(self.sizes, dim=-1)
        low, write, read = self.dt_norm(low), self.b_norm(write), self.c_norm(read)
        dt = self.steps(low)
        rate = self.A_log.exp()
        decay = torch.exp(-dt.unsqueeze(-1) * rate)
        inflow = torch.einsum("btc,bts->btcs", dt * u, write)
        h = associative_scan(decay, inflow)
        y = torch.einsum("btcs,bts->btc", h, read)
        y = y + self.D * u
        y = y * F.silu(z)
        return self.out_proj(y)


class Block(nn.Module):
    def __init__(self, index):
        super().__init__()
        self.norm, self.ssm = Norm(20), SelectiveSSM(index)

    def forward(self, x, keep):
        y = self.norm(x)
        return self.ssm(y, keep) + x


class Port(nn.Module):
    def __init__(self):
        super().__init__()
        self.wte = nn.Embedding(31, 20, padding_idx=0)
        self.blocks = nn.ModuleList([Block(i) for i in range(2)])
        self.ln_f = Norm(20, eps=1e-6)

    def forward(self, tokens, mask):
        keep = mask != 0
        x = self.wte(tokens)
        for block in self.blocks:
            x = block(x, keep)
        x = self.ln_f(x)
        logits = torch.matmul(x, self.wte.weight.t())
        logp = logits[:, :-1].log_softmax(dim=-1)
        wanted, counted = tokens[:, 1:], keep[:, 1:]
        picked = logp.gather(2, wanted.unsqueeze(2)).squeeze(2)
        loss = -(picked * counted).sum() / counted.sum()
        return loss, logits


NAMES = {"wte": "model.embed_tokens", "ln_f": "model.final_layernorm"}
for _i in range(2):
    NAMES[f"blocks.{_i}"] = f"model.layers.{_i}"
    NAMES[f"blocks.{_i}.norm"] = f"model.layers.{_i}.input_layernorm"
    NAMES[f"blocks.{_i}.ssm"] = f"model.layers.{_i}.mamba"
    for _n in ("dt", "b", "c"):
        NAMES[f"blocks.{_i}.ssm.{_n}_norm"] = f"model.layers.{_i}.mamba.{_n}_layernorm"

_IN, _X = dict(NAMES), dict(NAMES)
for _i in range(2):
    _IN[f"blocks.{_i}.ssm.to_u.weight"] = f"model.layers.{_i}.mamba.in_proj.weight[:28]"
    _IN[f"blocks.{_i}.ssm.to_z.weight"] = f"model.layers.{_i}.mamba.in_proj.weight[28:]"
    _X[f"blocks.{_i}.ssm.to_low.weight"] = f"model.layers.{_i}.mamba.x_proj.weight[:3]"
    _X[f"blocks.{_i}.ssm.to_write.weight"] = f"model.layers.{_i}.mamba.x_proj.weight[3:7]"
    _X[f"blocks.{_i}.ssm.to_read.weight"] = f"model.layers.{_i}.mamba.x_proj.weight[7:]"

FAULTS = [
    Fault("eps_of_all_norms", "def __init__(self, dim, eps=1e-6):", "def __init__(self, dim, eps=1e-5):", "model.layers.0.input_layernorm", "output", "eps"),
    Fault("eps_of_last_norm", "self.ln_f = Norm(20, eps=1e-6)", "self.ln_f = Norm(20, eps=1e-5)", "model.final_layernorm", "output", "eps"),
    Fault("eps_of_step_norm", "self.dt_norm, self.b_norm, self.c_norm = Norm(rank), Norm(state), Norm(state)", "self.dt_norm, self.b_norm, self.c_norm = Norm(rank, 1e-3), Norm(state), Norm(state)", "model.layers.0.mamba.dt_layernorm", "output", "eps"),
    Fault("mean_subtracted", "scale = (x * x).mean(-1, True).add(self.eps).rsqrt()", "scale = x.var(-1, False, keepdim=True).add(self.eps).rsqrt()", "model.layers.0.input_layernorm", "output", "variance"),
    Fault("scale_of_norm_detached", "scale = (x * x).mean(-1, True).add(self.eps).rsqrt()", "scale = (x * x).mean(-1, True).add(self.eps).rsqrt().detach()", "model.layers.0.input_layernorm", "gradient", "detached"),
    Fault("step_not_normed", "low, write, read = self.dt_norm(low), self.b_norm(write), self.c_norm(read)", "write, read = self.b_norm(write), self.c_norm(read)", "model.layers.0.mamba", "output", "missing"),
    Fault("read_before_write", "low, write, read = self.x_proj(u)", "low, read, write = self.x_proj(u)", "model.layers.0.mamba", "output", "order"),
    Fault("gate_first", "u, z = self.in_proj(x).chunk(2, dim=-1)", "z, u = self.in_proj(x).chunk(2, dim=-1)", "model.layers.0.mamba", "output", "order"),
    Fault("channels_interleaved", "u, z = self.in_proj(x).chunk(2, dim=-1)", "u, z = self.in_proj(x).unflatten(-1, (-1, 2)).unbind(-1)", "model.layers.0.mamba", "output", "order"),
    Fault("padding_enters_convolution", "        u = u * real\n        u = F.silu", "        u = F.silu", "model.layers.0.mamba", "output", "mask"),
    Fault("padding_leaves_convolution", "u = F.silu(self.convolve(u))\n        u = u * real", "u = F.silu(self.convolve(u))", "model.layers.0.mamba", "output", "mask"),
    Fault("mask_of_right_padding", "keep = mask != 0", "keep = mask.flip(1) != 0", "", "output", "mask"),
    Fault("convolution_centred", "return y[:, :, : u.size(1)].transpose(1, 2)", "return y[:, :, 1 : 1 + u.size(1)].transpose(1, 2)", "model.layers.0.mamba", "output", "padding"),
    Fault("convolution_from_the_end", "return y[:, :, : u.size(1)].transpose(1, 2)", "return y[:, :, -u.size(1) :].transpose(1, 2)", "model.layers.0.mamba", "output", "padding"),
    Fault("kernel_turned", "y = self.conv1d(u.transpose(1, 2))", "y = F.conv1d(u.transpose(1, 2), self.conv1d.weight.flip(-1), self.conv1d.bias, padding=3, groups=u.size(2))", "model.layers.0.mamba", "output", "order"),
    Fault("bias_of_convolution_missing", "y = self.conv1d(u.transpose(1, 2))", "y = F.conv1d(u.transpose(1, 2), self.conv1d.weight, padding=3, groups=u.size(2))", "model.layers.0.mamba", "output", "missing"),
    Fault("activation_after_convolution_missing", "u = F.silu(self.convolve(u))", "u = self.convolve(u)", "model.layers.0.mamba", "output", "missing"),
    Fault("gelu_after_convolution", "u = F.silu(self.convolve(u))", "u = F.gelu(self.convolve(u))", "model.layers.0.mamba", "output", "activation"),
    Fault("relu_step", "dt = F.softplus(self.dt_proj(low))", "dt = F.relu(self.dt_proj(low))", "model.layers.0.mamba", "output", "activation"),
    Fault("softplus_sharper", "dt = F.softplus(self.dt_proj(low))", "dt = F.softplus(self.dt_proj(low), beta=2)", "model.layers.0.mamba", "output", "activation"),
    Fault("bias_of_step_twice", "dt = F.softplus(self.dt_proj(low))", "dt = F.softplus(self.dt_proj(low) + self.dt_proj.bias)", "model.layers.0.mamba", "output", "operand"),
    Fault("step_not_limited_above", "return dt.clamp(min=0.05, max=0.9)", "return dt.clamp(min=0.05)", "model.layers.0.mamba", "output", "missing"),
    Fault("lower_limit_of_step", "return dt.clamp(min=0.05, max=0.9)", "return dt.clamp(min=0.1, max=0.9)", "model.layers.0.mamba", "output", "count"),
    Fault("limits_let_gradient_through", "return dt.clamp(min=0.05, max=0.9)", "return dt + (dt.clamp(min=0.05, max=0.9) - dt).detach()", "model.layers.0.mamba", "gradient", "detached"),
    Fault("rate_not_exponential", "rate = self.A_log.exp()", "rate = self.A_log + 1", "model.layers.0.mamba", "output", "activation"),
    Fault("rate_detached_in_second", "rate = self.A_log.exp()", "rate = (self.A_log.detach() if self.index else self.A_log).exp()", "model.layers.1.mamba", "gradient", "detached"),
    Fault("rate_by_squares", "rate = self.A_log.exp()", "rate = torch.pow(2, self.A_log)", "model.layers.0.mamba", "output", "approximate"),
    Fault("decay_of_first_order", "decay = torch.exp(-dt.unsqueeze(-1) * rate)", "decay = 1 - dt.unsqueeze(-1) * rate", "model.layers.0.mamba", "output", "approximate"),
    Fault("decay_bilinear", "decay = torch.exp(-dt.unsqueeze(-1) * rate)", "half = dt.unsqueeze(-1) * rate / 2\n        decay = (1 - half) / (1 + half)", "model.layers.0.mamba", "output", "approximate"),
    Fault("inflow_held", "inflow = torch.einsum(\"btc,bts->btcs\", dt * u, write)", "inflow = torch.einsum(\"btc,bts->btcs\", u, write) * (1 - decay) / rate", "model.layers.0.mamba", "output", "approximate"),
    Fault("inflow_without_step", "inflow = torch.einsum(\"btc,bts->btcs\", dt * u, write)", "inflow = torch.einsum(\"btc,bts->btcs\", u, write)", "model.layers.0.mamba", "output", "missing"),
    Fault("first_inflow_lost", "even = torch.cat((b[:, :1], later), 1)", "even = torch.cat((torch.zeros_like(b[:, :1]), later), 1)", "model.layers.0.mamba", "output", "initial"),
    Fault("state_read_before_it_is_written", "h = associative_scan(decay, inflow)", "h = F.pad(associative_scan(decay, inflow)[:, :-1], (0, 0, 0, 0, 1, 0))", "model.layers.0.mamba", "output", "order"),
    Fault("pairs_joined_by_the_wrong_decay", "odd_a * even_b + odd_b", "even_a * even_b + odd_b", "model.layers.0.mamba", "output", "operand"),
    Fault("last_pair_dropped", "later = a[:, 2::2] * odd[:, : (length - 1) // 2] + b[:, 2::2]", "later = a[:, 2::2] * F.pad(odd[:, : (length - 1) // 2 - 1], (0, 0, 0, 0, 0, 1)) + b[:, 2::2]", "model.layers.0.mamba", "output", "count"),
    Fault("past_detached", "later = a[:, 2::2] * odd[:, : (length - 1) // 2] + b[:, 2::2]", "later = a[:, 2::2] * odd[:, : (length - 1) // 2].detach() + b[:, 2::2]", "model.layers.0.mamba", "gradient", "detached"),
    Fault("skip_of_projection", "y = y + self.D * u", "y = y + self.D * self.in_proj(x).chunk(2, dim=-1)[0]", "model.layers.0.mamba", "output", "operand"),
    Fault("skip_missing", "y = y + self.D * u", "y = y + 0 * self.D", "model.layers.0.mamba", "output", "missing"),
    Fault("gate_by_sigmoid", "y = y * F.silu(z)", "y = y * z.sigmoid()", "model.layers.0.mamba", "output", "activation"),
    Fault("gate_before_skip", "y = y + self.D * u\n        y = y * F.silu(z)", "y = y * F.silu(z)\n        y = y + self.D * u", "model.layers.0.mamba", "output", "order"),
    Fault("gate_detached", "y = y * F.silu(z)", "y = y * F.silu(z.detach())", "model.layers.0.mamba", "gradient", "detached"),
    Fault("residual_of_normed", "return self.ssm(y, keep) + x", "return self.ssm(y, keep) + y", "model.layers.0", "output", "residual"),
    Fault("residual_detached", "return self.ssm(y, keep) + x", "return self.ssm(y, keep) + x.detach()", "model.layers.0", "gradient", "residual"),
    Fault("last_norm_missing", "x = self.ln_f(x)", "x = x * 1.0", "", "output", "missing"),
    Fault("head_gives_no_gradient", "self.wte.weight.t()", "self.wte.weight.detach().t()", "", "gradient", "untied"),
    Fault("padding_row_learns", "self.wte = nn.Embedding(31, 20, padding_idx=0)", "self.wte = nn.Embedding(31, 20)", "model.embed_tokens", "gradient", "padding"),
    Fault("targets_not_shifted", "wanted, counted = tokens[:, 1:], keep[:, 1:]", "wanted, counted = tokens[:, :-1], keep[:, :-1]", "", "output", "order"),
    Fault("loss_over_all_places", "loss = -(picked * counted).sum() / counted.sum()", "loss = -(picked * counted).mean()", "", "output", "count"),
]

RIGHT = [
    Right("step_by_step", "h = associative_scan(decay, inflow)", "now, h = torch.zeros_like(inflow[:, 0]), []\n        for a, b in zip(decay.unbind(1), inflow.unbind(1)):\n            now = torch.addcmul(b, a, now)\n            h.append(now)\n        h = torch.stack(h, 1)"),
    Right("by_doubling", "h = associative_scan(decay, inflow)", "a, h, reach = decay, inflow, 1\n        while reach < h.size(1):\n            h = h + a * F.pad(h, (0, 0, 0, 0, reach, 0))[:, :-reach]\n            a = a * F.pad(a, (0, 0, 0, 0, reach, 0), value=1.0)[:, :-reach]\n            reach *= 2"),
    Right("by_cumulative_sums", "h = associative_scan(decay, inflow)", "log = -(dt.unsqueeze(-1) * rate)\n        parts, before = [], torch.zeros_like(inflow[:, :1])\n        for l, b in zip(log.split(4, 1), inflow.split(4, 1)):\n            total = l.cumsum(1)\n            part = total.exp() * (before + (b * torch.exp(-total)).cumsum(1))\n            parts.append(part)\n            before = part[:, -1:]\n        h = torch.cat(parts, 1)"),
    Right("as_a_masked_matrix", "h = associative_scan(decay, inflow)\n        y = torch.einsum(\"btcs,bts->btc\", h, read)", "total = (dt.unsqueeze(-1) * rate).cumsum(1)\n        between = total.unsqueeze(2) - total.unsqueeze(1)\n        later = torch.ones(x.size(1), x.size(1), dtype=torch.bool).triu(1)\n        kernel = torch.exp(-between.masked_fill(later[None, :, :, None, None], float(\"inf\")))\n        y = torch.einsum(\"bijcs,bis,bjs,bjc->bic\", kernel, read, write, dt * u)"),
    Right("scan_as_a_function", "class SelectiveSSM(nn.Module):", '''class Scan(torch.autograd.Function):
    @staticmethod
    def forward(ctx, a, b):
        h = b.clone()
        for t in range(1, b.shape[1]):
            h[:, t].addcmul_(a[:, t], h[:, t - 1])
        ctx.save_for_backward(a, h)
        return h

    @staticmethod
    def backward(ctx, grad):
        a, h = ctx.saved_tensors
        db = grad.clone()
        for t in reversed(range(1, a.shape[1])):
            db[:, t - 1].addcmul_(a[:, t], db[:, t])
        before = torch.cat((torch.zeros_like(h[:, :1]), h[:, :-1]), 1)
        return db * before, db


associative_scan = Scan.apply


class SelectiveSSM(nn.Module):'''),
    Right("convolution_by_shifts", "y = self.conv1d(u.transpose(1, 2))\n        return y[:, :, : u.size(1)].transpose(1, 2)", "padded = F.pad(u, (0, 0, 3, 0))\n        taps = self.conv1d.weight[:, 0].t()\n        y = sum(taps[i] * padded[:, i : i + u.size(1)] for i in range(4))\n        return y + self.conv1d.bias", True),
    Right("convolution_by_windows", "y = self.conv1d(u.transpose(1, 2))\n        return y[:, :, : u.size(1)].transpose(1, 2)", "windows = F.pad(u.transpose(1, 2), (3, 0)).unfold(2, 4, 1)\n        return torch.einsum(\"bctk,ck->btc\", windows, self.conv1d.weight.squeeze(1)) + self.conv1d.bias", True),
    Right("projections_of_state_and_gate_apart", "class Block(nn.Module):", '''class SelectiveSSM(SelectiveSSM):
    def __init__(self, index, dim=20, inner=28, state=4, rank=3):
        super().__init__(index, dim, inner, state, rank)
        del self.in_proj
        self.to_u, self.to_z = nn.Linear(dim, inner, bias=False), nn.Linear(dim, inner, bias=False)

    def forward(self, x, keep):
        hidden = ~keep[..., None]
        u = self.to_u(x).masked_fill(hidden, 0)
        u = F.silu(self.convolve(u)).masked_fill(hidden, 0)
        low, write, read = torch.split(self.x_proj(u), self.sizes, -1)
        dt = self.steps(self.dt_norm(low))[..., None]
        h = associative_scan(torch.exp(-dt * self.A_log.exp()), dt * u[..., None] * self.b_norm(write)[:, :, None])
        y = (h @ self.c_norm(read)[..., None])[..., 0]
        return self.out_proj((y + self.D * u) * F.silu(self.to_z(x)))


class Block(nn.Module):''', True, _IN),
    Right("step_write_and_read_apart", "class Block(nn.Module):", '''class SelectiveSSM(SelectiveSSM):
    def __init__(self, index, dim=20, inner=28, state=4, rank=3):
        super().__init__(index, dim, inner, state, rank)
        self.x_proj = None
        self.to_low, self.to_write, self.to_read = (nn.Linear(inner, n, bias=False) for n in (rank, state, state))

    def forward(self, x, keep):
        u, z = self.in_proj(x).tensor_split(2, -1)
        u = torch.where(keep[..., None], u, 0.0)
        u = torch.where(keep[..., None], F.silu(self.convolve(u)), 0.0)
        dt = self.steps(self.dt_norm(self.to_low(u)))
        write, read = self.b_norm(self.to_write(u)), self.c_norm(self.to_read(u))
        decay = torch.exp(torch.einsum("btc,cs->btcs", dt, -self.A_log.exp()))
        h = associative_scan(decay, (dt * u)[..., None] * write[:, :, None])
        y = torch.addcmul((h * read[:, :, None]).sum(-1), self.D, u)
        return self.out_proj(y * z * z.sigmoid())


class Block(nn.Module):''', True, _X),
    Right("norm_of_torch", "scale = (x * x).mean(-1, True).add(self.eps).rsqrt()\n        return x * scale * self.weight", "return F.rms_norm(x, self.weight.shape, self.weight, self.eps)"),
    Right("softplus_by_logaddexp", "dt = F.softplus(self.dt_proj(low))", "low = F.linear(low, self.dt_proj.weight, self.dt_proj.bias)\n        dt = torch.logaddexp(low, low.new_zeros(()))", True),
    Right("limits_by_where", "return dt.clamp(min=0.05, max=0.9)", "dt = torch.where(dt < 0.05, 0.05, dt)\n        return torch.where(dt > 0.9, 0.9, dt)"),
    Right("last_norm_in_head", "        x = self.ln_f(x)\n        logits = torch.matmul(x, self.wte.weight.t())", "        size = torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.ln_f.eps)\n        logits = size * F.linear(x, self.wte.weight * self.ln_f.weight)", True),
    Right("loss_of_torch", "loss = -(picked * counted).sum() / counted.sum()", "loss = F.nll_loss(logp.transpose(1, 2), wanted.masked_fill(~counted, -100))"),
    Right("checkpointed_blocks", "            x = block(x, keep)\n", "            x = torch.utils.checkpoint.checkpoint(block, x, keep, use_reentrant=False)\n"),
]
