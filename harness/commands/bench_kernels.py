"""`harness bench kernels`: attention timed on this machine's GPU, or with static=true what its machine code
says for cards that are not here."""

from __future__ import annotations

from dataclasses import asdict
from importlib.util import find_spec
from typing import TYPE_CHECKING

from harness.commands.bench_cross_entropy import Rest, compile_rest
from harness.commands.root import Format
from harness.errors import CannotAnswer, WrongInput
from harness.report.terminal import StageProgress, print_json, print_lines, print_table

if TYPE_CHECKING:
    from kernels.bench import Timing
    from kernels.static import Resources

PASSES = 3
RUN_ON = "Cards these kernels have been run on: none."
STATIC = (
    f"{RUN_ON} Figures are read off the machine code; TF is a model's bound (tensor cores overlapping with "
    "nothing), no measurement."
)


def bench_kernels(static: bool, cards: list[str], format: Format) -> None:
    """Raises CannotAnswer where there is no GPU or no triton."""
    if find_spec("triton") is None:
        raise CannotAnswer("the kernels need triton, which is not installed here")
    if static:
        show_static(compiled(cards), compile_rest(cards), format)
    else:
        show_timings(format)


def compiled(cards: list[str]) -> dict[str, Resources]:
    from kernels.shipped import HEAD_DIMS, shipped_rows
    from kernels.static import CARDS

    if unknown := set(cards) - set(CARDS):
        raise WrongInput(f"cards={sorted(unknown)} are not known; choose from {', '.join(CARDS)}")
    found: dict[str, Resources] = {}
    with StageProgress() as progress:
        for card in cards:
            for done, (key, resources) in enumerate(shipped_rows(card)):
                found[key] = resources
                progress.update(f"compiling for {card}", done, PASSES * len(HEAD_DIMS))
    return found


def show_static(found: dict[str, Resources], rest: Rest, format: Format) -> None:
    from kernels.shipped import as_row, violations
    from kernels.static import CARDS

    said = {key: violations(each, CARDS[key.split()[0]]) for key, each in found.items()}
    if format is Format.json:
        rows = {key: {**as_row(each), "violations": said[key]} for key, each in found.items()}
        print_json({"run_on": [], "rows": rows, "effective_backward": backwards(found), **rest.as_json()})
        return
    columns = ("card", "head_dim", "pass", "registers", "spills", "in loops", "shared KiB", "programs/SM")
    print_table(
        "kernels as compiled, causal attention of bfloat16",
        (*columns, "instructions", "tensor", "A/T", "TF serial", ""),
        [static_row(key, each, said[key]) for key, each in found.items()],
    )
    for key, tf in backwards(found).items():
        print_lines(f"{key}: the whole backward {tf:.0f} TF, the recomputed scores not counted")
    rest.show()
    print_lines(STATIC)


def static_row(key: str, found: Resources, said: list[str]) -> tuple[str, ...]:
    card, head_dim, which, _ = key.split()
    lean = found.loops[0] if found.loops else None
    return (
        card,
        head_dim,
        which,
        str(found.registers),
        str(found.spills),
        str(found.loop_spills),
        f"{found.shared_bytes / 1024:.0f}",
        str(found.programs_per_sm),
        "" if lean is None else str(lean.instructions),
        str(found.tensor_instructions if lean is None else lean.tensor),
        "" if lean is None or lean.other_over_tensor is None else f"{lean.other_over_tensor:.2f}",
        "" if lean is None or lean.tf_serial is None else f"{lean.tf_serial:.0f}",
        "; ".join(said),
    )


def backwards(found: dict[str, Resources]) -> dict[str, float]:
    """TF of the whole backward by card and head dimension, where both of its passes have one."""
    from kernels.attention.tuning import Pass
    from kernels.shipped import HEAD_DIMS, effective_backward, key_of

    wholes = {}
    for card in {key.split()[0]: None for key in found}:
        for head_dim in HEAD_DIMS:
            parts = [found[key_of(card, head_dim, which)] for which in (Pass.keys_values, Pass.queries)]
            speeds = [each.loops[0].tf_serial for each in parts if each.loops]
            known = [speed for speed in speeds if speed is not None]
            if len(known) == len(parts):
                wholes[f"{card}, head_dim {head_dim}"] = round(effective_backward(*known), 1)
    return wholes


def show_timings(format: Format) -> None:
    import torch

    if not torch.cuda.is_available():
        raise CannotAnswer(
            "there is no GPU here to time the kernels on; `harness bench kernels static=true` compiles them "
            "for five cards"
        )
    from kernels.bench import CASES, contestants, gpu_clock, matmul_tflops, race

    peak = matmul_tflops(gpu_clock)
    timings = race(contestants(), CASES, gpu_clock, "cuda")
    card = torch.cuda.get_device_name()
    if format is Format.json:
        print_json({"card": card, "matmul_tflops": peak, "timings": [asdict(each) for each in timings]})
        return
    print_table(
        f"causal attention of bfloat16 on {card}; % of the {peak:.0f} TFLOP/s of a large matrix product",
        (
            *("tokens", "head_dim", "heads", "window", "by"),
            *("forward ms", "TFLOP/s", "%", "backward ms", "TFLOP/s", "%", ""),
        ),
        [timing_row(each, peak) for each in timings],
    )  # fmt: skip


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


def speed_cells(milliseconds: float | None, tflops: float | None, peak: float) -> tuple[str, str, str]:
    if milliseconds is None or tflops is None:
        return "", "", ""
    return f"{milliseconds:.3f}", f"{tflops:.0f}", f"{100 * tflops / peak:.0f}"
