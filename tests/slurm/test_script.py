"""What sbatch gets, compared whole, and what can be no part of it. No Slurm is needed here."""

from pathlib import Path

import pytest

from harness.cli import main
from harness.commands.cells import waited_for
from harness.errors import CannotAnswer, WrongInput
from harness.runs import RunDirectory, Superseded, claim
from harness.signals import StopFlag
from harness.sweep.launcher import AnyLauncherConfig, LauncherKind
from harness.sweep.plan import PlannedCell, plan_line, write_plan
from harness.sweep.slurm.launch import Launcher
from harness.sweep.slurm.manifest import Manifest, pack, write_manifest
from harness.sweep.slurm.scheduler import Task
from harness.sweep.slurm.script import Array, indices, render, template
from harness.sweep.slurm.settings import SlurmConfig, seconds
from harness.sweep.slurm.submit import newest
from harness.sweep.slurm.task import Exit, work
from harness.sweep.units import units

GOLDEN = Path(__file__).parent / "golden"


def cell(name: str, tokens: int = 1, trunk: str = "", flops: float = 1.0) -> PlannedCell:
    return PlannedCell(name, "27k", 1, 2, tokens, 4, flops, 0.1, 0, name, trunk=trunk, trunk_tokens=tokens)


def everything() -> SlurmConfig:
    return SlurmConfig(
        cells_per_task=8,
        tasks_at_once=16,
        time="1-12:00:00",
        warning_seconds=300,
        cpus_per_task=4,
        memory="32G",
        partition="gpu,gpu-long",
        account="lab",
        qos="normal",
        gres="gpu:a100:1",
        constraint="[a100|h100]",
        directives=["--reservation=mine", "--exclusive", "--mail-user=a@b.org"],
        restarts=9,
    )


@pytest.mark.parametrize(("name", "config", "gpus"), [("plain", SlurmConfig(), 0), ("full", everything(), 1)])
def test_scripts_equal_their_golden_files(name, config, gpus):
    command = ("/opt/python 3/bin/python", "-m", "harness.commands.task", ".slurm/0001.json")
    array = Array("mine-0001", 100, command, ".slurm/0001-%a.txt", ".slurm/0001-%a.ends", gpus)
    assert render(template(), config, array) == (GOLDEN / f"{name}.sbatch").read_text()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("partition", "gpu\n#SBATCH --uid=0"),
        ("partition", "gpu --wrap=x"),
        ("partition", "-x"),
        ("account", "a;rm"),
        ("account", ""),
        ("qos", "$(id)"),
        ("gres", "gpu:1 x"),
        ("gres", "gpu:1#"),
        ("constraint", "a'b"),
        ("constraint", "a\\b"),
        ("memory", "4GB"),
        ("time", "1:2:3:4"),
        ("time", "soon"),
        ("time", "1"),
        ("cells_per_task", 0),
        ("tasks_at_once", 0),
        ("restarts", -1),
        ("directives", ["--array=1-9"]),
        ("directives", ["--arr=1-9"]),  # sbatch would take it for --array
        ("directives", ["--partition=x"]),
        ("directives", ["--comment=a b"]),
        ("directives", ["--comment=a\n#SBATCH --uid=0"]),
        ("directives", ["--comment='a'"]),
        ("directives", ["-p x"]),
        ("directives", ["--wrap=id"]),
        ("directives", ["--export=NONE"]),
    ],
)
def test_nothing_from_a_config_becomes_a_directive_or_a_command(name, value):
    with pytest.raises(ValueError, match=f"launcher.{name}"):
        SlurmConfig(**{name: value})


def test_a_group_name_cannot_break_out_of_its_line(tmp_path):
    with pytest.raises(WrongInput, match="plain folder name"):
        Launcher(tmp_path / "a\n#SBATCH --uid=0", SlurmConfig()).array(1, [("x",)])


def test_no_filling_of_a_gap_is_filled_again():
    config = SlurmConfig(directives=["--comment=a@command@"])
    lines = render(template(), config, Array("a", 1, ("x", "-m", "y"), "log", "ends")).splitlines()
    assert "#SBATCH --comment=a@command@" in lines


