"""Measure speed against a named reference, side by side in one run.

    harness bench train experiment=demo                    tokens/s against a bare PyTorch loop
    harness bench train experiment=demo models=[27k,160k] steps=200
    harness bench loader experiment=demo_frontier          tokens/s of the data loader from page cache
    harness bench startup                                  whole-process seconds of --help and fit

Ratios are medians over repetitions taken in turn; absolute times depend on the machine and its load.
"""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass, field
from enum import Enum

from harness.commands.cells import own_cell
from harness.commands.root import Experiment, Format
from harness.config import compose_all, task_overrides, verb
from harness.report.terminal import print_json, print_table, si

TYPICAL_STEPS = 5_000


class What(Enum):
    train = "train"
    loader = "loader"
    startup = "startup"


@dataclass(kw_only=True)
class Settings(Experiment):
    what: What
    models: list[str] = field(default_factory=lambda: ["27k", "100k", "620k"])
    steps: int = 150
    repeats: int = 9


@verb("bench", Settings)
def bench(settings: Settings) -> None:
    match settings.what:
        case What.train:
            bench_train(settings)
        case What.loader:
            bench_loader(settings)
        case What.startup:
            bench_startup(settings)


def main() -> None:
    """A bare word names what to measure."""
    if len(sys.argv) > 1 and sys.argv[1] in What.__members__:
        sys.argv[1] = f"what={sys.argv[1]}"
    bench()


def bench_train(settings: Settings) -> None:
    from harness.training.bench import train_speed

    typed = task_overrides()
    tokens = TYPICAL_STEPS * settings.horizon.batch_tokens  # sets how often a row is logged
    horizon = [f"horizon.tokens={tokens}", "horizon.flops=null", "horizon.tokens_per_param=null"]
    each = compose_all("bench", Settings, [[*typed, f"model={model}", *horizon] for model in settings.models])
    speeds = [train_speed(own_cell(one), settings.steps, settings.repeats) for one in each]
    show(
        settings,
        "training tokens/s, ours through Lightning against a bare PyTorch loop",
        ("model", "params", "ours", "bare loop", "ratio", "compiled", "precision", "threads"),
        [asdict(s) for s in speeds],
        [
            (
                s.model,
                si(s.params_non_embedding),
                si(s.ours),
                si(s.bare),
                f"{s.ratio:.3f}",
                str(s.compiled),
                s.precision,
                str(s.threads),
            )
            for s in speeds
        ],
    )


def bench_loader(settings: Settings) -> None:
    from harness.training.bench import loader_speed

    rates = loader_speed(own_cell(settings), settings.repeats)
    show(
        settings,
        "loader tokens/s, one thread, against torch's DataLoader over the same shards",
        ("loader", "DataLoader", "ratio"),
        asdict(rates),
        [(si(rates.ours), si(rates.reference), f"{rates.ratio:.1f}")],
    )


def bench_startup(settings: Settings) -> None:
    from harness.commands.startup import startup_seconds

    times = startup_seconds(settings.repeats)
    rows = [(name, f"{seconds:.2f} s") for name, seconds in times.items()]
    show(settings, "median seconds of the whole process", ("command", "seconds"), times, rows)


def show(settings: Settings, title: str, columns: tuple[str, ...], value: object, rows: list) -> None:
    if settings.format is Format.json:
        print_json(value)
    else:
        print_table(title, columns, rows)
