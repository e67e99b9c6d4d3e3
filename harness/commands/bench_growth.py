"""How seconds and memory of the bootstrap grow with rows and with resamples."""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from harness.commands.bench_fit import planted_observations
from harness.laws.bootstrap import resample
from harness.laws.config import LawConfig, Resampling
from harness.laws.fit import solve

Size = tuple[int, int]
"""Rows and bootstraps."""

LARGE: tuple[Size, ...] = ((240, 4000), (10_000, 1000))
MORE_ROWS: tuple[Size, ...] = ((1000, 100), (3000, 100), (10_000, 100))
MORE_BOOTSTRAPS: tuple[Size, ...] = ((240, 1000), (240, 4000), (240, 16_000))


@dataclass(frozen=True)
class Cost:
    """Of fitting and resampling in a process of its own: by the clock, of the processor (all threads), and
    the largest resident memory."""

    rows: int
    bootstraps: int
    seconds: float
    processor_seconds: float
    peak_bytes: int


def cost(size: Size) -> Cost:
    """Measured in a new process, whose peak is not that of this one."""
    rows, bootstraps = size
    call = f"from harness.commands.bench_growth import report; report({rows}, {bootstraps})"
    done = subprocess.run([sys.executable, "-c", call], check=True, capture_output=True, text=True)
    return Cost(**json.loads(done.stdout))


def report(rows: int, bootstraps: int) -> None:
    """Print the cost of this process as JSON."""
    began = time.perf_counter()
    processor = bootstrap_seconds((rows, bootstraps))
    seconds = time.perf_counter() - began
    print(json.dumps(asdict(Cost(rows, bootstraps, seconds, processor, peak_bytes()))))


def peak_bytes() -> int:
    """The largest resident memory of this program. Linux hands getrusage's figure on from the parent."""
    status = Path("/proc/self/status")
    if status.exists():
        (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def bootstrap_seconds(size: Size) -> float:
    """Of the processor."""
    rows, bootstraps = size
    observations = planted_observations(rows)
    began = time.process_time()
    resample(solve(observations, LawConfig()), bootstraps, Resampling.cases, seed=0)
    return time.process_time() - began


def growth(sizes: Sequence[Size], turns: int) -> float:
    """The slope of log seconds in log size, by least squares through medians over turns: 1 is linear."""
    seconds: list[list[float]] = [[bootstrap_seconds(size) for size in sizes] for _ in range(turns)]
    medians = [statistics.median(column) for column in zip(*seconds, strict=True)]
    elements = [rows * bootstraps for rows, bootstraps in sizes]
    return float(np.polyfit(np.log(elements), np.log(medians), 1)[0])
