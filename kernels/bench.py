"""Attention timed on the GPU that is here, ours beside PyTorch's and, where installed, flash-attn.

Whoever fails the comparison of `kernels.selfcheck` on a case has no speed there, whoever it is. Gradients
that differ between two runs, as those of a backward with atomics do, are told beside the speed. Nothing of
this has run on a GPU yet; what does not need one is tested with a clock and contestants put in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from kernels.attention.problem import visible_pairs
from kernels.selfcheck import Attend, Subject, compare, sdpa, shipped

Clock = Callable[[Callable[[], Any]], float]
"""Milliseconds of a call."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """Causal attention of bfloat16; `window` as in `kernels.attention`."""

    batch: int
    heads: int
    key_heads: int
    tokens: int
    head_dim: int
    window: int | None = None

    @property
    def forward_flops(self) -> float:
        """Two products over the pairs that are seen."""
        pairs = visible_pairs(self.tokens, self.tokens, causal=True, window=self.window)
        return 4.0 * self.batch * self.heads * self.head_dim * pairs


TOKENS_A_CALL = 16384
CASES = (
    *(
        Case(
            batch=TOKENS_A_CALL // tokens,
            heads=1024 // head_dim,
            key_heads=1024 // head_dim,
            tokens=tokens,
            head_dim=head_dim,
        )
        for head_dim in (16, 32, 64, 128)
        for tokens in (256, 1024, 4096)
    ),
    Case(batch=4, heads=16, key_heads=4, tokens=4096, head_dim=64),
    Case(batch=4, heads=16, key_heads=16, tokens=4096, head_dim=64, window=512),
)


@dataclass(frozen=True)
class Timing:
    """One contestant on one case. `refused` says why there is no speed; then the others are None.
    `unsteady`: what differs between two runs. The backward counts five products, without the scores that it
    recomputes."""

    case: Case
    name: str
    refused: str = ""
    unsteady: str = ""
    forward_ms: float | None = None
    backward_ms: float | None = None
    forward_tflops: float | None = None
    backward_tflops: float | None = None


def contestants() -> dict[str, Attend]:
    found: dict[str, Attend] = {
        "ours": shipped,
        "SDPA flash": by_backend(SDPBackend.FLASH_ATTENTION),
        "SDPA cuDNN": by_backend(SDPBackend.CUDNN_ATTENTION),
        "FlexAttention": flex(),
    }
    if find_spec("flash_attn") is not None:
        found["flash-attn"] = flash_attn
    return found


def by_backend(backend: SDPBackend) -> Attend:
    """SDPA held to one back end; a case that it cannot do raises RuntimeError."""

    def attend(q: Tensor, k: Tensor, v: Tensor, window: int | None) -> Tensor:
        with sdpa_kernel(backend):
            if window is None:
                grouped = q.shape[1] != k.shape[1]
                return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=grouped)
            return sdpa(q, k, v, window)

    return attend


def flex() -> Attend:
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    compiled = torch.compile(flex_attention, dynamic=False)
    masks: dict[tuple[int, int | None], Any] = {}

    def attend(q: Tensor, k: Tensor, v: Tensor, window: int | None) -> Tensor:
        tokens = q.shape[2]

        def seen(b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
            return (j <= i) if window is None else (j <= i) & (i - j < window)

        if (tokens, window) not in masks:
            masks[tokens, window] = create_block_mask(seen, None, None, tokens, tokens, device=str(q.device))
        mask = masks[tokens, window]
        found = compiled(q, k, v, block_mask=mask, enable_gqa=q.shape[1] != k.shape[1])
        assert isinstance(found, Tensor)
        return found

    return attend


def flash_attn(q: Tensor, k: Tensor, v: Tensor, window: int | None) -> Tensor:
    from flash_attn import flash_attn_func  # type: ignore[import-not-found]

    sides = (-1, -1) if window is None else (window - 1, 0)
    found = flash_attn_func(*(x.transpose(1, 2) for x in (q, k, v)), causal=True, window_size=sides)
    assert isinstance(found, Tensor)
    return found.transpose(1, 2)


def timed(case: Case, name: str, attend: Attend, clock: Clock, device: str = "cuda") -> Timing:
    """Check, then time. The check has the tokens and head dimension of the case, and one group of heads."""
    torch.compiler.reset()  # each case has its own compilations: past a few, PyTorch would go on without
    subject = Subject(head_dim=case.head_dim, dtype="bfloat16", windowed=True, device=device)
    group = case.heads // case.key_heads
    try:
        with torch._functorch.config.patch(donated_buffer=False):  # else no second backward of a compiled one
            found = compare(subject, attend, (case.tokens, group, 1), case.window)
            if found.wrong:
                return Timing(case, name, refused=f"wrong: {found.wrong}")
            forward, backward = _milliseconds(case, attend, clock, device)
    except Exception as error:  # no such back end, kernel or memory: each library says it by its own type
        return Timing(case, name, refused=first_line(error))
    flops = case.forward_flops
    speeds = tflops(flops, forward), tflops(2.5 * flops, backward)
    return Timing(case, name, "", found.unsteady, forward, backward, *speeds)


def first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def tflops(flops: float, milliseconds: float) -> float:
    return flops / milliseconds / 1e9


def _milliseconds(case: Case, attend: Attend, clock: Clock, device: str) -> tuple[float, float]:
    heads = (case.heads, case.key_heads, case.key_heads)
    shapes = [(case.batch, case.tokens, n, case.head_dim) for n in heads]
    q, k, v = (
        torch.randn(shape, device=device, dtype=torch.bfloat16).transpose(1, 2).requires_grad_()
        for shape in shapes
    )
    out = attend(q, k, v, case.window)
    dout = torch.randn_like(out)
    forward = clock(lambda: attend(q, k, v, case.window))
    backward = clock(lambda: torch.autograd.grad(out, (q, k, v), dout, retain_graph=True))
    return forward, backward


def gpu_clock(call: Callable[[], Any]) -> float:
    """The median, the cache cleared before each call."""
    from triton.testing import do_bench

    found = do_bench(call, warmup=50, rep=200, return_mode="median")
    assert isinstance(found, float)
    return found


def matmul_tflops(clock: Clock, device: str = "cuda", size: int = 8192) -> float:
    """What the card reaches in one large product of bfloat16, which percentages are of."""
    a, b = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    return tflops(2.0 * size**3, clock(lambda: a @ b))


def race(by: Mapping[str, Attend], cases: tuple[Case, ...], clock: Clock, device: str) -> list[Timing]:
    return [timed(case, name, attend, clock, device) for case in cases for name, attend in by.items()]
