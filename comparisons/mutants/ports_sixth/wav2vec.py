"""Wav2Vec2 with a CTC head after Hugging Face (one layer with a group norm, weight norm over time, masked steps given), ported after fairseq with its own padding."""

import torch
import torch.nn.functional as F
import torch.utils.checkpoint
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from ..ports.kinds import Fault, Right


class Config:
    conv_dim = (12, 12, 16)
    conv_kernel = (10, 3, 2)
    conv_stride = (5, 2, 2)
    hidden_size = 24
    num_attention_heads = 4
    intermediate_size = 32
    num_hidden_layers = 2
    num_conv_pos_embeddings = 6
    num_conv_pos_embedding_groups = 4
    layer_norm_eps = 1e-5
    hidden_dropout = 0.1
    vocab_size = 9
    pad_token_id = 0


class GroupNormConvLayer(nn.Module):
    def __init__(self, config, layer_id):
        super().__init__()
        width = config.conv_dim[layer_id]
        self.conv = nn.Conv1d(1, width, config.conv_kernel[0], stride=config.conv_stride[0], bias=False)
        self.layer_norm = nn.GroupNorm(num_groups=width, num_channels=width, affine=True)
        self.activation = nn.GELU()

    def forward(self, hidden_states):
        return self.activation(self.layer_norm(self.conv(hidden_states)))


class NoLayerNormConvLayer(nn.Module):
    def __init__(self, config, layer_id):
        super().__init__()
        self.conv = nn.Conv1d(config.conv_dim[layer_id - 1], config.conv_dim[layer_id], config.conv_kernel[layer_id], stride=config.conv_stride[layer_id], bias=False)
        self.activation = nn.GELU()

    def forward(self, hidden_states):
        return self.activation(self.conv(hidden_states))


