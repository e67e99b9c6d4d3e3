"""The shipped tiles compiled for cards that are not there, and the reader of machine code.

Two cards here, to stay cheap; `harness bench kernels static=true` does all.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from types import SimpleNamespace

import pytest
import torch

triton = pytest.importorskip("triton")

from kernels import shipped  # noqa: E402
from kernels.attention.api import DTYPES  # noqa: E402
from kernels.attention.api import HEAD_DIMS as ACCEPTED  # noqa: E402
from kernels.attention.forward import launch_forward  # noqa: E402
from kernels.attention.problem import Options  # noqa: E402
from kernels.attention.tuning import Family, Pass, family, tile_for  # noqa: E402
from kernels.norm_rotary import kernel as norm_rotary  # noqa: E402
from kernels.pipes import Pipes, pipes_of  # noqa: E402
from kernels.shipped import (  # noqa: E402
    ALL_BUILDS,
    PLAIN,
    PLAIN_BUILDS,
    as_row,
    baseline,
    compile_attention,
    compile_norm_rotary,
    effective_backward,
    fallen_behind,
    key_of,
    regressions,
    violations,
)
from kernels.static import (  # noqa: E402
    CARDS,
    KIB,
    RESERVED,
    Loop,
    Resources,
    _instructions,
    _loops,
    compiling_for,
)

SASS = """
        /*0000*/                   LDL R1, [R2] ;
        /*0010*/                   HMMA.16816.F32.BF16 R4, R8, R12, R4 ;
        /*0020*/              @!P0 STL [R2], R1 ;
        /*0030*/               @P1 BRA 0x10 ;
        /*0040*/                   HMMA.16816.F32.BF16 R4, R8, R12, R4 ;
        /*0050*/                   FADD R1, R2, R3 ;
        /*0060*/                   BRA 0x40 ;
        /*0070*/                   EXIT ;
        /*0080*/                   LDL R1, [R2] ;
        /*0090*/                   BRA 0x50 ;
        /*00a0*/                   BRA 0xa0 ;
