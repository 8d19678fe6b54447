"""Records the trajectories in loops/: a small network trained as people write their loops.

    pip install torch optax jax keras lion-pytorch transformers
    python tests/trajectories/record_loops.py [NAME…]

What it writes is what `gradtwin dialect` reads; `made_by` says what made it. Gradients are those of
the loss, so they shrink, have zeros, and depend on the way. The rate is not written.
"""

import itertools
import os
import sys
from importlib.metadata import version
from pathlib import Path

os.environ["KERAS_BACKEND"] = "jax"

import jax
import keras
import lion_pytorch
import numpy as np
import optax
import torch
import transformers.optimization
from torch.optim import lr_scheduler

jax.config.update("jax_enable_x64", True)
torch.set_num_threads(1)

HERE = Path(__file__).parent / "loops"
STEPS = 40


class Training:
    """A network of four layers, its batches, and what was recorded of it."""

    def __init__(self, name, dtype):
        torch.manual_seed(sum(map(ord, name)))
        self.dtype = dtype
        sizes = (4, 4, 4, 4, 3)
        layers = [torch.nn.Linear(a, b) for a, b in itertools.pairwise(sizes)]
        activations = [torch.nn.ReLU(), torch.nn.Tanh(), torch.nn.ReLU()]
        modules = [m for pair in zip(layers, [*activations, None], strict=True) for m in pair if m]
        self.net = torch.nn.Sequential(*modules).to(dtype)
        self.layers = layers
        self.parameters = list(self.net.parameters())
        self.names = [n for n, _ in self.net.named_parameters()]
        self.params, self.grads = [self._now()], []

    def _now(self):
        return [p.detach().numpy().copy() for p in self.parameters]

    def backward(self, parts=1):
        """Gradients of one batch, or the mean of those of several, as loops that accumulate."""
        self.net.zero_grad()
        for _ in range(parts):
            x = torch.randn(16, 4, dtype=self.dtype)
            y = (x[:, :3] + 0.3 * torch.randn(16, 3, dtype=self.dtype)).argmax(1)
            (torch.nn.functional.cross_entropy(self.net(x), y) / parts).backward()

    def seen(self, grads=None):
        """Notes the gradients, those of the last backward unless others are given."""
        self.grads.append(grads or [p.grad.numpy().copy() for p in self.parameters])

    def moved(self, params=None):
        """Notes the parameters after a step."""
        self.params.append(params or self._now())

    def put(self, arrays):
        with torch.no_grad():
            for p, array in zip(self.parameters, arrays, strict=True):
                p.copy_(torch.from_numpy(np.array(array)))

    def arrays(self):
        found = {}
        for i, name in enumerate(self.names):
            found[f"params.{name}"] = np.array([p[i] for p in self.params])
            found[f"grads.{name}"] = np.array([g[i] for g in self.grads])
        return found


def stepped(training, *optimizers, schedule=None, clip=None, parts=1):
    """The usual loop."""
    for _ in range(STEPS):
        training.backward(parts)
        training.seen()
        if clip:
            torch.nn.utils.clip_grad_norm_(training.parameters, clip)
        for optimizer in optimizers:
            optimizer.step()
        if schedule:
            schedule.step()
        training.moved()


def own_adam_without_correction(training):
    m = [torch.zeros_like(p) for p in training.parameters]
    v = [torch.zeros_like(p) for p in training.parameters]
    for _ in range(STEPS):
        training.backward()
        training.seen()
        with torch.no_grad():
            for i, p in enumerate(training.parameters):
                m[i] = 0.9 * m[i] + 0.1 * p.grad
                v[i] = 0.999 * v[i] + 0.001 * p.grad**2
                p -= 1e-3 * m[i] / (v[i].sqrt() + 1e-8)
        training.moved()


def own_sgd_with_decay_after_momentum(training):
    velocity = [torch.zeros_like(p) for p in training.parameters]
    for _ in range(STEPS):
        training.backward()
        training.seen()
        with torch.no_grad():
            for v, p in zip(velocity, training.parameters, strict=True):
                v.mul_(0.9).add_(p.grad)
                p.sub_(0.05 * (v + 5e-3 * p))
        training.moved()


def optax_accumulating_by_4(training):
    optimizer = optax.MultiSteps(optax.adamw(3e-3, weight_decay=0.05), every_k_schedule=4)
    now = [jax.numpy.asarray(p) for p in training.params[0]]
    state = optimizer.init(now)
    for _ in range(STEPS):
        several = []
        for _ in range(4):
            training.backward()
            grads = [p.grad.numpy().copy() for p in training.parameters]
            several.append(grads)
            update, state = optimizer.update([jax.numpy.asarray(g) for g in grads], state, now)
            now = optax.apply_updates(now, update)
        training.seen([np.mean(g, axis=0) for g in zip(*several, strict=True)])
        training.put(now)
        training.moved()


