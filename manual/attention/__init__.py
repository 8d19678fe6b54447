"""Attention: sums of values, weighted by how well their keys fit a query.

All arrays are in float16, float32 or float64 of one dtype, but for masks, which may be boolean. The
rules raise TypeError for any others and for a setting of the wrong type, ValueError for shapes that
do not fit and for a setting out of range; the message names the argument.
"""

from .multihead import multi_head_attention_forward
from .scaled import scaled_dot_product_attention

__all__ = ["multi_head_attention_forward", "scaled_dot_product_attention"]
