"""What a run is estimated to take of memory, beside what one took."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from harness.errors import CannotAnswer
from harness.override import override
from harness.training.cell import Cell, write_cell
from harness.training.fitting import memory_of, micro_batch_of
from harness.training.memory import MIB, Memory


@dataclass(frozen=True)
class Measured:
    """`peak` is None where the system does not say."""

    model: str
    micro_batch: int
    estimate: Memory
    peak: int | None

    @property
    def ratio(self) -> float | None:
        """Estimated over measured."""
        return self.estimate.total / self.peak if self.peak else None

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "estimated": self.estimate.total, "ratio": self.ratio}

    def row(self) -> tuple[str, ...]:
        memory = self.estimate
        states = memory.weights + memory.gradients + memory.moments
        parts = (memory.process, memory.data, states, memory.activations + memory.logits, memory.heap)
        measured = f"{self.peak / MIB:.0f} ({self.ratio:.2f})" if self.peak else "unknown"
        shown = (f"{part / MIB:.0f}" for part in (*parts, memory.total))
        return (self.model, str(self.micro_batch), *shown, measured)


def measured_memory(cell: Cell) -> Measured:
    """Trains the cell in a process of its own, in a folder that vanishes."""
    with tempfile.TemporaryDirectory() as folder:
        run = write_cell(Path(folder), cell)
        command = [sys.executable, "-m", "harness", "train", override("cell", str(run.path))]
        done = subprocess.run(command, capture_output=True, text=True)
        record = run.record_if_any()
        if record is None:
            said = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
            raise CannotAnswer(f"{cell.config.model.name} did not train: {said[-1]}")
        return Measured(
            cell.config.model.name, micro_batch_of(cell), memory_of(cell), record.peak_memory_bytes
        )
