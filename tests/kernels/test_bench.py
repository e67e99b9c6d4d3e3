"""What of the bench needs no GPU: who is wrong has no speed, who cannot run says why, and the table."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from importlib.machinery import ModuleSpec
from itertools import count
from types import ModuleType

import pytest
import torch
from torch import Tensor

from harness.commands.bench_cross_entropy import loss_rows, remarks
from harness.commands.bench_kernels import timing_row
from harness.errors import CannotAnswer, WrongInput
from kernels.bench import Case, by_backend, matmul_tflops, race, timed
from kernels.linear_cross_entropy import bench as loss_bench
from kernels.linear_cross_entropy.reference import reference_linear_cross_entropy
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
    assert [line.split(",")[0] for line in remarks([right, wrong, missing])] == ["wrong", "absent"]
    assert timing_row(wrong, 100.0)[4:] == ("wrong", "", "", "", "", "", "")
    assert timing_row(right, right.forward_tflops)[5:8] == ("2.000", "0", "100")


TURNS = count()


def by_atomics(q: Tensor, k: Tensor, v: Tensor, window: int | None) -> Tensor:
    """Right, but its gradients never sum twice in one order."""
    return sdpa(rounded(q), k, v, window)


def rounded(q: Tensor) -> Tensor:
    out = q.clone()
    out[..., 0] += torch.finfo(q.dtype).eps * q[..., 0] * (next(TURNS) % 2)
    return out


def test_whose_gradients_differ_between_two_runs_is_told_and_timed() -> None:
    (found,) = race({"atomics": by_atomics}, (CASE,), clock, "cpu")
    assert (found.refused, found.forward_ms) == ("", 2.0)
    assert found.unsteady == "out differs between two runs"
    assert remarks([found]) == ["atomics, on 1 of 1: out differs between two runs"]


def test_a_compiled_backward_runs_as_often_as_the_clock_likes() -> None:
    """PyTorch's compiler gives away what the forward keeps, unless told that there is a second backward."""
    attend = torch.compile(sdpa, backend="aot_eager", dynamic=False)
    as_compared = replace(CASE, batch=2, heads=2, key_heads=1, window=None)
    (found,) = race({"compiled": attend}, (as_compared,), clock, "cpu")
    assert found.refused == ""


def test_flops_are_those_of_the_pairs_that_are_seen() -> None:
    full = Case(batch=2, heads=3, key_heads=3, tokens=10, head_dim=8)
    assert full.forward_flops == 2 * 3 * 4 * 8 * 55
    assert matmul_tflops(clock, "cpu", size=8) == pytest.approx(2 * 8**3 / 2e-3 / 1e12)


def test_a_back_end_that_is_not_there_is_no_error() -> None:
    from torch.nn.attention import SDPBackend

    found = timed(CASE, "cuDNN", by_backend(SDPBackend.CUDNN_ATTENTION), clock, "cpu")
    assert found.refused
    assert found.forward_ms is None


LOSS = loss_bench.Case(tokens=40, width=8, vocab_size=61)


def steeper(hidden: Tensor, weight: Tensor, targets: Tensor, z_loss: float) -> Tensor:
    return 1.02 * loss_bench.eager(hidden, weight, targets, z_loss)


def test_only_a_right_loss_has_a_speed() -> None:
    by = {"right": loss_bench.chunks, "wrong": steeper, "PyTorch's": loss_bench.torch_chunks}
    right, wrong, other = found = loss_bench.race(by, (LOSS,), clock, "cpu")
    assert (right.refused, right.validating_ms, right.training_ms) == ("", 2.0, 2.0)
    assert right.validating_tflops == pytest.approx(2 * 40 * 8 * 61 / 2e-3 / 1e12)
    assert right.training_tflops == pytest.approx(3 * right.validating_tflops)
    assert wrong.refused.startswith("wrong: loss is off by")
    assert wrong.training_ms is wrong.validating_tflops is None
    assert other.refused == ""
    rows = loss_rows(found, right.training_tflops)
    assert rows[0] == ("40", "8", "61", "right", "2.000", "0", "33", "2.000", "0", "100")
    assert rows[1][4:10] == ("",) * 6


def test_a_loss_that_cannot_run_says_why() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    found = loss_bench.timed(LOSS, "ours", loss_bench.by_kernel, clock, "cpu")
    assert found.refused and "wrong" not in found.refused
    assert found.training_ms is None


def test_liger_is_timed_where_it_is_installed(monkeypatch) -> None:
    assert "Liger" not in loss_bench.contestants()
    stand_in = ModuleType("liger_kernel.transformers.functional")
    asked = []

    def fused(hidden, weight, targets, *, ignore_index, lse_square_scale, accum_dtype):
        asked.append(accum_dtype)
        return reference_linear_cross_entropy(hidden, weight, targets, lse_square_scale, ignore_index)

    stand_in.liger_fused_linear_cross_entropy = fused
    package = ModuleType("liger_kernel")
    package.__spec__ = ModuleSpec("liger_kernel", None)
    for module in (package, ModuleType("liger_kernel.transformers"), stand_in):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    assert not loss_bench.timed(LOSS, "Liger", loss_bench.contestants()["Liger"], clock, "cpu").refused
    assert set(asked) == {torch.float32}


