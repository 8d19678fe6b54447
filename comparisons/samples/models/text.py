from .. import array, call, classes, truths


def _char(network, gates, V=5, D=3, H=2, layers=1, scale=1.0):
    """The parameters of a recurrent model."""
    parameters = {"embedding.weight": array(V, D)}
    for layer in range(layers):
        into = H if layer else D
        parameters |= {
            f"{network}.weight_ih_l{layer}": array(gates * H, into, scale=scale),
            f"{network}.weight_hh_l{layer}": array(gates * H, H, scale=scale),
            f"{network}.bias_ih_l{layer}": array(gates * H),
            f"{network}.bias_hh_l{layer}": array(gates * H),
        }
    return parameters | {"linear.weight": array(V, H), "linear.bias": array(V)}


def gpt_parameters(V=5, C=4, T=3, blocks=1, F=6, tied=True, scale=0.5):
    """The parameters of a gpt."""
    parameters = {"transformer.wte.weight": array(V, C), "transformer.wpe.weight": array(T, C)}
    for i in range(blocks):
        shapes = {
            **{"ln_1.weight": (C,), "ln_1.bias": (C,)},
            **{"attn.c_attn.weight": (3 * C, C), "attn.c_attn.bias": (3 * C,)},
            **{"attn.c_proj.weight": (C, C), "attn.c_proj.bias": (C,)},
            **{"ln_2.weight": (C,), "ln_2.bias": (C,)},
            **{"mlp.c_fc.weight": (F, C), "mlp.c_fc.bias": (F,)},
            **{"mlp.c_proj.weight": (C, F), "mlp.c_proj.bias": (C,)},
        }
        for name, shape in shapes.items():
            parameters[f"transformer.h.{i}.{name}"] = array(*shape, scale=scale)
    parameters |= {"transformer.ln_f.weight": array(C), "transformer.ln_f.bias": array(C)}
    return parameters if tied else parameters | {"lm_head.weight": array(V, C)}


def llama_parameters(V=5, C=4, heads=2, kv_heads=1, E=2, layers=1, F=3, tied=False, scale=0.5):
    """The parameters of a llama."""
    parameters = {"model.embed_tokens.weight": array(V, C)}
    for i in range(layers):
        shapes = {
            "self_attn.q_proj": (heads * E, C),
            "self_attn.k_proj": (kv_heads * E, C),
            "self_attn.v_proj": (kv_heads * E, C),
            "self_attn.o_proj": (C, heads * E),
            **{"mlp.gate_proj": (F, C), "mlp.up_proj": (F, C), "mlp.down_proj": (C, F)},
            **{"input_layernorm": (C,), "post_attention_layernorm": (C,)},
        }
        for name, shape in shapes.items():
            parameters[f"model.layers.{i}.{name}.weight"] = array(*shape, scale=scale)
    parameters["model.norm.weight"] = array(C)
    return parameters if tied else parameters | {"lm_head.weight": array(V, C)}


def _tokens(N, T, V=5):
    return classes(N, T, below=V)


def _kept(N, T, C=4, heads=2):
    return {
        "transformer.drop": truths(N, T, C),
        "transformer.h.0.attn.attn_dropout": truths(N, heads, T, T),
        "transformer.h.0.attn.resid_dropout": truths(N, T, C),
        "transformer.h.0.mlp.dropout": truths(N, T, C),
    }


SAMPLES = {
    **{
        f"char_{network}": [
            call(_char(network, gates), _tokens(2, 3)),
            call(_char(network, gates, layers=2), _tokens(3, 2)),
            call(_char(network, gates), _tokens(1, 1)),
        ]
        for network, gates in (("rnn", 1), ("lstm", 4), ("gru", 3))
    },
    "gpt": [
        call(gpt_parameters(), _tokens(2, 3), 2),
        call(gpt_parameters(blocks=2, tied=False), _tokens(2, 3), heads=1),
        call(gpt_parameters(T=4), _tokens(2, 3), 2, dropout=0.25, masks=_kept(2, 3)),
        call(gpt_parameters(T=1, tied=False), _tokens(2, 1), 1),
        call(gpt_parameters(blocks=0), _tokens(2, 3), 2),
    ],
    "llama": [
        call(llama_parameters(), _tokens(2, 3), 2),
        call(llama_parameters(layers=2, kv_heads=2), _tokens(1, 3), 2, eps=0.01),
        call(llama_parameters(heads=1, E=4, tied=True), _tokens(2, 4), heads=1, theta=100.0),
        call(llama_parameters(tied=True), _tokens(2, 1), 2),
        call(llama_parameters(layers=0), _tokens(2, 3), 2),
    ],
}
CORNERS = {
    **{
        f"char_{network}": [call(_char(network, gates, scale=30.0), _tokens(2, 3))]
        for network, gates in (("rnn", 1), ("lstm", 4), ("gru", 3))
    },
    "gpt": [
        call(gpt_parameters(scale=20.0), _tokens(2, 3), 2),
    ],
    "llama": [
        call(llama_parameters(scale=20.0), _tokens(2, 3), 2),
    ],
}
