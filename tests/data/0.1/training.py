"""The training whose recording by version 0.1 is `training.parquet`: gradients, parameters and six
perturbed runs. `python training.py NEW.parquet` records it once more."""

import sys

import numpy as np
import torch

from gradtwin import record_run

STEPS = 12


def train(path, perturb=0):
    """A network that tells which quadrant a point is in, 8 points at a time."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    model = torch.nn.Sequential(torch.nn.Linear(2, 5), torch.nn.Tanh(), torch.nn.Linear(5, 4))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    with record_run(path, model, perturb=perturb, gradients=True, parameters=True) as run:
        for _ in range(STEPS):
            x = torch.tensor(rng.uniform(-1, 1, (8, 2)), dtype=torch.float32)
            target = (x[:, 0] > 0).long() + 2 * (x[:, 1] > 0).long()
            optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(model(x), target)
            loss.backward()
            run.step(loss)
            optimizer.step()


if __name__ == "__main__":
    for number in range(7):
        train(sys.argv[1], number)