def test_every_case_is_compiled_anew() -> None:
    """Past a few shapes of one function PyTorch would go on without compiling it, and be timed like that."""
    compiled = []

    def backend(graph, _):
        compiled.append(graph)
        return graph

    attend, loss = (torch.compile(each, backend=backend, dynamic=False) for each in (sdpa, loss_bench.eager))
    with torch._dynamo.config.patch(recompile_limit=3):
        for width in (8, 9):
            before = len(compiled)
            case = replace(CASE, tokens=width, window=None)
            assert not timed(case, "compiled", attend, clock, "cpu").refused
            assert len(compiled) > before
            before = len(compiled)
            assert not loss_bench.timed(replace(LOSS, width=width), "compiled", loss, clock, "cpu").refused
            assert len(compiled) > before


def test_on_a_gpu_both_tables_are_shown(monkeypatch, capsys) -> None:
    """A card of words: its clock and its contestants are put in."""
    from harness.commands.bench_kernels import bench_kernels
    from harness.commands.root import Format
    from kernels import bench

    pytest.importorskip("triton")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a card")
    monkeypatch.setattr(bench, "matmul_tflops", lambda clock: 1e-3)
    on_cpu = {module: module.race for module in (bench, loss_bench)}
    for module, case, by in (
        (bench, CASE, {"right": sdpa, "wrong": shifted}),
        (loss_bench, LOSS, {"right": loss_bench.eager, "wrong": steeper}),
    ):
        monkeypatch.setattr(module, "CASES", (case,))
        monkeypatch.setattr(module, "contestants", lambda by=by: by)
        race_on_cpu = on_cpu[module]
        monkeypatch.setattr(
            module, "race", lambda by, cases, _, __, race=race_on_cpu: race(by, cases, clock, "cpu")
        )
    bench_kernels(False, [], Format.table)
    said = capsys.readouterr().out
    assert "causal attention" in said and "head and cross-entropy" in said and "on a card" in said
    assert said.count("wrong: ") == 2 and said.count("2.000") == 4
    bench_kernels(False, [], Format.json)
    found = json.loads(capsys.readouterr().out)
    assert [each["refused"][:5] for each in found["cross_entropy"]] == ["", "wrong"]
    assert [each["forward_ms"] for each in found["timings"]] == [2.0, None]


def test_without_a_gpu_it_says_so_in_one_line(harness, tmp_path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    done = harness("bench", "kernels", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 1
    assert "nothing was timed" in done.stderr and "static=true" in done.stderr


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
    found = Resources("k", 200, 3, 65536, 24, 2, (Loop(400, 12, 0, 0.9, 500.0), Loop(500, 12, 0, 1.0, 400.0)))
    keys = [shipped.key_of("sm_90", 64, which) for which in shipped.Pass]
    kept = {
        "triton": shipped.triton.__version__,
        "excused": dict.fromkeys(keys, "for speed"),
        "rows": {key: shipped.as_row(found) for key in keys},
    }
    monkeypatch.setattr(shipped, "shipped_rows", lambda card, builds: ((key, found) for key in keys))
    monkeypatch.setattr(shipped, "baseline", lambda: kept)
    return keys, kept


def test_the_static_table_says_what_it_is(compiled, capsys) -> None:
    from harness.commands.bench_kernels import bench_kernels
    from harness.commands.root import Format
    from kernels.linear_cross_entropy import static as loss

    bench_kernels(True, ["sm_90"], Format.table)
    said = capsys.readouterr().out
    (queries,) = (
        " ".join(line.split()) for line in said.splitlines() if "queries " in line and "64x" in line
    )
    assert queries == "64 queries 64x128 4 2 200 3 0 64 2 400 12 0.90 500 357 excused"
    assert "9 spill instructions" in said and "head_dim 64       4.0" in said
    assert "have been run on: none" in said and "no measurement" in " ".join(said.split())
    assert "excused, sm_90 64 forward bfloat16: for speed" in said
    assert max(map(len, said.splitlines())) <= 120
    bench_kernels(True, ["sm_90"], Format.json)
    found = json.loads(capsys.readouterr().out)
    row = found["rows"][compiled[0][0]]
    assert (row["tile"], row["tf_serial"], row["spills"], row["faults"]) == (
        "128x128 8 warps 2 stages",
        500.0,
        3,
        [],
    )
    assert found["effective_backward"] == {"sm_90 64 bfloat16": 357.1}
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
    assert static_row("sm_100 64 forward bfloat16", found, {}, False, False)[10:12] == ("-", "-")
    (line,) = [line for line in notes({"sm_100 64 forward bfloat16": found}, {}) if "unknown" in line]
    assert line.startswith("sm_100: A/T and TF unknown, as")
