"""Products of oneDNN stand where MKL's stood, forward and backward, and agree with float64."""

import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx

from harness.training.gemm import ToOneDnn, onednn_mm

pytestmark = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="PyTorch without oneDNN")


@pytest.mark.parametrize("rows, inner, columns", [(7, 5, 3), (3, 5, 7), (1, 64, 96), (64, 512, 17)])
@pytest.mark.parametrize("left", [False, True])
@pytest.mark.parametrize("right", [False, True])
def test_products_of_either_layout(rows, inner, columns, left, right):
    a = torch.randn(inner, rows).t() if left else torch.randn(rows, inner)
    b = torch.randn(columns, inner).t() if right else torch.randn(inner, columns)
    exact = (a.double() @ b.double()).float()
    assert torch.allclose(onednn_mm(a, b), exact, atol=1e-6 * inner, rtol=1e-5)
    torch.library.opcheck(torch.ops.harness.onednn_mm.default, (a, b))


def gradients(x, w):
    x, w = x.detach().requires_grad_(), w.detach().requires_grad_()
    return torch.autograd.grad((x @ w.t()).square().sum(), (x, w))


@pytest.mark.parametrize("dtype, swapped", [(torch.float32, 3), (torch.bfloat16, 0)])
def test_every_float32_product_of_a_graph_is_swapped(dtype, swapped):
    x, w = torch.randn(6, 4, dtype=dtype), torch.randn(5, 4, dtype=dtype)
    traced = make_fx(gradients, tracing_mode="fake")(x, w)
    ToOneDnn()(traced.graph)
    traced.recompile()
    names = [str(node.target) for node in traced.graph.nodes]
    assert names.count("harness.onednn_mm.default") == swapped
    assert names.count("aten.mm.default") == 3 - swapped
    for found, expected in zip(traced(x, w), gradients(x, w), strict=True):
        assert torch.allclose(found, expected, rtol=1e-5, atol=1e-5)
