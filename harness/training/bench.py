"""Training speed beside other loops over the same shape, several cells at once, and the data loader."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from harness.data.loader import loader_tokens_per_second
from harness.data.shards import TokenStore
from harness.errors import CannotAnswer
from harness.training.cell import Cell, write_cell
from harness.training.compiling import wants_compile
from harness.training.contest import PACKAGES, Contender, Entry, Kind, Turn, start, warm
from harness.training.distributed import choose_device
from harness.training.packing import Arrangement, crew, throughputs
from harness.training.peaks import peak_flops


@dataclass(frozen=True)
class LoopSpeed:
    """One loop: its median speed, and how many times faster ours is, turn by turn: the median and the
    quartiles of wall-clock seconds, and the median of processor seconds, which other load moves less."""

    loop: str
    compiled: bool
    tokens_per_second: float
    mfu: float | None
    ratio: float
    low: float
    high: float
    processor_ratio: float


@dataclass(frozen=True)
class TrainSpeed:
    """Ours and every loop that could run; `left_out` says why the others could not."""

    model: str
    params_non_embedding: int
    precision: str
    threads: int
    loops: list[LoopSpeed]
    left_out: dict[str, str]

    @property
    def best_other(self) -> LoopSpeed:
        return min((loop for loop in self.loops if loop.loop != Kind.ours.value), key=lambda loop: loop.ratio)


def train_speed(cell: Cell, steps: int, repeats: int, python: str) -> TrainSpeed:
    """Time `steps` optimizer steps of each loop in turn, `repeats` times.

    `python` runs other packages' loops. Each is timed compiled and not, where a compiler is there. Raises
    CannotAnswer when ours or the bare loop cannot run.
    """
    left_out: dict[str, str] = {}
    with ExitStack() as stack:
        run = stack.enter_context(frozen(cell))
        contenders = []
        for entry in entries(compiles(cell), python):
            contender = start(entry, run)
            stack.callback(contender.close)
            try:
                warm([contender])
                contenders.append(contender)
            except CannotAnswer as reason:
                if entry.kind not in PACKAGES:
                    raise
                left_out[entry.name] = str(reason)
        rounds = [take_turns(contenders, steps, number) for number in range(repeats)]
    tokens = steps * cell.horizon.batch_tokens
    return TrainSpeed(
        model=cell.config.model.name,
        params_non_embedding=cell.shape.params.non_embedding,
        precision=cell.config.hardware.precision.value,
        threads=cell.config.hardware.threads or torch.get_num_threads(),
        loops=[
            loop_speed(contender.entry, tokens, [turns[index] for turns in rounds], rounds, cell)
            for index, contender in enumerate(contenders)
        ],
        left_out=left_out,
    )


def compiles(cell: Cell) -> bool:
    hardware = cell.config.hardware
    return wants_compile(hardware.compile, choose_device(hardware.device))


def entries(compiles: bool, python: str) -> list[Entry]:
    """Ours first, as it is configured."""
    ours, *others = Kind
    each = [Entry(kind, compiled) for kind in others for compiled in ([True, False] if compiles else [False])]
    return [
        Entry(ours, compiles),
        *(replace(entry, python=python) if entry.kind in PACKAGES else entry for entry in each),
    ]


@contextmanager
def frozen(cell: Cell) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        yield write_cell(Path(folder), cell).path


def take_turns(contenders: Sequence[Contender], steps: int, number: int) -> list[Turn]:
    """One turn of each; who goes first changes, since machines drift."""
    order = list(range(len(contenders)))
    first = number % len(order)
    turns = {index: contenders[index].turn(steps) for index in order[first:] + order[:first]}
    return [turns[index] for index in order]


def loop_speed(
    entry: Entry, tokens: int, turns: Sequence[Turn], rounds: Sequence[list[Turn]], cell: Cell
) -> LoopSpeed:
    pairs = list(zip(turns, (each[0] for each in rounds), strict=True))
    ratios = [other.seconds / ours.seconds for other, ours in pairs]
    low, _, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else 3 * ratios
    speed = tokens / statistics.median(turn.seconds for turn in turns)
    peak = peak_flops(cell.config.hardware, choose_device(cell.config.hardware.device))
    return LoopSpeed(
        loop=entry.name,
        compiled=entry.compiled,
        tokens_per_second=speed,
        mfu=speed * cell.shape.flops_per_token.training / peak if peak else None,
        ratio=statistics.median(ratios),
        low=low,
        high=high,
        processor_ratio=statistics.median(a.processor_seconds / b.processor_seconds for a, b in pairs),
    )


@dataclass(frozen=True)
class Packing:
    """Tokens per second of the whole machine, medians, one cell at a time with one thread and with all, and
    one cell a core; and how many times faster the last is than the better of the others, with quartiles."""

    model: str
    params_non_embedding: int
    cores: int
    one_thread: float
    all_threads: float
    side_by_side: float
    ratio: float
    low: float
    high: float


def packing(cell: Cell, steps: int, repeats: int, cores: Sequence[int]) -> Packing:
    """Interleaved, the processes pinned to their cores as the local queue pins them."""
    ways = [Arrangement(1, 1), Arrangement(1, len(cores)), Arrangement(len(cores), 1)]
    with frozen(with_threads_of_slot(cell)) as run, crew(run, cores) as team:
        one, wide, packed = throughputs(team, ways, cell.horizon.batch_tokens, steps, repeats)
    gains = [both / max(a, b) for a, b, both in zip(one.rates, wide.rates, packed.rates, strict=True)]
    low, _, high = statistics.quantiles(gains, n=4) if len(gains) > 1 else 3 * gains
    return Packing(
        model=cell.config.model.name,
        params_non_embedding=cell.shape.params.non_embedding,
        cores=len(cores),
        one_thread=one.tokens_per_second,
        all_threads=wide.tokens_per_second,
        side_by_side=packed.tokens_per_second,
        ratio=statistics.median(gains),
        low=low,
        high=high,
    )


def with_threads_of_slot(cell: Cell) -> Cell:
    """As many as its process has cores."""
    return replace(cell, config=replace(cell.config, hardware=replace(cell.config.hardware, threads=None)))


@dataclass(frozen=True)
class LoaderSpeed:
    """Tokens per second from the page cache, one thread."""

    ours: float
    reference: float
    ratio: float


class Windows(torch.utils.data.Dataset):
    """The usual map-style dataset: one slice and one tensor an item."""

    def __init__(self, store: TokenStore, context: int) -> None:
        self.tokens, self.context = store.tokens("train"), context

    def __len__(self) -> int:
        return (len(self.tokens) - 1) // self.context

    def __getitem__(self, index: int) -> torch.Tensor:
        start = index * self.context
        return torch.from_numpy(self.tokens[start : start + self.context + 1].astype("int64"))


def loader_speed(cell: Cell, repeats: int, seconds: float = 1.0) -> LoaderSpeed:
    """Ours beside torch's DataLoader over the same shards, in turn."""
    store = TokenStore.open(Path(cell.tokens_path))
    context, rows = cell.horizon.context, max(16, cell.horizon.batch_sequences)
    pairs = [
        (
            loader_tokens_per_second(store, context=context, batch_sequences=rows, seconds=seconds),
            reference_tokens_per_second(store, context, rows, seconds),
        )
        for _ in range(repeats)
    ]
    return LoaderSpeed(
        ours=statistics.median(a for a, _ in pairs),
        reference=statistics.median(b for _, b in pairs),
        ratio=statistics.median(a / b for a, b in pairs),
    )


def reference_tokens_per_second(store: TokenStore, context: int, rows: int, seconds: float) -> float:
    loader = torch.utils.data.DataLoader(Windows(store, context), batch_size=rows, shuffle=True)
    began, tokens = time.perf_counter(), 0
    for batch in loader:
        tokens += batch.shape[0] * context
        if time.perf_counter() - began > seconds:
            break
    return tokens / (time.perf_counter() - began)
