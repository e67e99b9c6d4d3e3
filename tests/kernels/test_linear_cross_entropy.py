"""The chunked loss: against float64, without ever holding the logits, as an operator."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from kernels import linear_cross_entropy as shipped
from kernels.linear_cross_entropy import sweep
from kernels.linear_cross_entropy.api import IGNORED
from kernels.linear_cross_entropy.op import linear_cross_entropy_op
from kernels.linear_cross_entropy.reference import reference_linear_cross_entropy
from kernels.linear_cross_entropy.sweep import block_tokens, padded_row
from kernels.testing import largest_error

N, V, W = 23, 61, 8


@pytest.fixture(autouse=True)
def blocks_of_five_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep, "BLOCK_BYTES", 5 * 4 * V)
    assert block_tokens(V, "cpu", 4) == 5


def inputs(
    dtype: torch.dtype = torch.float32, ignored: tuple[int, ...] = ()
) -> tuple[Tensor, Tensor, Tensor]:
    random = torch.Generator().manual_seed(0)
    hidden, weight = (torch.randn(size, W, generator=random).to(dtype).requires_grad_() for size in (N, V))
    targets = torch.randint(V, (N,), generator=random)
    targets[list(ignored)] = IGNORED
    return hidden, weight, targets


def plain(hidden: Tensor, weight: Tensor, targets: Tensor, z_loss: float = 0.0) -> Tensor:
    return reference_linear_cross_entropy(hidden, weight, targets, z_loss, IGNORED)


def loss_and_gradients(by: object, *given: Tensor, **settings: float) -> tuple[Tensor, ...]:
    loss = by(*given, **settings)
    return loss.detach(), *torch.autograd.grad(3 * loss, given[:2])


@pytest.mark.parametrize("z_loss", [0.0, 0.3])
@pytest.mark.parametrize("ignored", [(), (0, 7, 20, 21, 22)])
def test_loss_and_gradients_are_those_of_the_whole_logits(z_loss: float, ignored: tuple[int, ...]) -> None:
    hidden, weight, targets = inputs(ignored=ignored)
    ours = loss_and_gradients(shipped, hidden, weight, targets, z_loss=z_loss)
    wide = hidden.detach().double().requires_grad_(), weight.detach().double().requires_grad_()
    truth = loss_and_gradients(plain, *wide, targets, z_loss=z_loss)
    for found, true in zip(ours, truth, strict=True):
        assert found.dtype == torch.float32
        assert largest_error(found, true) <= 16 * torch.finfo(torch.float32).eps * float(true.abs().max())


class OnCuda(Tensor):
    """Says that it is on a card; PyTorch's products there, by the rules of its source for types."""

    is_cuda = True


