"""Cells side by side on the cores of one machine: the tokens a second that it takes in all. No torch.

What is timed is what the local queue does: a process a cell, pinned to cores of its own, that trains as
`harness train` does. They start a turn together, and it ends with the slowest of them.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from harness.training.contest import Contender, Entry, Kind, start, together, warm


@dataclass(frozen=True)
class Arrangement:
    """`slots` cells at once, each with `width` cores."""

    slots: int
    width: int


@dataclass(frozen=True)
class Throughput:
    """Tokens a second of the whole machine in each turn."""

    arrangement: Arrangement
    rates: tuple[float, ...]

    @property
    def tokens_per_second(self) -> float:
        return statistics.median(self.rates)


def slot_cores(number: int, width: int, cores: Sequence[int]) -> tuple[int, ...]:
    """The cores of one slot. Slots share cores where they have more than there are."""
    return tuple(cores[(number * width + j) % len(cores)] for j in range(width))


@dataclass
class Crew:
    """Processes that train the frozen cell in `run` when they are told to, started when they are first needed
    and then warm. Those of equal width serve several arrangements."""

    run: Path
    cores: Sequence[int]
    stack: ExitStack
    ready: dict[int, list[Contender]] = field(default_factory=dict)

    def of(self, one: Arrangement) -> list[Contender]:
        """Raises CannotAnswer when the cell cannot be trained."""
        there = self.ready.setdefault(one.width, [])
        for batch in (
            range(len(there), 1),
            range(max(1, len(there)), one.slots),
        ):  # the first compiles for all
            new = [self.begin(number, one.width) for number in batch]
            warm(new)
            there += new
        return there[: one.slots]

    def begin(self, number: int, width: int) -> Contender:
        places = slot_cores(number, width, self.cores)
        contender = start(Entry(Kind.ours, True, threads=width, cores=places), self.run)
        self.stack.callback(contender.close)
        return contender


@contextmanager
def crew(run: Path, cores: Sequence[int]) -> Iterator[Crew]:
    with ExitStack() as stack:
        yield Crew(run, cores, stack)


def throughputs(
    team: Crew, arrangements: Sequence[Arrangement], step_tokens: int, steps: int, repeats: int
) -> list[Throughput]:
    """Of every arrangement, in turns: who goes first changes, since machines drift."""
    contenders = {one: team.of(one) for one in arrangements}
    rates: dict[Arrangement, list[float]] = {one: [] for one in arrangements}
    for number in range(repeats):
        first = number % len(arrangements)
        for one in (*arrangements[first:], *arrangements[:first]):
            seconds = together(contenders[one], steps)
            rates[one].append(one.slots * steps * step_tokens / seconds)
    return [Throughput(one, tuple(found)) for one, found in rates.items()]
