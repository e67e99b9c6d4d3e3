"""The shipped tiles: what they compile to on each card, and the baseline they must not fall behind.

    python -m kernels.shipped                  compile those of every card and keep them as the baseline
    python -m kernels.shipped sm_120 gfx942    of these cards

`harness bench kernels static=true` shows them, and fails where they fell behind. No kernel spills, but those
that the baseline excuses, each with its reason.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import torch
import triton

from kernels.attention.api import HEAD_DIMS as ACCEPTED
from kernels.attention.api import WIDEST_FLOAT32
from kernels.attention.backward import launch_backward
from kernels.attention.forward import launch_forward
from kernels.attention.problem import Options, documents_of_ids
from kernels.attention.tuning import Pass, Tile, family_of, padded_width, tile_for
from kernels.norm_rotary import kernel as norm_rotary
from kernels.static import CARDS, Card, Loop, Resources, compiling_for, resources

BASELINE = Path(__file__).parent / "attention" / "baseline.json"

PLAIN = Options(causal=True, window=None, scale=0.1, softcap=None)
KERNELS = {
    "forward_kernel": Pass.forward,
    "keys_values_kernel": Pass.keys_values,
    "queries_kernel": Pass.queries,
}


def compile_attention(
    card: Card, head_dim: int, dtype: torch.dtype, options: Options = PLAIN, packed: bool = False
) -> dict[Pass, Resources]:
    """The kernels of a head dimension with the tiles of the card, through the ordinary wrappers.

    `packed`: documents, grouped queries and a sink as well. TF of a padded head dimension counts the columns
    before the padding only; of float32 there is none, as the rates are those of 16 bits.
    """
    card = replace(card, rates=None) if dtype == torch.float32 else card
    useful = head_dim / padded_width(head_dim)
    q = torch.empty(1, 2, 256, head_dim, dtype=dtype)
    k = q[:, :1] if packed else q
    row = torch.empty(1, 2, 256)
    documents = documents_of_ids(torch.zeros(1, 256, dtype=torch.long)) if packed else None
    with compiling_for(card) as compiled:
        launch_forward(q, k, k, options, documents, row[0, :, 0] if packed else None)
        launch_backward(q, q, k, k, row, row, options, documents)
    return {KERNELS[each.name]: _useful(resources(each, card), useful) for each in compiled}


def _useful(found: Resources, share: float) -> Resources:
    loops = (
        replace(loop, tf_serial=None if loop.tf_serial is None else round(loop.tf_serial * share, 1))
        for loop in found.loops
    )
    return replace(found, loops=tuple(loops))


def compile_norm_rotary(card: Card, head_dim: int, dtype: torch.dtype) -> list[Resources]:
    """Norm and rotation before attention, forward and backward."""
    x, gain, table = torch.empty(1, 64, 2, head_dim, dtype=dtype), torch.empty(head_dim), torch.empty(64, 1)
    with compiling_for(card) as compiled:
        norm_rotary.launch_forward(x, gain, table, table, 1e-6)
        norm_rotary.launch_backward(x, x, gain, table, table, 1e-6)
    return [resources(each, card) for each in compiled]


def violations(found: Resources, card: Card, excused: bool = False) -> list[str]:
    """Why a configuration must not ship; empty when it may. Nothing excuses a spill in a loop."""
    said = []
    if found.loop_spills:
        said.append(f"{found.loop_spills} spill instructions in a loop")
    elif found.spills and not excused:
        said.append(f"{found.spills} spill instructions")
    if found.registers <= 32 and found.spills:
        said.append(f"the assembler gave up: {found.registers} registers, {found.spills} spills")
    if found.shared_bytes > card.shared_per_program:
        said.append(f"{found.shared_bytes} bytes of shared memory of {card.shared_per_program}")
    if found.programs_per_sm < 1:
        said.append("no program fits on a multiprocessor")
    if not found.tensor_instructions:
        said.append("no tensor-core instruction")
    return said


LARGER = {"registers": 8, "spills": 0, "loop_spills": 0, "shared_bytes": 0, "instructions": 0.05}
"""Figures that are worse when larger, and what is let pass: a number, or below 1 a share."""
SMALLER = {"programs_per_sm": 0, "tf_serial": 0.03}


def regressions(found: Resources, before: dict[str, Any]) -> list[str]:
    """What became worse than the kept baseline (same triton), each as "spills 0 -> 44"."""
    now = as_row(found)
    worse = [name for name, slack in LARGER.items() if now[name] > before[name] + _slack(slack, before[name])]
    worse += [
        name
        for name, slack in SMALLER.items()
        if before[name] is not None and (now[name] or 0) < before[name] - _slack(slack, before[name])
    ]
    return [f"{name} {before[name]} -> {now[name]}" for name in worse]


def _slack(slack: float, before: float) -> float:
    return slack * before if slack < 1 else slack


def fallen_behind(found: dict[str, Resources]) -> dict[str, list[str]]:
    """Key -> what must not ship or became worse than the baseline. Only spills and other faults where the
    baseline is of another triton, whose machine code differs."""
    kept = baseline()
    comparable = kept["triton"] == triton.__version__
    said = {}
    for key, each in found.items():
        faults = violations(each, CARDS[key.split()[0]], key in kept["excused"])
        before = kept["rows"].get(key)
        said[key] = faults + (regressions(each, before) if comparable and before else [])
    return {key: faults for key, faults in said.items() if faults}


def as_row(found: Resources) -> dict[str, Any]:
    numbers = {key: value for key, value in asdict(found).items() if key not in ("kernel", "loops")}
    lean = found.loops[0] if found.loops else Loop(0, 0, 0)
    return numbers | {
        "loop_spills": found.loop_spills,
        "instructions": lean.instructions,
        "tensor": lean.tensor,
        "other_over_tensor": lean.other_over_tensor,
        "tf_serial": lean.tf_serial,
    }


def key_of(
    card: str, head_dim: int, which: Pass, featured: bool = False, dtype: torch.dtype = torch.bfloat16
) -> str:
    return f"{card} {head_dim} {which.value} {str(dtype).removeprefix('torch.')}{' featured' * featured}"


def tile_of(key: str) -> Tile:
    """The tile that stands behind a row."""
    card, head_dim, which, dtype, *featured = key.split()
    family = family_of(CARDS[card].target)
    return tile_for(family, Pass(which), int(head_dim), getattr(torch, dtype), bool(featured))


def baseline() -> dict[str, Any]:
    """{"triton": version, "excused": {key_of(...): why it may spill}, "rows": {key_of(...): as_row(...)}}"""
    return json.loads(BASELINE.read_text())


def effective_backward(keys_values: float, queries: float) -> float:
    """TF of a whole backward that recomputes the scores: five useful products of the seven it makes, four of
    them in the pass of the keys and three in that of the queries."""
    return 5 / (4 / keys_values + 3 / queries)


HEAD_DIMS = (16, 32, 64, 128, 256)
"""The others take the tile of the next, with its columns past D masked."""
FEATURED = Options(causal=True, window=64, scale=0.1, softcap=20.0)
"""With documents, grouped queries and a sink as well: the features that need registers, at once."""


@dataclass(frozen=True)
class Build:
    """What the three passes are compiled for at once."""

    head_dim: int
    dtype: torch.dtype = torch.bfloat16
    featured: bool = False


PLAIN_BUILDS = tuple(map(Build, HEAD_DIMS))
ALL_BUILDS = tuple(
    Build(head_dim, dtype, featured)
    for dtype, featured, head_dim in product(
        (torch.bfloat16, torch.float16, torch.float32), (False, True), ACCEPTED
    )
    if dtype != torch.float32 or head_dim <= WIDEST_FLOAT32
)
"""Every head dimension and type that has a tile, without features and with all of them."""


def shipped_rows(name: str, builds: Sequence[Build] = PLAIN_BUILDS) -> Iterator[tuple[str, Resources]]:
    """The key and the resources of every pass with the tiles of a card, as they are compiled."""
    for build in builds:
        options = FEATURED if build.featured else PLAIN
        found = compile_attention(CARDS[name], build.head_dim, build.dtype, options, packed=build.featured)
        for which, each in found.items():
            yield key_of(name, build.head_dim, which, build.featured, build.dtype), each


def keep(rows: dict[str, dict[str, Any]]) -> None:
    """As the baseline that the tests compare with, one line a row; other rows stay."""
    kept = baseline()
    merged = kept["rows"] | rows
    ordered = [
        key_of(card, build.head_dim, which, build.featured, build.dtype)
        for card, build, which in product(CARDS, ALL_BUILDS, Pass)
    ]
    lines = [f" {json.dumps(key)}: {json.dumps(merged[key])}" for key in ordered if key in merged]
    head = {"triton": triton.__version__, "excused": kept["excused"]}
    text = json.dumps(head, indent=1).removesuffix("\n}")
    BASELINE.write_text(text + ',\n "rows": {\n' + ",\n".join(lines) + "\n }\n}\n")


if __name__ == "__main__":
    for name, build in product(sys.argv[1:] or CARDS, ALL_BUILDS):
        keep({key: as_row(found) for key, found in shipped_rows(name, [build])})
