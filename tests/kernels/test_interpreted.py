"""Runs tests/kernels/interpreted in processes where Triton interprets its kernels.

One of them alone: TRITON_INTERPRET=1 pytest tests/kernels/interpreted/test_cases.py
The whole grid takes minutes and runs on demand: the same with test_grid.py.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton")
FOLDER = Path(__file__).parent / "interpreted"
ON_DEMAND = {"test_grid"}
FILES = sorted({path.stem for path in FOLDER.glob("test_*.py")} - ON_DEMAND)


def run_interpreted(file: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    environment.pop("PYTEST_XDIST_WORKER", None)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-n",
        "0",
        "-p",
        "no:cacheprovider",
        str(FOLDER / f"{file}.py"),
    ]
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=7200, cwd=FOLDER.parents[2]
    )


@pytest.mark.parametrize("file", FILES)
def test_passes_in_the_interpreter(file: str) -> None:
    ran = run_interpreted(file)
    assert ran.returncode == 0, ran.stdout[-8000:] + ran.stderr[-2000:]
    assert " passed" in ran.stdout
    assert "skipped" not in ran.stdout
