"""
A tour
======

From a line through points to a network that reads digits, in eight steps.

``python examples/tour.py`` prints what each explains, with the numbers that it has just computed.
Two pictures, of three functions with their slopes and of five ways to step, go into ``results/``.
"""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from gradtwin.comparisons.curves.divergence import compare
from gradtwin.comparisons.training.cells import Cell
from gradtwin.comparisons.training.datasets import load
from gradtwin.manual import activations, optimizers
from gradtwin.manual.linear import linear
from gradtwin.manual.losses import cross_entropy, mse_loss
from gradtwin.manual.tape import Tensor, apply
from gradtwin.reference import losses as torch_losses

from gradtwin import check

LINE = load("line")
START = {"weight": np.array([[0.0]]), "bias": np.array([0.0])}


def saved(figure, name):
    path = Path("results", name)
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, dpi=150)
    return path


# %%
# 1. A line
# ---------


def loss_of(parameters):
    """The mean square of what the line misses by, and its gradient."""
    y, pull_linear = linear(LINE.x, parameters["weight"], parameters["bias"])
    loss, pull_loss = mse_loss(y, LINE.target)
    dy, _ = pull_loss(np.ones_like(loss))
    _, dweight, dbias = pull_linear(dy)
    return float(loss), {"weight": dweight, "bias": dbias}


loss, _ = loss_of(START)
least, _ = loss_of({"weight": np.array([[2.0]]), "bias": np.array([1.0])})
print(f"""
1. A line
---------
The data: {len(LINE.x)} points on y = 2x + 1, with noise of 0.3.
The model: y = w x + b, which starts at w = 0, b = 0.
How bad it is, its loss, is the mean of (y - target)²: {loss:.4f}
With w = 2 and b = 1 it would be {least:.4f}, which is the noise alone: its square
is 0.09 on average. The best line for these very points gets a little below, for
it follows their noise too, which new points will not share.
To learn is to make the loss small. Which way do w and b have to go?""")


# %%
# 2. A slope
# ----------

h = 1e-4
moved = {**START, "weight": START["weight"] + h}
slope = (loss_of(moved)[0] - loss_of(START)[0]) / h
print(f"""
2. A slope
----------
Move w by {h} and look: the loss changes by {slope:.4f} of that. This is a slope,
and it says: w up, loss down. A network has millions of numbers, and to move
each of them once would be millions of runs. A derivative gives all at once:

    d/dw mean (w x + b - t)² = mean 2 (w x + b - t) x = {loss_of(START)[1]["weight"].item():.4f}

which is what the slope tends to when h goes to 0.""")


# %%
# 3. Backward
# -----------

FUNCTIONS = {"sigmoid": "σ(x)", "tanh": "tanh x", "relu": "max(x, 0)"}
AT = np.array([-4.0, -1.0, 0.0, 1.0, 4.0])

y, pull_linear = linear(LINE.x, START["weight"], START["bias"])
_, pull_loss = mse_loss(y, LINE.target)
dy, _ = pull_loss(np.array(1.0))
_, dweight, dbias = pull_linear(dy)

x = np.linspace(-5, 5, 401)
figure, axes = plt.subplots(1, 3, figsize=(9, 3), sharey=True, layout="constrained")
lines = [f"    slope at {'x =':>9} " + "".join(f"{at:9.0f}" for at in AT)]
for ax, (name, text) in zip(axes, FUNCTIONS.items(), strict=True):
    value, pullback = getattr(activations, name)(x)
    ax.plot(x, value, label="value")
    ax.plot(x, pullback(np.ones_like(x)), "--", label="slope")
    ax.set(title=f"{name}: {text}", xlabel="x", ylim=(-1.2, 2))
    ax.grid(alpha=0.3)
    slopes = getattr(activations, name)(AT)[1](np.ones_like(AT))
    lines.append(f"    {name:>19}" + "".join(f"{slope:9.4f}" for slope in slopes))
axes[0].legend()
table = "\n".join(lines)

print(f"""
3. Backward
-----------
The loss is a function of a function, w -> y -> loss. Its slope in w is that of
y in w times that of the loss in y: the chain rule. Each rule here gives a value
and a pullback, from the slope of the loss in its output to those in its inputs.
So one starts at the end, where the slope of the loss in itself is 1:

    1 -> mse_loss -> dy, {dy.shape[0]} numbers, the first {dy[0, 0]:.4f}
      -> linear   -> dw = {dweight.item():.4f} and db = {dbias.item():.4f}

Hence "backward". From w forward, one would need a run for every w.
A network bends lines by functions of one number, each with its own slope:

{table}

Where a slope is nearly 0, as that of sigmoid or tanh far from 0, nothing comes
back; relu lets all through, or nothing:
{saved(figure, "functions.png")}""")


# %%
# 4. A tape
# ---------

w, b = (Tensor(START[name], requires_grad=True) for name in ("weight", "bias"))
loss = apply(mse_loss, w * LINE.x + b, LINE.target)
node, names = loss.grad_fn, []
while node:
    names.append(node.name)
    node = next((edge[0] for edge in node.next_edges if edge), None)
loss.backward()
print(f"""
4. A tape
---------
A tape writes down what is computed, and backward() reads it from the end:

    loss = mse_loss(w * x + b, target)
    loss.backward()       {" <- ".join(reversed(names))}
    w.grad = {w.grad.data.item():.4f}, b.grad = {b.grad.data.item():.4f}

That is all that autograd is; manual/tape.py has 150 lines of it. It knows no
derivative: mul, add and mse_loss are rules like those of the step before.""")


