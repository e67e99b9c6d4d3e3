import json
import os
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from harness import runs
from harness.errors import CannotAnswer, WrongInput
from harness.runs import Attempt, RunDirectory, RunRecord, Status, Superseded, claim, finished_records


def record(**changes: object) -> RunRecord:
    plain = {
        "run_id": "r",
        "group": "g",
        "status": "done",
        "params_total": 3,
        "params_non_embedding": 2,
        "params_embedding": 1,
        "params_head": 0,
        "tokens": 10,
        "unique_tokens": 10,
        "epochs": 0.5,
        "steps": 5,
        "flops": 1e3,
        "loss": 2.5,
        "loss_kind": "validation, nats per token",
        "bits_per_byte": 1.0,
        "train_loss": 2.4,
        "lr": 0.1,
        "batch_tokens": 2,
        "schedule": "wsd",
        "optimizer": "adamw",
        "width": 1,
        "depth": 1,
        "n_heads": 1,
        "context": 2,
        "vocab_size": 3,
        "seed": 0,
        "data_seed": 0,
        "precision": "fp32",
        "attention": "sdpa",
        "compiled": False,
        "corpus_hash": "c",
        "tokenizer_hash": "t",
        "config_hash": "h",
        "code_version": "v",
    }
    return RunRecord(**{**plain, **changes})


def finished_run(path, **changes) -> RunDirectory:
    run = RunDirectory(path)
    claim(run).finish(record(run_id=path.name, **changes))
    return run


def test_a_record_comes_back_as_written(tmp_path):
    run = finished_run(tmp_path / "r", loss=2.25)
    assert run.record() == record(loss=2.25)
    assert run.status() is Status.done


def test_an_edited_record_is_refused_by_name(tmp_path):
    run = finished_run(tmp_path / "r")
    path = run.path / runs.RECORD
    path.write_text(path.read_text().replace("2.5", "2.1"))
    with pytest.raises(WrongInput, match=r"record\.json was edited"):
        run.record()


def test_damaged_runs_are_named_and_left_out(tmp_path):
    finished_run(tmp_path / "good")
    truncated = finished_run(tmp_path / "truncated").path / runs.RECORD
    truncated.write_text(truncated.read_text()[:50])
    finished_run(tmp_path / "diverged", status="diverged", loss=None)
    claim(RunDirectory(tmp_path / "failed")).fail("out of memory")
    (tmp_path / "failed" / runs.CONFIG).write_text("{}")
    records, skipped = finished_records(tmp_path)
    assert [r.run_id for r in records] == ["good"]
    reasons = {skip.name: skip.reason for skip in skipped}
    assert "damaged" in reasons["truncated"]
    assert reasons["diverged"] == "diverged"
    assert reasons["failed"] == "failed"


def test_a_torn_metrics_line_costs_only_itself(tmp_path):
    attempt = claim(RunDirectory(tmp_path / "r"))
    attempt.append_metrics([{"kind": "train", "step": 1, "loss": 3.0}])
    with (attempt.run.path / runs.METRICS).open("a") as file:
        file.write('{"kind": "train", "step": 2, "lo')
    attempt.append_metrics(
        [{"kind": "train", "step": 2, "loss": 2.0}, {"kind": "train", "step": 1, "loss": 4.0}]
    )
    assert [(row["step"], row["loss"]) for row in attempt.run.metrics()] == [(1, 4.0), (2, 2.0)]


def test_a_living_owner_is_not_pushed_aside(tmp_path):
    run = RunDirectory(tmp_path / "r")
    claim(run)
    assert run.status() is Status.running
    with pytest.raises(CannotAnswer, match=f"process {os.getpid()}"):
        claim(run)


def dead_owner(attempt: Attempt) -> None:
    """As if the process had been killed: its pid is gone or belongs to another process."""
    path = attempt.run.path / runs.ATTEMPT
    owner = json.loads(path.read_text())
    path.write_text(json.dumps({**owner, "process_start": "0"}))


def test_a_dead_owner_is_superseded_and_cannot_write(tmp_path):
    run = RunDirectory(tmp_path / "r")
    first = claim(run)
    dead_owner(first)
    assert run.status() is Status.lost
    second = claim(run)
    assert second.number == 2
    with pytest.raises(Superseded):
        first.finish(record())
    second.finish(record())
    assert run.status() is Status.done


def test_an_owner_on_another_host_is_alive_until_it_falls_silent(tmp_path):
    run = RunDirectory(tmp_path / "r")
    path = claim(run).run.path / runs.ATTEMPT
    path.write_text(json.dumps({**json.loads(path.read_text()), "host": "elsewhere"}))
    with pytest.raises(CannotAnswer, match="on elsewhere"):
        claim(run)
    long_ago = time.time() - runs.FOREIGN_SILENCE_SECONDS - 60
    os.utime(path, (long_ago, long_ago))
    assert claim(run).number == 2


def test_a_superseded_attempt_appends_no_metrics(tmp_path):
    first = claim(RunDirectory(tmp_path / "r"))
    dead_owner(first)
    claim(first.run)
    with pytest.raises(Superseded):
        first.append_metrics([{"kind": "train", "step": 1}])


def test_of_many_claims_at_once_one_wins(tmp_path):
    run = RunDirectory(tmp_path / "r")
    dead_owner(claim(run))
    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(lambda _: attempt_or_none(run), range(8)))
    assert sum(outcome is not None for outcome in outcomes) == 1


def attempt_or_none(run: RunDirectory) -> Attempt | None:
    try:
        return claim(run)
    except CannotAnswer:
        return None


def test_garbage_in_the_owners_file_is_no_owner(tmp_path):
    run = RunDirectory(tmp_path / "r")
    (claim(run).run.path / runs.ATTEMPT).write_bytes(b"\xff\xfe\x00")
    assert run.status() is Status.planned
    assert claim(run).number == 1


def test_a_full_disk_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "value.json"
    runs.write_json(path, 1)

    def full(_fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(WrongInput, match="No space left"):
        runs.write_json(path, 2)
    assert runs.read_json(path) == 1
    assert [p.name for p in tmp_path.iterdir()] == ["value.json"]
