"""Rewards that rise and saturate under noise: the end from the first part, and intervals that hold it."""

import json

import numpy as np
import pytest

from harness.cli import main
from harness.forecast.inflight.outlook import Rule
from harness.forecast.inflight.replay import LendersOf, replay
from harness.forecast.inflight.reward import Bounds, RewardPredictor
from harness.forecast.inflight.trajectory import Metric

from .planted import reward_run

RUNS = 60


@pytest.fixture(scope="module")
def looks() -> dict[float, list[tuple[float, float, tuple[float, float], float]]]:
    """By share: (predicted, actual, interval, mean of the last fifth of the rows so far) of planted runs."""
    runs = [reward_run(f"r{seed}", seed) for seed in range(RUNS)]
    found = replay(runs, Metric.reward, Rule(), LendersOf.smaller)
    by_share: dict[float, list] = {}
    for look in found.looks:
        seen = look.run.until(look.share).values
        naive = float(seen[-len(seen) // 5 :].mean())
        by_share.setdefault(look.share, []).append(
            (look.outlook.final, look.run.final, look.outlook.interval, naive)
        )
    return by_share


@pytest.mark.parametrize(("share", "bar"), [(0.1, 0.15), (0.25, 0.06), (0.5, 0.025)])
def test_the_end_of_a_planted_run_from_its_first_part(looks, share, bar):
    """Binomial noise of 128 prompts a row and an autoregressive wander, plateaus from .4 to .9."""
    predicted, actual, intervals, naive = (np.array(column) for column in zip(*looks[share], strict=True))
    errors = np.abs(predicted - actual)
    assert errors.mean() < bar
    assert errors.mean() < 0.7 * np.abs(naive - actual).mean()
    inside = (intervals[:, 0] <= actual) & (actual <= intervals[:, 1])
    assert inside.mean() >= 0.85
    assert (intervals[:, 0] >= 0).all() and (intervals[:, 1] <= 1).all()


def test_intervals_narrow_as_a_run_goes_on(looks):
    widths = [np.mean([high - low for _, _, (low, high), _ in looks[share]]) for share in (0.1, 0.25, 0.5)]
    assert widths[0] > widths[1] > widths[2]


def test_finished_runs_narrow_what_the_first_rows_leave_open():
    """Runs of one recipe: the plateau and the bend are known from those that finished."""
    run = reward_run("r", 5).until(0.1)
    same = [reward_run(f"f{n}", 5) for n in range(3)]
    bounds = Bounds.of([run, *same])
    alone, lent = (RewardPredictor(finished, bounds).predict(run) for finished in ([], same))
    actual = same[0].final
    spread = [np.ptp(np.quantile(mixture.draws(0, 0), [0.05, 0.95])) for mixture in (alone, lent)]
    error = [abs(np.median(mixture.draws(0, 0)) - actual) for mixture in (alone, lent)]
    assert spread[1] < 0.8 * spread[0]
    assert error[1] < 0.1


def test_no_future_of_a_reward_leaks_in():
    runs = [reward_run(f"r{seed}", seed) for seed in range(3)]
    for run in runs:
        half = run.until(0.5)
        assert len(half.values) == 200 and half.final is None
        spoiled = np.where(run.steps > 200, 0.0, run.values)
        again = type(run)(**{**vars(run), "values": spoiled}).until(0.5)
        one, other = (RewardPredictor([], Bounds(0.0, 1.0)).predict(seen) for seen in (half, again))
        assert np.array_equal(one.means, other.means)


def test_a_table_of_rewards_on_the_command_line(tmp_path, capsys):
    done, going = reward_run("done", 1), reward_run("going", 2).until(0.4)
    rows = [
        f"{run.run_id},{step},{value},400"
        for run in (done, going)
        for step, value in zip(run.steps, run.values, strict=True)
    ]
    path = tmp_path / "rl.csv"
    path.write_text("run_id,gpu_hours,score,horizon\n" + "\n".join(rows) + "\n")
    words = ["metric=reward", "columns={step: gpu_hours, reward: score}", "format=json"]
    assert main(["watch", f"sweep={path}", *words]) == 0
    (cell,) = json.loads(capsys.readouterr().out)["cells"]
    low, high = cell["interval"]
    assert cell["run_id"] == "going" and cell["share"] == pytest.approx(0.4)
    assert 0 <= low <= reward_run("going", 2).final <= high <= 1
    assert main(["watch", f"sweep={path}", *words, "dry=false"]) == 2
    assert "is a table" in capsys.readouterr().err
