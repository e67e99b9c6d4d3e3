"""What of the bench needs no GPU: who is wrong has no speed, who cannot run says why, and the table."""

from __future__ import annotations

import json

import pytest
import torch
from torch import Tensor

from harness.commands.bench_kernels import timing_row
from harness.errors import CannotAnswer, WrongInput
from kernels.bench import Case, by_backend, matmul_tflops, race, timed
from kernels.selfcheck import sdpa

CASE = Case(batch=1, heads=4, key_heads=2, tokens=40, head_dim=16, window=9)


def clock(call: object) -> float:
    call()
    return 2.0


def shifted(q: Tensor, k: Tensor, v: Tensor, window: int | None) -> Tensor:
    return sdpa(q, k, v, window + 1)


def absent(q: Tensor, k: Tensor, v: Tensor, window: int | None) -> Tensor:
    raise RuntimeError("No available kernel.\nA second line.")


def test_only_who_is_right_has_a_speed() -> None:
    by = {"right": sdpa, "wrong": shifted, "absent": absent}
    right, wrong, missing = race(by, (CASE,), clock, "cpu")
    assert (right.refused, right.forward_ms, right.backward_ms) == ("", 2.0, 2.0)
    assert right.forward_tflops == pytest.approx(CASE.forward_flops / 2e-3 / 1e12)
    assert right.backward_tflops == pytest.approx(2.5 * right.forward_tflops)
    assert wrong.refused.startswith("wrong: out is off by")
    assert missing.refused == "No available kernel."
    assert wrong.forward_ms is wrong.forward_tflops is missing.backward_ms is None
    assert timing_row(wrong, 100.0)[4:11] == ("wrong", "", "", "", "", "", "")
    assert timing_row(right, right.forward_tflops)[5:8] == ("2.000", "0", "100")


def test_flops_are_those_of_the_pairs_that_are_seen() -> None:
    full = Case(batch=2, heads=3, key_heads=3, tokens=10, head_dim=8)
    assert full.forward_flops == 2 * 3 * 4 * 8 * 55
    assert matmul_tflops(clock, "cpu", size=8) == pytest.approx(2 * 8**3 / 2e-3 / 1e12)


def test_a_back_end_that_is_not_there_is_no_error() -> None:
    from torch.nn.attention import SDPBackend

    found = timed(CASE, "cuDNN", by_backend(SDPBackend.CUDNN_ATTENTION), clock, "cpu")
    assert found.refused
    assert found.forward_ms is None


def test_without_a_gpu_it_says_so_in_one_line(harness, tmp_path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    done = harness("bench", "kernels", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 1
    assert "static=true" in done.stderr


@pytest.fixture
def compiled(monkeypatch):
    """What three kernels of sm_90 were compiled to, of which the baseline excuses one; the baseline."""
    pytest.importorskip("triton")
    from kernels import first_call, shipped
    from kernels.linear_cross_entropy import static as loss
    from kernels.static import Loop, Resources

    spilling = Resources("k", 32, 9, 0, 0, 8, ())
    monkeypatch.setattr(loss, "shipped_rows", lambda card: [(loss.key_of(card, 256), spilling)])
    monkeypatch.setattr(first_call, "seconds_of", lambda card, head_dim: head_dim / 16)
    found = Resources("k", 200, 3, 65536, 24, 2, (Loop(400, 12, 0, 0.9, 500.0), Loop(500, 12, 3, 1.0, 400.0)))
    keys = [shipped.key_of("sm_90", 64, which) for which in shipped.Pass]
    kept = {
        "triton": shipped.triton.__version__,
        "excused": dict.fromkeys(keys, "for speed"),
        "rows": {key: shipped.as_row(found) for key in keys},
    }
    monkeypatch.setattr(shipped, "HEAD_DIMS", (64,))
    monkeypatch.setattr(shipped, "shipped_rows", lambda card, featured: ((key, found) for key in keys))
    monkeypatch.setattr(shipped, "baseline", lambda: kept)
    return keys, kept


def test_the_static_table_says_what_it_is(compiled, capsys) -> None:
    from harness.commands.bench_kernels import bench_kernels
    from harness.commands.root import Format
    from kernels.linear_cross_entropy import static as loss

    bench_kernels(True, ["sm_90"], Format.table)
    said = capsys.readouterr().out
    assert "0.90" in said and "the whole backward 357 TF" in said
    assert "9 spill instructions" in said and "compiles for 4.0 processor seconds" in said
    assert "have been run on: none" in said and "no measurement" in said
    assert "excused, sm_90 64 forward bfloat16: for speed" in said
    bench_kernels(True, ["sm_90"], Format.json)
    found = json.loads(capsys.readouterr().out)
    row = found["rows"][compiled[0][0]]
    assert (row["tf_serial"], row["loop_spills"], row["faults"]) == (500.0, 3, [])
    assert found["cross_entropy"][loss.key_of("sm_90", 256)]["faults"] == ["9 spill instructions"]
    assert found["first_call_seconds"] == {"sm_90, head_dim 64": 4.0, "sm_90, head_dim 128": 8.0}
    with pytest.raises(WrongInput, match="sm_70"):
        bench_kernels(True, ["sm_70"], Format.table)


def test_a_tile_that_fell_behind_its_baseline_is_an_error(compiled, capsys) -> None:
    from harness.commands.bench_kernels import bench_kernels
    from harness.commands.root import Format

    keys, kept = compiled
    kept["rows"][keys[0]]["registers"] = 100
    del kept["excused"][keys[1]]
    for format in Format:
        with pytest.raises(CannotAnswer, match="2 of 3 kernels fell behind") as raised:
            bench_kernels(True, ["sm_90"], format)
        assert f"{keys[0]}: registers 100 -> 200" in str(raised.value)
        assert f"{keys[1]}: 3 spill instructions" in str(raised.value)
        assert "\n" not in str(raised.value)
    assert capsys.readouterr().out.count("BEHIND") == 2


def test_a_card_without_rates_says_why(monkeypatch, capsys) -> None:
    pytest.importorskip("triton")
    from harness.commands.bench_kernels import UNKNOWN, notes, static_row
    from kernels.static import CARDS, Loop, Resources

    assert set(UNKNOWN) == {name for name, card in CARDS.items() if card.rates is None}
    found = Resources("k", 200, 0, 65536, 24, 2, (Loop(400, 12, 0),))
    assert static_row("sm_100 64 forward bfloat16", found, False, False)[10:12] == ("unknown", "unknown")
    (line,) = [line for line in notes({"sm_100 64 forward bfloat16": found}, {}) if "unknown" in line]
    assert line.startswith("sm_100: A/T and TF unknown, as")
