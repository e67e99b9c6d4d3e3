"""`harness bench kernels`: attention and the loss timed on this machine's GPU, or with static=true what their
machine code says for cards that are not here."""

from __future__ import annotations

from dataclasses import asdict
from importlib.util import find_spec
from textwrap import fill
from typing import TYPE_CHECKING

from harness.commands.bench_cross_entropy import (
    LOSS_COLUMNS,
    WIDTH,
    Rest,
    compile_rest,
    loss_rows,
    race_losses,
    remarks,
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
    "tile: rows x columns, warps, stages; * where nothing is hoisted out of the loops. instr, tensor, A/T, "
    "TF: of the loop that computes no mask, its instructions, those of the tensor cores, the time of the "
    "busiest other pipe over theirs, and TFLOP/s if the two never overlapped: a model's bound, no "
    "measurement. "
    "backward: TF of both its passes, the recomputed scores not counted.",
)
STATIC_COLUMNS = (
    *("D", "pass", "tile", "registers", "spills", "in loops", "KiB", "per SM"),
    *("instr", "tensor", "A/T", "TF", "backward", ""),
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
    """`full`: every head dimension and type, and with documents, a window, a softcap and a sink at once."""
    from kernels.shipped import ALL_BUILDS, PLAIN_BUILDS, shipped_rows
    from kernels.static import CARDS

    if unknown := set(cards) - set(CARDS):
        raise WrongInput(f"cards={sorted(unknown)} are not known; choose from {', '.join(CARDS)}")
    builds = ALL_BUILDS if full else PLAIN_BUILDS
    found: dict[str, Resources] = {}
    with StageProgress() as progress:
        for card in cards:
            for done, (key, resources) in enumerate(shipped_rows(card, builds)):
                found[key] = resources
                progress.update(f"compiling for {card}", done, PASSES * len(builds))
    return found


def show_static(found: dict[str, Resources], rest: Rest, format: Format) -> None:
    """Raises CannotAnswer, after the tables, where a tile must not ship or fell behind its baseline."""
    from kernels.shipped import as_row, baseline, fallen_behind, tile_of

    said, excused, wholes = fallen_behind(found), baseline()["excused"], backwards(found)
    if format is Format.json:
        rows = {
            key: {"tile": str(tile_of(key)), **as_row(each), "faults": said.get(key, [])}
            for key, each in found.items()
        }
        print_json(
            {"run_on": [], "rows": rows, "excused": excused, "effective_backward": wholes, **rest.as_json()}
        )
    else:
        for title, keys in tables(found).items():
            rows_shown = [static_row(key, found[key], wholes, key in said, key in excused) for key in keys]
            print_table(title, STATIC_COLUMNS, rows_shown)
            print_lines("")
        rest.show()
        print_lines("", *(fill(line, WIDTH, subsequent_indent="  ") for line in notes(found, excused)))
    if said:
        raise CannotAnswer(
            f"{len(said)} of {len(found)} kernels fell behind kernels/attention/baseline.json: "
            + "; ".join(f"{key}: {', '.join(faults)}" for key, faults in said.items())
        )


def tables(found: dict[str, Resources]) -> dict[str, list[str]]:
    """The title of each table and the keys of its rows."""
    titled: dict[str, list[str]] = {}
    for key in found:
        card, _, _, dtype, *featured = key.split()
        with_features = ", with documents, a window, a softcap and a sink" if featured else ""
        titled.setdefault(f"{card}: causal attention of {dtype}{with_features}", []).append(key)
    return titled


def notes(found: dict[str, Resources], excused: dict[str, str]) -> list[str]:
    """Below the tables: what the columns are, what is unknown, which spills are excused and why."""
    cards = {key.split()[0]: None for key in found}
    return [
        *STATIC,
        *(f"{card}: A/T and TF unknown, as {UNKNOWN[card]}." for card in cards if card in UNKNOWN),
        *(f"excused, {key}: {why}" for key, why in excused.items() if key in found),
    ]


def static_row(
    key: str, found: Resources, wholes: dict[str, float], faulty: bool, excused: bool
) -> tuple[str, ...]:
    from kernels.attention.tuning import Pass
    from kernels.shipped import tile_of

    _, head_dim, which, *_ = key.split()
    tile = tile_of(key)
    lean = found.loops[0] if found.loops else None
    modelled = lean is not None and lean.tf_serial is not None
    whole = wholes.get(without_pass(key)) if which == Pass.queries.value else None
    return (
        head_dim,
        which,
        f"{tile.rows}x{tile.columns} {tile.warps} {tile.stages}{'' if tile.hoist else '*'}",
        str(found.registers),
        str(found.spills),
        str(found.loop_spills),
        f"{found.shared_bytes / 1024:.0f}",
        str(found.programs_per_sm),
        "" if lean is None else str(lean.instructions),
        str(found.tensor_instructions if lean is None else lean.tensor),
        f"{lean.other_over_tensor:.2f}" if lean is not None and modelled else "-",
        f"{lean.tf_serial:.0f}" if lean is not None and modelled else "-",
        "" if whole is None else f"{whole:.0f}",
        "BEHIND" if faulty else "excused" if excused else "",
    )


def backwards(found: dict[str, Resources]) -> dict[str, float]:
    """TF of the whole backward by `without_pass` of its two passes, where both have one."""
    from kernels.attention.tuning import Pass
    from kernels.shipped import effective_backward

    speeds: dict[str, dict[str, float]] = {}
    for key, each in found.items():
        tf = each.loops[0].tf_serial if each.loops else None
        if tf is not None:
            speeds.setdefault(without_pass(key), {})[key.split()[2]] = tf
    of_keys, of_queries = Pass.keys_values.value, Pass.queries.value
    return {
        key: round(effective_backward(by[of_keys], by[of_queries]), 1)
        for key, by in speeds.items()
        if {of_keys, of_queries} <= set(by)
    }


def without_pass(key: str) -> str:
    card, head_dim, _, *kind = key.split()
    return " ".join((card, head_dim, *kind))


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
            *("forward ms", "TFLOP/s", "%", "backward ms", "TFLOP/s", "%"),
        ),
        [timing_row(each, peak) for each in timings],
    )
    print_lines(*remarks(timings), "")
    print_table(f"head and cross-entropy of bfloat16 {said}", LOSS_COLUMNS, loss_rows(losses, peak))
    print_lines(*remarks(losses))


def timing_row(found: Timing, peak: float) -> tuple[str, ...]:
    case = found.case
    heads = f"{case.heads}" if case.heads == case.key_heads else f"{case.heads} on {case.key_heads}"
    about = (str(case.tokens), str(case.head_dim), heads, str(case.window or ""), found.name)
    return (
        *about,
        *speed_cells(found.forward_ms, found.forward_tflops, peak),
        *speed_cells(found.backward_ms, found.backward_tflops, peak),
    )
