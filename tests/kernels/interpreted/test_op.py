"""The operator: autograd through every input, opcheck, torch.compile, FLOPs."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy

import pytest
import torch
from torch.autograd import forward_ad
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

import kernels
from kernels.attention.op import attention_backward_op, attention_op
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


def test_documents_without_tokens_and_tokens_past_the_last() -> None:
    q, k, v, _ = inputs()
    lengths = torch.tensor([0, 0, 7, 7, 7, 16])
    ids = torch.tensor([[4] * 7 + [9] * 9 + [1] * 4])
    by_lengths = kernels.attention(q, k, v, causal=False, cu_seqlens=lengths)
    assert torch.equal(by_lengths, kernels.attention(q, k, v, causal=False, document_ids=ids))


def test_a_sink_of_minus_infinity_is_none() -> None:
    """Where no key is seen as well, and for its gradient."""
    q, k, v, _ = inputs()
    sink = torch.full((4,), -torch.inf, requires_grad=True)
    settings = {"causal": True, "return_lse": True}
    without, with_none = (
        kernels.attention(q, k[:, :, :8], v[:, :, :8], sink=each, **settings) for each in (None, sink)
    )
    assert all(map(torch.equal, without, with_none))
    assert (with_none[0][:, :, :12] == 0).all()
    (dsink,) = torch.autograd.grad(with_none[0].sum(), sink)
    assert (dsink == 0).all()


def test_one_token_sees_itself() -> None:
    q, k, v = (tensor[:, :, :1] for tensor in inputs()[:3])
    out, lse = kernels.attention(q, k, v, causal=True, window=1, return_lse=True)
    assert torch.equal(out, v.repeat_interleave(2, dim=1))
    torch.testing.assert_close(lse, 0.25 * (q * k.repeat_interleave(2, dim=1)).sum(-1))
    dq, dk, dv = torch.autograd.grad(out.sum(), (q, k, v))
    assert max(dq.abs().max(), dk.abs().max()) < 1e-6
    assert (dv == 2).all()


@pytest.mark.parametrize("which", [1, 2])
@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_what_is_not_finite_is_seen_where_it_is_and_nowhere_that_pytorch_does_not_see_it(
    which: int, bad: float
) -> None:
    """A key that is masked: zero weight times NaN is NaN in PyTorch too."""
    given = [tensor.detach() for tensor in inputs()[:3]]
    given[which] = given[which].clone()
    given[which][:, :, 12] = bad
    ours = kernels.attention(*given, causal=True)
    options = Options(causal=True, window=None, scale=0.25, softcap=None)
    theirs, _ = reference_attention(*given, options)
    assert (~ours[:, :, 12:].isfinite()).any(-1).all()
    assert ours[theirs.isfinite()].isfinite().all()


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


@pytest.mark.parametrize("with_documents", [True, False])
def test_opcheck_of_the_backward(with_documents: bool) -> None:
    """But for the derivative, which it refuses."""
    documents = documents_of_ids(IDS)
    q, k, v, _ = (tensor.detach() for tensor in inputs())
    out, lse = attention_op(q, k, v, None, None, None, True, 9, 0.25, None)
    masks = (documents.starts, documents.ends) if with_documents else (None, None)
    torch.library.opcheck(
        attention_backward_op,
        (out, lse, q, k, v, out, lse, *masks, True, 9, 0.25, 2.0),
        test_utils=("test_schema", "test_faketensor", "test_aot_dispatch_dynamic"),
    )


def test_one_graph_serves_any_number_of_tokens() -> None:
    graphs = []

    def backend(graph: torch.fx.GraphModule, _: object) -> torch.fx.GraphModule:
        graphs.append(graph)
        return graph

    def attend(x: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        return kernels.attention(x, x, x, causal=True, window=7, document_ids=ids, softcap=5.0)

    compiled = torch.compile(attend, fullgraph=True, dynamic=True, backend=backend)
    for tokens in (20, 33, 9, 64):
        x = torch.randn(1, 2, tokens, 16, requires_grad=True)
        ids = (torch.arange(tokens) // 6).unsqueeze(0)
        ours, eager = (by(x, ids) for by in (compiled, attend))
        assert torch.equal(ours, eager)
        assert torch.equal(*(torch.autograd.grad(out.sum(), x)[0] for out in (ours, eager)))
    assert len(graphs) == 1


def test_compiles_into_one_graph() -> None:
    given = inputs()
    compiled = torch.compile(call, fullgraph=True, backend="aot_eager")
    ours = torch.autograd.grad(loss_of(*compiled(*given)), given)
    eager = torch.autograd.grad(loss_of(*call(*given)), given)
    assert all(torch.equal(a, b) for a, b in zip(ours, eager, strict=True))


def test_a_second_derivative_is_refused() -> None:
    q, k, v, _ = inputs()
    (dq,) = torch.autograd.grad(kernels.attention(q, k, v, causal=True).sum(), q, create_graph=True)
    with pytest.raises(TypeError, match="no gradient of its gradient") as raised:
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


def test_without_gradients_and_without_determinism_it_is_the_same() -> None:
    given = inputs()
    out, lse = call(*given)
    with torch.no_grad():
        free = call(*given)
    assert not free[0].requires_grad
    assert torch.equal(out, free[0]) and torch.equal(lse, free[1])
    q, k, v, _ = given
    found = []
    for deterministic in (True, False):
        out = kernels.attention(q, k, v, causal=True, deterministic=deterministic)
        found.append((out, *torch.autograd.grad(out.sum(), (q, k, v))))
    assert all(map(torch.equal, *found))


def test_a_gradient_of_any_layout() -> None:
    q, k, v, _ = inputs()
    out = kernels.attention(q, k, v, causal=True)
    weights = torch.randn(16, 20)
    for dout in (
        weights.t().expand_as(out),
        torch.ones(1).expand_as(out),
        weights.t()[None, None].repeat(1, 4, 1, 1),
    ):
        found = torch.autograd.grad(out, (q, k, v), dout, retain_graph=True)
        plain = torch.autograd.grad(out, (q, k, v), dout.contiguous(), retain_graph=True)
        assert all(map(torch.equal, found, plain))


def test_a_module_that_holds_it_can_be_copied_and_checkpointed() -> None:
    class Layer(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attend = kernels.attention
            self.scale = torch.nn.Parameter(torch.ones(()))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.attend(self.scale * x, x, x, causal=True)

    layer, x = Layer(), inputs()[0].detach()
    gradients = [torch.autograd.grad(each(x).sum(), each.scale)[0] for each in (layer, deepcopy(layer))]
    again = checkpoint(layer, x, use_reentrant=False)
    gradients.append(torch.autograd.grad(again.sum(), layer.scale)[0])
    assert gradients[0] == gradients[1] == gradients[2]


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
