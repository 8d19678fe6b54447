"""7. Adam: what is done with a gradient.

A step has no backward pass; it has a memory, two running means of each parameter's gradient g:

    m ← β₁ m + (1 − β₁) g            v ← β₂ v + (1 − β₂) g²

Both begin at 0. (Kingma & Ba, 2015, arXiv:1412.6980)

To derive: if g were the same at every step, what would m be after t steps? It is too small by a
factor that depends on t and β₁ alone; divide by it, so that m̂ = g from the first step on, and v by
its own. Then, with the rate lr,

    p ← p − lr · m̂ / (√v̂ + ε)

Write `step` for one parameter. `state` is {} before the first step; keep in it what torch keeps, by
torch's names: "step" (a tensor), "exp_avg" (m) and "exp_avg_sq" (v). Change p in place.

gradtwin check adam.py:net --against adam.py:net --inputs adam.py:batch \
    --steps 4 --optimizer adam.py:Adam,TorchAdam
"""

import torch


class Adam(torch.optim.Optimizer):
    def __init__(self, parameters):
        super().__init__(parameters, {"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-8})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    step(p, p.grad, self.state[p], group["lr"], *group["betas"], group["eps"])


def step(p, g, state, lr, beta1, beta2, eps):
    if not state:
        state["step"] = torch.tensor(0.0)
        state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(p), torch.zeros_like(p)
    t, m, v = state["step"], state["exp_avg"], state["exp_avg_sq"]
    t += 1
    m.mul_(beta1).add_(g, alpha=1 - beta1)
    v.mul_(beta2).add_(g * g, alpha=1 - beta2)
    m_hat, v_hat = m / (1 - beta1 ** t.item()), v / (1 - beta2 ** t.item())
    p -= lr * m_hat / (v_hat.sqrt() + eps)


TorchAdam = torch.optim.Adam


def net():
    torch.manual_seed(0)
    layers = torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 2)
    return torch.nn.Sequential(*layers).double()


def batch():
    return torch.linspace(-1, 1, 15, dtype=torch.float64).reshape(5, 3)
