"""Attention for training: reference, Triton kernels, and the operator that joins them to PyTorch."""
