"""A training, recorded. What it is held to is made once, and kept:

gradtwin record-run train.py --out training.parquet
"""

import torch
from layer import Layer

import gradtwin

torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Linear(4, 8), Layer(8), torch.nn.Tanh(), torch.nn.Linear(8, 1))
model.double()  # float64 sees a change of 1e-6 that float32 may take for rounding
optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
x = torch.randn(64, 4, dtype=torch.float64)
target = x.prod(-1, keepdim=True)

with gradtwin.record_run("new.parquet", model) as run:
    for rows in torch.arange(64).reshape(-1, 16).repeat(5, 1):
        optimizer.zero_grad()
        loss = torch.nn.functional.mse_loss(model(x[rows]), target[rows])
        loss.backward()
        run.step(loss)
        optimizer.step()
