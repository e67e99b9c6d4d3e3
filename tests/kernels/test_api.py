"""The public call on a CPU without the interpreter: the reference answers, and bad input is refused."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import kernels
from kernels.attention.problem import documents_of_ids, visible_pairs


def qkv(H: int = 4, K: int = 4, T_q: int = 12, T_k: int = 12, D: int = 16, B: int = 2) -> list[Tensor]:
    random = torch.Generator().manual_seed(0)
    return [torch.randn(B, heads, T, D, generator=random) for heads, T in ((H, T_q), (K, T_k), (K, T_k))]


def seen(T_q: int, T_k: int, rule: object) -> Tensor:
    return torch.tensor([[bool(rule(i + T_k - T_q, j)) for j in range(T_k)] for i in range(T_q)])


def test_a_cpu_is_answered_by_the_reference() -> None:
    assert kernels.implementation_for(qkv()[0]) is kernels.Implementation.reference


@pytest.mark.parametrize("K", [4, 2, 1])
def test_causal_attention_is_that_of_pytorch(K: int) -> None:
    q, k, v = qkv(K=K)
    truth = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
    torch.testing.assert_close(kernels.attention(q, k, v, causal=True), truth)


@pytest.mark.parametrize(
    ("causal", "window", "rule"),
    [
        (True, None, lambda p, j: j <= p),
        (True, 1, lambda p, j: j == p),
        (True, 3, lambda p, j: p - 2 <= j <= p),
        (False, 3, lambda p, j: p - 2 <= j <= p + 2),
        (False, None, lambda p, j: True),
    ],
)
@pytest.mark.parametrize("lengths", [(12, 12), (5, 12)])
def test_the_mask_is_the_one_stated(
    causal: bool, window: int | None, rule: object, lengths: tuple[int, int]
) -> None:
    q, k, v = qkv(T_q=lengths[0], T_k=lengths[1])
    mask = seen(*lengths, rule)
    truth = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=0.3)
    torch.testing.assert_close(kernels.attention(q, k, v, causal=causal, window=window, scale=0.3), truth)
    assert visible_pairs(*lengths, causal, window) == int(mask.sum())


def test_a_document_equals_itself_alone() -> None:
    q, k, v = qkv(B=1)
    packed = kernels.attention(q, k, v, causal=True, cu_seqlens=torch.tensor([0, 5, 12]))
    alone = [
        kernels.attention(*(x[:, :, part] for x in (q, k, v)), causal=True)
        for part in (slice(5), slice(5, 12))
    ]
    torch.testing.assert_close(packed, torch.cat(alone, dim=2))


def test_a_document_is_a_run_of_equal_ids() -> None:
    documents = documents_of_ids(torch.tensor([[7, 7, 3, 7, 7], [1, 1, 1, 1, 1]]))
    assert documents.starts.tolist() == [[0, 0, 2, 3, 3], [0] * 5]
    assert documents.ends.tolist() == [[2, 2, 3, 5, 5], [5] * 5]


def test_softcap_and_sink_by_hand() -> None:
    q, k, v = qkv(H=1, K=1, T_q=1, T_k=2, B=1)
    logits = 3 * torch.tanh((q @ k.transpose(-1, -2)).flatten() / 4 / 3)
    sink = torch.tensor([0.5])
    weights = torch.cat([logits, sink]).softmax(0)
    out, lse = kernels.attention(q, k, v, causal=False, softcap=3.0, sink=sink, return_lse=True)
    torch.testing.assert_close(out.flatten(), weights[:2] @ v[0, 0])
    torch.testing.assert_close(lse.flatten(), torch.cat([logits, sink]).logsumexp(0, keepdim=True))


def test_a_query_that_sees_no_key_gives_zeros_and_no_gradient() -> None:
    q, k, v = (x.requires_grad_() for x in qkv(T_q=5, T_k=3))
    out, lse = kernels.attention(q, k, v, causal=True, return_lse=True)
    out.sum().backward()
    assert (out[:, :, :2] == 0).all()
    assert (lse[:, :, :2] == -torch.inf).all()
    assert (q.grad[:, :, :2] == 0).all()
    assert all(x.grad.isfinite().all() for x in (q, k, v))


def test_compiles_into_one_graph() -> None:
    q, k, v = qkv()
    compiled = torch.compile(
        lambda *x: kernels.attention(*x, causal=True), fullgraph=True, backend="aot_eager"
    )
    torch.testing.assert_close(compiled(q, k, v), kernels.attention(q, k, v, causal=True))


def test_compiles_into_one_graph_under_autocast() -> None:
    q, k, v = qkv()
    compiled = torch.compile(
        lambda *x: kernels.attention(*x, causal=True), fullgraph=True, backend="aot_eager"
    )
    with torch.autocast("cpu", torch.bfloat16):
        ours, eager = compiled(q, k, v), kernels.attention(q, k, v, causal=True)
    assert ours.dtype == torch.bfloat16
    torch.testing.assert_close(ours, eager)


IDS = torch.zeros(2, 12, dtype=torch.long)
WRONG: dict[str, tuple[dict[str, object], dict[str, object]]] = {
    "head_dim 24 is not supported": ({"D": 24}, {}),
    "4 query heads on 3 key heads": ({"K": 3}, {}),
    "each at least 1": ({"T_q": 0}, {}),
    "scale=0.0 must be positive": ({}, {"scale": 0}),
    "softcap=-1.0 must be positive": ({}, {"softcap": -1.0}),
    "window=0 must be within": ({}, {"window": 0}),
    "not both": ({"B": 1}, {"document_ids": IDS[:1], "cu_seqlens": torch.tensor([0, 12])}),
    "as many keys as queries": ({"T_q": 6}, {"document_ids": IDS}),
    r"want integers \(batch, tokens\)": ({}, {"document_ids": IDS[:1]}),
    "use document_ids": ({}, {"cu_seqlens": torch.tensor([0, 12])}),
    "want n . 1 int32 or int64": ({"B": 1}, {"cu_seqlens": torch.tensor([12])}),
    r"never fall, .* it is \[0, 5, 3, 12\]": ({"B": 1}, {"cu_seqlens": torch.tensor([0, 5, 3, 12])}),
    "must begin with 0": ({"B": 1}, {"cu_seqlens": torch.tensor([1, 12])}),
    "not pass the 12 tokens": ({"B": 1}, {"cu_seqlens": torch.tensor([0, 13])}),
    "want a float for each of 4 heads": ({}, {"sink": torch.zeros(3)}),
}


@pytest.mark.parametrize("said", WRONG)
def test_refuses(said: str) -> None:
    sizes, options = WRONG[said]
    with pytest.raises(ValueError, match=said) as raised:
        kernels.attention(*qkv(**sizes), causal=True, **options)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("window", [3.5, True, "a"])
def test_refuses_a_window_that_is_no_integer(window: object) -> None:
    with pytest.raises(TypeError, match="must be an integer"):
        kernels.attention(*qkv(), causal=True, window=window)


def test_the_operator_itself_refuses_a_cpu() -> None:
    pytest.importorskip("triton")
    with pytest.raises(ValueError, match="launches on a GPU, and q is on cpu"):
        torch.ops.kernels.attention(*qkv(), None, None, None, True, None, 0.25, None)


def test_sizes_alone_are_worked_out_on_the_meta_device() -> None:
    assert kernels.attention(*(x.to("meta") for x in qkv()), causal=True).shape == (2, 4, 12, 16)


def test_refuses_other_types_and_layouts() -> None:
    q, k, v = qkv()
    with pytest.raises(TypeError, match="float64 is not supported"):
        kernels.attention(q.double(), k.double(), v.double(), causal=True)
    with pytest.raises(TypeError, match="want one type on one device"):
        kernels.attention(q, k.bfloat16(), v, causal=True)
    with pytest.raises(ValueError, match="k is torch"):
        kernels.attention(q, k[0], v, causal=True)
    with pytest.raises(ValueError, match=r"call .contiguous\(\)"):
        far = torch.empty(2**22 + 16).as_strided((2, 4, 2, 16), (0, 0, 2**22, 1))
        kernels.attention(far, k, v, causal=True)
