"""Records the trajectories in libraries/, each by an optimizer of a library on a stream of its own.

    pip install torch optax jax keras timm torch_optimizer pytorch_optimizer schedulefree \\
        lion-pytorch transformers
    pip install --no-deps --target old transformers==4.40.0
    python tests/trajectories/record_libraries.py [NAME…]

What it writes is what `gradtwin dialect` reads: params.w (steps + 1, …), params.b and grads of
both, w alone where `one`; `made_by` is the library, its version, the call, and what was done
around it. The libraries are needed here alone. The rate is not written, though it changes.
"""

import importlib.util
import math
import os
import re
import sys
import types
from importlib.metadata import version
from pathlib import Path

os.environ["KERAS_BACKEND"] = "jax"

import jax
import keras
import numpy as np
import optax
import torch

jax.config.update("jax_enable_x64", True)
torch.set_num_threads(1)

HERE = Path(__file__).parent / "libraries"
OLD = os.environ.get("OLD_TRANSFORMERS", "old")  # where transformers 4.40.0 is, for its AdamW


def package(name, folder=None):
    """A package without what its __init__ imports."""
    module = types.ModuleType(name)
    module.__path__ = (
        [folder] if folder else importlib.util.find_spec(name).submodule_search_locations
    )
    sys.modules[name] = module


def stub(name, **names):
    sys.modules[name] = types.ModuleType(name)
    vars(sys.modules[name]).update(names)


package("timm")
stub("timm.models", group_parameters=None)
import lion_pytorch  # noqa: E402, behind the stubs
import pytorch_optimizer  # noqa: E402
import schedulefree  # noqa: E402
import timm.optim  # noqa: E402
import torch_optimizer  # noqa: E402
from transformers.optimization import Adafactor as HFAdafactor  # noqa: E402


def hf_adamw(*args, **kwargs):
    """transformers' own AdamW, which its version 5 does not have any more."""
    source = (Path(OLD) / "transformers" / "optimization.py").read_text()
    body = re.search(r"^class AdamW\(.*?(?=^class )", source, re.M | re.S)[0]
    scope = {
        "Optimizer": torch.optim.Optimizer,
        "torch": torch,
        "nn": torch.nn,
        "math": math,
        "require_version": lambda _: None,
        "warnings": types.SimpleNamespace(warn=lambda *_: None),
    }
    exec("from typing import *\n" + body, scope)
    return scope["AdamW"](*args, **kwargs)


LIBRARIES = {
    "torch": torch.optim,
    "timm": timm.optim,
    "torch_optimizer": torch_optimizer,
    "pytorch_optimizer": pytorch_optimizer,
    "schedulefree": schedulefree,
    "lion-pytorch": lion_pytorch,
    "transformers": types.SimpleNamespace(Adafactor=HFAdafactor),
    "transformers-4.40.0": types.SimpleNamespace(AdamW=hf_adamw),
}


def cosine(t, steps):
    return 0.5 * (1 + math.cos(math.pi * t / steps))


