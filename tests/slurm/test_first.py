"""A sweep whose data are not prepared: two jobs, of which the second does what was typed."""

import pytest

from harness.cli import main
from harness.sweep.slurm import first
from harness.sweep.slurm.first import Preparer, first_of, forget_first, why_ended
from harness.sweep.slurm.scheduler import held_jobs
from harness.sweep.slurm.settings import SlurmConfig
from tests.slurm.conftest import wait_for

HARNESS = """#!/bin/sh
until [ -e ready ]; do sleep 0.1; done
printf '%s\\n' "$@" >> typed
case "$*" in *broken*) echo "harness prepare: no such corpus" >&2; exit 2 ;; esac
"""
"""In place of the real one, in the folder in which the jobs were submitted, once a file is there."""


@pytest.fixture
def typed(cluster, tmp_path, monkeypatch):
    """Types a sweep whose data are not there, with these words for both verbs."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "harness").write_text(HARNESS)
    (tmp_path / "bin" / "harness").chmod(0o755)
    monkeypatch.setattr(first, "own_path", lambda: {"PATH": f"{tmp_path}/bin:/usr/bin:/bin"})
    monkeypatch.chdir(tmp_path)
    config = SlurmConfig(time="5", warning_seconds=60, partition="low")
    return lambda *words: Preparer(tmp_path / "runs" / "mine", config, words, ["group=mine", *words])


def test_the_data_are_prepared_once_and_then_the_sweep_is_typed(typed, tmp_path):
    words = ("corpus.path=/a b", "corpus.name=$(id);'")
    one, other = (typed(*words).submit() for _ in range(2))
    (tmp_path / "ready").touch()
    assert (one.submitted, other.submitted) == (True, False)
    assert (one.prepare, one.sweep) == (other.prepare, other.sweep)
    wait_for("both", lambda: not held_jobs(first.names(tmp_path / "runs" / "mine")))
    assert (tmp_path / "typed").read_text().splitlines() == [
        "prepare", *words, "sweep", "launcher=slurm", "group=mine", *words
    ]  # fmt: skip
    assert typed("again").submit().prepare != one.prepare


def test_a_prepare_that_fails_leaves_nothing_waiting_and_says_why(typed, tmp_path, capsys):
    root = tmp_path / "runs" / "mine"
    (tmp_path / "ready").touch()
    jobs = typed("broken").submit()
    wait_for("both", lambda: not held_jobs(first.names(root)))
    assert "sweep" not in (tmp_path / "typed").read_text()
    assert f"job {jobs.prepare} has ended with: harness prepare: no such corpus" in why_ended(root, jobs)
    assert main(["status", "group=mine"]) == 1
    assert "no such corpus" in capsys.readouterr().err
    assert (forget_first(root), first_of(root)) == (False, None)


def test_dry_run_shows_both_commands_and_writes_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = ["corpus=text_dir", "corpus.path=none", "group=mine", "model=27k", "horizon.tokens=20_480"]
    slurm = ["launcher=slurm", "launcher.partition=gpu", "launcher.account=lab", "dry_run=true"]
    assert main(["sweep", *words, *slurm, 'sweep.axes=["seed=0,1"]']) == 0
    prepare, sweep, *scripts = capsys.readouterr().out.splitlines()
    options = "--partition=gpu --account=lab"
    assert f"{options} --time=24:00:00 --cpus-per-task=1 " in prepare
    assert prepare.endswith(f"prepare.sbatch {' '.join(words)}")
    assert f"--dependency=afterok:JOB_ID_OF_PREPARE --kill-on-invalid-dep=yes {options} " in sweep
    assert sweep.endswith(f"""sweep.sbatch {" ".join([*words, *slurm[1:3]])} 'sweep.axes=["seed=0,1"]'""")
    assert 'exec harness prepare "$@"' in scripts and 'exec harness sweep launcher=slurm "$@"' in scripts
    assert not any(tmp_path.iterdir())
    assert main(["sweep", *words, *slurm, 'sweep.axes=["tokenizer=bytes,bpe_512"]']) == 1
    assert "is not prepared below data: run `harness prepare" in capsys.readouterr().err
