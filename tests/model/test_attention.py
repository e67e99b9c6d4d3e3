import pytest
import torch

from harness.errors import WrongInput
from harness.model.attention import build_attention, reference, sdpa
from harness.model.settings import AttentionKind


@pytest.mark.parametrize("heads,key_heads", [(4, 4), (4, 2), (4, 1)])
def test_sdpa_is_the_reference_forward_and_backward(heads, key_heads):
    torch.manual_seed(0)
    sizes = [(2, heads, 9, 8), (2, key_heads, 9, 8), (2, key_heads, 9, 8)]
    inputs = [torch.randn(size, dtype=torch.float64, requires_grad=True) for size in sizes]
    weight = torch.randn(2, heads, 9, 8, dtype=torch.float64)
    both = []
    for attend in (reference, sdpa):
        out = attend(*inputs, 0.3)
        both.append((out, *torch.autograd.grad((out * weight).sum(), inputs)))
    for expected, found in zip(*both, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


def test_the_future_is_not_seen():
    q, k, v = (torch.randn(1, 2, 6, 4) for _ in range(3))
    before = reference(q, k, v, 0.5)[:, :, :3]
    v[:, :, 3:] += 100.0
    k[:, :, 3:] -= 5.0
    torch.testing.assert_close(reference(q, k, v, 0.5)[:, :, :3], before)


def test_the_door_names_who_answers():
    assert build_attention(AttentionKind.auto)[1] == "sdpa"
    assert build_attention(AttentionKind.reference)[1] == "reference"
    with pytest.raises(WrongInput, match="no Triton kernels"):
        build_attention(AttentionKind.triton)
