"""Sweeps larger than what the cluster takes: real limits, of an accounting database and of the controller."""

import contextlib
import json
import os
import subprocess
from pathlib import Path

import pytest

from harness.cli import main
from harness.errors import CannotAnswer
from harness.runs import read_owner
from harness.sweep.slurm.manifest import read_manifests
from tests.slurm.conftest import (
    command_of,
    emptied,
    planned_sweep,
    require_accounting,
    require_slurm,
    started,
    wait_for,
)


@pytest.fixture(scope="module")
def shared_accounting(tmp_path_factory):
    require_accounting()
    with started(tmp_path_factory.mktemp("accounting"), "--accounting") as cluster:
        yield cluster
        notes = {path.name: int(path.read_text().split()[0]) for path in (cluster.folder / "pids").iterdir()}
    assert {"slurmdbd", "mariadbd"} <= notes.keys()
    wait_for("their ends", lambda: not any(command_of(pid) for pid in notes.values()))


@pytest.fixture
def accounting(shared_accounting):
    """With no jobs left: those that are ending count towards the limits."""
    return emptied(shared_accounting)


def test_it_listens_on_loopback_alone_and_the_database_on_no_port(accounting):
    pids = {path.name: path.read_text().split()[0] for path in (accounting.folder / "pids").iterdir()}
    assert listening(pids["slurmdbd"]) == {"0100007F"}
    assert listening(pids["mariadbd"]) == set()


def listening(pid: str) -> set[str]:
    """The addresses on which a process accepts connections."""
    held = {target_of(link) for link in Path(f"/proc/{pid}/fd").iterdir()}
    tables = "".join(Path(f"/proc/net/{protocol}").read_text() for protocol in ("tcp", "tcp6"))
    rows = [line.split() for line in tables.splitlines()]
    return {row[1].split(":")[0] for row in rows if row[3] == "0A" and f"socket:[{row[9]}]" in held}


def target_of(link: Path) -> str:
    try:
        return str(link.readlink())
    except OSError:  # closed meanwhile
        return ""


@pytest.mark.parametrize(
    ("limit", "cap", "word"),
    [
        (("user", "root", "set", "MaxSubmitJobs={}"), 3, "AssocMaxSubmitJobLimit"),
        (("qos", "normal", "set", "MaxSubmitJobsPerUser={}"), 1, "QOSMaxSubmitJobPerUserLimit"),
    ],
)
def test_what_a_user_may_have_in_the_queue(accounting, tmp_path, capsys, limit, cap, word):
    def limited(most: int) -> None:
        accounting.ask("sacctmgr", "--immediate", "modify", *(part.format(most) for part in limit))

    limited(cap)
    try:
        refused = subprocess.run(
            ["sbatch", f"--array=0-{cap}", "--wrap=true"], capture_output=True, text=True
        )
        assert word in refused.stderr
        mine = planned_sweep(tmp_path / "mine", 9)
        mine.hold(0, steps=3)  # no task may end and make room meanwhile
        launched = mine.launch()
        assert (sum(array.submitted for array in launched.arrays), launched.waiting) == (cap, 9 - cap)
        assert "violates accounting/QOS policy" in launched.refusal
        assert main(["status", "group=mine", f"runs_dir={tmp_path}"]) == 0
        assert "planned" not in capsys.readouterr().out.splitlines()[-1]  # nobody need type it again
        mine.behave(steps=3)
        gets_done_once(mine)
    finally:
        limited(-1)


def test_a_limit_on_tasks_at_once_is_used_to_the_full_under_it(accounting, tmp_path):
    """Tasks that were submitted one by one, each array after the last, would run one by one."""
    limit = ("sacctmgr", "--immediate", "modify", "user", "root", "set")
    accounting.ask(*limit, "MaxSubmitJobs=2")
    try:
        mine = planned_sweep(tmp_path / "mine", 6, tasks_at_once=2)
        mine.hold(0, steps=3)
        (array,) = mine.launch().arrays
        mine.behave(steps=3)
        gets_done_once(mine)
        assert read_manifests(mine.root)[0].jobs == array.jobs
    finally:
        accounting.ask(*limit, "MaxSubmitJobs=-1")


def test_accounting_says_why_where_no_file_does(accounting, tmp_path, capsys):
    """Of a cell whose task dies, one that is cancelled while it runs, one cancelled before it began."""
    mine = planned_sweep(tmp_path / "mine", 3, restarts=0, tasks_at_once=1)
    mine.hold(7, "c001", out_of_memory=["c000"])
    (array,) = mine.launch().arrays
    (job,) = array.jobs
    wait_for("the second", lambda: mine.started("c001"))
    account = ("sacct", "--noheader", "--parsable2", "--format=State,NodeList", "-j", f"{job}_1")
    wait_for("its account", lambda: "RUNNING|n1" in accounting.ask(*account))
    accounting.ask("scancel", job)
    expected = {
        "c000": ("lost", f"job {job}_0 ended, says sacct: FAILED 9:0"),
        "c001": ("interrupted", f"job {job}_1 ended, says sacct: CANCELLED by 0 on n1"),
        "c002": ("planned", f"job {job}_2 ended, says sacct: CANCELLED by 0"),
    }

    def shown() -> dict[str, tuple[str, str]]:
        assert main(["status", "group=mine", f"runs_dir={tmp_path}", "format=json"]) == 0
        cells = json.loads(capsys.readouterr().out)["cells"]
        notes = {cell["cell"]["run_id"]: (cell["status"], cell["note"]) for cell in cells}
        # The account of a task that ends before its start has reached the database names no node.
        return {**notes, "c000": (notes["c000"][0], notes["c000"][1].removesuffix(" on n1"))}

    with contextlib.suppress(AssertionError):
        wait_for("the accounts", lambda: shown() == expected, 120)
    assert shown() == expected


def gets_done_once(mine) -> None:
    """With nothing typed again: every cell in one attempt, each in one task."""
    mine.finish()
    assert {read_owner(mine.root / cell.run_id).number for cell in mine.cells} == {1}
    cells = [run_id for array in read_manifests(mine.root) for task in array.tasks for run_id in task]
    assert sorted(cells) == [cell.run_id for cell in mine.cells]


def test_how_many_jobs_the_controller_knows(tmp_path_factory, tmp_path):
    """MaxJobCount, where jobs that have ended count on for minutes, and sbatch would wait."""
    require_slurm()
    with started(tmp_path_factory.mktemp("few"), "--max-jobs=5"):
        mine = planned_sweep(tmp_path / "mine", 9)
        mine.hold(0, steps=3)
        launched = mine.launch()
        assert 0 < sum(array.submitted for array in launched.arrays) < 5
        assert launched.refusal == "sbatch: Slurm temporarily unable to accept job"
        assert waiting_sbatches() == []
        mine.behave(steps=3)
        gets_done_once(mine)
        with pytest.raises(CannotAnswer, match="unable to accept job; nothing was submitted"):
            planned_sweep(tmp_path / "other", 1).launch()


def waiting_sbatches() -> list[str]:
    """What this process left behind."""
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    return [pid for pid in children if b"sbatch" in command_of(int(pid))]
