"""The shipped tiles compiled for cards that are not there, and the reader of machine code.

Two cards here, to stay cheap; `python -m kernels.static sm_80 sm_90 sm_100 sm_120 gfx942` does all.
"""

from __future__ import annotations

import pytest
import torch

triton = pytest.importorskip("triton")

from kernels.attention.forward import launch_forward  # noqa: E402
from kernels.attention.problem import Options  # noqa: E402
from kernels.attention.tuning import Pass  # noqa: E402
from kernels.static import (  # noqa: E402
    CARDS,
    PLAIN,
    Loop,
    Resources,
    _instructions,
    _loops,
    as_row,
    baseline,
    compile_attention,
    compile_norm_rotary,
    compiling_for,
    key_of,
    regressions,
    violations,
)

SASS = """
        /*0000*/                   LDL R1, [R2] ;
        /*0010*/                   HMMA.16816.F32.BF16 R4, R8, R12, R4 ;
        /*0020*/              @!P0 STL [R2], R1 ;
        /*0030*/               @P1 BRA 0x10 ;
        /*0040*/                   HMMA.16816.F32.BF16 R4, R8, R12, R4 ;
        /*0050*/                   FADD R1, R2, R3 ;
        /*0060*/                   BRA 0x40 ;
        /*0070*/                   BRA 0x70 ;
"""


def test_spills_are_told_by_loop() -> None:
    assert set(_loops(_instructions(SASS))) == {Loop(3, 1, 1), Loop(3, 1, 0)}


@pytest.mark.parametrize("name", ["sm_80", "sm_90"])
def test_the_shipped_tiles_compile_and_are_no_worse_than_the_baseline(name: str) -> None:
    kept = baseline()
    compiled = compile_attention(CARDS[name], 64, torch.bfloat16)
    assert set(compiled) == set(Pass)
    for which, found in compiled.items():
        assert violations(found, CARDS[name]) == []
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
    assert len(compiled) == 4
    assert len({id(each) for each in compiled}) == 1


def test_the_baseline_holds_no_violation() -> None:
    for key, row in baseline()["rows"].items():
        assert row["main_loop_spills"] == 0, key
        assert row["shared_bytes"] <= CARDS[key.split()[0]].shared_per_program, key


def test_a_bad_kernel_is_told() -> None:
    bad = Resources("kernel", 32, 900, 200_000, 0, 0, (Loop(10, 2, 7),))
    assert len(violations(bad, CARDS["sm_120"])) == 5
    good = Resources("kernel", 200, 0, 60_000, 64, 2, (Loop(10, 2, 0),))
    assert regressions(good, as_row(good)) == []
    assert "loop_spills" in regressions(bad, as_row(good))
