"""Measure speed against a named reference, side by side in one run.

    harness bench train corpus=pysource_prose              tokens/s, MFU: a bare loop, transformers, litgpt
    harness bench train experiment=demo models=[27k,160k] steps=200
    harness bench train python=other/.venv/bin/python      the Python that has transformers and litgpt
    harness bench packing experiment=demo steps=200        one cell a core against one at a time
    harness bench loader experiment=demo_frontier          tokens/s of the data loader from page cache
    harness bench memory experiment=demo                   the estimated memory beside that of fresh runs
    harness bench launch experiment=demo launcher=slurm launcher.time=10   what a sweep costs beside training
    harness bench startup                                  whole-process seconds of --help and fit
    harness bench kernels static=true cards=[sm_90]        what our kernels compile to, for cards not here;
                                                           exit 1 where one fell behind
    harness bench kernels static=true full=true            every head dimension and type, all features
    harness bench kernels                                  on a GPU, attention beside SDPA, FlexAttention,
                                                           flash-attn, and the loss beside PyTorch's, Liger's
    harness bench fit                                      the fit beside the procedure it replaces
    harness bench fit runs=table.csv full=true             on your rows, all 4500 starts, not a sample

`train` also times transformers' Trainer and litgpt's loop on the same shape where they are installed; they
are not among the harness's own packages. python= names another environment's Python that has them beside
PyTorch. What is missing is named, and the rest is timed. On a GPU the same commands use it, with the
attention of `attention=`. MFU needs a device of harness.training.peaks, or hardware.peak_flops: of a CPU that
is cores x clock x FLOPs a cycle, 64 in fp32 with two AVX-512 FMA units.
Ratios are medians over repetitions taken in turn; absolute times depend on the machine and its load.
"""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass, field
from enum import Enum

from harness.commands.cells import own_cell
from harness.commands.root import Experiment, Format
from harness.config import compose_all, task_overrides, verb
from harness.errors import CannotAnswer, WrongInput
from harness.report.terminal import print_json, print_table, si
from harness.training.cell import Cell

TYPICAL_STEPS = 5_000


class What(Enum):
    train = "train"
    packing = "packing"
    loader = "loader"
    memory = "memory"
    launch = "launch"
    startup = "startup"
    fit = "fit"
    kernels = "kernels"


MODELS = {
    What.train: ["100k", "620k", "1.8m"],
    What.packing: ["27k", "56k"],
    What.memory: ["620k", "1.8m"],
    What.launch: ["27k"],
}
"""What is timed unless `models` says otherwise."""


@dataclass(kw_only=True)
class Settings(Experiment):
    what: What
    models: list[str] = field(default_factory=list)
    steps: int = 20
    repeats: int = 9
    python: str | None = None
    sample: float = 0.02
    full: bool = False
    static: bool = False
    cards: list[str] = field(default_factory=lambda: ["sm_80", "sm_90"])

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.steps < 1 or self.repeats < 1:
            raise ValueError("steps and repeats must be at least 1")
        if not 0 < self.sample <= 1:
            raise ValueError(f"sample={self.sample} is the share of the reference to run, in (0, 1]")


@verb("bench", Settings)
def bench(settings: Settings) -> None:
    match settings.what:
        case What.train:
            bench_train(settings)
        case What.packing:
            bench_packing(settings)
        case What.loader:
            bench_loader(settings)
        case What.memory:
            bench_memory(settings)
        case What.launch:
            bench_launch(settings)
        case What.startup:
            bench_startup(settings)
        case What.fit:
            bench_fit(settings)
        case What.kernels:
            from harness.commands.bench_kernels import bench_kernels

            bench_kernels(settings.static, settings.cards, settings.format, settings.full)


def main() -> None:
    """A bare word names what to measure."""
    first = sys.argv[1] if len(sys.argv) > 1 else ""
    if first in What.__members__:
        sys.argv[1] = f"what={first}"
    elif first and "=" not in first and not first.startswith("-"):
        raise WrongInput(
            f"there is nothing called {first!r} to measure; choose from {', '.join(What.__members__)}"
        )
    bench()


