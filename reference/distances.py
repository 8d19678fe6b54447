"""Distances and similarities of vectors."""

import torch
import torch.nn.functional as F

from .adapters import rule

pairwise_distance = rule(F.pairwise_distance)
pdist = rule(F.pdist)
cdist = rule(torch.cdist)
cosine_similarity = rule(F.cosine_similarity)
