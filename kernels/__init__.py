"""Our own kernels. None has run on a GPU yet: verified in Triton's interpreter and by compilation alone."""

from kernels.attention.api import Implementation, attention, implementation_for
from kernels.linear_cross_entropy.api import linear_cross_entropy
from kernels.norm_rotary.api import norm_rotary

__all__ = ["Implementation", "attention", "implementation_for", "linear_cross_entropy", "norm_rotary"]
