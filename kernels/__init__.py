"""Our own kernels. None has run on a GPU yet: verified in Triton's interpreter and by compilation alone."""

from kernels.attention.api import Implementation, attention, implementation_for
from kernels.norm_rotary.api import norm_rotary

__all__ = ["Implementation", "attention", "implementation_for", "norm_rotary"]
