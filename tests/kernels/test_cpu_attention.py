"""The C++ attention beside PyTorch's, both measured against float64."""

import pytest
import torch
from torch.nn import functional as F

from kernels.cpu.attention import HEAD_DIMS, attention, attention_op
from kernels.cpu.build import CannotBuild, library

try:
    library("attention")
except CannotBuild as why:
    pytest.skip(str(why), allow_module_level=True)

CASES = [
    # batch, heads, kv_heads, length, head_dim, window
    (2, 4, 4, 256, 16, None),
    (1, 6, 2, 77, 32, None),
    (2, 2, 1, 33, 64, 20),
    (1, 1, 1, 130, 128, 40),
    (1, 2, 2, 200, 16, 1),
    (1, 2, 2, 100, 32, 5),
    (1, 3, 3, 1, 64, None),
]


def sdpa(q, k, v, scale, window):
    seen = torch.ones(q.shape[2], q.shape[2], dtype=torch.bool).tril()
    seen = seen if window is None else seen.triu(1 - window)
    return F.scaled_dot_product_attention(q, k, v, seen, scale=scale, enable_gqa=True)


def drawn(batch, heads, kv_heads, length, size, _window=None):
    """q, k, v and the gradient of the output, the heads of each position side by side as a model has them."""
    torch.manual_seed(0)
    return [torch.randn(batch, length, n, size).transpose(1, 2) for n in (heads, kv_heads, kv_heads, heads)]


def out_and_gradients(attend, q, k, v, dout, scale, window):
    inputs = [one.detach().requires_grad_() for one in (q, k, v)]
    out = attend(*inputs, scale, window)
    return [out.detach(), *torch.autograd.grad(out, inputs, dout)]


@pytest.fixture
def poisoned():
    """What is not written shows: PyTorch fills what it hands out with NaN."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("scale", [0.25, 2.0])
def test_it_errs_at_most_twice_as_much_as_sdpa(case, scale, poisoned):
    tensors, window = drawn(*case), case[-1]
    found = out_and_gradients(attention, *tensors, scale, window)
    theirs = out_and_gradients(sdpa, *tensors, scale, window)
    exact = out_and_gradients(sdpa, *(one.double() for one in tensors), scale, window)
    for ours, other, true in zip(found, theirs, exact, strict=True):
        error, allowed = ((one.double() - true).square().mean().sqrt() for one in (ours, other))
        assert error <= 2 * allowed + 1e-7 * true.square().mean().sqrt()


@pytest.mark.parametrize("case", CASES[:4], ids=str)
def test_threads_do_not_change_a_bit(case):
    tensors, before = drawn(*case), torch.get_num_threads()
    try:
        each = []
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            each.append(out_and_gradients(attention, *tensors, 0.3, case[-1]))
    finally:
        torch.set_num_threads(before)
    for one in each[1:]:
        assert all(torch.equal(a, b) for a, b in zip(each[0], one, strict=True))


def test_any_layout_gives_the_same_bits():
    tensors = drawn(2, 4, 2, 50, 16)
    expected = out_and_gradients(attention, *tensors, 0.25, None)
    packed = [one.contiguous() for one in tensors]
    columns = [one.transpose(2, 3).contiguous().transpose(2, 3) for one in tensors]
    for other in (packed, columns):
        found = out_and_gradients(attention, *other, 0.25, None)
        assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_finite_is_not_hidden(bad):
    q, k, v, dout = drawn(1, 1, 1, 40, 16)
    q[0, 0, 7, 3] = bad
    out, dq, dk, _ = out_and_gradients(attention, q, k, v, dout, 0.25, None)
    assert not out[0, 0, 7].isfinite().any() and out[0, 0, 8:].isfinite().all()
    assert not dq[0, 0, 7].isfinite().any() and not dk[0, 0, 0].isfinite().any()


def test_scores_far_apart_do_not_overflow():
    q, k, v, _ = drawn(1, 1, 1, 64, 16)
    found, exact = (attend(200 * q, k, v, 1.0, None) for attend in (attention, sdpa))
    torch.testing.assert_close(found, exact, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("size", HEAD_DIMS)
def test_it_is_an_operator(size):
    q, k, v, _ = (one.requires_grad_() for one in drawn(1, 4, 2, 40, size))
    torch.library.opcheck(attention_op, (q, k, v, 0.25, None))
    torch.library.opcheck(attention_op, (q, k, v, 0.25, 7))


def test_what_it_does_not_take_is_refused():
    q, k, v, _ = drawn(1, 4, 2, 8, 16)
    with pytest.raises(TypeError, match="float32"):
        attention(q.double(), k.double(), v.double(), 1.0, None)
    with pytest.raises(ValueError, match="head dimension 8"):
        attention(q[..., :8], k[..., :8], v[..., :8], 1.0, None)
    with pytest.raises(ValueError, match="do not go together"):
        attention(q[:, :3], k, v, 1.0, None)
    with pytest.raises(ValueError, match="window=0"):
        attention(q, k, v, 1.0, 0)


def test_without_a_compiler_the_reason_is_given(monkeypatch):
    library.cache_clear()
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(CannotBuild, match="CXX"):
        library("attention")
    library.cache_clear()


def test_what_a_compiler_says_is_passed_on_and_nothing_is_left(monkeypatch, tmp_path):
    library.cache_clear()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("kernels.cpu.build.FLAGS", ("--no-such-flag",))
    with pytest.raises(CannotBuild, match="no-such-flag"):
        library("attention")
    assert [one for one in tmp_path.rglob("*") if one.is_file()] == []
    library.cache_clear()
