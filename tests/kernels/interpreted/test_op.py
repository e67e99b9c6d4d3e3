"""The operator: autograd through every input, opcheck, torch.compile, FLOPs."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch.autograd import forward_ad
from torch.utils.flop_counter import FlopCounterMode

import kernels
from kernels.attention.op import attention_op
from kernels.attention.problem import Options, documents_of_ids
from kernels.attention.reference import reference_attention
from kernels.attention.tuning import Pass, Tile, Tiles

IDS = torch.tensor([[4] * 7 + [9] * 13])


def inputs() -> tuple[torch.Tensor, ...]:
    random = torch.Generator().manual_seed(0)
    shapes = [(1, 4, 20, 16), (1, 2, 20, 16), (1, 2, 20, 16), (4,)]
    return tuple(torch.randn(shape, generator=random, requires_grad=True) for shape in shapes)


def call(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, sink: torch.Tensor) -> tuple[torch.Tensor, ...]:
    return kernels.attention(
        q, k, v, causal=True, window=9, document_ids=IDS, softcap=20.0, sink=sink, return_lse=True
    )


def loss_of(out: torch.Tensor, lse: torch.Tensor) -> torch.Tensor:
    weights = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view_as(out)
    return (out * weights).sum() + (lse * weights[..., 0]).sum()


def test_the_interpreter_answers() -> None:
    assert kernels.implementation_for(inputs()[0]) is kernels.Implementation.triton


def test_gradients_of_every_input_and_of_the_log_sum_exp() -> None:
    given = inputs()
    ours = torch.autograd.grad(loss_of(*call(*given)), given)
    q, k, v, sink = wide = [tensor.detach().double().requires_grad_() for tensor in given]
    options = Options(causal=True, window=9, scale=0.25, softcap=20.0)
    truth = torch.autograd.grad(
        loss_of(*reference_attention(q, k, v, options, documents_of_ids(IDS), sink)), wide
    )
    for mine, true in zip(ours, truth, strict=True):
        torch.testing.assert_close(mine.double(), true, rtol=2e-5, atol=2e-6)


def test_cu_seqlens_are_document_ids() -> None:
    q, k, v, _ = inputs()
    lengths = torch.tensor([0, 7, 20], dtype=torch.int32)
    by_lengths = kernels.attention(q, k, v, causal=True, cu_seqlens=lengths)
    assert torch.equal(by_lengths, kernels.attention(q, k, v, causal=True, document_ids=IDS))


def test_the_output_has_the_layout_of_q() -> None:
    q, k, v, _ = inputs()
    q = q.detach().transpose(1, 2).contiguous().transpose(1, 2)
    assert kernels.attention(q, k, v, causal=True).stride() == q.stride()


@pytest.mark.parametrize("with_documents", [True, False])
def test_opcheck(with_documents: bool) -> None:
    documents = documents_of_ids(IDS)
    starts, ends = (documents.starts, documents.ends) if with_documents else (None, None)
    q, k, v, sink = inputs()
    torch.library.opcheck(attention_op, (q, k, v, starts, ends, sink, True, 9, 0.25, None))


def test_compiles_into_one_graph() -> None:
    given = inputs()
    compiled = torch.compile(call, fullgraph=True, backend="aot_eager")
    ours = torch.autograd.grad(loss_of(*compiled(*given)), given)
    eager = torch.autograd.grad(loss_of(*call(*given)), given)
    assert all(torch.equal(a, b) for a, b in zip(ours, eager, strict=True))


def test_a_second_derivative_is_refused() -> None:
    q, k, v, _ = inputs()
    (dq,) = torch.autograd.grad(kernels.attention(q, k, v, causal=True).sum(), q, create_graph=True)
    with pytest.raises(NotImplementedError, match="no gradient of its gradient") as raised:
        dq.sum().backward()
    assert "\n" not in str(raised.value)


def test_a_derivative_that_the_kernels_do_not_have_is_refused() -> None:
    """PyTorch takes the tangent of an operator without one for zero."""
    x = inputs()[0].detach()

    def self_attention(x: torch.Tensor) -> torch.Tensor:
        return kernels.attention(x, x, x, causal=True)

    with pytest.raises(TypeError, match="no forward-mode"):
        torch.func.jvp(self_attention, (x,), (x,))
    with pytest.raises(TypeError, match=r"no torch\.func derivative"):
        torch.func.grad(lambda x: self_attention(x).sum())(x)
    with forward_ad.dual_level(), pytest.raises(TypeError, match="no forward-mode"):
        self_attention(forward_ad.make_dual(x, x))


def test_vmap_is_a_call_for_each_slice() -> None:
    x = torch.stack([tensor.detach() for tensor in inputs()[1:3]])
    call = lambda x: kernels.attention(x, x, x, causal=True)  # noqa: E731
    assert torch.equal(torch.func.vmap(call)(x), torch.stack([call(x[0]), call(x[1])]))


def test_autocast_casts_as_for_sdpa() -> None:
    q, k, v, _ = inputs()
    with torch.autocast("cpu", torch.bfloat16):
        out = kernels.attention(q, k.bfloat16(), v.half(), causal=True)
    assert torch.equal(out, kernels.attention(q.bfloat16(), k.bfloat16(), v.half().bfloat16(), causal=True))
    (dq,) = torch.autograd.grad(out.sum(), q)
    assert (out.dtype, dq.dtype) == (torch.bfloat16, torch.float32)


@pytest.mark.parametrize("needed", [(0,), (1,), (2,), (0, 2), (3,)])
def test_gradients_of_some_inputs_are_those_of_all(needed: tuple[int, ...]) -> None:
    given = inputs()
    some = [x.detach().requires_grad_(n in needed) for n, x in enumerate(given)]
    everything = torch.autograd.grad(call(*given)[0].sum(), given)
    found = torch.autograd.grad(call(*some)[0].sum(), [some[n] for n in needed])
    assert all(torch.equal(a, everything[n]) for n, a in zip(needed, found, strict=True))


def test_flops_count_the_visible_pairs() -> None:
    q, k, v, _ = inputs()
    with FlopCounterMode(display=False) as counter:
        kernels.attention(q, k, v, causal=True).sum().backward()
    product = 2 * 4 * 16 * (20 * 21 // 2)
    assert counter.get_total_flops() == (2 + 4) * product


def test_tiles_of_ones_own_reach_forward_and_backward() -> None:
    """As constants of a compiled graph too; they change the order of sums, and no more."""
    q, k, v, _ = inputs()
    tiles = Tiles(Tile(16, 16, 4, 1), Tile(16, 32, 4, 1), Tile(16, 16, 4, 1))

    def gradients(call: Callable[..., torch.Tensor], tiles: list[int] | None) -> tuple[torch.Tensor, ...]:
        out = call(q, k, v, causal=True, tiles=tiles)
        return out.detach(), *torch.autograd.grad(out.square().sum(), (q, k, v))

    shipped, ours = (gradients(kernels.attention, each) for each in (None, tiles.flat))
    compiled = gradients(torch.compile(kernels.attention, fullgraph=True, backend="aot_eager"), tiles.flat)
    assert all(map(torch.equal, ours, compiled))
    for a, b in zip(ours, shipped, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
    for which, place in ((Pass.forward, 0), (Pass.queries, 1), (Pass.keys_values, 2)):
        assert not torch.equal(ours[place], shipped[place]), which
