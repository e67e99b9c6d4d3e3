"""Runs tests/kernels/interpreted in processes where Triton interprets its kernels.

To run one of them alone: TRITON_INTERPRET=1 pytest tests/kernels/interpreted/test_cases.py
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton")
FOLDER = Path(__file__).parent / "interpreted"
SLOW = ["test_grid"]
FAST = sorted(path.stem for path in FOLDER.glob("test_*.py") if path.stem not in SLOW)


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
        command, env=environment, capture_output=True, text=True, timeout=1200, cwd=FOLDER.parents[2]
    )


@pytest.mark.parametrize("file", FAST)
def test_passes_in_the_interpreter(file: str) -> None:
    ran = run_interpreted(file)
    assert ran.returncode == 0, ran.stdout[-8000:] + ran.stderr[-2000:]
    assert " passed" in ran.stdout
    assert "skipped" not in ran.stdout


@pytest.mark.slow
@pytest.mark.parametrize("file", SLOW)
def test_the_grid_passes_in_the_interpreter(file: str) -> None:
    ran = run_interpreted(file)
    assert ran.returncode == 0, ran.stdout[-8000:] + ran.stderr[-2000:]
