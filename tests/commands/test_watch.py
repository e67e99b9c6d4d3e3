"""harness watch on the run directories of a sweep, as typed."""

import json
import shlex
from pathlib import Path

import numpy as np
import pytest

from harness.cli import main
from harness.commands.trajectories import trajectory
from harness.forecast.inflight.shapes import Shapes, basis
from harness.forecast.inflight.trajectory import Metric
from harness.runs import KILLED, METRICS, RunDirectory, Status, claim
from harness.sweep.plan import create_run, read_lines

from ..sweep.standin import blank_record

WORDS = ["corpus=text_dir", "corpus.name=toy", "tokenizer=bytes", "context=32", "model=27k", "group=toy"]
WORDS += ["horizon.batch_tokens=512", "horizon.tokens=400_000", "evaluation.tokens=2048", "hardware=cpu"]


@pytest.fixture
def sweep(toy_root, tmp_path, monkeypatch, capsys) -> Path:
    """Six cells of one budget, not begun."""
    monkeypatch.chdir(tmp_path)
    places = [f"corpus.path={toy_root / 'texts'}", f"data_dir={toy_root / 'data'}"]
    assert main(["plan", *WORDS, *places, 'sweep.axes=["seed=0,1,2,3,4,5"]']) == 0
    capsys.readouterr()
    return tmp_path / "runs" / "toy"


def begin(root: Path, cell: int, share: float, worse: float = 0.0) -> RunDirectory:
    """Rows of a planted curve until `share` of the run; its record too when that is all of it."""
    run = create_run(root, read_lines(root)[cell])
    empty = trajectory(run, None, Metric.loss)
    assert empty.schedule is not None
    steps = np.arange(8.0, empty.end + 1, 8)
    power, fall = basis(Shapes(*(np.array([v]) for v in (0.5, 10.0, 0.7, 0.6))), empty.schedule, steps)
    noise = 0.01 * np.random.default_rng(cell).standard_normal(len(steps))
    loss = 3.0 + worse + 6 * power[0] + 0.3 * fall[0]
    attempt = claim(run)
    shown = steps <= share * empty.end
    attempt.append_metrics(
        [
            {"kind": "train", "step": int(step), "tokens": int(512 * step), "lr": 0.0, "loss": value}
            for step, value in zip(steps[shown], (loss + noise)[shown], strict=True)
        ]
    )
    if share == 1.0:
        attempt.finish(blank_record(run_id=run.run_id, status="done", loss=3.0 + worse))
    else:
        attempt.end()
    return run


def test_a_sweep_is_watched_and_a_hopeless_cell_is_killed_only_when_asked(sweep, capsys):
    for cell in range(3):
        begin(sweep, cell, 1.0)
    good, bad = begin(sweep, 3, 0.5), begin(sweep, 4, 0.5, worse=1.0)
    assert main(["watch", "sweep=toy", "format=json"]) == 0
    found = json.loads(capsys.readouterr().out)
    cells = {one["run_id"]: one for one in found["cells"]}
    assert (found["finished"], found["dry"], set(cells)) == (3, True, {good.run_id, bad.run_id})
    assert (cells[good.run_id]["verdict"], cells[bad.run_id]["verdict"]) == ("keep", "kill")
    low, high = cells[good.run_id]["interval"]
    assert low < 3.0 < high < 3.5
    assert cells[bad.run_id]["beats_best"] < 0.05 < cells[good.run_id]["beats_best"]
    assert not (bad.path / KILLED).exists()

    assert main(["watch", f"sweep={sweep}", "dry=false", "figure=w.svg"]) == 0
    out = capsys.readouterr().out
    assert f"{bad.run_id}: killed; nothing was training it" in out
    drawn = Path("w.svg").read_text()
    (command,) = (line.partition(": ")[2] for line in out.splitlines() if line.startswith("figure w.svg: "))
    Path("w.svg").unlink()
    assert main(shlex.split(command)[1:]) == 0  # drawn again, without killing again
    assert Path("w.svg").read_text() == drawn
    assert "killed" not in capsys.readouterr().out
    evidence = json.loads((bad.path / KILLED).read_text())
    assert evidence["outlook"]["beats_best"] < 0.05
    assert (bad.status(), good.status()) == (Status.killed, Status.interrupted)

    assert main(["watch", "sweep=toy", "format=json"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert [one["run_id"] for one in again["cells"]] == [good.run_id]
    assert again["left_out"] == [{"name": bad.run_id, "reason": "killed"}]


def test_without_a_finished_run_there_is_no_prediction(sweep, capsys):
    begin(sweep, 0, 0.5)
    assert main(["watch", "sweep=toy"]) == 0
    out = capsys.readouterr().out
    assert "no finished run of this sweep to borrow a shape from" in out
    assert "unknown" in out


def test_a_run_whose_loss_is_gone_is_killed_without_any_finished_run(sweep, capsys):
    run = begin(sweep, 0, 0.5)
    row = {"kind": "train", "step": 500, "tokens": 256000, "lr": 0.0, "loss": None}
    with (run.path / METRICS).open("a") as file:
        file.write(json.dumps(row) + "\n")
    assert main(["watch", "sweep=toy", "format=json"]) == 0
    (cell,) = json.loads(capsys.readouterr().out)["cells"]
    assert (cell["verdict"], cell["diverges"], cell["latest"]) == ("kill", 1.0, None)


def test_wrong_words_are_refused_in_one_line(sweep, capsys):
    begin(sweep, 0, 1.0)
    assert main(["watch", "sweep=toy", "metric=reward"]) == 1
    assert "logged a reward" in capsys.readouterr().err
    for words, said in (
        ([], "say which sweep"),
        (["sweep=nowhere"], "does not exist"),
        (["sweep=runs"], "not the folder of one sweep"),
        (["sweep=toy", "rule.false_kill_rate=0"], "between 0 and 1"),
    ):
        assert main(["watch", *words]) == 2, words
        err = capsys.readouterr().err
        assert said in err and len(err.strip().splitlines()) == 1, err