@pytest.mark.parametrize("adds_into_wider", [True, False], ids=["torch 2.10", "torch 2.9"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_card_sums_the_gradient_of_the_head_in_float32(
    dtype: torch.dtype, adds_into_wider: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def mm(a: Tensor, b: Tensor, *, out_dtype: torch.dtype) -> Tensor:
        assert a.dtype == b.dtype == dtype and out_dtype == torch.float32
        return a.as_subclass(Tensor).float() @ b.float()

    def addmm(own: Tensor, a: Tensor, b: Tensor, *, out_dtype: torch.dtype, out: Tensor) -> None:
        if not (own.dtype == dtype or (adds_into_wider and own.dtype == out.dtype)):
            raise RuntimeError(f"self and mat2 must have the same dtype, but got {own.dtype} and {dtype}")
        out.copy_(own + mm(a, b, out_dtype=out_dtype))

    monkeypatch.setattr(torch, "mm", mm)
    monkeypatch.setattr(torch, "addmm", addmm)
    monkeypatch.setattr(sweep, "ADDS_INTO_WIDER", adds_into_wider)
    slopes, hidden, total = (torch.randn(size, dtype=dtype) for size in ((N, V), (N, W), (V, W)))
    wide = total.float()
    sweep.accumulate(wide, slopes.as_subclass(OnCuda), hidden)
    assert wide.dtype == torch.float32
    torch.testing.assert_close(wide, total.float() + slopes.t().float() @ hidden.float())


def test_under_autocast_it_is_no_worse_than_pytorch() -> None:
    hidden, weight, targets = inputs()
    wide = hidden.detach().double().requires_grad_(), weight.detach().double().requires_grad_()
    truth = loss_and_gradients(plain, *wide, targets)
    with torch.autocast("cpu", torch.bfloat16):
        ours = loss_and_gradients(shipped, hidden, weight, targets)
        theirs = loss_and_gradients(plain, hidden, weight, targets)
    for found, rough, true in zip(ours, theirs, truth, strict=True):
        assert found.dtype == torch.float32
        assert largest_error(found, true) <= 2 * largest_error(rough, true)


def test_nothing_kept_is_nan_without_gradients_as_in_pytorch() -> None:
    hidden, weight, targets = inputs(ignored=tuple(range(N)))
    for by in (shipped, plain):
        loss, dhidden, dweight = loss_and_gradients(by, hidden, weight, targets)
        assert loss.isnan()
        assert (dhidden == 0).all()
        assert (dweight == 0).all()
    assert shipped(hidden[:0], weight, targets[:0]).isnan()


def test_large_logits_lose_no_precision() -> None:
    hidden, weight, targets = inputs()
    hidden, weight = (hidden.detach() * 100).requires_grad_(), (weight.detach() * 100).requires_grad_()
    wide = hidden.detach().double().requires_grad_(), weight.detach().double().requires_grad_()
    truth = loss_and_gradients(plain, *wide, targets)
    ours, theirs = (loss_and_gradients(by, hidden, weight, targets) for by in (shipped, plain))
    for found, rough, true in zip(ours, theirs, truth, strict=True):
        rounding = torch.finfo(torch.float32).eps * float(true.abs().max())
        assert largest_error(found, true) <= 2 * largest_error(rough, true) + rounding


def test_float16_gradients_of_a_mean_over_many_tokens_survive_to_be_scaled_up() -> None:
    """1 / 60000 is below the normal numbers of float16, and a loss scale comes only after it."""
    random = torch.Generator().manual_seed(0)
    hidden = torch.randn(60_000, 2, generator=random).half().requires_grad_()
    weight = torch.randn(3, 2, generator=random).half().requires_grad_()
    targets = torch.randint(3, (60_000,), generator=random)
    ours = torch.autograd.grad(6e4 * shipped(hidden, weight, targets), (hidden, weight))
    wide = hidden.detach().double().requires_grad_(), weight.detach().double().requires_grad_()
    truth = torch.autograd.grad(6e4 * plain(*wide, targets), wide)
    for found, true in zip(ours, truth, strict=True):
        assert largest_error(found, true) <= 2e-3 * float(true.abs().max())


def test_blocks_of_a_gpu_are_whole_tiles_of_a_product_where_they_can_be() -> None:
    assert block_tokens(50_257, "cuda", 2) == 2560
    assert block_tokens(10_000_000, "cuda", 2) == 13
    assert block_tokens(10**10, "cuda", 2) == 1
    assert [padded_row(V, 2) for V in (2, 64, 50_257)] == [64, 64, 50_304]


class Largest(TorchDispatchMode):
    """The most elements that any operation returned."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        for each in out if isinstance(out, (tuple, list)) else [out]:
            if isinstance(each, Tensor):
                self.elements = max(self.elements, each.numel())
        return out


def test_the_logits_are_never_there() -> None:
    given = inputs()
    for by, holds in ((shipped, False), (plain, True)):
        with Largest() as seen:
            loss_and_gradients(by, *given)
        assert (seen.elements >= N * V) is holds
        assert seen.elements >= V * W


def test_validation_computes_no_gradients() -> None:
    hidden, weight, targets = inputs()
    with FlopCounterMode(display=False) as training:
        shipped(hidden, weight, targets)
    with torch.no_grad(), FlopCounterMode(display=False) as validating:
        loss = shipped(hidden.unflatten(0, (1, N)), weight, targets[None])
    assert training.get_total_flops() == 3 * validating.get_total_flops() == 3 * 2 * N * V * W
    assert torch.equal(loss, shipped(hidden, weight, targets))


@pytest.mark.parametrize("gradients", [True, False])
def test_opcheck(gradients: bool) -> None:
    torch.library.opcheck(
        linear_cross_entropy_op,
        (*inputs(), 0.1, IGNORED, gradients, False),
        test_utils=("test_schema", "test_faketensor", "test_autograd_registration"),
    )


def test_compiles_into_one_graph() -> None:
    given = inputs()
    compiled = torch.compile(shipped, fullgraph=True, backend="aot_eager")
    for a, b in zip(loss_and_gradients(compiled, *given), loss_and_gradients(shipped, *given), strict=True):
        assert torch.equal(a, b)


def test_a_derivative_that_it_does_not_have_is_refused() -> None:
    """The gradients are outputs of one sweep: PyTorch would take their own derivative for zero."""
    hidden, weight, targets = inputs()
    for create in ((hidden,), (hidden, weight)):
        found = torch.autograd.grad(shipped(hidden, weight, targets), create, create_graph=True)
        with pytest.raises(TypeError, match="no gradient of its gradient"):
            sum(each.square().sum() for each in found).backward()
    loss_of = lambda hidden: shipped(hidden, weight.detach(), targets)  # noqa: E731
    with pytest.raises(TypeError, match="no forward-mode"):
        torch.func.jvp(loss_of, (hidden.detach(),), (hidden.detach(),))
    with pytest.raises(TypeError, match=r"no torch\.func derivative"):
        torch.func.grad(loss_of)(hidden.detach())


@pytest.mark.parametrize("needed", [0, 1])
def test_a_gradient_of_one_is_that_of_both(needed: int) -> None:
    given = inputs()
    both = torch.autograd.grad(shipped(*given), given[:2])
    some = [tensor.detach().requires_grad_(n == needed) for n, tensor in enumerate(given[:2])]
    (found,) = torch.autograd.grad(shipped(*some, given[2]), some[needed])
    assert torch.equal(found, both[needed])


def test_refuses_what_does_not_fit() -> None:
    hidden, weight, targets = inputs()
    with pytest.raises(ValueError, match="do not multiply"):
        shipped(hidden, weight[:, 1:], targets)
    with pytest.raises(ValueError, match=r"want int64 \(23,\)"):
        shipped(hidden, weight, targets[1:])
    with pytest.raises(ValueError, match="z_loss=-1"):
        shipped(hidden, weight, targets, z_loss=-1)
    with pytest.raises(TypeError, match="want floats"):
        shipped(hidden.long(), weight, targets)
