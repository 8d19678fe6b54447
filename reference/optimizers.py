"""Optimizers."""

import torch

from .adapters import step

sgd = step(torch.optim.SGD)
rmsprop = step(torch.optim.RMSprop)
adagrad = step(torch.optim.Adagrad)
adam = step(torch.optim.Adam)
adamw = step(torch.optim.AdamW)
