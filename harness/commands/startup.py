"""How long a user waits for a verb that loads no torch."""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROWS = 250

FIRST_ROW = """
import os
import sys

import harness.commands.observe


def stop(*_: object) -> None:
    print(*sorted(sys.modules))
    sys.stdout.flush()
    os._exit(0)


harness.commands.observe.observe = stop
from harness.cli import main

sys.exit(main(["fit", f"runs={sys.argv[1]}"]))
"""
"""A program that is `harness fit` until the first row would be read; it prints the modules it has loaded."""


def startup_seconds(repeats: int) -> dict[str, float]:
    """Median seconds of whole processes: an empty Python, `--help`, and a fit of 250 planted rows
    until it reads the first of them and to its end."""
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / "table.csv"
        table.write_text(planted_table())
        commands = {
            "python -c pass": ["-c", "pass"],
            "harness --help": ["-m", "harness", "--help"],
            "harness fit, until the first row": ["-c", FIRST_ROW, str(table)],
            f"harness fit, {ROWS} rows": ["-m", "harness", "fit", f"runs={table}"],
        }
        return {
            name: statistics.median(seconds(words, folder) for _ in range(repeats))
            for name, words in commands.items()
        }


def seconds(words: list[str], folder: str) -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, *words], check=True, capture_output=True, cwd=folder)
    return time.perf_counter() - began


def planted_table() -> str:
    """Rows of Hoffmann's surface (arXiv:2203.15556, eq. 10) with a ripple of .5 % in place of noise."""
    lines = ["params_total,tokens,flops,loss"]
    for i in range(ROWS):
        n, d = 10 ** (7 + 3 * (i % 25) / 24), 10 ** (9 + 2.5 * (i // 25) / 9)
        loss = (1.69 + 406.4 / n**0.34 + 410.7 / d**0.28) * (1 + 0.005 * (-1) ** i * (i % 7) / 7)
        lines.append(f"{n},{d},{6 * n * d},{loss}")
    return "\n".join(lines) + "\n"
