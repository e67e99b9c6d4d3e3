"""Which library multiplies float32 matrices on a CPU in a compiled step.

PyTorch sends them to MKL, which leaves AVX-512 unused on processors that are not Intel's; oneDNN, which
PyTorch brings as well, uses it wherever it is. On one core of an AMD EPYC (Zen 5) MKL does 60 to 90 GFLOP/s
of a small model's products, oneDNN 150 to 200. The two round differently.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch._inductor.custom_graph_pass import CustomGraphPass, get_hash_for_files

from harness.training.settings import Gemm


@torch.library.custom_op("harness::onednn_mm", mutates_args=(), device_types="cpu")
def onednn_mm(a_MK: Tensor, b_KN: Tensor) -> Tensor:
    """a @ b."""
    linear = torch.ops.mkldnn._linear_pointwise.default  # x, weight -> x @ weight.T
    if is_transposed_better(a_MK, b_KN):
        return linear(b_KN.t(), a_MK, None, "none", [], "").t()
    return linear(a_MK, b_KN.t(), None, "none", [], "")


@onednn_mm.register_fake
def _(a_MK: Tensor, b_KN: Tensor) -> Tensor:
    rows, columns = a_MK.shape[0], b_KN.shape[1]
    if is_transposed_better(a_MK, b_KN):
        return a_MK.new_empty(columns, rows).t()
    return a_MK.new_empty(rows, columns)


def is_transposed_better(a_MK: Tensor, b_KN: Tensor) -> bool:
    """oneDNN copies a transposed left side first, as a gradient of weights has: let it be the smaller one."""
    return a_MK.stride(-1) != 1 and a_MK.shape[0] > b_KN.shape[1]


class ToOneDnn(CustomGraphPass):
    """Swaps the float32 products of a compiled graph, forward or backward."""

    def __call__(self, graph: torch.fx.Graph) -> None:
        for node in graph.find_nodes(op="call_function", target=torch.ops.aten.mm.default):
            out = node.meta["val"]
            if out.device.type == "cpu" and out.dtype is torch.float32:
                node.target = torch.ops.harness.onednn_mm.default

    def uuid(self) -> bytes:
        return get_hash_for_files((__file__,))


def compile_with(gemm: Gemm, function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The compiled function; `onednn` means PyTorch's own choice where PyTorch was built without it."""
    swaps = gemm is Gemm.onednn and torch.backends.mkldnn.is_available()
    options: dict[str, Any] | None = {"post_grad_custom_pre_pass": ToOneDnn()} if swaps else None
    return torch.compile(function, dynamic=False, options=options)
