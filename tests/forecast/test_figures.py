"""Every figure of an output is drawn again, to the byte, by the command that stands under it."""

import json
import shlex

import pytest

from ..public_data import planted_sweep


@pytest.fixture
def table(tmp_path):
    sweep = planted_sweep(1, 0.002, sizes=6)
    rows = zip(sweep.params, sweep.tokens, sweep.loss, strict=True)
    lines = ["params_total,tokens,loss", *(f"{n},{d},{loss}" for n, d, loss in rows)]
    path = tmp_path / "runs.csv"
    path.write_text("\n".join(lines))
    return path


@pytest.mark.parametrize(
    "words",
    [
        ["forecast", "params=4e5", "tokens=3e8", "forecast.bootstraps=50", "seal=bet $1.json"],
        ["fit", "fit.bootstraps=0"],
        ["backtest", "holdout_ratio=4", "forecast.bootstraps=50"],
    ],
)
def test_the_command_under_a_figure_draws_it_again(harness, table, tmp_path, words):
    asked = [*words, "runs=runs.csv", "where=['loss<9']", "figure=f.svg"]
    said = harness(*asked, cwd=tmp_path).stdout
    drawn = (tmp_path / "f.svg").read_text()
    (tmp_path / "f.svg").unlink()
    [line] = [line for line in said.splitlines() if line.startswith("figure f.svg: ")]
    harness(*shlex.split(line.removeprefix("figure f.svg: "))[1:], cwd=tmp_path)
    assert (tmp_path / "f.svg").read_text() == drawn and "figure=f.svg" in drawn


def test_a_figure_of_another_format_is_refused(harness, table, tmp_path):
    done = harness("fit", "fit.bootstraps=0", "runs=runs.csv", "figure=f.png", cwd=tmp_path)
    assert done.returncode == 2 and "ends in .svg" in done.stderr and not (tmp_path / "f.png").exists()


def test_a_seal_whose_runs_have_changed_is_shown_and_says_so(harness, table, tmp_path):
    words = [
        "forecast",
        "params=4e5",
        "tokens=3e8",
        "runs=runs.csv",
        "forecast.bootstraps=50",
        "seal=bet.json",
    ]
    first = json.loads(harness(*words, "figure=f.svg", "format=json", cwd=tmp_path).stdout)
    assert first["figure"]["path"] == "f.svg" and "figure=f.svg" in first["figure"]["command"]
    assert first["seal"]["changed"] is None
    table.write_text("\n".join(table.read_text().splitlines()[:-1]))
    changed = json.loads(harness(*words, "format=json", cwd=tmp_path).stdout)
    assert changed["loss"] == first["loss"] and "not those it was sealed from" in changed["seal"]["changed"]
    drawn = harness(*words, "figure=f.svg", cwd=tmp_path)
    assert drawn.returncode == 1 and "not those it was sealed from" in drawn.stderr
    table.unlink()
    gone = harness(*words, cwd=tmp_path)
    assert gone.returncode == 0 and "cannot be read to compare them" in gone.stdout