class FeatureEncoder(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.conv_layers = nn.ModuleList([GroupNormConvLayer(config, 0)] + [NoLayerNormConvLayer(config, i) for i in (1, 2)])

    def forward(self, input_values):
        hidden_states = input_values[:, None]
        for conv_layer in self.conv_layers:
            hidden_states = conv_layer(hidden_states)
        return hidden_states


class FeatureProjection(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.layer_norm = nn.LayerNorm(config.conv_dim[-1], eps=config.layer_norm_eps)
        self.projection = nn.Linear(config.conv_dim[-1], config.hidden_size)
        self.dropout = nn.Dropout(config.hidden_dropout)

    def forward(self, hidden_states):
        return self.dropout(self.projection(self.layer_norm(hidden_states)))


class SamePadLayer(nn.Module):
    def __init__(self, num_conv_pos_embeddings):
        super().__init__()
        self.num_pad_remove = 1 if num_conv_pos_embeddings % 2 == 0 else 0

    def forward(self, hidden_states):
        if self.num_pad_remove > 0:
            hidden_states = hidden_states[:, :, : -self.num_pad_remove]
        return hidden_states


class PositionalConvEmbedding(nn.Module):
    def __init__(self, config):
        super().__init__()
        conv = nn.Conv1d(
            config.hidden_size,
            config.hidden_size,
            kernel_size=config.num_conv_pos_embeddings,
            padding=config.num_conv_pos_embeddings // 2,
            groups=config.num_conv_pos_embedding_groups,
        )
        self.conv = weight_norm(conv, name="weight", dim=2)
        self.padding = SamePadLayer(config.num_conv_pos_embeddings)
        self.activation = nn.GELU()

    def forward(self, hidden_states):
        hidden_states = hidden_states.transpose(1, 2)
        hidden_states = self.activation(self.padding(self.conv(hidden_states)))
        return hidden_states.transpose(1, 2)


class Attention(nn.Module):
    def __init__(self, embed_dim, num_heads):
        super().__init__()
        self.num_heads, self.head_dim = num_heads, embed_dim // num_heads
        self.scaling = self.head_dim**-0.5
        self.k_proj = nn.Linear(embed_dim, embed_dim)
        self.v_proj = nn.Linear(embed_dim, embed_dim)
        self.q_proj = nn.Linear(embed_dim, embed_dim)
        self.out_proj = nn.Linear(embed_dim, embed_dim)

    def forward(self, hidden_states, attention_mask=None):
        bsz, tgt_len, dim = hidden_states.shape
        shape = (bsz, tgt_len, self.num_heads, self.head_dim)
        query_states = (self.q_proj(hidden_states) * self.scaling).view(shape).transpose(1, 2)
        key_states = self.k_proj(hidden_states).view(shape).transpose(1, 2)
        value_states = self.v_proj(hidden_states).view(shape).transpose(1, 2)
        attn_weights = torch.matmul(query_states, key_states.transpose(2, 3))
        if attention_mask is not None:
            attn_weights = attn_weights + attention_mask
        attn_weights = F.softmax(attn_weights, dim=-1)
        attn_output = torch.matmul(attn_weights, value_states).transpose(1, 2).reshape(bsz, tgt_len, dim)
        return self.out_proj(attn_output)


class FeedForward(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.intermediate_dense = nn.Linear(config.hidden_size, config.intermediate_size)
        self.output_dense = nn.Linear(config.intermediate_size, config.hidden_size)
        self.output_dropout = nn.Dropout(config.hidden_dropout)

    def forward(self, hidden_states):
        hidden_states = F.gelu(self.intermediate_dense(hidden_states))
        return self.output_dropout(self.output_dense(hidden_states))


class EncoderLayer(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.attention = Attention(config.hidden_size, config.num_attention_heads)
        self.dropout = nn.Dropout(config.hidden_dropout)
        self.layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.feed_forward = FeedForward(config)
        self.final_layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, hidden_states, attention_mask=None):
        attn_residual = hidden_states
        hidden_states = self.attention(hidden_states, attention_mask=attention_mask)
        hidden_states = attn_residual + self.dropout(hidden_states)
        hidden_states = self.layer_norm(hidden_states)
        hidden_states = hidden_states + self.feed_forward(hidden_states)
        return self.final_layer_norm(hidden_states)


class Encoder(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.pos_conv_embed = PositionalConvEmbedding(config)
        self.layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout)
        self.layers = nn.ModuleList([EncoderLayer(config) for _ in range(config.num_hidden_layers)])

    def forward(self, hidden_states, attention_mask):
        expand_attention_mask = attention_mask.unsqueeze(-1).repeat(1, 1, hidden_states.shape[2])
        hidden_states = hidden_states * expand_attention_mask.to(dtype=hidden_states.dtype)
        extended = 1.0 - attention_mask[:, None, None, :].to(dtype=hidden_states.dtype)
        extended = extended * torch.finfo(hidden_states.dtype).min
        extended = extended.expand(extended.shape[0], 1, extended.shape[-1], extended.shape[-1])
        position_embeddings = self.pos_conv_embed(hidden_states)
        hidden_states = hidden_states + position_embeddings
        hidden_states = self.dropout(self.layer_norm(hidden_states))
        for layer in self.layers:
            hidden_states = layer(hidden_states, attention_mask=extended)
        return hidden_states


class Wav2Vec2Model(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config = config
        self.feature_extractor = FeatureEncoder(config)
        self.feature_projection = FeatureProjection(config)
        self.masked_spec_embed = nn.Parameter(torch.Tensor(config.hidden_size).uniform_())
        self.encoder = Encoder(config)

    def _get_feat_extract_output_lengths(self, input_lengths):
        for kernel_size, stride in zip(self.config.conv_kernel, self.config.conv_stride):
            input_lengths = torch.div(input_lengths - kernel_size, stride, rounding_mode="floor") + 1
        return input_lengths

    def _get_feature_vector_attention_mask(self, feature_vector_length, attention_mask):
        output_lengths = self._get_feat_extract_output_lengths(attention_mask.cumsum(dim=-1)[:, -1]).to(torch.long)
        batch_size = attention_mask.shape[0]
        attention_mask = torch.zeros((batch_size, feature_vector_length), dtype=attention_mask.dtype)
        attention_mask[(torch.arange(batch_size), output_lengths - 1)] = 1
        return attention_mask.flip([-1]).cumsum(-1).flip([-1]).bool()

    def forward(self, input_values, attention_mask, mask_time_indices):
        extract_features = self.feature_extractor(input_values).transpose(1, 2)
        attention_mask = self._get_feature_vector_attention_mask(extract_features.shape[1], attention_mask)
        hidden_states = self.feature_projection(extract_features).clone()
        hidden_states[mask_time_indices] = self.masked_spec_embed.to(hidden_states.dtype)
        return self.encoder(hidden_states, attention_mask)


class Original(nn.Module):
    def __init__(self, config=Config):
        super().__init__()
        self.config = config
        self.wav2vec2 = Wav2Vec2Model(config)
        self.dropout = nn.Dropout(config.hidden_dropout)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size)
        g = torch.Generator().manual_seed(5)
        with torch.no_grad():
            for p in self.parameters():
                p.add_(torch.randn(p.shape, generator=g) * (0.2 if p.dim() == 1 else 0.08))
        self.eval()

    def forward(self, input_values, attention_mask, mask_time_indices, labels):
        hidden_states = self.dropout(self.wav2vec2(input_values, attention_mask, mask_time_indices))
        logits = self.lm_head(hidden_states)
        input_lengths = self.wav2vec2._get_feat_extract_output_lengths(attention_mask.sum(-1)).to(torch.long)
        labels_mask = labels >= 0
        target_lengths = labels_mask.sum(-1)
        flattened_targets = labels.masked_select(labels_mask)
        log_probs = F.log_softmax(logits, dim=-1).transpose(0, 1)
        loss = F.ctc_loss(log_probs, flattened_targets, input_lengths, target_lengths, blank=self.config.pad_token_id, reduction="mean", zero_infinity=False)
        return {"loss": loss, "logits": logits}


def inputs():
    g = torch.Generator().manual_seed(17)
    wave = torch.randn(2, 300, generator=g)
    attention_mask = (torch.arange(300)[None] < torch.tensor([300, 214])[:, None]).long()
    masked = torch.zeros(2, 14, dtype=torch.bool)
    masked[0, 3:6] = masked[0, 10:12] = masked[1, 1:3] = masked[1, 7] = True
    labels = torch.tensor([[3, 3, 7, 1, 5], [8, 2, 2, -100, -100]])
    return wave * attention_mask, attention_mask, masked, labels


# The port ------------------------------------------------------------------------------------


class TimeNorm(nn.Module):
    """Every channel of every sequence at zero mean and unit variance over time."""

    def __init__(self, channels, eps=1e-5):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))
        self.eps = eps

    def forward(self, x):
        mean = x.mean(-1, keepdim=True)
        centred = x - mean
        var = centred.square().mean(-1, keepdim=True)
        return centred * torch.rsqrt(var + self.eps) * self.weight[:, None] + self.bias[:, None]


class ConvBlock(nn.Module):
    def __init__(self, cin, cout, kernel, stride, norm):
        super().__init__()
        self.conv = nn.Conv1d(cin, cout, kernel, stride, bias=False)
        self.layer_norm = TimeNorm(cout) if norm else None

    def forward(self, x):
        y = self.conv(x)
        if self.layer_norm is not None:
            y = self.layer_norm(y)
        return F.gelu(y)


class ConvFeatures(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv_layers = nn.ModuleList()
        cin = 1
        for i, (cout, kernel, stride) in enumerate(((12, 10, 5), (12, 3, 2), (16, 2, 2))):
            self.conv_layers.append(ConvBlock(cin, cout, kernel, stride, norm=i == 0))
            cin = cout

    def forward(self, wave):
        x = wave.unsqueeze(1)
        for block in self.conv_layers:
            x = block(x)
        return x

    def frames(self, samples):
        """How many frames so many samples give."""
        for block in self.conv_layers:
            samples = (samples - block.conv.kernel_size[0]) // block.conv.stride[0] + 1
        return samples


class PositionConv(nn.Module):
    """A grouped convolution of a direction v, of length g at each place of the kernel."""

    def __init__(self, width, kernel, groups):
        super().__init__()
        self.kernel, self.groups = kernel, groups
        self.weight_g = nn.Parameter(torch.ones(1, 1, kernel))
        self.weight_v = nn.Parameter(torch.randn(width, width // groups, kernel))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x):
        length = self.weight_v.square().sum((0, 1), keepdim=True).sqrt()
        weight = self.weight_g * self.weight_v / length
        padded = F.pad(x.transpose(1, 2), (self.kernel // 2, self.kernel // 2 - 1))
        y = F.conv1d(padded, weight, self.bias, groups=self.groups)
        return F.gelu(y).transpose(1, 2)


class SelfAttention(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.k_proj = nn.Linear(width, width)
        self.v_proj = nn.Linear(width, width)
        self.q_proj = nn.Linear(width, width)
        self.out_proj = nn.Linear(width, width)

    def fold(self, x):
        b, t, _ = x.shape
        return x.reshape(b, t, self.heads, -1).transpose(1, 2).flatten(0, 1)

    def forward(self, x, hidden=None):
        """hidden: True at keys that are padding, (batch, 1, 1, time)"""
        b, t, e = x.shape
        q, k, v = self.fold(self.q_proj(x)), self.fold(self.k_proj(x)), self.fold(self.v_proj(x))
        scores = torch.bmm(q, k.transpose(1, 2)) / (e // self.heads) ** 0.5
        if hidden is not None:
            scores = scores.unflatten(0, (b, self.heads)).masked_fill(hidden, float("-inf")).flatten(0, 1)
        y = torch.bmm(scores.softmax(-1), v)
        y = y.unflatten(0, (b, self.heads)).transpose(1, 2).flatten(2)
        return self.out_proj(y)


class TransformerLayer(nn.Module):
    def __init__(self, width, inner, heads, p):
        super().__init__()
        self.self_attn = SelfAttention(width, heads)
        self.self_attn_layer_norm = nn.LayerNorm(width)
        self.fc1, self.fc2 = nn.Linear(width, inner), nn.Linear(inner, width)
        self.final_layer_norm = nn.LayerNorm(width)
        self.p = p

    def forward(self, x, hidden):
        residual = x
        x = F.dropout(self.self_attn(x, hidden=hidden), self.p, self.training)
        x = self.self_attn_layer_norm(residual + x)
        residual = x
        x = F.gelu(self.fc1(x))
        x = F.dropout(self.fc2(x), self.p, self.training)
        return self.final_layer_norm(residual + x)


class TransformerEncoder(nn.Module):
    def __init__(self, width=24, inner=32, heads=4, depth=2, p=0.1):
        super().__init__()
        self.p = p
        self.pos_conv = PositionConv(width, 6, 4)
        self.layer_norm = nn.LayerNorm(width, eps=1e-5)
        self.layers = nn.ModuleList([TransformerLayer(width, inner, heads, p) for _ in range(depth)])

    def forward(self, x, real):
        x = x.masked_fill(~real[..., None], 0.0)
        x = x + self.pos_conv(x)
        x = F.dropout(self.layer_norm(x), self.p, self.training)
        hidden = ~real[:, None, None]
        for layer in self.layers:
            x = layer(x, hidden)
        return x


class Port(nn.Module):
    def __init__(self):
        super().__init__()
        self.feature_extractor = ConvFeatures()
        self.layer_norm = nn.LayerNorm(16)
        self.post_extract_proj = nn.Linear(16, 24)
        self.mask_emb = nn.Parameter(torch.zeros(24))
        self.encoder = TransformerEncoder()
        self.proj = nn.Linear(24, 9)
        self.dropout_input = nn.Dropout(0.1)
        self.final_dropout = nn.Dropout(0.1)
        self.eval()

    def forward(self, source, seen, masked, labels):
        features = self.feature_extractor(source).transpose(1, 2)
        lengths = self.feature_extractor.frames(seen.sum(1))
        real = torch.arange(features.size(1)) < lengths[:, None]
        x = self.post_extract_proj(self.layer_norm(features))
        x = self.dropout_input(x)
        x = torch.where(masked[..., None], self.mask_emb, x)
        x = self.encoder(x, real)
        logits = self.proj(self.final_dropout(x))
        counts = (labels != -100).sum(1)
        logp = logits.log_softmax(-1)
        each = F.ctc_loss(logp.transpose(0, 1), labels.clamp(min=0), lengths, counts, blank=0, reduction="none")
        loss = (each / counts).mean()
        return {"loss": loss, "logits": logits}


NAMES = {
    "feature_extractor": "wav2vec2.feature_extractor",
    "layer_norm": "wav2vec2.feature_projection.layer_norm",
    "post_extract_proj": "wav2vec2.feature_projection.projection",
    "mask_emb": "wav2vec2.masked_spec_embed",
    "encoder": "wav2vec2.encoder",
    "encoder.pos_conv": "wav2vec2.encoder.pos_conv_embed",
    "encoder.pos_conv.weight_g": "wav2vec2.encoder.pos_conv_embed.conv.parametrizations.weight.original0",
    "encoder.pos_conv.weight_v": "wav2vec2.encoder.pos_conv_embed.conv.parametrizations.weight.original1",
    "encoder.pos_conv.bias": "wav2vec2.encoder.pos_conv_embed.conv.bias",
    "proj": "lm_head",
}
for _i in range(2):
    _at = f"wav2vec2.encoder.layers.{_i}"
    NAMES[f"encoder.layers.{_i}"] = _at
    NAMES[f"encoder.layers.{_i}.self_attn"] = f"{_at}.attention"
    NAMES[f"encoder.layers.{_i}.self_attn_layer_norm"] = f"{_at}.layer_norm"
    NAMES[f"encoder.layers.{_i}.fc1"] = f"{_at}.feed_forward.intermediate_dense"
    NAMES[f"encoder.layers.{_i}.fc2"] = f"{_at}.feed_forward.output_dense"

_IN = dict(NAMES)
_FFN = {k: v for k, v in NAMES.items() if "fc" not in k}
for _i in range(2):
    _at = f"wav2vec2.encoder.layers.{_i}"
    for _k in ("weight", "bias"):
        _IN[f"encoder.layers.{_i}.self_attn.in_proj_{_k}"] = "cat(" + ", ".join(f"{_at}.attention.{_n}_proj.{_k}" for _n in "qkv") + ")"
    _FFN[f"encoder.layers.{_i}.mlp"] = f"{_at}.feed_forward"
    _FFN[f"encoder.layers.{_i}.mlp.fc1"] = f"{_at}.feed_forward.intermediate_dense"
    _FFN[f"encoder.layers.{_i}.mlp.fc2"] = f"{_at}.feed_forward.output_dense"

FAULTS = [
    Fault("eps_of_time_norm", "def __init__(self, channels, eps=1e-5):", "def __init__(self, channels, eps=1e-3):", "wav2vec2.feature_extractor.conv_layers.0.layer_norm", "output", "eps"),
    Fault("unbiased_variance_over_time", "var = centred.square().mean(-1, keepdim=True)", "var = x.var(-1, keepdim=True)", "wav2vec2.feature_extractor.conv_layers.0.layer_norm", "output", "variance"),
    Fault("norm_over_all_channels", "mean = x.mean(-1, keepdim=True)\n        centred = x - mean\n        var = centred.square().mean(-1, keepdim=True)", "mean = x.mean((1, 2), keepdim=True)\n        centred = x - mean\n        var = centred.square().mean((1, 2), keepdim=True)", "wav2vec2.feature_extractor.conv_layers.0.layer_norm", "output", "variance"),
    Fault("mean_of_norm_detached", "mean = x.mean(-1, keepdim=True)", "mean = x.mean(-1, keepdim=True).detach()", "wav2vec2.feature_extractor.conv_layers.0.layer_norm", "gradient", "detached"),
    Fault("norm_after_activation", "        if self.layer_norm is not None:\n            y = self.layer_norm(y)\n        return F.gelu(y)", "        y = F.gelu(y)\n        return y if self.layer_norm is None else self.layer_norm(y)", "wav2vec2.feature_extractor.conv_layers.0", "output", "order"),
    Fault("relu_features", "return F.gelu(y)\n\n\nclass ConvFeatures", "return F.relu(y)\n\n\nclass ConvFeatures", "wav2vec2.feature_extractor.conv_layers.0", "output", "activation"),
    Fault("tanh_gelu_of_features", "return F.gelu(y)\n\n\nclass ConvFeatures", "return F.gelu(y, approximate='tanh')\n\n\nclass ConvFeatures", "wav2vec2.feature_extractor.conv_layers.0", "output", "approximate"),
    Fault("norm_in_no_layer", "norm=i == 0", "norm=False", "wav2vec2.feature_extractor.conv_layers.0", "output", "missing"),
    Fault("second_convolution_sampled_late", "y = self.conv(x)\n", "y = self.conv(x)\n        if self.conv.kernel_size[0] == 2:\n            y = F.conv1d(x, self.conv.weight)[..., 1::2]\n", "wav2vec2.feature_extractor.conv_layers.2", "output", "stride"),
    Fault("features_scaled_gradient", "features = self.feature_extractor(source).transpose(1, 2)", "features = self.feature_extractor(source).transpose(1, 2)\n        features = 0.1 * features + 0.9 * features.detach()", "", "gradient", "scale"),
    Fault("features_frozen", "features = self.feature_extractor(source).transpose(1, 2)", "features = self.feature_extractor(source).detach().transpose(1, 2)", "", "gradient", "detached"),
    Fault("eps_of_feature_norm", "self.layer_norm = nn.LayerNorm(16)", "self.layer_norm = nn.LayerNorm(16, eps=1e-6)", "wav2vec2.feature_projection.layer_norm", "output", "eps"),
    Fault("norm_of_features_forgotten", "x = self.post_extract_proj(self.layer_norm(features))", "x = self.post_extract_proj(features)", "", "output", "missing"),
    Fault("mask_before_projection_norm", "x = torch.where(masked[..., None], self.mask_emb, x)", "x = torch.where(masked[..., None], F.layer_norm(self.mask_emb, (24,)), x)", "", "output", "operand"),
    Fault("masked_steps_zero", "x = torch.where(masked[..., None], self.mask_emb, x)", "x = torch.where(masked[..., None], torch.zeros_like(self.mask_emb), x)", "", "output", "initial"),
    Fault("mask_turned", "x = torch.where(masked[..., None], self.mask_emb, x)", "x = torch.where(masked[..., None], x, self.mask_emb)", "", "output", "mask"),
    Fault("mask_vector_added", "x = torch.where(masked[..., None], self.mask_emb, x)", "x = torch.where(masked[..., None], self.mask_emb + x, x)", "", "output", "residual"),
    Fault("mask_vector_not_learnt", "x = torch.where(masked[..., None], self.mask_emb, x)", "x = torch.where(masked[..., None], self.mask_emb.detach(), x)", "", "gradient", "detached"),
    Fault("mask_one_step_late", "x = torch.where(masked[..., None], self.mask_emb, x)", "x = torch.where(masked.roll(1, 1)[..., None], self.mask_emb, x)", "", "output", "mask"),
    Fault("length_norm_over_outputs", "self.weight_v.square().sum((0, 1), keepdim=True).sqrt()", "self.weight_v.square().sum((1, 2), keepdim=True).sqrt()", "wav2vec2.encoder.pos_conv_embed", "output", "order"),
    Fault("length_detached", "length = self.weight_v.square().sum((0, 1), keepdim=True).sqrt()", "length = self.weight_v.detach().square().sum((0, 1), keepdim=True).sqrt()", "wav2vec2.encoder.pos_conv_embed", "gradient", "detached"),
    Fault("length_as_mean", "self.weight_v.square().sum((0, 1), keepdim=True).sqrt()", "self.weight_v.square().mean((0, 1), keepdim=True).sqrt()", "wav2vec2.encoder.pos_conv_embed", "output", "count"),
    Fault("eps_in_length", "self.weight_v.square().sum((0, 1), keepdim=True).sqrt()", "self.weight_v.square().sum((0, 1), keepdim=True).add(1e-3).sqrt()", "wav2vec2.encoder.pos_conv_embed", "output", "eps"),
    Fault("first_place_trimmed", "(self.kernel // 2, self.kernel // 2 - 1)", "(self.kernel // 2 - 1, self.kernel // 2)", "wav2vec2.encoder.pos_conv_embed", "output", "padding"),
    Fault("position_convolution_causal", "(self.kernel // 2, self.kernel // 2 - 1)", "(self.kernel - 1, 0)", "wav2vec2.encoder.pos_conv_embed", "output", "padding"),
    Fault("position_activation_missing", "return F.gelu(y).transpose(1, 2)", "return y.transpose(1, 2)", "wav2vec2.encoder.pos_conv_embed", "output", "missing"),
    Fault("positions_without_residual", "x = x + self.pos_conv(x)", "x = self.pos_conv(x)", "wav2vec2.encoder", "output", "residual"),
    Fault("positions_after_norm", "x = x + self.pos_conv(x)\n        x = F.dropout(self.layer_norm(x), self.p, self.training)", "x = self.layer_norm(x)\n        x = x + self.pos_conv(x)", "wav2vec2.encoder", "output", "order"),
    Fault("padding_not_zeroed", "x = x.masked_fill(~real[..., None], 0.0)", "x = x * 1.0", "wav2vec2.encoder", "output", "missing"),
    Fault("last_window_not_counted", "samples = (samples - block.conv.kernel_size[0]) // block.conv.stride[0] + 1", "samples = (samples - block.conv.kernel_size[0]) // block.conv.stride[0]", "", "output", "count"),
    Fault("one_frame_too_many_seen", "real = torch.arange(features.size(1)) < lengths[:, None]", "real = torch.arange(features.size(1)) <= lengths[:, None]", "", "output", "mask"),
    Fault("padding_seen_by_attention", "hidden = ~real[:, None, None]", "hidden = torch.zeros_like(real)[:, None, None]", "wav2vec2.encoder", "output", "mask"),
    Fault("scale_of_width", "/ (e // self.heads) ** 0.5", "/ e**0.5", "wav2vec2.encoder.layers.0.attention", "output", "scale"),
    Fault("heads_not_brought_back", "y = y.unflatten(0, (b, self.heads)).transpose(1, 2).flatten(2)", "y = y.reshape(b, t, e)", "wav2vec2.encoder.layers.0.attention", "output", "heads"),
    Fault("key_of_query", "self.fold(self.k_proj(x))", "self.fold(self.q_proj(x))", "wav2vec2.encoder.layers.0.attention", "output", "operand"),
    Fault("value_bias_detached", "self.fold(self.v_proj(x))", "self.fold(F.linear(x, self.v_proj.weight, self.v_proj.bias.detach()))", "wav2vec2.encoder.layers.0.attention", "gradient", "detached"),
    Fault("norm_before_attention", "x = F.dropout(self.self_attn(x, hidden=hidden), self.p, self.training)\n        x = self.self_attn_layer_norm(residual + x)", "x = self.self_attn(self.self_attn_layer_norm(x), hidden=hidden)\n        x = residual + x", "wav2vec2.encoder.layers.0", "output", "order"),
    Fault("residual_of_before", "x = self.self_attn_layer_norm(residual + x)\n        residual = x\n", "x = self.self_attn_layer_norm(residual + x)\n", "wav2vec2.encoder.layers.0", "output", "residual"),
    Fault("quick_gelu", "x = F.gelu(self.fc1(x))", "x = self.fc1(x)\n        x = x * torch.sigmoid(1.702 * x)", "wav2vec2.encoder.layers.0", "output", "approximate"),
    Fault("dropout_not_off", "x = F.dropout(self.fc2(x), self.p, self.training)", "x = F.dropout(self.fc2(x), self.p)", "wav2vec2.encoder.layers.0", "output", "mode"),
    Fault("blank_is_last", "blank=0", "blank=8", "", "output", "operand"),
    Fault("loss_not_over_targets", "loss = (each / counts).mean()", "loss = each.mean()", "", "output", "count"),
    Fault("loss_over_frames", "loss = (each / counts).mean()", "loss = (each / lengths).mean()", "", "output", "count"),
    Fault("loss_of_all_frames", "labels.clamp(min=0), lengths, counts", "labels.clamp(min=0), torch.full_like(lengths, 14), counts", "", "output", "mask"),
]

RIGHT = [
    Right("group_norm_of_torch", "mean = x.mean(-1, keepdim=True)\n        centred = x - mean\n        var = centred.square().mean(-1, keepdim=True)\n        return centred * torch.rsqrt(var + self.eps) * self.weight[:, None] + self.bias[:, None]", "return F.group_norm(x, x.shape[1], self.weight, self.bias, self.eps)"),
    Right("norm_over_time_as_layer_norm", "mean = x.mean(-1, keepdim=True)\n        centred = x - mean\n        var = centred.square().mean(-1, keepdim=True)\n        return centred * torch.rsqrt(var + self.eps) * self.weight[:, None] + self.bias[:, None]", "return F.layer_norm(x, x.shape[-1:], eps=self.eps).mul(self.weight[:, None]).add(self.bias[:, None])"),
    Right("convolutions_unfolded", "y = self.conv(x)\n", "windows = x.unfold(-1, self.conv.kernel_size[0], self.conv.stride[0])\n        y = torch.einsum('bctk,ock->bot', windows, self.conv.weight)\n", True),
    Right("weight_norm_of_torch", "length = self.weight_v.square().sum((0, 1), keepdim=True).sqrt()\n        weight = self.weight_g * self.weight_v / length", "weight = torch._weight_norm(self.weight_v, self.weight_g, 2)"),
    Right("position_convolution_by_places", "y = F.conv1d(padded, weight, self.bias, groups=self.groups)", "parts = padded.unflatten(1, (self.groups, -1))\n        taps = weight.unflatten(0, (self.groups, -1))\n        t = x.shape[1]\n        y = sum(torch.einsum('bgit,goi->bgot', parts[..., j : j + t], taps[..., j]) for j in range(self.kernel))\n        y = y.flatten(1, 2) + self.bias[:, None]"),
    Right("masked_steps_by_product", "x = torch.where(masked[..., None], self.mask_emb, x)", "m = masked.to(x.dtype)[..., None]\n        x = x * (1 - m) + m * self.mask_emb"),
    Right("masked_steps_in_place", "x = torch.where(masked[..., None], self.mask_emb, x)", "x = x.clone()\n        x[masked] = self.mask_emb"),
    Right("scaled_dot_product", "        scores = torch.bmm(q, k.transpose(1, 2)) / (e // self.heads) ** 0.5\n        if hidden is not None:\n            scores = scores.unflatten(0, (b, self.heads)).masked_fill(hidden, float(\"-inf\")).flatten(0, 1)\n        y = torch.bmm(scores.softmax(-1), v)\n        y = y.unflatten(0, (b, self.heads))", "        q, k, v = (z.unflatten(0, (b, self.heads)) for z in (q, k, v))\n        y = F.scaled_dot_product_attention(q, k, v, attn_mask=None if hidden is None else ~hidden.expand(b, 1, t, t))\n        y = y"),
    Right("packed_projections", "class TransformerLayer(nn.Module):", '''class SelfAttention(SelfAttention):
    def __init__(self, width, heads):
        super().__init__(width, heads)
        del self.q_proj, self.k_proj, self.v_proj
        self.in_proj_weight = nn.Parameter(torch.zeros(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))

    def forward(self, x, hidden=None):
        packed = F.linear(x, self.in_proj_weight, self.in_proj_bias).unflatten(-1, (3, self.heads, -1))
        q, k, v = packed.unbind(2)
        scores = torch.einsum("bqhc,bkhc->bhqk", q * q.shape[-1] ** -0.5, k)
        if hidden is not None:
            scores = torch.where(hidden, torch.finfo(x.dtype).min, scores)
        return self.out_proj(torch.einsum("bhqk,bkhc->bqhc", scores.softmax(-1), v).flatten(2))


class TransformerLayer(nn.Module):''', True, _IN),
    Right("feed_forward_of_its_own", "class TransformerEncoder(nn.Module):", '''class Dense(nn.Module):
    def __init__(self, width, inner):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, inner), nn.Linear(inner, width)

    def forward(self, x):
        return self.fc2(F.gelu(self.fc1(x)))


class TransformerLayer(TransformerLayer):
    def __init__(self, width, inner, heads, p):
        super().__init__(width, inner, heads, p)
        del self.fc1, self.fc2
        self.mlp = Dense(width, inner)

    def forward(self, x, hidden):
        x = self.self_attn_layer_norm(x + self.self_attn(x, hidden=hidden))
        return self.final_layer_norm(x + self.mlp(x))


class TransformerEncoder(nn.Module):''', False, _FFN),
    Right("projection_with_norm_folded", "x = self.post_extract_proj(self.layer_norm(features))", "standard = F.layer_norm(features, (16,), eps=self.layer_norm.eps)\n        w, c = self.post_extract_proj.weight, self.post_extract_proj.bias\n        x = F.linear(standard, w * self.layer_norm.weight, c + w @ self.layer_norm.bias)", True),
    Right("ctc_by_hand", 'each = F.ctc_loss(logp.transpose(0, 1), labels.clamp(min=0), lengths, counts, blank=0, reduction="none")', '''each = []
        for row, target, frames, count in zip(logp, labels, lengths, counts):
            path = torch.zeros(2 * int(count) + 1, dtype=torch.long)
            path[1::2] = target[:count]
            skip = torch.zeros(len(path), dtype=torch.bool)
            skip[2:] = (path[2:] != 0) & (path[2:] != path[:-2])
            low = -1e5
            alpha = torch.where(torch.arange(len(path)) < 2, row[0, path], low)
            for now in row[1:frames]:
                before = torch.stack((alpha, F.pad(alpha[:-1], (1, 0), value=low), F.pad(alpha[:-2], (2, 0), value=low)))
                keep = torch.stack((torch.ones_like(skip), torch.ones_like(skip), skip))
                alpha = now[path] + before.masked_fill(~keep, low).logsumexp(0)
            each.append(-torch.logaddexp(alpha[-1], alpha[-2]))
        each = torch.stack(each)'''),
    Right("checkpointed_layers", "            x = layer(x, hidden)\n", "            x = torch.utils.checkpoint.checkpoint(layer, x, hidden, use_reentrant=False)\n"),
]