def clipped_adamw_with_two_groups(training):
    matrices = [p for p in training.parameters if p.ndim > 1]
    others = [p for p in training.parameters if p.ndim == 1]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=3e-3, betas=(0.9, 0.95))
    rising = lr_scheduler.LambdaLR(optimizer, lambda t: min(1.0, (t + 1) / 10))
    stepped(training, optimizer, schedule=rising, clip=1.0)


def one_cycle_with_momentum(training):
    optimizer = torch.optim.AdamW(training.parameters, lr=1e-3)
    cycle = lr_scheduler.OneCycleLR(optimizer, max_lr=0.01, total_steps=STEPS + 1)
    stepped(training, optimizer, schedule=cycle)


def inverse_square_root_of_transformers(training):
    optimizer = torch.optim.Adam(training.parameters, lr=5e-3, betas=(0.9, 0.98), eps=1e-9)
    falling = transformers.optimization.get_inverse_sqrt_schedule(optimizer, num_warmup_steps=8)
    stepped(training, optimizer, schedule=falling)


def keras_cosine_with_restarts(training):
    keras.config.set_floatx("float32")
    falling = keras.optimizers.schedules.CosineDecayRestarts(0.05, 10, t_mul=1.0, m_mul=1.0)
    optimizer = keras.optimizers.SGD(falling, momentum=0.9)
    variables = [keras.Variable(p) for p in training.params[0]]
    optimizer.build(variables)
    for _ in range(STEPS):
        training.backward()
        training.seen()
        grads = [jax.numpy.asarray(p.grad.numpy()) for p in training.parameters]
        optimizer.apply(grads, variables)
        training.put([v.value for v in variables])
        training.moved()


def lion_with_a_schedule(training):
    optimizer = lion_pytorch.Lion(training.parameters, lr=1e-3, weight_decay=0.1)
    falling = transformers.optimization.get_cosine_schedule_with_warmup(optimizer, 6, STEPS)
    stepped(training, optimizer, schedule=falling)


def layerwise_decay_of_the_rate(training):
    groups = [
        {"params": list(layer.parameters()), "lr": 2e-3 * 0.75 ** (3 - i)}
        for i, layer in enumerate(training.layers)
    ]
    stepped(training, torch.optim.AdamW(groups, weight_decay=0.05))


def adafactor_of_transformers(training):
    optimizer = transformers.optimization.Adafactor(
        training.parameters, lr=1e-3, relative_step=False, scale_parameter=False, warmup_init=False
    )
    stepped(training, optimizer)


def muon_beside_adamw(training):
    muon = torch.optim.Muon([p for p in training.parameters if p.ndim == 2], lr=0.02)
    adamw = torch.optim.AdamW([p for p in training.parameters if p.ndim < 2], lr=3e-3)
    stepped(training, muon, adamw)


def an_average_of_weights_for_the_weights(training):
    optimizer = torch.optim.AdamW(training.parameters, lr=3e-3)
    average = training.params[0]
    for _ in range(STEPS):
        training.backward()
        training.seen()
        optimizer.step()
        now = [p.detach().numpy() for p in training.parameters]
        average = [(0.9 * a + 0.1 * p).astype(p.dtype) for a, p in zip(average, now, strict=True)]
        training.moved(average)


# What is trained, in which dtype, and by which library beside torch.
LOOPS = {
    own_adam_without_correction: ("float32", None),
    own_sgd_with_decay_after_momentum: ("float32", None),
    optax_accumulating_by_4: ("float32", "optax"),
    clipped_adamw_with_two_groups: ("float32", None),
    one_cycle_with_momentum: ("float64", None),
    inverse_square_root_of_transformers: ("float32", "transformers"),
    keras_cosine_with_restarts: ("float32", "keras"),
    lion_with_a_schedule: ("float32", "lion-pytorch"),
    layerwise_decay_of_the_rate: ("float32", None),
    adafactor_of_transformers: ("float32", "transformers"),
    muon_beside_adamw: ("float32", None),
    an_average_of_weights_for_the_weights: ("float64", None),
}

if __name__ == "__main__":
    into = Path(os.environ.get("INTO", HERE))
    into.mkdir(exist_ok=True)
    for loop, (dtype, library) in LOOPS.items():
        name = loop.__name__.replace("_", "-")
        if not sys.argv[1:] or name in sys.argv[1:]:
            training = Training(name, getattr(torch, dtype))
            loop(training)
            arrays = training.arrays()
            assert all(a.dtype == dtype and np.isfinite(a).all() for a in arrays.values())
            libraries = ["torch", *([library] if library else [])]
            made_by = "; ".join(f"{n} {version(n)}" for n in libraries)
            arrays["made_by"] = np.array(f"{made_by}: {loop.__name__}")
            np.savez_compressed(into / f"{name}.npz", **arrays)
            print(name)