def test_sweeps_of_one_name_in_two_folders_have_arrays_of_two_names(tmp_path):
    """squeue takes a list of names, of which a comma would make two, and lists the jobs of everybody."""
    here, there = (
        Launcher(tmp_path / where / "mine", SlurmConfig()).array(1, [("x",)]).manifest.name for where in "ab"
    )
    assert here != there and here.startswith("mine-") and here.endswith("-0001")
    with pytest.raises(WrongInput, match="plain folder name"):
        Launcher(tmp_path / "a,b", SlurmConfig()).array(1, [("x",)])


def test_a_new_array_waits_for_the_newest_job_in_whatever_order_squeue_lists():
    tasks = [Task("mine", job, 0, "PENDING", "Priority") for job in ("9", "101", "100")]
    assert newest(tasks) == "101"
    assert newest([]) is None


@pytest.mark.parametrize(("taker", "trained"), [("7_0", ["a"]), ("", ["a", "b"])])
def test_a_task_goes_on_unless_its_own_later_execution_took_over(tmp_path, monkeypatch, taker, trained):
    """Another node may run the task by now, or somebody else has taken over one cell of it."""
    words = {"SLURM_JOB_ID": "8", "SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "0"}
    begun = []

    def train(run: RunDirectory) -> None:
        begun.append(run.run_id)
        with monkeypatch.context() as theirs:
            if not taker:
                theirs.delenv("SLURM_JOB_ID")
            claim(run)
        raise Superseded("taken over")

    for name, value in words.items():
        monkeypatch.setenv(name, value)
    manifest = Manifest(1, "mine-0001", (("a", "b"),))
    assert work(tmp_path, manifest, 0, train, StopFlag(), {}) is Exit.OVER
    assert begun == trained


def test_each_launcher_refuses_the_settings_of_the_other(capsys):
    assert main(["sweep", "launcher.partition=gpu", "dry_run=true"]) == 2
    assert "launcher.partition is for launcher=slurm" in capsys.readouterr().err
    assert main(["sweep", "launcher=slurm", "launcher.slots=2", "dry_run=true"]) == 2
    assert "launcher.slots is for launcher=local" in capsys.readouterr().err
    with pytest.raises(ValueError, match=r"frontier\.sbatch"):
        AnyLauncherConfig(kind=LauncherKind.slurm, gpus=2)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("90", 5400), ("1:30", 90), ("2:00:00", 7200), ("1-0", 86_400), ("1-2:30", 95_400), ("1-0:0:5", 86_405)],
)
def test_times_as_slurm_reads_them(text, expected):
    assert seconds(text) == expected


def test_packing_keeps_trunks_together_and_in_order():
    cells = [cell("a", flops=9.0), cell("t2", 20, "t", 2.0), cell("b", flops=1.0), cell("t1", 10, "t", 1.0)]
    assert pack(units(cells), 1) == [("a",), ("t1", "t2"), ("b",)]
    assert pack(units(cells), 3) == [("a", "t1", "t2"), ("b",)]
    assert pack(units(cells), 4) == [("a", "t1", "t2", "b")]
    assert pack([], 4) == []


def test_indices():
    assert indices(0, 100, None) == "0-99"
    assert indices(50, 51, 8) == "50-50%8"


def test_a_plan_that_slurm_holds_is_waited_for(tmp_path, monkeypatch):
    root = tmp_path / "mine"
    tasks = (("a", "b"), ("c",), ("d",))  # the last waits for one that ends
    write_manifest(root, Manifest(1, "mine-0001", tasks, submitted=2, jobs=("7",)))
    squeue = tmp_path / "squeue"
    squeue.write_text("#!/bin/sh\necho 'mine-0001|7|0|PENDING|Priority'; echo 'other|7|1|RUNNING|None'\n")
    squeue.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin")
    assert waited_for(root) == {"a", "b", "d"}
    squeue.write_text("#!/bin/sh\ntrue\n")
    assert waited_for(root) == set()
    squeue.write_text("#!/bin/sh\nexit 1\n")
    assert waited_for(root) == {"a", "b", "c", "d"}


def test_without_slurm_the_sweep_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    launcher = Launcher(tmp_path, SlurmConfig())
    with pytest.raises(CannotAnswer, match="another plan by now"):
        launcher.launch([cell("a")], retry_failed=False)
    write_plan(tmp_path, [plan_line(cell("a"), {})], set, extend=False)
    with pytest.raises(CannotAnswer, match="login node"):
        launcher.launch([cell("a")], retry_failed=False)
