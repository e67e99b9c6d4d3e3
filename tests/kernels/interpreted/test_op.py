"""The operator: autograd through every input, opcheck, torch.compile, FLOPs."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import kernels
from kernels.attention.op import attention_op
from kernels.attention.problem import Options, documents_of_ids
from kernels.attention.reference import reference_attention

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


def test_flops_count_the_visible_pairs() -> None:
    q, k, v, _ = inputs()
    with FlopCounterMode(display=False) as counter:
        kernels.attention(q, k, v, causal=True).sum().backward()
    product = 2 * 4 * 16 * (20 * 21 // 2)
    assert counter.get_total_flops() == (2 + 4) * product
