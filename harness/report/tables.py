"""The tables a person reads on a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from harness.report.terminal import duration, print_lines, print_table, si
from harness.runs import RunRecord, Status
from harness.sweep.ledger import CellState, counts


def print_plan(group: str, states: Sequence[CellState]) -> None:
    columns = ("cell", "params", "tokens", "tokens/param", "steps", "lr", "FLOPs", "status")
    print_table(f"{group}: {len(states)} cells", columns, [plan_row(state) for state in states])
    left = [state.cell for state in states if not state.finished]
    total = sum(state.cell.flops for state in states)
    print_lines(
        f"in all {total:.3g} FLOPs, {si(sum(s.cell.tokens for s in states))} tokens; "
        f"still to do {len(left)} cells, {sum(cell.flops for cell in left):.3g} FLOPs",
        "params are non-embedding; FLOPs are exact (forward and backward, attention and head included)",
    )


def plan_row(state: CellState) -> tuple[str, ...]:
    cell = state.cell
    return (
        cell.run_id,
        si(cell.params_non_embedding),
        si(cell.tokens),
        f"{cell.tokens / cell.params_non_embedding:.0f}",
        f"{cell.steps:,}",
        f"{cell.lr:.3g}",
        f"{cell.flops:.3g}",
        state.status,
    )


def print_states(group: str, states: Sequence[CellState]) -> None:
    columns = ("cell", "params", "tokens", "FLOPs", "progress", "loss", "tokens/s", "status")
    print_table(group, columns, [state_row(state) for state in states])
    summary = ", ".join(f"{number} {status}" for status, number in sorted(counts(states).items()))
    print_lines(f"{len(states)} cells: {summary}")
    for state in states:
        if state.note and state.status != Status.done.value:
            print_lines(f"{state.cell.run_id}: {state.note}")


def state_row(state: CellState) -> tuple[str, ...]:
    cell = state.cell
    return (
        cell.run_id,
        si(cell.params_non_embedding),
        si(cell.tokens),
        f"{cell.flops:.3g}",
        f"{state.tokens / cell.tokens:.0%}",
        "-" if state.loss is None else f"{state.loss:.4f}",
        "-" if state.tokens_per_second is None else f"{state.tokens_per_second:,.0f}",
        state.status,
    )


def print_record(record: RunRecord, where: Path) -> None:
    if record.loss is None:
        return
    print_lines(
        f"{where}: {record.status}",
        f"validation loss {record.loss:.4f} nats/token, {record.bits_per_byte:.4f} bits/byte",
        f"{si(record.params_non_embedding)} non-embedding parameters ({si(record.params_total)} in all), "
        f"{si(record.tokens)} tokens ({record.epochs:.2f} epochs), {record.flops:.3g} FLOPs",
        f"{duration(record.train_seconds)} at {record.tokens_per_second:,.0f} tokens/s, "
        f"attention {record.attention}, {record.precision}{', compiled' if record.compiled else ''}",
    )
