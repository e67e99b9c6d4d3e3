"""Causal attention in float32 on a CPU, as PyTorch operators (attention.cpp).

Faster than SDPA where heads are short and sequences not long: PyTorch's kernel makes a matrix product of the
library of every block. What is summed, and in which order, does not depend on the number of threads.
Importing this module registers `kernels::cpu_attention` and `kernels::cpu_attention_backward`.
"""

from __future__ import annotations

import ctypes
from typing import Any

import torch
from torch import Tensor

from kernels.cpu.build import library
from kernels.derivatives import refuse_other_derivatives

HEAD_DIMS = (16, 32, 64, 128)


class Heads(ctypes.Structure):
    """A float32 tensor [B, heads, T, d] whose last dimension is contiguous."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("batch", ctypes.c_int64),
        ("head", ctypes.c_int64),
        ("row", ctypes.c_int64),
    )


TENSORS = ("q", "k", "v", "out", "dout", "dq", "dk", "dv")
SIZES = ("batch", "heads", "kv_heads", "length", "window", "threads")


class Problem(ctypes.Structure):
    _fields_ = (
        *((name, Heads) for name in TENSORS),
        ("lse", ctypes.c_void_p),
        *((name, ctypes.c_int64) for name in SIZES),
        ("scale", ctypes.c_double),
    )


def attention(q_BHTd: Tensor, k_BKTd: Tensor, v_BKTd: Tensor, scale: float, window: int | None) -> Tensor:
    """Causal attention [B, H, T, d]; a query sees the last `window` positions, its own included.

    Differentiable once in q, k and v, by backward() or torch.autograd.grad. Raises ValueError or TypeError
    for what the kernel does not take, and CannotBuild where it cannot be compiled."""
    check(q_BHTd, k_BKTd, v_BKTd, window)
    refuse_other_derivatives("this kernel", q_BHTd, k_BKTd, v_BKTd)
    out_BHTd, _ = attention_op(q_BHTd, k_BKTd, v_BKTd, scale, window)
    return out_BHTd


def check(q: Tensor, k: Tensor, v: Tensor, window: int | None) -> None:
    if {(one.dtype, one.device.type) for one in (q, k, v)} != {(torch.float32, "cpu")}:
        raise TypeError("this kernel takes float32 on a CPU")
    batch, heads, length, size = q.shape
    if size not in HEAD_DIMS:
        raise ValueError(f"head dimension {size} is not one of {HEAD_DIMS}")
    if k.shape != v.shape or (batch, length, size) != (k.shape[0], *k.shape[2:]) or heads % k.shape[1]:
        raise ValueError(f"q {tuple(q.shape)}, k {tuple(k.shape)} and v {tuple(v.shape)} do not go together")
    if window is not None and window < 1:
        raise ValueError(f"window={window} must be at least 1")


@torch.library.custom_op("kernels::cpu_attention", mutates_args=(), device_types="cpu")
def attention_op(q: Tensor, k: Tensor, v: Tensor, scale: float, window: int | None) -> tuple[Tensor, Tensor]:
    """out (B, H, T, d), laid out [B, T, H, d]; lse (B, H, T) in units of ln 2."""
    out, lse = empty_heads(q), q.new_empty(q.shape[:3])
    call("forward", {"q": q, "k": k, "v": v, "out": out}, lse, scale, window)
    return out, lse


@attention_op.register_fake
def _(q: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    return empty_heads(q), q.new_empty(q.shape[:3])


@torch.library.custom_op("kernels::cpu_attention_backward", mutates_args=(), device_types="cpu")
def backward_op(
    dout: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, scale: float, window: int | None
) -> tuple[Tensor, Tensor, Tensor]:
    """dq, dk, dv, laid out [B, T, heads, d]."""
    dq, dk, dv = (empty_heads(like) for like in (q, k, v))
    tensors = {"q": q, "k": k, "v": v, "out": out, "dout": dout, "dq": dq, "dk": dk, "dv": dv}
    call("backward", tensors, lse, scale, window)
    return dq, dk, dv


@backward_op.register_fake
def _(dout: Tensor, q: Tensor, k: Tensor, v: Tensor, *_: Any) -> tuple[Tensor, Tensor, Tensor]:
    return empty_heads(q), empty_heads(k), empty_heads(v)


def empty_heads(like: Tensor) -> Tensor:
    """What the product after attention reads without a copy."""
    batch, heads, length, size = like.shape
    return like.new_empty(batch, length, heads, size).transpose(1, 2)


def call(way: str, tensors: dict[str, Tensor], lse: Tensor, scale: float, window: int | None) -> None:
    held = {name: rows_contiguous(tensor) for name, tensor in tensors.items()}
    q = held["q"]
    batch, heads, length, size = q.shape
    problem = Problem(
        **{name: Heads(one.data_ptr(), *one.stride()[:3]) for name, one in held.items()},
        lse=lse.data_ptr(),
        batch=batch,
        heads=heads,
        kv_heads=held["k"].shape[1],
        length=length,
        window=min(window or length, length),
        threads=torch.get_num_threads(),
        scale=scale,
    )
    getattr(library("attention"), f"{way}_{size}")(ctypes.byref(problem))


def rows_contiguous(tensor: Tensor) -> Tensor:
    return tensor if tensor.stride(-1) == 1 else tensor.contiguous()


def remember(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    q, k, v, ctx.scale, ctx.window = inputs
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(q, k, v, *output)
    ctx.mark_non_differentiable(output[1])


def differentiate(ctx: Any, dout: Tensor | None, _dlse: Tensor | None) -> tuple[Tensor | None, ...]:
    if dout is None:
        return None, None, None, None, None
    return *backward_op(dout, *ctx.saved_tensors, ctx.scale, ctx.window), None, None


attention_op.register_autograd(differentiate, setup_context=remember)
