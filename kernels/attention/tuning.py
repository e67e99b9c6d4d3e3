"""Which tile a pass uses on a card: looked up, never searched at start-up.

`rows` are queries (forward, dQ) or keys (dK/dV), `columns` what the inner loop walks over. The tables were
chosen by compiling the kernels for each target and reading registers, spills and shared memory off the
machine code (kernels/static.py). No tile has been timed on a GPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass
from enum import Enum

import torch
import triton
from triton.backends.compiler import GPUTarget


class Pass(Enum):
    forward = "forward"
    keys_values = "keys_values"
    queries = "queries"


class Family(Enum):
    """Cards that share a table. `small` has 99 KiB of shared memory or less a block."""

    sm_80 = "sm_80"
    sm_90 = "sm_90"
    sm_100 = "sm_100"
    small = "small"
    amd = "amd"
    interpreter = "interpreter"


@dataclass(frozen=True)
class Tile:
    rows: int
    columns: int
    warps: int
    stages: int
    hoist: bool = True

    """Whether what every iteration repeats may be computed once, before the loop. That saves instructions,
    but offsets and masks then hold registers through both loops: tiles that would spill do without."""

    def __str__(self) -> str:
        kept = "" if self.hoist else " not hoisted"
        return f"{self.rows}x{self.columns} {self.warps} warps {self.stages} stages{kept}"


@dataclass(frozen=True)
class Tiles:
    """One for each pass; `flat` as an operator takes them."""

    forward: Tile
    keys_values: Tile
    queries: Tile

    @property
    def flat(self) -> list[int]:
        return [int(each) for which in Pass for each in astuple(self.of(which))]

    @classmethod
    def of_flat(cls, flat: Sequence[int]) -> Tiles:
        """Raises ValueError where these are not the numbers of three tiles."""
        if len(flat) != 15 or not all(type(each) is int and each >= 0 for each in flat):
            raise ValueError(f"{flat} are not three tiles")
        parts = (flat[start : start + 5] for start in (0, 5, 10))
        return cls(
            *(
                Tile(rows, columns, warps, stages, bool(hoist))
                for rows, columns, warps, stages, hoist in parts
            )
        )

    def __str__(self) -> str:
        return ", ".join(f"{which.value} {self.of(which)}" for which in Pass)

    def of(self, which: Pass) -> Tile:
        found = getattr(self, which.value)
        assert isinstance(found, Tile)
        return found


Table = dict[Pass, dict[int, Tile]]
"""Pass -> padded head dimension -> tile."""

AMPERE: Table = {
    Pass.forward: {
        16: Tile(128, 64, 4, 3),
        32: Tile(128, 64, 4, 3),
        64: Tile(128, 64, 4, 3),
        128: Tile(128, 64, 8, 2),
        256: Tile(64, 32, 4, 2),
    },
    Pass.keys_values: {
        16: Tile(128, 64, 4, 2),
        32: Tile(128, 64, 4, 2, hoist=False),
        64: Tile(128, 32, 4, 2),
        128: Tile(32, 64, 4, 2),
        256: Tile(32, 16, 4, 1),
    },
    Pass.queries: {
        16: Tile(128, 64, 4, 2),
        32: Tile(128, 64, 4, 2),
        64: Tile(128, 32, 4, 2),
        128: Tile(64, 64, 4, 2),
        256: Tile(32, 32, 4, 1),
    },
}
HOPPER: Table = {
    Pass.forward: {
        16: Tile(128, 128, 8, 2),
        32: Tile(128, 128, 8, 2),
        64: Tile(128, 128, 8, 2),
        128: Tile(128, 128, 8, 2),
        256: Tile(128, 64, 8, 2, hoist=False),
    },
    Pass.keys_values: {
        16: Tile(128, 64, 4, 1),
        32: Tile(128, 64, 4, 1, hoist=False),
        64: Tile(128, 64, 8, 1),
        128: Tile(128, 64, 8, 1, hoist=False),
        256: Tile(64, 16, 8, 1, hoist=False),
    },
    Pass.queries: {
        16: Tile(64, 64, 4, 2),
        32: Tile(128, 64, 4, 2),
        64: Tile(64, 128, 4, 2),
        128: Tile(64, 64, 4, 2, hoist=False),
        256: Tile(128, 32, 8, 2, hoist=False),
    },
}
BLACKWELL: Table = HOPPER | {
    Pass.forward: HOPPER[Pass.forward] | {128: Tile(128, 64, 8, 2), 256: Tile(128, 32, 8, 2)},
    Pass.keys_values: HOPPER[Pass.keys_values]
    | {16: Tile(64, 64, 4, 1), 128: Tile(128, 32, 8, 1, hoist=False), 256: Tile(32, 16, 4, 1)},
}
SMALL: Table = {
    Pass.forward: {
        16: Tile(64, 64, 4, 2),
        32: Tile(64, 64, 4, 2),
        64: Tile(64, 64, 4, 2),
        128: Tile(64, 32, 4, 2),
        256: Tile(32, 32, 4, 1),
    },
    Pass.keys_values: {
        16: Tile(64, 64, 4, 2),
        32: Tile(64, 64, 4, 2, hoist=False),
        64: Tile(64, 32, 4, 1),
        128: Tile(64, 32, 4, 1, hoist=False),
        256: Tile(32, 16, 8, 1),
    },
    Pass.queries: {
        16: Tile(64, 64, 4, 2),
        32: Tile(64, 64, 4, 2),
        64: Tile(64, 32, 4, 2),
        128: Tile(64, 32, 4, 2),
        256: Tile(32, 16, 4, 1),
    },
}
TILES = {
    Family.sm_80: AMPERE,
    Family.sm_90: HOPPER,
    Family.sm_100: BLACKWELL,
    Family.small: SMALL,
    Family.amd: SMALL,
}
FLOAT32: Table = {
    Pass.forward: {
        16: Tile(16, 16, 4, 1),
        32: Tile(16, 16, 4, 1),
        64: Tile(32, 32, 4, 1),
        128: Tile(16, 16, 4, 1),
        256: Tile(16, 16, 4, 1),
    },
    Pass.keys_values: {
        16: Tile(16, 16, 4, 1),
        32: Tile(16, 16, 4, 1),
        64: Tile(16, 32, 4, 1),
        128: Tile(16, 16, 8, 1, hoist=False),
        256: Tile(16, 16, 8, 1, hoist=False),
    },
    Pass.queries: {
        16: Tile(16, 32, 4, 1),
        32: Tile(16, 32, 4, 1),
        64: Tile(16, 32, 4, 1),
        128: Tile(16, 16, 8, 1, hoist=False),
        256: Tile(16, 16, 8, 1, hoist=False),
    },
}
"""Small tiles that fit every card: float32 is for checking, not for speed. Those of 256 spill and are
refused on a card (`kernels.attention.api.WIDEST_FLOAT32`)."""

PADDED = {(Family.sm_90, Pass.keys_values, 96): Tile(128, 32, 8, 1, hoist=False)}
"""By head dimension: where the masks of the padding make the tile of its width spill in a loop."""

FEATURED = {
    (Family.sm_80, Pass.forward, 64): Tile(128, 32, 4, 2),
    (Family.sm_80, Pass.forward, 128): Tile(128, 32, 8, 2),
    (Family.sm_80, Pass.forward, 256): Tile(64, 32, 8, 2),
    (Family.sm_80, Pass.keys_values, 16): Tile(64, 64, 4, 2),
    (Family.sm_80, Pass.keys_values, 32): Tile(128, 64, 8, 2),
    (Family.sm_80, Pass.keys_values, 64): Tile(64, 32, 8, 2, hoist=False),
    (Family.sm_80, Pass.keys_values, 128): Tile(32, 32, 4, 2, hoist=False),
    (Family.sm_80, Pass.keys_values, 256): Tile(32, 16, 8, 1, hoist=False),
    (Family.sm_80, Pass.queries, 128): Tile(128, 32, 8, 2),
    (Family.sm_90, Pass.forward, 128): Tile(128, 64, 8, 2, hoist=False),
    (Family.sm_90, Pass.forward, 256): Tile(128, 32, 8, 2, hoist=False),
    (Family.sm_90, Pass.keys_values, 16): Tile(64, 64, 4, 1),
    (Family.sm_90, Pass.keys_values, 32): Tile(128, 64, 8, 2),
    (Family.sm_90, Pass.keys_values, 64): Tile(128, 64, 8, 1, hoist=False),
    (Family.sm_90, Pass.keys_values, 128): Tile(128, 32, 8, 1, hoist=False),
    (Family.sm_90, Pass.queries, 32): Tile(128, 64, 4, 2, hoist=False),
    (Family.sm_90, Pass.queries, 64): Tile(64, 128, 4, 2, hoist=False),
    (Family.sm_90, Pass.queries, 128): Tile(128, 64, 8, 2, hoist=False),
    (Family.sm_100, Pass.keys_values, 16): Tile(128, 64, 8, 2, hoist=False),
    (Family.sm_100, Pass.keys_values, 32): Tile(128, 64, 8, 2, hoist=False),
    (Family.sm_100, Pass.keys_values, 64): Tile(128, 32, 8, 1, hoist=False),
    (Family.sm_100, Pass.keys_values, 256): Tile(32, 16, 8, 1, hoist=False),
    (Family.sm_100, Pass.queries, 128): Tile(64, 64, 4, 2),
    (Family.small, Pass.keys_values, 16): Tile(64, 64, 4, 2, hoist=False),
    (Family.small, Pass.keys_values, 128): Tile(32, 32, 4, 1),
}
"""Where documents, a window or a softcap would make the plain tile spill."""

INTERPRETER_TILE = Tile(rows=32, columns=16, warps=4, stages=1)


def choose_tile(which: Pass, head_dim: int, dtype: torch.dtype, featured: bool = False) -> Tile:
    """The tile of the present card. `featured`: documents, a window or a softcap need registers too."""
    return tile_for(family(), which, head_dim, dtype, featured)


def tile_for(card: Family, which: Pass, head_dim: int, dtype: torch.dtype, featured: bool) -> Tile:
    if card is Family.interpreter:
        return INTERPRETER_TILE
    width = padded_width(head_dim)
    if dtype == torch.float32:
        return FLOAT32[which][width]
    if (card, which, head_dim) in PADDED:
        return PADDED[card, which, head_dim]
    if featured and (card, which, width) in FEATURED:
        return FEATURED[card, which, width]
    return TILES[card][which][width]


def family() -> Family:
    """The family of the card that Triton compiles for in this process."""
    if interpreted():
        return Family.interpreter
    return family_of(triton.runtime.driver.active.get_current_target())


def family_of(target: GPUTarget) -> Family:
    if target.backend == "hip":
        return Family.amd
    return {80: Family.sm_80, 90: Family.sm_90, 100: Family.sm_100, 103: Family.sm_100}.get(
        target.arch, Family.small
    )


def interpreted() -> bool:
    """Whether this process interprets Triton kernels: decided when their modules are imported."""
    return INTERPRETED


INTERPRETED = bool(triton.knobs.runtime.interpret)


def padded_width(head_dim: int) -> int:
    """The head dimension rounded up to a power of two: the width of a tile."""
    return triton.next_power_of_2(head_dim)


def launch_options(tile: Tile) -> dict[str, int]:
    """Fused multiply-add is asked for, as x * factor - shift wants it and Triton's default changes."""
    return {"num_warps": tile.warps, "num_stages": tile.stages, "enable_fp_fusion": True}


def precision_of(dtype: torch.dtype) -> str:
    """How float32 operands are multiplied, by torch.set_float32_matmul_precision; "ieee" for 16 bits.

    `highest` (PyTorch's default) makes three tf32 products of each, close to full float32; else one.
    """
    if dtype != torch.float32 or family() is Family.amd:
        return "ieee"
    return "tf32x3" if torch.get_float32_matmul_precision() == "highest" else "tf32"