def bench_train(settings: Settings) -> None:
    from harness.report.bench import print_train_speed
    from harness.training.bench import train_speed

    python = settings.python or sys.executable
    speeds = [train_speed(cell, settings.steps, settings.repeats, python) for cell in rungs(settings)]
    if settings.format is Format.json:
        print_json([asdict(speed) for speed in speeds])
    else:
        for speed in speeds:
            print_train_speed(speed)


def bench_packing(settings: Settings) -> None:
    from harness.report.bench import print_packing
    from harness.sweep.slots import own_cores
    from harness.training.bench import packing

    cores = own_cores()
    if len(cores) < 2:
        raise CannotAnswer("one core: cells cannot be set side by side")
    found = [packing(cell, settings.steps, settings.repeats, cores) for cell in rungs(settings)]
    if settings.format is Format.json:
        print_json([asdict(each) for each in found])
    else:
        print_packing(found)


def rungs(settings: Settings) -> list[Cell]:
    """One cell for each of `models`, long enough for a schedule and rows of metrics as usual."""
    typed = task_overrides()
    tokens = TYPICAL_STEPS * settings.horizon.batch_tokens
    horizon = [f"horizon.tokens={tokens}", "horizon.flops=null", "horizon.tokens_per_param=null"]
    models = settings.models or MODELS[settings.what]
    each = compose_all("bench", Settings, [[*typed, f"model={model}", *horizon] for model in models])
    return [own_cell(one) for one in each]


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


def bench_memory(settings: Settings) -> None:
    from harness.commands.bench_memory import measured_memory

    steps = [f"horizon.tokens={3 * settings.horizon.batch_tokens}", "evaluation.tokens=4096"]
    short = [*steps, "horizon.flops=null", "horizon.tokens_per_param=null"]
    typed = task_overrides()
    models = settings.models or MODELS[settings.what]
    each = compose_all("bench", Settings, [[*typed, f"model={model}", *short] for model in models])
    found = [measured_memory(own_cell(one)) for one in each]
    show(
        settings,
        "peak memory of three steps in a process of their own, MiB (CPU: resident; GPU: PyTorch's allocator)",
        ("model", "micro-batch", "process", "data", "states", "activations", "heap", "estimated", "measured"),
        [one.to_json() for one in found],
        [one.row() for one in found],
    )


def bench_launch(settings: Settings) -> None:
    from harness.commands.bench_launch import launch_costs, without_slurm

    found = launch_costs(settings.launcher, rungs(settings)[0], min(settings.repeats, 3))
    show(
        settings,
        "median seconds",
        ("what", "seconds", "reference", "ratio", "the reference"),
        [cost.to_json() for cost in found],
        [cost.row() for cost in found],
    )
    if missing := without_slurm():
        raise CannotAnswer(missing)


def bench_startup(settings: Settings) -> None:
    from harness.commands.startup import startup_seconds

    times = startup_seconds(settings.repeats)
    rows = [(name, f"{seconds:.2f} s") for name, seconds in times.items()]
    show(settings, "median seconds of the whole process", ("command", "seconds"), times, rows)


def bench_fit(settings: Settings) -> None:
    from harness.commands.bench_fit import fit_speed, planted_observations
    from harness.commands.bench_growth import LARGE, MORE_BOOTSTRAPS, MORE_ROWS, cost, growth
    from harness.commands.observe import observe
    from harness.report.bench import print_fit_speed, print_growth

    observations = observe(settings, settings.fit.params) if settings.runs else planted_observations()
    turns = min(settings.repeats, 5)
    costs = [cost(size) for size in LARGE]
    slopes = {"rows": growth(MORE_ROWS, turns), "bootstraps": growth(MORE_BOOTSTRAPS, turns)}
    speed = fit_speed(observations, 1.0 if settings.full else settings.sample, turns, settings.fit.seed)
    found = {**speed.to_json(), "costs": [asdict(one) for one in costs], "slopes": slopes}
    if settings.format is Format.json:
        print_json(found)
    else:
        print_fit_speed(found)
        print_growth(found)


def show(settings: Settings, title: str, columns: tuple[str, ...], value: object, rows: list) -> None:
    if settings.format is Format.json:
        print_json(value)
    else:
        print_table(title, columns, rows)
