"""What the loss kernel compiles to on each card, and the baseline it must not fall behind.

python -m kernels.linear_cross_entropy.static        compile it for every card and keep that as the baseline
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import triton

from kernels.linear_cross_entropy.kernel import launch_block
from kernels.linear_cross_entropy.sweep import padded_row
from kernels.static import CARDS, Card, Resources, compiling_for, resources

BASELINE = Path(__file__).parent / "baseline.json"
VOCABULARIES = (256, 50_257)
"""Of bytes, in one part; and one that is a multiple of nothing, in parts."""


def compile_block(card: Card, vocabulary: int, dtype: torch.dtype, gradients: bool = True) -> Resources:
    rows = torch.empty(2, padded_row(vocabulary, dtype.itemsize), dtype=dtype)
    with compiling_for(card) as compiled:
        launch_block(rows, vocabulary, torch.zeros(2, dtype=torch.int64), torch.empty(2), 0.0, -1, gradients)
    return resources(compiled[0], card)


def faults(found: Resources, card: Card) -> list[str]:
    """Why it must not ship. It streams rows: nothing may spill, and a multiprocessor must hold several."""
    said = []
    if found.spills:
        said.append(f"{found.spills} spill instructions")
    if found.shared_bytes > card.shared_per_program:
        said.append(f"{found.shared_bytes} bytes of shared memory of {card.shared_per_program}")
    if found.programs_per_sm < 2:
        said.append(f"{found.programs_per_sm} programs on a multiprocessor")
    return said


def regressions(found: Resources, before: dict[str, Any]) -> list[str]:
    """What became worse than the kept baseline (same triton)."""
    worse = {
        "registers": found.registers > before["registers"] + 8,
        "spills": found.spills > before["spills"],
        "shared_bytes": found.shared_bytes > before["shared_bytes"],
        "programs_per_sm": found.programs_per_sm < before["programs_per_sm"],
    }
    return [name for name, is_worse in worse.items() if is_worse]


def key_of(card: str, vocabulary: int) -> str:
    return f"{card} {vocabulary} cross_entropy bfloat16"


def shipped_rows(card: str) -> Iterator[tuple[str, Resources]]:
    for vocabulary in VOCABULARIES:
        yield key_of(card, vocabulary), compile_block(CARDS[card], vocabulary, torch.bfloat16)


def as_row(found: Resources) -> dict[str, Any]:
    return {key: asdict(found)[key] for key in ("registers", "spills", "shared_bytes", "programs_per_sm")}


def baseline() -> dict[str, Any]:
    """{"triton": version, "rows": {key_of(...): as_row(...)}}"""
    return json.loads(BASELINE.read_text())


if __name__ == "__main__":
    rows = {key: as_row(found) for card in CARDS for key, found in shipped_rows(card)}
    BASELINE.write_text(json.dumps({"triton": triton.__version__, "rows": rows}, indent=1) + "\n")
