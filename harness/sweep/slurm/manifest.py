"""Which cells each task of an array trains, on disk before the array is submitted."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import WrongInput
from harness.runs import FAILURE, read_json, read_owner, write_json

if TYPE_CHECKING:
    from harness.sweep.units import Unit

FOLDER = ".slurm"
Tasks = Sequence[tuple[str, ...]]


@dataclass(frozen=True)
class Manifest:
    """`tasks` are run ids by task number. The first `submitted` of them are in arrays, `jobs` by id. A cell
    may fail `allowed` times under this manifest; `failed_before` are failures from before it. At most
    `at_once` tasks may run at the same time, None for no limit. Manifests of the same `settings` ask the
    cluster for the same in each task."""

    number: int
    name: str
    tasks: tuple[tuple[str, ...], ...]
    allowed: int = 1
    failed_before: dict[str, int] = field(default_factory=dict)
    at_once: int | None = None
    submitted: int = 0
    jobs: tuple[str, ...] = ()
    settings: str = ""

    @property
    def waits(self) -> int:
        """How many tasks the cluster would not take yet."""
        return len(self.tasks) - self.submitted

    def may_try(self, run: Path) -> bool:
        return failures(run) - self.failed_before.get(run.name, 0) < self.allowed


def failures(run: Path) -> int:
    """How many attempts at a run have failed."""
    owner = read_owner(run)
    return (owner.failures if owner else 0) + (run / FAILURE).exists()


def pack(units: Iterable[Unit], cells_per_task: int) -> list[tuple[str, ...]]:
    """The units shared out to tasks, in their order; one is never split over two tasks."""
    tasks: list[tuple[str, ...]] = []
    for unit in units:
        ids = tuple(cell.run_id for cell in unit)
        if tasks and len(tasks[-1]) + len(ids) <= cells_per_task:
            tasks[-1] += ids
        else:
            tasks.append(ids)
    return tasks


def chunks(tasks: Tasks, longest: int) -> list[Tasks]:
    return [tasks[start : start + longest] for start in range(0, len(tasks), longest)]


def path_of(root: Path, number: int) -> Path:
    return root / FOLDER / f"{number:04d}.json"


def script_of(root: Path, number: int) -> Path:
    return root / FOLDER / f"{number:04d}.sbatch"


def ends_of(root: Path, number: int, task: str) -> Path:
    """Where the batch script notes how the executions of a task ended that it requeued."""
    return root / FOLDER / f"{number:04d}-{task}.ends"


def write_manifest(root: Path, manifest: Manifest) -> None:
    write_json(path_of(root, manifest.number), asdict(manifest))


def read_manifest(path: Path) -> Manifest:
    """Raises WrongInput when it is missing or damaged."""
    value = read_json(path)
    try:
        found = Manifest(**value)
        return replace(found, tasks=tuple(map(tuple, found.tasks)), jobs=tuple(found.jobs))
    except TypeError as error:
        raise WrongInput(f"{path} is damaged: {error}") from error


def read_manifests(root: Path) -> list[Manifest]:
    return [read_manifest(path) for path in sorted((root / FOLDER).glob("[0-9]*.json"))]


def next_number(root: Path) -> int:
    numbers = [int(path.stem.split("-")[0]) for path in (root / FOLDER).glob("[0-9]*.*")]
    return max(numbers, default=0) + 1