# %%
# 5. Every gradient twice
# -----------------------

y, target = linear(LINE.x, START["weight"], START["bias"])[0], LINE.target
ours, theirs = (loss(y, target)[1](np.array(1.0))[0] for loss in (mse_loss, torch_losses.mse_loss))
report = check("mse_loss", "mse_loss", [y, target])
print(f"""
5. Every gradient twice
-----------------------
Is it right? Every gradient is computed twice, here by hand and by PyTorch:

    by hand {float(ours[0, 0])!r}
    torch   {float(theirs[0, 0])!r}

They may differ in the last digits, and only in those. check() measures how
far rounding can move the result, and looks at many more points:

    {str(report).splitlines()[0]}
    {str(report).splitlines()[1].strip()}""")


# %%
# 6. Descent
# ----------

parameters, lr = dict(START), 0.1
losses = []
for _ in range(200):
    loss, gradient = loss_of(parameters)
    losses.append(loss)
    parameters = {name: p - lr * gradient[name] for name, p in parameters.items()}
w, b = parameters["weight"].item(), parameters["bias"].item()
print(f"""
6. Descent
----------
Backpropagation and gradient descent are two things. The first computes the
gradient, and changes nothing. The second uses it: a small step against the
slope, again and again, p <- p - {lr} dp:

    step   0: loss {losses[0]:.4f}
    step  10: loss {losses[10]:.4f}
    step 199: loss {losses[199]:.4f}      y = {w:.3f} x + {b:.3f}

Any other way to get the gradient would do for it; and the same gradient
serves other ways to step.""")


# %%
# 7. Five ways to step
# --------------------

OPTIMIZERS = {
    "sgd": ("SGD: a step down the slope", {"lr": 0.05}),
    "momentum": ("momentum: it keeps rolling the way it went", {"lr": 0.05, "momentum": 0.9}),
    "rmsprop": ("RMSprop: divided by how large slopes were lately", {"lr": 0.05}),
    "adagrad": ("Adagrad: divided by all slopes so far, so it slows down", {"lr": 0.5}),
    "adam": ("Adam: both, momentum over the size of slopes", {"lr": 0.05}),
}


def run(name, settings, scale=1, steps=150):
    """The loss before every step, on batches of ten; x is measured in a unit that makes it `scale`
    times as large."""
    step = getattr(optimizers, "sgd" if name == "momentum" else name)
    rng, parameters = np.random.default_rng(0), dict(START)
    x, states, losses = LINE.x * scale, {name: {} for name in START}, []
    for _ in range(steps):
        y, _ = linear(x, parameters["weight"], parameters["bias"])
        losses.append(float(mse_loss(y, LINE.target)[0]))
        rows = rng.integers(len(x), size=10)
        y, pull_linear = linear(x[rows], parameters["weight"], parameters["bias"])
        value, pull_loss = mse_loss(y, LINE.target[rows])
        _, *gradients = pull_linear(pull_loss(np.ones_like(value))[0])
        for p, gradient in zip(("weight", "bias"), gradients, strict=True):
            parameters[p], states[p] = step(parameters[p], gradient, states[p], **settings)
    return losses


print("""
7. Five ways to step
--------------------
Five ways to use the same gradients, of ten points at a time; lr is the rate:
""")
found = {name: run(name, settings) for name, (_, settings) in OPTIMIZERS.items()}
figure, axes = plt.subplots(1, 5, figsize=(12, 3), sharey=True, layout="constrained")
for ax, (name, (text, settings)) in zip(axes, OPTIMIZERS.items(), strict=True):
    for other in found.values():
        ax.semilogy(other, color="0.85")
    ax.semilogy(found[name], color="C0")
    ax.set(title=f"{name}, lr = {settings['lr']}", xlabel="step")
    ends = ", ".join(f"{found[name][i]:.4f}" for i in (10, 50, -1))
    print(f"    {text}, lr = {settings['lr']}")
    print(f"        loss after 10, 50 and 150 steps: {ends}")
axes[0].set(ylabel="loss")
sgd, adam = (run(name, {"lr": lr}, 20)[-1] for name, lr in (("sgd", 5e-4), ("adam", 0.05)))
print(f"""
The curves are in {saved(figure, "tour.png")}
SGD wins: the loss bends about as much in w as in b, so one rate fits both. A
step of Adam is about lr long, however steep it is, and w has 2 to go. Its day
comes when slopes are of unlike sizes. Measure x in a unit 20 times smaller: w
needs a rate of 0.0005, with which b creeps. After 150 steps
SGD is at {sgd:.4f}, Adam with the same lr as before at {adam:.4f}.
`gradtwin optimizers` compares each of these steps with torch's.""")


# %%
# 8. A network
# ------------

cell = Cell("mlp", "digits", "adam", lr=0.01, regime="mini-batch", steps=60, hidden=(32,))
row = compare(cell).row
guess = float(cross_entropy(np.zeros((1, 10)), np.array([3]))[0])
print(f"""
8. A network
------------
Two layers with tanh between them read 1,797 handwritten digits. They give ten
numbers for a picture; softmax makes shares of them, and the loss is -log of the
share that the right digit has, the cross-entropy. Who guesses has {guess:.4f}.

    loss before {row["start_manual"]:.4f}, after 60 steps of Adam {row["end_manual"]:.4f}

It is the same thing as the line, with more rules in a row. It was trained
twice, by hand and by torch. Along the way the two losses were {row["max_drift"]:.1e}
apart at most, {row["max_ratio"]:.2f} of how far rounding alone drives torch from itself.
The verdict on every step and on the whole run: {row["class"]}.""")
