"""Our own GPU kernels. This version has none yet: `attention=auto` uses PyTorch's SDPA."""
