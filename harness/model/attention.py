"""The one door to attention: the model calls `attend`, and only this module knows who answers.

B batch, T tokens, H query heads, K key/value heads (K divides H), d head dimension.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from harness.errors import WrongInput
from harness.model.proof import proof, warn
from harness.model.settings import AttentionKind, CpuAttention
from harness.shape import ModelShape

if TYPE_CHECKING:
    from kernels.selfcheck import Subject

Attend = Callable[[Tensor, Tensor, Tensor, float, int | None], Tensor]
"""q_BHTd, k_BKTd, v_BKTd, scale of the scores, window -> out_BHTd: causal. A query sees the last `window`
positions, its own included; all of them for None."""


NormRotate = Callable[[Tensor, Tensor, Tensor, Tensor, float], Tensor]
"""x_BTHd, gain_d, tables of cosines and sines [T, d / 2], eps -> heads normalised, then rotated, BHTd."""


@dataclass(frozen=True)
class Attention:
    """Who computes attention, and for the record its name and why it was chosen."""

    attend: Attend
    name: str
    reason: str
    tiles: tuple[int, ...] | None = None
    """Those that were chosen on this card (`kernels.attention.tuning.Tiles`); None: the shipped ones."""


@dataclass(frozen=True)
class Tuning:
    """Tiles are chosen on the card, for sequences of `context`; or are `fixed`, those a run began with."""

    context: int
    fixed: tuple[int, ...] | None = None


def build_attention(
    kind: AttentionKind,
    shape: ModelShape,
    device: torch.device,
    dtype: torch.dtype,
    on_cpu: CpuAttention = CpuAttention.sdpa,
    tuning: Tuning | None = None,
) -> Attention:
    """The causal attention of a model on a device, its products in `dtype`.

    `auto` takes the Triton kernels on a GPU where they have proved themselves (`kernels.verdicts`), with the
    tiles of `tuning`, and on a CPU what `on_cpu` says where it can; else SDPA, and says so in one line.
    Raises WrongInput for `triton` where no kernel can answer.
    """
    match kind:
        case AttentionKind.reference:
            return Attention(reference, "reference", "asked for")
        case AttentionKind.sdpa:
            return Attention(sdpa, "sdpa", "asked for")
        case AttentionKind.triton:
            refuse_triton(shape)
            refuse_device(device, shape, dtype)
            return Attention(triton, "triton", "asked for")
        case AttentionKind.auto if device.type == "cuda" and shape.attends:
            return proved(shape, device, dtype, tuning)
        case AttentionKind.auto if on_cpu is CpuAttention.cpp and shape.attends:
            return built(shape, dtype)
        case AttentionKind.auto:
            return Attention(sdpa, "sdpa", "no GPU")


def built(shape: ModelShape, dtype: torch.dtype) -> Attention:
    """Our C++ where it takes the model and compiles, else SDPA."""
    from kernels.cpu.attention import HEAD_DIMS
    from kernels.cpu.build import CannotBuild, library

    if dtype is not torch.float32 or shape.head_dim not in HEAD_DIMS:
        return Attention(sdpa, "sdpa", "no GPU; not float32 with a head dimension of the C++ kernel")
    try:
        library("attention")
    except CannotBuild as why:
        return fallen_back(str(why))
    return Attention(cpp, "cpp", "no GPU; C++ compiled for this processor")


def refuse_triton(shape: ModelShape) -> None:
    """Raises WrongInput for a model that the kernels do not take, whatever the card."""
    if (why := untaken(shape)) and shape.attends:
        raise WrongInput(f"attention=triton: {why}; use attention=auto, sdpa or reference")


def refuse_device(device: torch.device, shape: ModelShape, dtype: torch.dtype) -> None:
    """Raises WrongInput where no kernel runs on the device, or none with a model of these products."""
    from kernels import Implementation, implementation_for
    from kernels.attention.api import without_tile

    if implementation_for(torch.empty(0, device=device)) is not Implementation.triton:
        raise WrongInput(
            f"attention=triton needs a GPU, and this run is on {device.type}; use attention=auto, sdpa or "
            "reference (TRITON_INTERPRET=1 interprets the kernels: for tests, far slower)"
        )
    if why := without_tile(device, shape.head_dim, dtype):
        raise WrongInput(f"attention=triton: {why}; use attention=auto, sdpa or reference")


def untaken(shape: ModelShape) -> str:
    """Why the kernels do not take this model; empty when they do."""
    from kernels.attention.api import HAS_TRITON, HEAD_DIMS

    if not HAS_TRITON:
        return "triton is not installed"
    if shape.head_dim not in HEAD_DIMS:
        return f"the kernels have no tile for model.head_dim={shape.head_dim}, only for {HEAD_DIMS}"
    return ""


def proved(
    shape: ModelShape, device: torch.device, dtype: torch.dtype, tuning: Tuning | None = None
) -> Attention:
    """The kernels if they passed their comparison with SDPA on this card, else SDPA and one warning."""
    from kernels.attention.api import without_tile
    from kernels.selfcheck import Subject

    if why := untaken(shape) or without_tile(device, shape.head_dim, dtype):
        return fallen_back(why)

    windowed = any(layer.window is not None for layer in shape.layers)
    name = str(dtype).removeprefix("torch.")
    subject = Subject(head_dim=shape.head_dim, dtype=name, windowed=windowed, device=str(device))
    passed, reason = proof(subject, "SDPA")
    if not passed:
        return fallen_back(reason)
    return Attention(triton, "triton", reason) if tuning is None else tuned(subject, shape, tuning, reason)


def tuned(subject: Subject, shape: ModelShape, tuning: Tuning, reason: str) -> Attention:
    """The kernels with the tiles that are fastest on this card, or a run's own, which prove themselves as the
    shipped ones did; where they do not, or the search fails, the shipped ones and one warning."""
    from kernels.attention.autotune import Problem, bounded
    from kernels.attention.autotune import tuned as search

    windows = [layer.window for layer in shape.layers if layer.window is not None]
    problem = Problem(
        head_dim=subject.head_dim,
        dtype=subject.dtype,
        tokens=bounded(tuning.context),
        window=max(windows, default=None),
        device=subject.device,
    )
    try:
        tiles = tuning.fixed or search(problem).tiles
        passed, said = proof(replace(subject, tiles=tiles), "SDPA")
    except RuntimeError as error:
        passed, said = False, f"the search failed: {error}"
    if not passed:
        warn(f"hardware.autotune: {said}; the shipped tiles are used")
        return Attention(triton, "triton", f"{reason}; shipped tiles, as {said}")
    return Attention(partial(triton, tiles=tiles), "triton", f"{said}; tiles timed there", tiles)


def fallen_back(why: str) -> Attention:
    warn(f"attention=auto: {why}; SDPA answers")
    return Attention(sdpa, "sdpa", why)


def triton(
    q_BHTd: Tensor,
    k_BKTd: Tensor,
    v_BKTd: Tensor,
    scale: float,
    window: int | None = None,
    tiles: tuple[int, ...] | None = None,
) -> Tensor:
    from kernels import attention

    return attention(q_BHTd, k_BKTd, v_BKTd, causal=True, window=window, scale=scale, tiles=tiles)


def cpp(q_BHTd: Tensor, k_BKTd: Tensor, v_BKTd: Tensor, scale: float, window: int | None = None) -> Tensor:
    from kernels.cpu.attention import attention

    return attention(q_BHTd, k_BKTd, v_BKTd, scale, window)


def norm_rotate_before(attend: Attend) -> NormRotate | None:
    """The kernel that normalises and rotates queries and keys in one pass, where `attend` is a kernel too:
    both are compared with PyTorch together. None leaves it to the model's own operations."""
    return norm_rotate if getattr(attend, "func", attend) is triton else None


