"""Products of matrices."""

import torch

from .adapters import rule

matmul = rule(torch.matmul, also="mm bmm mv dot")
