"""The chunked recurrence against the recurrence itself."""

import pytest
import torch

from harness.model.scan import chunked, multiplied_out, stepwise


def inputs(
    length: int, decay: float = 1.0, batch: int = 2, heads: int = 3, head_dim: int = 4, state: int = 5
):
    torch.manual_seed(length)
    values = torch.randn(batch, length, heads, head_dim)
    write, read = torch.randn(2, batch, length, state)
    return [x.requires_grad_() for x in (values, write, read, -decay * torch.rand(batch, length, heads))]


@pytest.mark.parametrize("length", [1, 7, 8, 9, 33])
@pytest.mark.parametrize("decay", [1e-3, 0.3, 30.0])
def test_chunks_give_the_recurrence_and_its_gradients(length, decay):
    given = inputs(length, decay)
    found, expected = chunked(*given, chunk=8), stepwise(*given)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    weight = torch.randn_like(expected)
    both = [torch.autograd.grad((out * weight).sum(), given) for out in (found, expected)]
    for one, other in zip(*both, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_the_recurrence_is_the_sum_over_the_past():
    values, write, read, decay = (x.detach() for x in inputs(6))
    expected = torch.zeros_like(values)
    for t in range(6):
        for s in range(t + 1):
            kept = decay[:, s + 1 : t + 1].sum(1).exp()  # [B, H]
            met = (read[:, t] * write[:, s]).sum(-1)
            expected[:, t] += met[:, None, None] * kept[..., None] * values[:, s]
    torch.testing.assert_close(stepwise(values, write, read, decay), expected, rtol=1e-5, atol=1e-5)


def test_what_was_written_long_ago_is_still_there_if_nothing_decays():
    values, write, read, decay = (x.detach() for x in inputs(200, decay=0.0))
    total = torch.einsum("btn,bthd->bhnd", write, values)
    last = torch.einsum("bn,bhnd->bhd", read[:, -1], total)
    torch.testing.assert_close(chunked(values, write, read, decay)[:, -1], last, rtol=1e-4, atol=1e-4)


def test_it_computes_in_float32_under_autocast():
    given = [x.detach() for x in inputs(40)]
    expected = stepwise(*given)
    with torch.autocast("cpu", torch.bfloat16):
        found = chunked(*given, chunk=8)
    assert found.dtype is torch.float32
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_the_chunk_does_not_matter_nor_the_future():
    values, write, read, decay = (x.detach() for x in inputs(50))
    small, large = (chunked(values, write, read, decay, chunk=size) for size in (4, 64))
    torch.testing.assert_close(small, large, rtol=1e-5, atol=1e-5)
    for x in (values, write, read, decay):
        x[:, 20:] = -7.0
    torch.testing.assert_close(chunked(values, write, read, decay, chunk=4)[:, :20], small[:, :20])


@pytest.mark.parametrize("dim", [0, 1, 2])
def test_a_running_sum_for_a_gpu_is_the_running_sum(dim):
    x = torch.randn(3, 70, 5, dtype=torch.float64)
    torch.testing.assert_close(multiplied_out(x, dim), x.cumsum(dim))