def norm_rotate(x_BTHd: Tensor, gain_d: Tensor, cos_Td: Tensor, sin_Td: Tensor, eps: float) -> Tensor:
    from kernels import norm_rotary

    return norm_rotary(x_BTHd, gain_d, cos_Td, sin_Td, eps=eps).transpose(1, 2)


def visible(length: int, window: int | None, device: torch.device) -> Tensor:
    """Which keys (columns) each query (row) sees."""
    seen_TT = torch.ones(length, length, dtype=torch.bool, device=device).tril()
    return seen_TT if window is None else seen_TT.triu(1 - window)


def reference(
    q_BHTd: Tensor, k_BKTd: Tensor, v_BKTd: Tensor, scale: float, window: int | None = None
) -> Tensor:
    """The specification: softmax(scale * q k^T) v over the keys that a query sees."""
    heads_per_key = q_BHTd.shape[1] // k_BKTd.shape[1]
    k_BHTd = k_BKTd.repeat_interleave(heads_per_key, dim=1)
    v_BHTd = v_BKTd.repeat_interleave(heads_per_key, dim=1)
    scores_BHTT = scale * (q_BHTd @ k_BHTd.transpose(-1, -2))
    seen_TT = visible(q_BHTd.shape[2], window, q_BHTd.device)
    return scores_BHTT.masked_fill(~seen_TT, -torch.inf).softmax(dim=-1) @ v_BHTd


def sdpa(q_BHTd: Tensor, k_BKTd: Tensor, v_BKTd: Tensor, scale: float, window: int | None = None) -> Tensor:
    grouped, length = q_BHTd.shape[1] != k_BKTd.shape[1], q_BHTd.shape[2]
    bounded = window is not None and window < length
    return F.scaled_dot_product_attention(
        q_BHTd,
        k_BKTd,
        v_BKTd,
        attn_mask=visible(length, window, q_BHTd.device) if bounded else None,
        is_causal=not bounded,
        scale=scale,
        enable_gqa=grouped,
    )
