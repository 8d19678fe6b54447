"""Elements replaced where a mask says so."""

import torch

from .adapters import rule

masked_fill = rule(torch.masked_fill)
tril = rule(torch.tril)
triu = rule(torch.triu)
