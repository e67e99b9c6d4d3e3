"""The rest of `harness bench kernels`: the loss, timed on a GPU; with static=true its kernel as compiled, and
how long the first call of attention compiles."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from textwrap import fill
from typing import TYPE_CHECKING, Any

from harness.report.terminal import print_lines, print_table

if TYPE_CHECKING:
    from kernels.bench import Clock
    from kernels.bench import Timing as AttentionTiming
    from kernels.linear_cross_entropy.bench import Timing
    from kernels.static import Resources

WIDTH = 100
FIRST_CALLS = (("sm_90", 64), ("sm_90", 128))


@dataclass(frozen=True)
class Rest:
    """The loss kernel by card and vocabulary; processor seconds by card and head dimension."""

    cross_entropy: dict[str, Resources]
    first_call_seconds: dict[str, float]

    def as_json(self) -> dict[str, Any]:
        from kernels.linear_cross_entropy.static import as_row, faults
        from kernels.static import CARDS

        rows = {
            key: {**as_row(found), "faults": faults(found, CARDS[key.split()[0]])}
            for key, found in self.cross_entropy.items()
        }
        return {"cross_entropy": rows, "first_call_seconds": self.first_call_seconds}

    def show(self) -> None:
        from kernels.linear_cross_entropy.static import faults
        from kernels.static import CARDS

        print_table(
            "the loss kernel as compiled, bfloat16 with gradients",
            ("card", "vocabulary", "registers", "spills", "shared bytes", "programs/SM", ""),
            [
                (
                    *key.split()[:2],
                    *map(str, (found.registers, found.spills, found.shared_bytes, found.programs_per_sm)),
                    "; ".join(faults(found, CARDS[key.split()[0]])),
                )
                for key, found in self.cross_entropy.items()
            ],
        )
        if self.first_call_seconds:
            print_lines("")
            print_table(
                "the first attention, forward and backward: processor seconds to compile it here, uncached",
                ("", "seconds"),
                [(key, f"{seconds:.1f}") for key, seconds in self.first_call_seconds.items()],
            )


def compile_rest(cards: list[str]) -> Rest:
    from kernels.first_call import seconds_of
    from kernels.linear_cross_entropy.static import shipped_rows

    return Rest(
        {key: found for card in cards for key, found in shipped_rows(card)},
        {f"{card}, head_dim {D}": round(seconds_of(card, D), 2) for card, D in FIRST_CALLS if card in cards},
    )


LOSS_COLUMNS = (
    *("tokens", "width", "vocabulary", "by"),
    *("loss alone ms", "TFLOP/s", "%", "with gradients ms", "TFLOP/s", "%"),
)


def race_losses(clock: Clock) -> list[Timing]:
    from kernels.linear_cross_entropy.bench import CASES, contestants, race

    return race(contestants(), CASES, clock, "cuda")


def loss_rows(timings: list[Timing], peak: float) -> list[tuple[str, ...]]:
    return [
        (
            *map(str, (found.case.tokens, found.case.width, found.case.vocab_size, found.name)),
            *speed_cells(found.validating_ms, found.validating_tflops, peak),
            *speed_cells(found.training_ms, found.training_tflops, peak),
        )
        for found in timings
    ]


def speed_cells(milliseconds: float | None, tflops: float | None, peak: float) -> tuple[str, str, str]:
    if milliseconds is None or tflops is None:
        return "", "", ""
    return f"{milliseconds:.3f}", f"{tflops:.0f}", f"{100 * tflops / peak:.0f}"


def remarks(timings: Sequence[AttentionTiming] | Sequence[Timing]) -> list[str]:
    """For below the table, since libraries are verbose: who has no speed, or gradients that differ between
    two runs, on how many of the cases, and why."""
    cases = len({each.case for each in timings})
    said = Counter((each.name, each.refused or each.unsteady) for each in timings)
    return [
        fill(f"{name}, on {count} of {cases}: {why}", WIDTH, subsequent_indent="  ")
        for (name, why), count in said.items()
        if why
    ]
