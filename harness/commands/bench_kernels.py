"""`harness bench kernels`: attention and the loss timed on this machine's GPU, or with static=true what their
machine code says for cards that are not here."""

from __future__ import annotations

from dataclasses import asdict
from importlib.util import find_spec
from itertools import product
from typing import TYPE_CHECKING

from harness.commands.bench_cross_entropy import (
    LOSS_COLUMNS,
    Rest,
    compile_rest,
    loss_rows,
    race_losses,
    speed_cells,
)
from harness.commands.root import Format
from harness.errors import CannotAnswer, WrongInput
from harness.report.terminal import StageProgress, print_json, print_lines, print_table

if TYPE_CHECKING:
    from kernels.bench import Timing
    from kernels.static import Resources

PASSES = 3
RUN_ON = "Cards these kernels have been run on: none."
STATIC = (
    f"{RUN_ON} Figures are read off the machine code.",
    "TF is a model's bound (tensor cores overlapping with nothing), no measurement.",
)
UNKNOWN = {
    "sm_100": "the size of a product stands in a register there, which the machine code does not show",
    "gfx942": "loops are not told apart in its assembly",
}
"""Why a card has no A/T and no TF."""


def bench_kernels(static: bool, cards: list[str], format: Format, full: bool = False) -> None:
    """Raises CannotAnswer where there is no GPU or no triton, or a shipped tile fell behind its baseline."""
    if find_spec("triton") is None:
        raise CannotAnswer("the kernels need triton, which is not installed here")
    if static:
        show_static(compiled(cards, full), compile_rest(cards), format)
    else:
        show_timings(format)


def compiled(cards: list[str], full: bool) -> dict[str, Resources]:
    """`full`: with documents, a window, a softcap and a sink at once as well."""
    from kernels.shipped import HEAD_DIMS, shipped_rows
    from kernels.static import CARDS

    if unknown := set(cards) - set(CARDS):
        raise WrongInput(f"cards={sorted(unknown)} are not known; choose from {', '.join(CARDS)}")
    found: dict[str, Resources] = {}
    with StageProgress() as progress:
        for card, featured in product(cards, (False, True) if full else (False,)):
            for done, (key, resources) in enumerate(shipped_rows(card, featured=featured)):
                found[key] = resources
                progress.update(f"compiling for {card}", done, PASSES * len(HEAD_DIMS))
    return found


def show_static(found: dict[str, Resources], rest: Rest, format: Format) -> None:
    """Raises CannotAnswer, after the table, where a tile must not ship or fell behind its baseline."""
    from kernels.shipped import as_row, baseline, fallen_behind

    said, excused = fallen_behind(found), baseline()["excused"]
    if format is Format.json:
        rows = {key: {**as_row(each), "faults": said.get(key, [])} for key, each in found.items()}
        wholes = {"excused": excused, "effective_backward": backwards(found)}
        print_json({"run_on": [], "rows": rows, **wholes, **rest.as_json()})
    else:
        print_table(
            "kernels as compiled, causal attention of bfloat16",
            (
                *("card", "D", "pass", "registers", "spills", "in loops", "KiB", "per SM", "instr"),
                *("tensor", "A/T", "TF", ""),
            ),
            [static_row(key, each, key in said, key in excused) for key, each in found.items()],
        )
        print_lines(*notes(found, excused))
        rest.show()
        print_lines(*STATIC)
    if said:
        raise CannotAnswer(
            f"{len(said)} of {len(found)} kernels fell behind kernels/attention/baseline.json: "
            + "; ".join(f"{key}: {', '.join(faults)}" for key, faults in said.items())
        )


def notes(found: dict[str, Resources], excused: dict[str, str]) -> list[str]:
    """Below the table: the backward as a whole, what is unknown, which spills are excused and why."""
    cards = {key.split()[0]: None for key in found}
    return [
        *(
            f"{key}: the whole backward {tf:.0f} TF, the recomputed scores not counted"
            for key, tf in backwards(found).items()
        ),
        *(f"{card}: A/T and TF unknown, as {UNKNOWN[card]}" for card in cards if card in UNKNOWN),
        *(f"excused, {key}: {why}" for key, why in excused.items() if key in found),
    ]


def static_row(key: str, found: Resources, faulty: bool, excused: bool) -> tuple[str, ...]:
    card, head_dim, which, _, *featured = key.split()
    lean = found.loops[0] if found.loops else None
    modelled = lean is not None and lean.tf_serial is not None
    return (
        card,
        head_dim,
        " ".join((which, *featured)),
        str(found.registers),
        str(found.spills),
        str(found.loop_spills),
        f"{found.shared_bytes / 1024:.0f}",
        str(found.programs_per_sm),
        "" if lean is None else str(lean.instructions),
        str(found.tensor_instructions if lean is None else lean.tensor),
        f"{lean.other_over_tensor:.2f}" if lean is not None and modelled else "unknown",
        f"{lean.tf_serial:.0f}" if lean is not None and modelled else "unknown",
        "BEHIND" if faulty else "excused" if excused else "",
    )


def backwards(found: dict[str, Resources]) -> dict[str, float]:
    """TF of the whole backward by card and head dimension, where both of its passes have one."""
    from kernels.attention.tuning import Pass
    from kernels.shipped import HEAD_DIMS, effective_backward, key_of

    wholes = {}
    for card in {key.split()[0]: None for key in found}:
        for head_dim in HEAD_DIMS:
            keys = [key_of(card, head_dim, which) for which in (Pass.keys_values, Pass.queries)]
            parts = [found[key] for key in keys if key in found]
            speeds = [each.loops[0].tf_serial for each in parts if each.loops]
            known = [speed for speed in speeds if speed is not None]
            if len(known) == len(keys):
                wholes[f"{card}, head_dim {head_dim}"] = round(effective_backward(*known), 1)
    return wholes


def show_timings(format: Format) -> None:
    import torch

    if not torch.cuda.is_available():
        raise CannotAnswer(
            "there is no GPU here, so nothing was timed; `harness bench kernels static=true` compiles the "
            "kernels for five cards"
        )
    from kernels.bench import CASES, contestants, gpu_clock, matmul_tflops, race

    peak = matmul_tflops(gpu_clock)
    timings, losses = race(contestants(), CASES, gpu_clock, "cuda"), race_losses(gpu_clock)
    card = torch.cuda.get_device_name()
    if format is Format.json:
        rows, loss = ([asdict(each) for each in found] for found in (timings, losses))
        print_json({"card": card, "matmul_tflops": peak, "timings": rows, "cross_entropy": loss})
        return
    said = f"on {card}; % of the {peak:.0f} TFLOP/s of a large matrix product"
    print_table(
        f"causal attention of bfloat16 {said}",
        (
            *("tokens", "head_dim", "heads", "window", "by"),
            *("forward ms", "TFLOP/s", "%", "backward ms", "TFLOP/s", "%", ""),
        ),
        [timing_row(each, peak) for each in timings],
    )
    print_table(f"head and cross-entropy of bfloat16 {said}", LOSS_COLUMNS, loss_rows(losses, peak))


def timing_row(found: Timing, peak: float) -> tuple[str, ...]:
    case = found.case
    heads = f"{case.heads}" if case.heads == case.key_heads else f"{case.heads} on {case.key_heads}"
    about = (str(case.tokens), str(case.head_dim), heads, str(case.window or ""), found.name)
    return (
        *about,
        *speed_cells(found.forward_ms, found.forward_tflops, peak),
        *speed_cells(found.backward_ms, found.backward_tflops, peak),
        found.refused,
    )
