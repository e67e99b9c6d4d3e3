"""The tables a person reads on a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from harness.report.terminal import counted, duration, print_lines, print_table, si
from harness.runs import RunRecord, Status
from harness.sweep.ledger import CellState, counts
from harness.sweep.plan import PlannedCell, TimeBasis

LONGEST = 60
"""Rows of a table on a terminal; of longer ones the totals tell more, and format=json has them all."""
UNEVENTFUL = (Status.planned, Status.queued, Status.done)


def print_plan(
    group: str, states: Sequence[CellState], currency: str, shared: Mapping[str, int] | None = None
) -> None:
    """`shared` has the tokens of each cell that are trained by another one."""
    columns = ("cell", "params", "tokens", "tokens/param", "steps", "lr", "FLOPs", "memory", "time", "status")
    print_table(f"{group}: {counted(len(states))}", columns, [plan_row(state) for state in states[:LONGEST]])
    print_more(len(states) - LONGEST)
    shares = {s.cell.run_id: (shared or {}).get(s.cell.run_id, 0) / s.cell.tokens for s in states}
    left = [state.cell for state in states if not state.finished]
    print_lines(
        f"in all {total_flops([state.cell for state in states], shares)}, "
        f"{si(sum(s.cell.tokens for s in states))} tokens; "
        f"still to do {counted(len(left))}, {new_flops(left, shares):.3g} FLOPs",
        *device_time(left, currency, shares),
        "params are non-embedding; FLOPs are exact (forward and backward, attention and head included); "
        "memory is that of the whole process at its peak; time is training alone, on one device",
    )


def total_flops(cells: Sequence[PlannedCell], shares: Mapping[str, float]) -> str:
    alone, new = sum(cell.flops for cell in cells), new_flops(cells, shares)
    if new == alone:
        return f"{alone:.3g} FLOPs"
    return f"{new:.3g} FLOPs with trunks trained once ({alone / new:.2f} times less than {alone:.3g} alone)"


def new_flops(cells: Sequence[PlannedCell], shares: Mapping[str, float]) -> float:
    return sum(cell.flops * (1 - shares[cell.run_id]) for cell in cells)


def print_more(hidden: int) -> None:
    if hidden > 0:
        print_lines(f"... and {hidden:,} more; format=json lists all")


def device_time(left: Sequence[PlannedCell], currency: str, shares: Mapping[str, float]) -> list[str]:
    """The time and money that is still to spend, and of how many cells that is known."""
    if not left:
        return []
    known = [cell for cell in left if cell.seconds is not None]
    if not known:
        return ["time unknown: no finished run of these shapes here, and no hardware.peak_flops and cost.mfu"]
    new = {cell.run_id: 1 - shares[cell.run_id] for cell in known}
    seconds = sum(cell.seconds * new[cell.run_id] for cell in known if cell.seconds is not None)
    measured = sum(cell.seconds_basis == TimeBasis.measured.value for cell in known)
    basis = f"{measured} cells from measured speeds, {len(known) - measured} from the stated one"
    missing = f", {len(left) - len(known)} more unknown" if len(known) < len(left) else ""
    costs = [cell.cost * new[cell.run_id] for cell in known if cell.cost is not None]
    money = f", {sum(costs):,.2f} {currency}" if costs else ""
    return [f"about {seconds / 3600:,.2f} device-hours{money} ({basis}{missing})"]


def plan_row(state: CellState) -> tuple[str, ...]:
    cell = state.cell
    return (
        cell.run_id,
        si(cell.params_non_embedding),
        si(cell.tokens),
        ratio(cell.tokens / cell.params_non_embedding),
        f"{cell.steps:,}",
        f"{cell.lr:.3g}",
        f"{cell.flops:.3g}",
        "-" if cell.memory_bytes is None else size(cell.memory_bytes),
        "unknown" if cell.seconds is None else duration(cell.seconds),
        state.status.value,
    )


def ratio(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def size(memory_bytes: int) -> str:
    mib = memory_bytes / 2**20
    return f"{mib / 1024:.1f} GiB" if mib >= 1024 else f"{mib:.0f} MiB"


def print_states(group: str, states: Sequence[CellState]) -> None:
    """Every cell of a short sweep; of a long one those that are under way or in trouble."""
    columns = ("cell", "params", "tokens", "FLOPs", "progress", "loss", "tokens/s", "stops", "status")
    shown = [s for s in states if s.status not in UNEVENTFUL] if len(states) > LONGEST else states
    print_table(group, columns, [state_row(state) for state in shown[:LONGEST]])
    print_more(len(shown) - LONGEST)
    summary = ", ".join(f"{number} {status}" for status, number in counts(states).items())
    print_lines(f"{counted(len(states))}: {summary}")
    if interrupted := [state for state in states if state.interruptions]:
        stops = sum(state.interruptions for state in interrupted)
        print_lines(f"interrupted: {counted(len(interrupted))}, {counted(stops, 'time')} in all")
    if saved := sum(s.cell.flops * s.shared_tokens / s.cell.tokens for s in states):
        branches = sum(state.shared_tokens > 0 for state in states)
        print_lines(
            f"begun where a shorter one's trunk ends: {counted(branches)}; that saved {saved:.3g} FLOPs"
        )
    if changed := sum(state.code_changed for state in states):
        print_lines(f"trained by other code than planned with: {counted(changed)}")
    noted = [state for state in states if state.note and state.status is not Status.done]
    print_lines(*(f"{state.cell.run_id}: {state.note}" for state in noted[:LONGEST]))
    print_more(len(noted) - LONGEST)


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
        str(state.interruptions or "-"),
        state.status.value,
    )


def processes(record: RunRecord) -> str:
    earlier = f", earlier {record.earlier_world_sizes}" if record.earlier_world_sizes else ""
    return (
        f", {record.world_size} processes ({record.strategy}){earlier}" if record.world_size > 1 else earlier
    )


def print_record(record: RunRecord, where: Path) -> None:
    if record.loss is None:
        return
    why = f" ({record.attention_reason})" if record.attention_reason else ""
    precision = f"{record.precision}{', compiled' if record.compiled else ''}"
    print_lines(
        f"{where}: {record.status}",
        f"validation loss {record.loss:.4f} nats/token, {record.bits_per_byte:.4f} bits/byte",
        f"{si(record.params_non_embedding)} non-embedding parameters ({si(record.params_total)} in all), "
        f"{si(record.tokens)} tokens ({record.epochs:.2f} epochs), {record.flops:.3g} FLOPs",
        f"{duration(record.train_seconds)} at {record.tokens_per_second:,.0f} tokens/s, "
        f"attention {record.attention}{why}, {precision}{processes(record)}",
    )
