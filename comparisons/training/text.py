"""Models of text, as they are trained, and the text that they write."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from ..english import ALPHABET
from .datasets import Data
from .dense import linear
from .models import Arrays, Model

if TYPE_CHECKING:
    from .cells import Cell

STD = 0.02  # of a transformer's weights, as GPT-2 and Llama draw them
PROMPT, WRITTEN = "The ", 40  # what a sample in a table begins with, and the characters behind it
Rng = np.random.Generator


def sample(
    logits: Callable[[np.ndarray], np.ndarray],
    prompt: str,
    steps: int,
    context: int,
    temperature: float = 0.0,
    rng: Rng | None = None,
) -> str:
    """The prompt, and so many characters that a model writes behind it: `logits` of tokens (1, T),
    which are (1, T, V), and of which T at most `context` are looked at. At temperature 0 each is
    the likeliest, else drawn from softmax(logits / temperature).

    Raises ValueError for an empty prompt, a character outside of the alphabet, a negative
    temperature, and for one above 0 without a generator.
    """
    if not prompt or not set(prompt) <= set(ALPHABET):
        raise ValueError(f"prompt: expected some characters of printable ASCII, got {prompt!r}")
    if temperature < 0 or (temperature and rng is None):
        raise ValueError(f"temperature: expected 0, or above and a generator, got {temperature}")
    written = [ALPHABET.index(c) for c in prompt]
    for _ in range(steps):
        ahead = logits(np.array([written[-context:]]))[0, -1].astype(float)
        if temperature and rng is not None:
            p = np.exp((ahead - ahead.max()) / temperature)
            written.append(int(rng.choice(len(p), p=p / p.sum())))
        else:
            written.append(int(ahead.argmax()))
    return "".join(ALPHABET[i] for i in written)


def written(cell: Cell, model: Callable[..., Any], parameters: Arrays) -> str:
    """A sample of a rule or a mirror, in one line."""
    settings = {**cell.model_settings, **({"dropout": 0.0} if "dropout" in cell.sizes else {})}

    def logits(tokens: np.ndarray) -> np.ndarray:
        found: np.ndarray = model(parameters, tokens, **settings)[0]
        return found

    return sample(logits, PROMPT, WRITTEN, cell.sizes["context"])


def windows(data: Data, cell: Cell) -> tuple[np.ndarray, np.ndarray]:
    """The text cut into pieces as long as the context, (N, T), and what comes after each
    character."""
    n, T = len(data.x) // cell.sizes["context"], cell.sizes["context"]
    return data.x[: n * T].reshape(n, T), data.target[: n * T].reshape(n, T)


def _recurrent(network: str, gates: int, rng: Rng, data: Data, cell: Cell) -> Arrays:
    """The embedding normal, the network between ±1/√width (torch.nn.RNN), the head as ever."""
    D, H, V = cell.sizes["embedding"], cell.sizes["width"], data.outputs
    found = {"embedding.weight": rng.standard_normal((V, D))}
    for layer in range(cell.sizes["layers"]):
        shapes = {
            "weight_ih": (gates * H, H if layer else D),
            "weight_hh": (gates * H, H),
            "bias_ih": (gates * H,),
            "bias_hh": (gates * H,),
        }
        for name, shape in shapes.items():
            drawn = rng.uniform(-1, 1, shape) / math.sqrt(H)
            found[f"{network}.{name}_l{layer}"] = drawn
    return found | linear(rng, "linear.", H, V)


def _gpt(rng: Rng, data: Data, cell: Cell) -> Arrays:
    """Weights of 0.02, those that lead into the sums of 0.02 / √(2 layers), biases 0."""
    C, T, V = cell.sizes["width"], cell.sizes["context"], data.outputs
    into = STD / math.sqrt(2 * cell.sizes["layers"])
    found = {
        "transformer.wte.weight": rng.normal(0, STD, (V, C)),
        "transformer.wpe.weight": rng.normal(0, STD, (T, C)),
    }

    def affine(name: str, std: float, n_in: int, n_out: int) -> Arrays:
        return {f"{name}.weight": rng.normal(0, std, (n_out, n_in)), f"{name}.bias": zeros(n_out)}

    def norm(name: str) -> Arrays:
        return {f"{name}.weight": np.ones(C), f"{name}.bias": zeros(C)}

    zeros = np.zeros
    for i in range(cell.sizes["layers"]):
        block = f"transformer.h.{i}"
        found |= norm(f"{block}.ln_1")
        found |= affine(f"{block}.attn.c_attn", STD, C, 3 * C)
        found |= affine(f"{block}.attn.c_proj", into, C, C)
        found |= norm(f"{block}.ln_2")
        found |= affine(f"{block}.mlp.c_fc", STD, C, 4 * C)
        found |= affine(f"{block}.mlp.c_proj", into, 4 * C, C)
    return found | norm("transformer.ln_f")


def _llama(rng: Rng, data: Data, cell: Cell) -> Arrays:
    """Weights of 0.02, those of norms 1."""
    C, heads = cell.sizes["width"], cell.sizes["heads"]
    E = C // heads
    K, F = cell.sizes["kv_heads"] * E, cell.sizes["feed_forward"]
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens": (data.outputs, C)}
    for i in range(cell.sizes["layers"]):
        of_layer = {
            "self_attn.q_proj": (heads * E, C),
            "self_attn.k_proj": (K, C),
            "self_attn.v_proj": (K, C),
            "self_attn.o_proj": (C, heads * E),
            "mlp.gate_proj": (F, C),
            "mlp.up_proj": (F, C),
            "mlp.down_proj": (C, F),
            "input_layernorm": (C,),
            "post_attention_layernorm": (C,),
        }
        shapes |= {f"model.layers.{i}.{name}": shape for name, shape in of_layer.items()}
    shapes |= {"model.norm": (C,), "lm_head": (data.outputs, C)}
    return {
        f"{name}.weight": np.ones(shape) if len(shape) == 1 else rng.normal(0, STD, shape)
        for name, shape in shapes.items()
    }


def _kept(cell: Cell, x: np.ndarray, rng: Rng) -> dict[str, Any]:
    """What dropout keeps, by the names of the modules that drop."""
    p, (N, T) = cell.sizes["dropout"], x.shape
    if not p:
        return {}
    C, heads = cell.sizes["width"], cell.sizes["heads"]
    shapes: dict[str, tuple[int, ...]] = {"transformer.drop": (N, T, C)}
    for i in range(cell.sizes["layers"]):
        shapes |= {
            f"transformer.h.{i}.attn.attn_dropout": (N, heads, T, T),
            f"transformer.h.{i}.attn.resid_dropout": (N, T, C),
            f"transformer.h.{i}.mlp.dropout": (N, T, C),
        }
    return {"masks": {name: rng.random(shape) >= p for name, shape in shapes.items()}}


_OF_TEXT: dict[str, Any] = {
    "losses": {"language": "cross_entropy"},
    "data": "text",
    "regime": "mini-batch",
    "batch_size": 8,
    "seen": windows,
    "written": written,
}
_CHAR = {"layers": 1, "embedding": 16, "width": 32, "context": 16}
MODELS = {
    **{
        f"char_{network}": Model(start=partial(_recurrent, network, gates), size=_CHAR, **_OF_TEXT)
        for network, gates in (("rnn", 1), ("lstm", 4), ("gru", 3))
    },
    "gpt": Model(
        start=_gpt,
        size={"layers": 2, "width": 32, "heads": 4, "context": 16, "dropout": 0.0},
        settings=lambda cell: {name: cell.sizes[name] for name in ("heads", "dropout")},
        drawn=_kept,
        **_OF_TEXT,
    ),
    "llama": Model(
        start=_llama,
        size={
            **{"layers": 2, "width": 32, "heads": 4, "kv_heads": 2},
            **{"feed_forward": 88, "context": 16},
        },
        settings=lambda cell: {"heads": cell.sizes["heads"]},
        **_OF_TEXT,
    ),
}
