"""What a sweep costs beside its training: its launch, its status, its array, the start of a cell."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from harness.commands.one_second import COMMAND, blank_record
from harness.errors import CannotAnswer
from harness.runs import RECORD, content_hash
from harness.sweep.plan import PlannedCell, plan_line, read_plan, write_plan
from harness.sweep.slurm.launch import Launcher
from harness.sweep.slurm.sbatch import submit_job
from harness.sweep.slurm.scheduler import cancel, held_tasks, is_there
from harness.sweep.slurm.settings import SlurmConfig
from harness.sweep.slurm.submit import withdraw
from harness.training.cell import Cell, write_cell

CELLS, KNOWN, TASKS = 1_000, 10_000, 100
LATER = "--begin=now+1hour"
"""The arrays whose submission is timed are taken back before they run."""

READ_ALL = (
    "import json, pathlib, sys; [json.loads(p.read_text()) for p in pathlib.Path().glob('*/record.json')]"
)
OPEN = """
import sys
from pathlib import Path
from harness.runs import RunDirectory
from harness.training.run import open_data, read_cell
open_data(read_cell(RunDirectory(Path(sys.argv[1]))))
"""


@dataclass(frozen=True)
class Cost:
    """Median seconds by the clock of the whole command, and of the reference, taken in turn with it."""

    what: str
    reference: str
    seconds: float
    reference_seconds: float

    @property
    def ratio(self) -> float:
        return self.seconds / self.reference_seconds

    def row(self) -> tuple[str, ...]:
        figures = f"{self.seconds:.2f}", f"{self.reference_seconds:.2f}", f"{self.ratio:.2f}"
        return (self.what, *figures, self.reference)

    def to_json(self) -> dict[str, object]:
        return {**asdict(self), "ratio": self.ratio}


def launch_costs(config: SlurmConfig, cell: Cell, repeats: int) -> list[Cost]:
    """In a folder below the working directory, which all nodes must see; without Slurm what needs none."""
    with tempfile.TemporaryDirectory(dir=".", prefix="bench-launch-") as folder:
        root = Path(folder)
        costs = [status_cost(root, repeats), start_cost(root, cell, repeats)]
        if is_there():
            costs += [submit_cost(root, config, repeats), array_cost(root, config, repeats)]
    return costs


def without_slurm() -> str:
    """Why launching and the array are not among the costs; empty where they are."""
    return "" if is_there() else "squeue is not here: launching and arrays are measured on a login node"


def status_cost(root: Path, repeats: int) -> Cost:
    """Of a sweep whose every cell is done."""
    sweep = plant(root / "known", KNOWN)
    for cell in read_plan(sweep):
        body = asdict(blank_record(cell.run_id))
        (sweep / cell.run_id).mkdir()
        (sweep / cell.run_id / RECORD).write_text(json.dumps({**body, "hash": content_hash(body)}))
    status = [sys.executable, "-m", "harness", "status", f"runs_dir={root}", "group=known", "format=json"]
    return compared(
        f"status of {KNOWN:,} finished cells",
        "python that parses their records",
        lambda: process(status),
        lambda: process([sys.executable, "-c", READ_ALL], sweep),
        repeats,
    )


def start_cost(root: Path, cell: Cell, repeats: int) -> Cost:
    run = write_cell(root, cell).path
    return compared(
        "start of a cell: import, config, data open",
        "python -c 'import lightning'",
        lambda: process([sys.executable, "-c", OPEN, str(run)]),
        lambda: process([sys.executable, "-c", "import lightning"]),
        repeats,
    )


def submit_cost(root: Path, config: SlurmConfig, repeats: int) -> Cost:
    sweep = plant(root / "launched", CELLS)
    words = [f"launcher.{name}={getattr(config, name)}" for name in ("partition", "account", "qos", "time")]
    given = [word for word in words if not word.endswith("=None")]
    place = ["launcher=slurm", f'launcher.directives=["{LATER}"]', *given]
    command = [sys.executable, "-m", "harness", "sweep", f"runs_dir={root}", f"group={sweep.name}", *place]

    def ours() -> float:
        try:
            return process(command)
        finally:
            withdraw(sweep, 60.0)

    return compared(
        f"launch of {CELLS:,} cells",
        f"sbatch --array=0-{CELLS - 1}",
        ours,
        lambda: cancelled(plain(config, CELLS, LATER)),
        repeats,
    )


def array_cost(root: Path, config: SlurmConfig, repeats: int) -> Cost:
    """From the submission to the end of the last task."""

    def ours() -> float:
        sweep = plant(Path(tempfile.mkdtemp(dir=root)) / "array", TASKS)
        began = time.perf_counter()
        launched = Launcher(sweep, config, command=COMMAND).launch(read_plan(sweep), retry_failed=False)
        ended([manifest.name for manifest in launched.arrays])
        return time.perf_counter() - began

    def theirs() -> float:
        began = time.perf_counter()
        plain(config, TASKS)
        ended([PLAIN])
        return time.perf_counter() - began

    return compared(
        f"{TASKS} one-second cells, one a task", "sbatch --array of sleep 1", ours, theirs, repeats
    )


PLAIN = f"plain-{os.getpid()}"


def plain(config: SlurmConfig, tasks: int, *more: str) -> tuple[float, str]:
    """Seconds that the submission took, and the job."""
    place = [
        f"--{name}={value}" for name in ("partition", "account", "qos") if (value := getattr(config, name))
    ]
    words = [f"--job-name={PLAIN}", f"--array=0-{tasks - 1}", "--output=/dev/null", *place, *more]
    began = time.perf_counter()
    job = submit_job(["sbatch", "--parsable", *words, "--wrap=sleep 1"])
    return time.perf_counter() - began, job


def cancelled(submitted: tuple[float, str]) -> float:
    cancel([submitted[1]])
    ended([PLAIN])
    return submitted[0]


def ended(names: Sequence[str]) -> None:
    while held_tasks(names):
        time.sleep(0.05)


def plant(root: Path, number: int) -> Path:
    """A sweep of cells that nothing but the stand-in can train."""
    cells = [PlannedCell(f"cell-{i:05d}", "none", 1, 2, 3, 4, 5.0, 0.1, 0, str(i)) for i in range(number)]
    frozen = {"config": {"hardware": {"device": "cpu"}}, "tokens_path": ""}
    write_plan(root, [plan_line(cell, frozen) for cell in cells], set, extend=False)
    return root


def process(command: Sequence[str], cwd: Path | None = None) -> float:
    """Raises CannotAnswer with its last line when it fails."""
    began = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd)
    if done.returncode != 0:
        said = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise CannotAnswer(f"{' '.join(command[2:4])} failed: {said}")
    return time.perf_counter() - began


def compared(
    what: str, reference: str, ours: Callable[[], float], theirs: Callable[[], float], repeats: int
) -> Cost:
    pairs = [(ours(), theirs()) for _ in range(repeats)]
    mine, other = (statistics.median(column) for column in zip(*pairs, strict=True))
    return Cost(what, reference, mine, other)
