"""Products of matrices, and of arrays along axes that have names."""

import torch

from .adapters import rule

matmul = rule(torch.matmul, also="mm mv dot")
bmm = rule(torch.bmm)
addmm = rule(torch.addmm)
baddbmm = rule(torch.baddbmm)
outer = rule(torch.outer, also="ger")
einsum = rule(torch.einsum, order="operands equation")