"""


def test_spills_are_told_by_loop() -> None:
    """The last jump comes back from behind the end of the program: no loop, and its spill is in none."""
    assert set(_loops(_instructions(SASS))) == {Loop(3, 1, 1), Loop(3, 1, 0)}


@pytest.mark.parametrize("name", ["sm_80", "sm_90"])
def test_the_shipped_tiles_compile_and_are_no_worse_than_the_baseline(name: str) -> None:
    kept = baseline()
    compiled = compile_attention(CARDS[name], 64, torch.bfloat16)
    assert set(compiled) == set(Pass)
    for which, found in compiled.items():
        assert violations(found, CARDS[name], key_of(name, 64, which) in kept["excused"]) == []
        if triton.__version__ == kept["triton"]:
            assert regressions(found, kept["rows"][key_of(name, 64, which)]) == []


def test_every_feature_compiles_at_once() -> None:
    options = Options(causal=False, window=9, scale=0.1, softcap=20.0)
    compiled = compile_attention(CARDS["sm_120"], 16, torch.float16, options, packed=True)
    assert [violations(found, CARDS["sm_120"]) for found in compiled.values()] == [[], [], []]


@pytest.mark.parametrize("name", ["sm_80", "gfx942"])
def test_norm_and_rotation_compile_without_spills(name: str) -> None:
    for found in compile_norm_rotary(CARDS[name], 64, torch.bfloat16):
        assert found.spills == 0
        assert found.programs_per_sm >= 4


def test_no_recompilation_as_the_number_of_tokens_changes() -> None:
    with compiling_for(CARDS["sm_80"]) as compiled:
        for tokens in (1, 64, 100, 4096):
            q = torch.empty(2, 1, tokens, 16, dtype=torch.bfloat16)
            launch_forward(q, q, q, PLAIN)
            table = torch.empty(tokens, 8)
            norm_rotary.launch_forward(q.transpose(1, 2), table[0], table, table, 1e-6)
    assert len(compiled) == 8
    assert len({id(each) for each in compiled}) == 2


def test_every_card_head_dim_and_pass_is_in_the_baseline() -> None:
    plain, every = (
        {
            key_of(card, build.head_dim, which, build.featured, build.dtype)
            for card, build, which in product(CARDS, builds, Pass)
        }
        for builds in (PLAIN_BUILDS, ALL_BUILDS)
    )
    sixteen = {key for key in every if "bfloat16" in key}
    assert plain <= sixteen <= set(baseline()["rows"]) <= every


def test_the_baseline_holds_no_spill_that_is_not_excused() -> None:
    """None at all at 128, and none in a loop anywhere."""
    kept = baseline()
    spilling = {key for key, row in kept["rows"].items() if row["spills"]}
    assert spilling == set(kept["excused"])
    assert not [key for key in spilling if key.split()[1] == "128"]
    for key, row in kept["rows"].items():
        assert row["loop_spills"] == 0, key
        assert row["shared_bytes"] <= CARDS[key.split()[0]].shared_per_program, key


def test_every_head_dim_and_type_has_a_tile_on_every_card() -> None:
    cards = [family for family in Family if family is not Family.interpreter]
    for card, which, D, dtype, featured in product(cards, Pass, ACCEPTED, DTYPES, (False, True)):
        tile = tile_for(card, which, D, dtype, featured)
        assert min(tile.rows, tile.columns) >= 16 and tile.warps in (4, 8)


@pytest.mark.parametrize("arch", [86, 87, 89, 120, 121])
def test_a_card_that_is_not_in_the_tables_takes_the_tiles_of_small_ones(
    monkeypatch: pytest.MonkeyPatch, arch: int
) -> None:
    """Which fit 64 KiB of shared memory, less what the runtime keeps: those cards have 99."""
    target = SimpleNamespace(backend="cuda", arch=arch)
    driver = SimpleNamespace(get_current_target=lambda: target)
    monkeypatch.setattr(triton.runtime.driver, "_active", driver)
    assert family() is Family.small
    rows = [row for key, row in baseline()["rows"].items() if key.startswith("sm_120")]
    assert max(row["shared_bytes"] for row in rows) + RESERVED <= 64 * KIB


BARS = {
    ("sm_90", 64): {Pass.forward: 467, Pass.keys_values: 506, Pass.queries: 557},
    ("sm_80", 64): {Pass.forward: 184, Pass.keys_values: 171, Pass.queries: 161},
}
"""TF_serial of the best public kernel or prototype that is known."""


@pytest.mark.parametrize(("card", "head_dim"), BARS)
def test_the_shipped_tiles_reach_the_best_known_at_64(card: str, head_dim: int) -> None:
    rows = baseline()["rows"]
    found = {which: round(rows[key_of(card, head_dim, which)]["tf_serial"]) for which in Pass}
    assert all(found[which] >= bar for which, bar in BARS[card, head_dim].items()), found


@pytest.mark.parametrize(("card", "bar"), [("sm_90", 352), ("sm_80", 96)])
def test_the_backward_at_128_is_the_best_known_without_spills(card: str, bar: float) -> None:
    rows = [baseline()["rows"][key_of(card, 128, which)] for which in (Pass.keys_values, Pass.queries)]
    assert effective_backward(*(row["tf_serial"] for row in rows)) > bar
    assert [row["loop_spills"] for row in rows] == [0, 0]


def test_the_pipes_of_a_loop_by_hand() -> None:
    """Eight instructions of four warps on an A100: two products of 4096 FLOP a warp against 2048 a cycle."""
    product = "HMMA.16816.F32.BF16 R4, R8, R12, R4"
    others = ["MUFU.EX2 R1, R1", "FFMA R1, R2, R3, R4", "LDS.128 R1, [R2]", "LDSM.16.M88.4 R1, [R2]"]
    lines = [product, product, *others, "FMNMX R1, R2, R3", "BRA 0x0"]
    text = "".join(f"        /*{16 * n:04x}*/      {line} ;\n" for n, line in enumerate(lines))
    rates = CARDS["sm_80"].rates
    assert rates is not None
    pipes = pipes_of(_instructions(text), 4, rates)
    assert pipes == Pipes(flop=32768, tensor=16.0, special=8, fp32=2, integer=2, issue=8, shared=32)
    assert pipes.other_over_tensor == 2
    assert pipes.tf_serial(rates) == pytest.approx(32768 / 48 * 108 * 1.41 / 1e3)
    for operands, read in (("gdesc[UR4]", 64 * 16 + 16 * 128), ("R4, gdesc[UR4]", 16 * 128)):
        product = f"        /*0000*/      HGMMA.64x128x16.F32.BF16 R24, {operands}, R24 ;\n"
        wide = pipes_of(_instructions(product), 8, rates)
        assert wide.flop == 2 * 2 * 64 * 128 * 16
        assert wide.shared == 2 * read * 2 / 128


def test_a_bad_kernel_is_told() -> None:
    bad = Resources("kernel", 32, 900, 200_000, 0, 0, (Loop(10, 2, 7),))
    assert len(violations(bad, CARDS["sm_120"])) == 5
    good = Resources("kernel", 200, 0, 60_000, 64, 2, (Loop(10, 2, 0),))
    assert regressions(good, as_row(good)) == []
    assert "loop_spills 0 -> 7" in regressions(bad, as_row(good))


def test_what_fell_behind_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    good = Resources("kernel", 200, 0, 60_000, 64, 2, (Loop(10, 2, 0, 0.5, 100.0),))
    slow, fat = replace(good, loops=(Loop(10, 2, 0, 0.6, 90.0),)), replace(good, spills=4)
    kept = {"triton": triton.__version__, "excused": {"sm_80 d": "why"}, "rows": {}}
    kept["rows"] = {f"sm_80 {name}": as_row(good) for name in "abc"} | {"sm_80 d": as_row(fat)}
    monkeypatch.setattr(shipped, "baseline", lambda: kept)
    found = {"sm_80 a": good, "sm_80 b": slow, "sm_80 c": fat, "sm_80 d": fat, "sm_80 new": good}
    assert fallen_behind(found) == {
        "sm_80 b": ["tf_serial 100.0 -> 90.0"],
        "sm_80 c": ["4 spill instructions", "spills 0 -> 4"],
    }
    kept["triton"] = "another"
    assert fallen_behind(found) == {"sm_80 c": ["4 spill instructions"]}
