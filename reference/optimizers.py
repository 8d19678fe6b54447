"""Optimizers."""

import torch

from .adapters import search, sparse, step

sgd = step(torch.optim.SGD)
adagrad = step(torch.optim.Adagrad)
rmsprop = step(torch.optim.RMSprop)
adadelta = step(torch.optim.Adadelta)
adam = step(torch.optim.Adam)
adamw = step(torch.optim.AdamW)
adamax = step(torch.optim.Adamax)
nadam = step(torch.optim.NAdam)
radam = step(torch.optim.RAdam)
rprop = step(torch.optim.Rprop)
asgd = step(torch.optim.ASGD)
adafactor = step(torch.optim.Adafactor)
sparse_adam = step(torch.optim.SparseAdam, sparse)
muon = step(getattr(torch.optim, "Muon", None))
lbfgs = search(torch.optim.LBFGS)
