"""How often kernels are compiled, once for sequences of any length; and what the loss kernel becomes."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("triton")

from kernels.attention.backward import launch_backward, launch_delta
from kernels.attention.forward import launch_forward
from kernels.linear_cross_entropy import static as loss
from kernels.linear_cross_entropy.kernel import launch_block
from kernels.norm_rotary import kernel as norm_rotary
from kernels.shipped import PLAIN
from kernels.static import CARDS, Resources, compiling_for

LENGTHS = (1, 2, 15, 16, 17, 31, 32, 33, 48, 100, 127, 128, 129, 1000, 1024, 4096)


def a_step(tokens: int, offset: int) -> None:
    """Forward and backward of a step as a model calls them: heads cut from one projection, and the targets
    and losses of a block that begins anywhere."""
    B, H, K, D = 2, 2, 1, 16
    projected = torch.empty(B, tokens, (H + 2 * K) * D, dtype=torch.bfloat16)
    q_BTHD, k_BTHD, v_BTHD = (
        part.unflatten(-1, (-1, D)) for part in projected.split([H * D, K * D, K * D], -1)
    )
    table, gain, row = torch.empty(tokens, D // 2), torch.empty(D), torch.empty(B, H, tokens)
    q = norm_rotary.launch_forward(q_BTHD, gain, table, table, 1e-6).transpose(1, 2)
    k, v = k_BTHD.transpose(1, 2), v_BTHD.transpose(1, 2)
    out, lse = launch_forward(q, k, v, PLAIN)
    delta = launch_delta(out, out, row)
    dq, _, _ = launch_backward(out, q, k, v, lse, delta, PLAIN)
    norm_rotary.launch_backward(dq.transpose(1, 2), q_BTHD, gain, table, table, 1e-6)
    targets, losses = torch.empty(tokens + 3, dtype=torch.int64), torch.empty(tokens + 3)
    rows = torch.empty(tokens, 320, dtype=torch.bfloat16)
    launch_block(rows, 257, targets[offset:], losses[offset:], 0.0, -100, True)


def test_no_recompilation_as_the_number_of_tokens_changes() -> None:
    with compiling_for(CARDS["sm_80"]) as compiled:
        for number, tokens in enumerate(LENGTHS):
            a_step(tokens, number % 4)
    launches = len(compiled) // len(LENGTHS)
    assert launches == 7
    for place in range(launches):
        assert len({id(each) for each in compiled[place::launches]}) == 1, compiled[place].name


def test_fused_multiply_add_is_asked_for_and_no_default(monkeypatch) -> None:
    """Of Triton, which changes it: numbers and baselines stay those of fused kernels."""
    monkeypatch.setenv("TRITON_DEFAULT_FP_FUSION", "0")
    with compiling_for(CARDS["sm_80"]) as compiled:
        a_step(32, 0)
    assert {
        each.name: each.metadata.enable_fp_fusion for each in compiled if not each.metadata.enable_fp_fusion
    } == {}


@pytest.mark.parametrize("card", ["sm_90", "gfx942"])
def test_the_loss_kernel_is_no_worse_than_its_baseline(card: str) -> None:
    kept = loss.baseline()
    for key, found in loss.shipped_rows(card):
        assert loss.faults(found, CARDS[card]) == []
        if loss.triton.__version__ == kept["triton"]:
            assert loss.regressions(found, kept["rows"][key]) == []


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("gradients", [True, False])
def test_the_loss_kernel_compiles_in_every_precision(dtype: torch.dtype, gradients: bool) -> None:
    found = loss.compile_block(CARDS["sm_120"], 4099, dtype, gradients)
    assert loss.faults(found, CARDS["sm_120"]) == []


def test_the_baseline_has_every_card_without_a_fault() -> None:
    rows = loss.baseline()["rows"]
    assert set(rows) == {loss.key_of(card, V) for card in CARDS for V in loss.VOCABULARIES}
    assert all(row["spills"] == 0 for row in rows.values())


def test_a_bad_loss_kernel_is_told() -> None:
    bad, good = Resources("k", 99, 9, 200_000, 0, 1, ()), Resources("k", 40, 0, 32, 0, 6, ())
    assert len(loss.faults(bad, CARDS["sm_120"])) == 3
    assert loss.regressions(good, loss.as_row(good)) == []
    assert len(loss.regressions(bad, loss.as_row(good))) == 4
