"""Records the trajectories beside this file, each by the optimizer of a framework on one stream.

    pip install optax keras jax
    python tests/trajectories/record.py

What it writes is what `gradtwin dialect` reads: params (steps + 1, …) and grads (steps, …), lr
where it changes; `made_by` is the call. The frameworks are needed here alone.
"""

import os
from pathlib import Path

os.environ["KERAS_BACKEND"] = "jax"

import jax
import keras
import numpy as np
import optax

jax.config.update("jax_enable_x64", True)

STEPS, SHAPE = 40, (4, 3)

OPTAX = {
    "sgd(0.05, momentum=0.9, nesterov=True)": "float32",
    "rmsprop(0.01, decay=0.9, eps=1e-4)": "float32",
    "rmsprop(0.01, decay=0.9, eps=1e-4, centered=True, momentum=0.5)": "float64",
    "rmsprop(0.01, decay=0.9, eps=1e-4, eps_in_sqrt=False)": "float32",
    "adagrad(0.1, eps=1e-4)": "float32",
    "adadelta(1.0, rho=0.9, eps=1e-4)": "float32",
    "adam(0.01, b1=0.8, b2=0.99, eps=1e-4)": "float32",
    "adam(0.01, eps=0.0, eps_root=1e-6)": "float64",
    "adamw(0.01, eps=1e-4, weight_decay=0.1)": "float32",
    "amsgrad(0.01, b2=0.9, eps=1e-4)": "float32",
    "adamax(0.01, eps=1e-3)": "float32",
    "adamaxw(0.01, eps=1e-3, weight_decay=0.1)": "float32",
    "nadam(0.01, eps=1e-4)": "float32",
    "radam(0.01, b2=0.9, eps=1e-3)": "float32",
    "rprop(0.01)": "float32",
    "adafactor(0.05, min_dim_size_to_factor=1, weight_decay_rate=0.01)": "float32",
}
KERAS = {
    "SGD(0.05, momentum=0.9, nesterov=True, weight_decay=0.01)": "float32",
    "SGD(0.05, momentum=0.9)": "float32 with a falling rate",
    "RMSprop(0.01, rho=0.9, epsilon=1e-4)": "float32",
    "RMSprop(0.01, rho=0.9, epsilon=1e-4, centered=True, weight_decay=0.1)": "float32",
    "Adagrad(0.1, epsilon=1e-4)": "float32",
    "Adadelta(1.0, rho=0.9, epsilon=1e-4)": "float64",
    "Adam(0.01, beta_2=0.99, epsilon=1e-4)": "float32",
    "Adam(0.01, epsilon=1e-4, amsgrad=True)": "float64",
    "AdamW(0.01, epsilon=1e-4, weight_decay=0.1)": "float32",
    "Adamax(0.01, epsilon=1e-3)": "float32",
    "Nadam(0.01, epsilon=1e-4)": "float32",
    "Adafactor(0.05, epsilon_1=1e-4)": "float32",
}


def stream(dtype):
    rng = np.random.default_rng(5)
    sizes = 10 ** rng.uniform(-5, 1, SHAPE)
    param = rng.standard_normal(SHAPE).astype(dtype)
    return param, (rng.standard_normal((STEPS, *SHAPE)) * sizes).astype(dtype)


def by_optax(call, param, grads):
    optimizer = eval(f"optax.{call}")
    param = jax.numpy.asarray(param)
    state = optimizer.init(param)
    for grad in grads:
        update, state = optimizer.update(jax.numpy.asarray(grad), state, param)
        param = optax.apply_updates(param, update)
        yield np.asarray(param)


def by_keras(call, param, grads, rates):
    keras.config.set_floatx(str(param.dtype))
    optimizer = eval(f"keras.optimizers.{call}")
    variable = keras.Variable(param)
    optimizer.build([variable])
    for grad, rate in zip(grads, rates, strict=True):
        if rate is not None:
            optimizer.learning_rate = rate
        optimizer.apply([jax.numpy.asarray(grad)], [variable])
        yield np.asarray(variable.value)


for framework, calls in (("optax", OPTAX), ("keras", KERAS)):
    version = {"optax": optax, "keras": keras}[framework].__version__
    for call, kind in calls.items():
        dtype, _, falling = kind.partition(" ")
        param, grads = stream(dtype)
        rates = [0.05 / (1 + 0.1 * t) for t in range(STEPS)] if falling else [None] * STEPS
        after = (
            by_optax(call, param, grads)
            if framework == "optax"
            else by_keras(call, param, grads, rates)
        )
        arrays = {"params": np.array([param, *after]), "grads": grads}
        assert arrays["params"].dtype == dtype
        if falling:
            arrays["lr"] = np.array(rates)
        arrays["made_by"] = np.array(f"{framework} {version}: {call}")
        words = call.replace("(", ",").rstrip(")").split(",")
        name = "-".join(w.strip().replace("=", "") for w in [framework, *words])
        np.savez_compressed(Path(__file__).with_name(f"{name}.npz"), **arrays)
