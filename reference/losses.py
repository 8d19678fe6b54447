"""Losses."""

import torch
import torch.nn.functional as F

from . import distances
from .adapters import refusing, rule

# The slope of clamp_min at its bound, which three of these are made of: 1 until torch 2.13, which
# the rules follow, and 0 from 2.14 on.
_bound = torch.zeros(1, requires_grad=True)
(_slope,) = torch.autograd.grad(_bound.clamp_min(0).sum(), _bound)
CLAMPS_TO_0 = not _slope.item()

mse_loss = rule(F.mse_loss)
binary_cross_entropy = rule(F.binary_cross_entropy, constant="weight")
# Of many draws its slope is another formula, which loses nothing where one side has won.
binary_cross_entropy_with_logits = rule(
    F.binary_cross_entropy_with_logits, constant="weight pos_weight", batched=False
)
cross_entropy = rule(F.cross_entropy, constant="weight")
l1_loss = rule(F.l1_loss)
huber_loss = rule(F.huber_loss)
smooth_l1_loss = rule(F.smooth_l1_loss)
kl_div = rule(F.kl_div)
poisson_nll_loss = rule(F.poisson_nll_loss)
gaussian_nll_loss = rule(F.gaussian_nll_loss)
hinge_embedding_loss = rule(F.hinge_embedding_loss, constant="target", unsettled=CLAMPS_TO_0)
soft_margin_loss = rule(F.soft_margin_loss, constant="target")
margin_ranking_loss = rule(F.margin_ranking_loss, unsettled=CLAMPS_TO_0)
cosine_embedding_loss = rule(F.cosine_embedding_loss, constant="target", unsettled=CLAMPS_TO_0)
triplet_margin_loss = rule(F.triplet_margin_loss)


def _with_distance(anchor, positive, negative, *, distance_function=None, **settings):
    """A distance that is a rule is replaced by torch's function of its name."""
    name = getattr(distance_function, "__name__", "")
    known = getattr(distances, name, None)
    return F.triplet_margin_with_distance_loss(
        anchor,
        positive,
        negative,
        distance_function=known.__wrapped__ if known else distance_function,
        **settings,
    )


triplet_margin_with_distance_loss = rule(_with_distance)
nll_loss = rule(F.nll_loss, constant="weight")
linear_cross_entropy = rule(
    getattr(F, "linear_cross_entropy", None), constant="weight", algorithm="options"
)
multi_margin_loss = rule(
    refusing(
        F.multi_margin_loss,
        lambda x, *_, reduction="mean", **__: not x.numel() and reduction != "none",
        "torch returns what the memory held, without rows",
    ),
    constant="weight",
    forward=False,
)
multilabel_margin_loss = rule(F.multilabel_margin_loss, forward=False)
multilabel_soft_margin_loss = rule(F.multilabel_soft_margin_loss)
ctc_loss = rule(F.ctc_loss, constant="targets", unsafe="negative large")