# Factors of the rate at step t of n.
RATES = {
    "constant": lambda t, n: 1.0,
    "cosine": cosine,
    "cosine to a tenth": lambda t, n: 0.1 + 0.9 * cosine(t, n),
    "halved every 10": lambda t, n: 0.5 ** (t // 10),
    "a tenth from 15 on": lambda t, n: 0.1 if t >= 15 else 1.0,
    "times 0.95 each": lambda t, n: 0.95**t,
    "linear to 0": lambda t, n: 1 - t / n,
    "warm-up of 8": lambda t, n: min(1.0, (t + 1) / 8),
    "warm-up of 5, linear to 0": lambda t, n: (t + 1) / 5 if t < 5 else (n - t) / (n - 5),
    "warm-up of 10, cosine": lambda t, n: (t + 1) / 10 if t < 10 else cosine(t - 10, n - 10),
}

# (library, call, what is done around it). rate: of RATES. plain: b has no decay. one: w alone.
FIRST = [
    ("timm", "RMSpropTF(lr=0.01, alpha=0.9, eps=1e-3, momentum=0.9)", {}),
    ("timm", "NAdamW(lr=2e-3, weight_decay=0.05)", {"rate": "cosine", "plain": True}),
    ("timm", "Lamb(lr=0.01, weight_decay=0.02)", {}),
    ("timm", "Lion(lr=1e-3, weight_decay=0.1)", {"plain": True}),
    ("timm", "AdaBelief(lr=1e-3, eps=1e-8, rectify=False)", {"dtype": "float64"}),
    ("timm", "AdamWLegacy(lr=0.01, weight_decay=0.1, caution=True)", {"one": True}),
    ("timm", "SGDW(lr=0.05, momentum=0.9, weight_decay=1e-2)", {"rate": "halved every 10"}),
    ("torch_optimizer", "QHAdam(lr=0.01, nus=(0.7, 1.0))", {"steps": 25, "one": True}),
    ("torch_optimizer", "Yogi(lr=0.01, eps=1e-3)", {"dtype": "float64"}),
    ("torch_optimizer", "AdaBound(lr=1e-3, final_lr=0.1)", {}),
    ("torch_optimizer", "SGDW(lr=0.1, momentum=0.9, weight_decay=1e-3)", {}),
    ("torch_optimizer", "Lamb(lr=0.01)", {}),
    ("torch_optimizer", "DiffGrad(lr=0.01)", {}),
    ("pytorch_optimizer", "Lion(lr=3e-4, betas=(0.95, 0.98), weight_decay=0.2)", {}),
    ("pytorch_optimizer", "StableAdamW(lr=2e-3)", {}),
    ("pytorch_optimizer", "LARS(lr=0.5, momentum=0.9, weight_decay=1e-3)", {}),
    ("optax", "lion(1e-3, weight_decay=0.01)", {"rate": "warm-up of 8"}),
    ("optax", "yogi(0.01)", {}),
    ("optax", "adabelief(3e-3, eps=1e-8, eps_root=1e-8)", {"dtype": "float64"}),
    ("optax", "lamb(0.01, weight_decay=0.01)", {"dtype": "float64"}),
    ("optax", "adamw(2e-3, weight_decay=0.05)", {"rate": "warm-up of 10, cosine"}),
    ("optax", "adamw(0.01, eps=1e-6, weight_decay=1e-2)", {"clip": ("norm", 1.0)}),
    ("keras", "Lion(1e-3, weight_decay=0.02)", {}),
    ("keras", "Ftrl(0.1)", {}),
    ("keras", "RMSprop(0.01, rho=0.95, epsilon=1e-5, momentum=0.9)", {"dtype": "float64"}),
    ("schedulefree", "SGDScheduleFree(lr=0.1)", {}),
    ("schedulefree", "AdamWScheduleFree(lr=0.01, weight_decay=0.05)", {}),
    ("torch", "NAdam(lr=2e-3)", {"dtype": "float64"}),
    (
        "torch",
        "AdamW(lr=1e-3, weight_decay=0.1)",
        {"rate": "warm-up of 5, linear to 0", "plain": True},
    ),
    ("torch", "SGD(lr=0.05, momentum=0.9)", {"clip": ("norm", 2.0), "dtype": "float64"}),
    ("torch", "Adam(lr=1e-3, betas=(0.9, 0.98))", {"clip": ("value", 0.5)}),
    ("transformers-4.40.0", "AdamW(lr=0.01, weight_decay=0.1)", {"dtype": "float64"}),
    (
        "transformers-4.40.0",
        "AdamW(lr=1e-3, weight_decay=0.01, correct_bias=False)",
        {"plain": True},
    ),
    ("lion-pytorch", "Lion(lr=1e-3, weight_decay=0.5, decoupled_weight_decay=True)", {}),
]
SECOND = [
    (
        "timm",
        "RMSpropTF(lr=2e-3, alpha=0.95, eps=1e-2, momentum=0.5, weight_decay=1e-2)",
        {"plain": True},
    ),
    ("timm", "NAdamW(lr=5e-3, betas=(0.85, 0.99), weight_decay=0.2)", {}),
    ("timm", "NAdamLegacy(lr=1e-2)", {"dtype": "float64"}),
    (
        "timm",
        "Lamb(lr=4e-3, betas=(0.9, 0.99), weight_decay=0.1)",
        {"rate": "linear to 0", "one": True},
    ),
    ("timm", "Lion(lr=5e-4, betas=(0.9, 0.95), weight_decay=0.3)", {"rate": "cosine to a tenth"}),
    ("timm", "SGDW(lr=0.1, momentum=0.8, weight_decay=5e-2, nesterov=True)", {"dtype": "float64"}),
    ("timm", "Lars(lr=0.3, momentum=0.9, weight_decay=1e-4)", {}),
    ("timm", "Adan(lr=1e-3)", {}),
    (
        "torch_optimizer",
        "QHAdam(lr=3e-3, betas=(0.95, 0.999), nus=(0.8, 0.9))",
        {"dtype": "float64"},
    ),
    ("torch_optimizer", "QHM(lr=0.05, momentum=0.95, nu=0.7)", {}),
    ("torch_optimizer", "Yogi(lr=5e-3, betas=(0.9, 0.99), eps=1e-2)", {"rate": "times 0.95 each"}),
    ("torch_optimizer", "AdaBound(lr=5e-3, final_lr=0.05, gamma=1e-2)", {"dtype": "float64"}),
    ("torch_optimizer", "AdaBelief(lr=2e-3, eps=1e-8, rectify=False, weight_decouple=False)", {}),
    (
        "torch_optimizer",
        "Lamb(lr=2e-3, betas=(0.8, 0.99), weight_decay=0.05)",
        {"dtype": "float64"},
    ),
    ("torch_optimizer", "MADGRAD(lr=0.01)", {}),
    (
        "pytorch_optimizer",
        "Lion(lr=1e-3, weight_decay=0.05)",
        {"rate": "warm-up of 10, cosine", "plain": True},
    ),
    (
        "pytorch_optimizer",
        "QHAdam(lr=5e-3, nus=(0.6, 1.0), weight_decay=0.1, weight_decouple=True)",
        {},
    ),
    (
        "pytorch_optimizer",
        "StableAdamW(lr=5e-3, betas=(0.9, 0.95), weight_decay=0.1)",
        {"one": True},
    ),
    ("pytorch_optimizer", "AdamP(lr=1e-3)", {}),
    ("optax", "lion(3e-4, b1=0.95, b2=0.98, weight_decay=1.0)", {"dtype": "float64"}),
    ("optax", "yogi(5e-3, b2=0.99, eps=1e-2)", {"dtype": "float64"}),
    ("optax", "adabelief(1e-2, b2=0.99, eps=1e-6, eps_root=1e-6)", {}),
    ("optax", "lamb(5e-3, b2=0.99, eps=1e-5)", {}),
    ("optax", "sgd(0.1, momentum=0.9, nesterov=True)", {"rate": "warm-up of 5, linear to 0"}),
    ("optax", "adam(5e-3, b1=0.95)", {"clip": ("value", 0.1), "dtype": "float64"}),
    ("optax", "novograd(0.01)", {}),
    ("keras", "Lion(3e-4, beta_2=0.98)", {"rate": "a tenth from 15 on"}),
    (
        "keras",
        "Ftrl(0.05, l1_regularization_strength=0.01, l2_regularization_strength=0.1)",
        {"dtype": "float64"},
    ),
    ("keras", "Lamb(5e-3)", {}),
    ("keras", "Adam(3e-3, epsilon=1e-5)", {"rate": "cosine"}),
    ("schedulefree", "SGDScheduleFree(lr=0.5, momentum=0.8)", {"dtype": "float64"}),
    ("schedulefree", "AdamWScheduleFree(lr=5e-3, betas=(0.95, 0.99))", {"plain": True}),
    (
        "torch",
        "NAdam(lr=5e-3, betas=(0.9, 0.99), weight_decay=0.01, decoupled_weight_decay=True)",
        {"dtype": "float64"},
    ),
    (
        "torch",
        "AdamW(lr=3e-3, betas=(0.9, 0.95), weight_decay=0.1)",
        {"rate": "cosine to a tenth", "plain": True, "clip": ("norm", 1.0)},
    ),
    (
        "torch",
        "SGD(lr=0.1, momentum=0.9, weight_decay=5e-4)",
        {"rate": "a tenth from 15 on", "plain": True},
    ),
    ("torch", "RMSprop(lr=1e-3, alpha=0.9, momentum=0.9)", {"rate": "times 0.95 each"}),
    ("torch", "Adagrad(lr=0.05)", {"rate": "linear to 0", "dtype": "float64"}),
    (
        "transformers-4.40.0",
        "AdamW(lr=5e-3, betas=(0.9, 0.98), weight_decay=0.05)",
        {"rate": "linear to 0", "plain": True},
    ),
    (
        "transformers-4.40.0",
        "AdamW(lr=2e-3, weight_decay=0.1, correct_bias=False)",
        {"dtype": "float64"},
    ),
    ("lion-pytorch", "Lion(lr=2e-4, betas=(0.95, 0.98), weight_decay=1.0)", {"plain": True}),
]


def streams(seed, dtype, steps, one):
    """Start and gradients of both tensors: of many sizes, as noise around a way that they share."""
    rng = np.random.default_rng(seed)
    for name, shape in (("w", (4, 3)), ("b", (3,)))[: 1 if one else 2]:
        sizes = 10 ** rng.uniform(-4, 1, shape)
        param = rng.standard_normal(shape).astype(dtype)
        grads = (rng.standard_normal((steps, *shape)) + rng.standard_normal(shape)) * sizes
        yield name, param, grads.astype(dtype)


def clipped(grads, clip):
    """The gradients of one step as torch and optax clip them: by the norm of all, or by value."""
    if clip is None:
        return grads
    how, size = clip
    if how == "value":
        return [np.clip(g, -size, size).astype(g.dtype) for g in grads]
    tensors = [
        torch.nn.Parameter(torch.zeros(g.shape, dtype=getattr(torch, str(g.dtype)))) for g in grads
    ]
    for t, g in zip(tensors, grads, strict=True):
        t.grad = torch.from_numpy(g.copy())
    torch.nn.utils.clip_grad_norm_(tensors, size)
    return [t.grad.numpy() for t in tensors]


def arguments(call, **instead):
    """The name of what is called and its keywords, with others instead."""
    name, inside = call.split("(", 1)
    return name, f"dict({inside}", instead


def by_torch(library, call, params, grads, rates, plain):
    name, inside, _ = arguments(call)
    keywords = eval(inside)
    tensors = [torch.nn.Parameter(torch.from_numpy(p.copy())) for p in params]
    groups = [{"params": tensors[:1]}, {"params": tensors[1:], "weight_decay": 0.0}]
    optimizer = getattr(LIBRARIES[library], name)(groups if plain else tensors, **keywords)
    if library == "schedulefree":
        optimizer.train()
    for step, rate in zip(zip(*grads, strict=True), rates, strict=True):
        for group in optimizer.param_groups:
            group["lr"] = keywords["lr"] * rate
        for t, g in zip(tensors, step, strict=True):
            t.grad = torch.from_numpy(g.copy())
        optimizer.step()
        yield [t.detach().numpy().copy() for t in tensors]


def by_optax(library, call, params, grads, rates, plain):
    name, rate, rest = re.fullmatch(r"(\w+)\(([^,)]+)(.*)\)", call).groups()
    factors = jax.numpy.asarray(rates)
    schedule = float(rate) if set(rates) == {1.0} else lambda count: float(rate) * factors[count]
    optimizer = eval(f"optax.{name}(schedule{rest})", {"optax": optax, "schedule": schedule})
    now = [jax.numpy.asarray(p) for p in params]
    state = optimizer.init(now)
    for step in zip(*grads, strict=True):
        update, state = optimizer.update([jax.numpy.asarray(g) for g in step], state, now)
        now = optax.apply_updates(now, update)
        yield [np.asarray(p).astype(q.dtype) for p, q in zip(now, params, strict=True)]


def by_keras(library, call, params, grads, rates, plain):
    keras.config.set_floatx(str(params[0].dtype))
    optimizer = eval(f"keras.optimizers.{call}")
    variables = [keras.Variable(p) for p in params]
    optimizer.build(variables)
    first = float(re.search(r"\(([^,)]+)", call)[1])
    for step, rate in zip(zip(*grads, strict=True), rates, strict=True):
        optimizer.learning_rate = first * rate
        optimizer.apply([jax.numpy.asarray(g) for g in step], variables)
        yield [np.asarray(v.value) for v in variables]


def recorded(
    library, call, rate="constant", plain=False, one=False, clip=None, dtype="float32", steps=40
):
    seed = sum(map(ord, library + call))
    names, params, grads = zip(*streams(seed, dtype, steps, one), strict=True)
    seen = list(zip(*(clipped(list(g), clip) for g in zip(*grads, strict=True)), strict=True))
    rates = [RATES[rate](t, steps) for t in range(steps)]
    by = {"optax": by_optax, "keras": by_keras}.get(library, by_torch)
    after = [params, *by(library, call, params, seen, rates, plain)]
    arrays = {}
    for i, name in enumerate(names):
        arrays[f"params.{name}"] = np.array([a[i] for a in after])
        arrays[f"grads.{name}"] = grads[i]
        assert arrays[f"params.{name}"].dtype == arrays[f"grads.{name}"].dtype == dtype
        assert np.isfinite(arrays[f"params.{name}"]).all()
    around = [f"rate {rate}"] * (rate != "constant") + ["no decay on b"] * plain
    around += [f"clipped by {clip[0]}, {clip[1]}"] if clip else []
    of = "4.40.0" if library.startswith("transformers-") else version(library)
    arrays["made_by"] = np.array("; ".join([f"{library.split('-4')[0]} {of}: {call}", *around]))
    return arrays


def named(library, call, settings):
    words = [library, *re.split(r"[(, )]+", call.replace("=", "")), *map(str, settings.values())]
    return "-".join(w for w in re.sub(r"[^\w.\-]+", "-", " ".join(words)).split("-") if w)


if __name__ == "__main__":
    into = Path(os.environ.get("INTO", HERE))
    into.mkdir(exist_ok=True)
    for library, call, settings in {"1": FIRST, "2": SECOND}.get(
        os.environ.get("HALF"), FIRST + SECOND
    ):
        name = named(library, call, settings)
        if not sys.argv[1:] or name in sys.argv[1:]:
            np.savez_compressed(into / f"{name}.npz", **recorded(library, call, **settings))
            print(name)
