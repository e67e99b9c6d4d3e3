"""Rewards that rise and saturate under noise: the end from the first part, and intervals that hold it."""

import json
from dataclasses import replace

import numpy as np
import pytest

from harness.cli import main
from harness.errors import WrongInput
from harness.forecast.inflight.outlook import Rule, Verdict, look_ahead
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
        if look.outlook.final is None:
            continue
        by_share.setdefault(look.share, []).append(
            (look.outlook.final, look.run.final, look.outlook.interval, naive)
        )
    return by_share


@pytest.mark.parametrize(("share", "bar"), [(0.1, 0.15), (0.25, 0.06), (0.5, 0.025)])
def test_the_end_of_a_planted_run_from_its_first_part(looks, share, bar):
    """Binomial noise of 128 prompts a row and an autoregressive wander, plateaus from .4 to .9."""
    predicted, actual, intervals, naive = (np.array(column) for column in zip(*looks[share], strict=True))
    assert len(predicted) >= 0.85 * RUNS  # the others have not risen yet
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


def test_a_reward_that_has_not_risen_is_not_predicted():
    """Nor killed: it may rise late. Where finished runs of its recipe rose late, they say when."""
    runs = [reward_run(f"r{seed}", seed, late=True) for seed in range(20)]
    begun = [run.until(0.1) for run in runs]
    alone = look_ahead(begun, [], Metric.reward, Rule())
    assert all("has not risen" in one.reason for one in alone)
    assert all((one.final, one.verdict) == (None, Verdict.unknown) for one in alone)
    flat = [one for one in alone if one.diverges > 0.1]
    assert not flat
    lent = look_ahead(begun[10:], runs[:10], Metric.reward, Rule(false_kill_rate=1e-4))
    inside = [
        one.interval[0] <= run.final <= one.interval[1] for one, run in zip(lent, runs[10:], strict=True)
    ]
    assert np.mean(inside) >= 0.8


def test_a_collapse_is_seen_and_its_end_is_not_predicted():
    runs = [reward_run(f"r{seed}", seed, collapses=0.4) for seed in range(20)]
    before, after = (
        look_ahead([run.until(share) for run in runs], [], Metric.reward, Rule()) for share in (0.38, 0.6)
    )
    assert all(one.diverges < 0.1 for one in before)
    assert all(one.final is None for one in after)
    assert sum(one.verdict is Verdict.kill and "diverges" in one.reason for one in after) >= 16


def test_bounds_that_are_given_hold():
    """A reward of any scale is predicted alike, and no draw leaves its bounds."""
    run = reward_run("r", 5).until(0.3)
    wide = replace(run, values=30 * run.values - 20)
    (rate,) = look_ahead([run], [], Metric.reward, Rule(), bounds=Bounds(0.0, 1.0))
    (scaled,) = look_ahead([wide], [], Metric.reward, Rule(), bounds=Bounds(-20.0, 10.0))
    assert scaled.final == pytest.approx(30 * rate.final - 20)
    assert scaled.interval == pytest.approx([30 * end - 20 for end in rate.interval])
    with pytest.raises(WrongInput, match="the rewards of 'r' lie in"):
        Bounds(-20.0, -10.0).hold([wide])
    with pytest.raises(WrongInput, match="the lower first"):
        Bounds(1.0, 0.0)


def test_a_log_of_one_run_on_the_command_line(tmp_path, capsys):
    """step and reward as a trainer logs them: no run_id, no horizon."""
    run = reward_run("r", 2)
    path = tmp_path / "grpo.jsonl"
    rows = [
        {"step": step, "reward": value, "hours": step / 10}
        for step, value in zip(run.steps[:120], run.values, strict=False)
    ]
    path.write_text(
        "\n".join(json.dumps(row) for row in [*rows, {"step": 121, "reward": None, "hours": 12.1}])
    )
    words = ["watch", f"sweep={path}", "metric=reward", "format=json"]
    found = []
    for more in (["until=400"], ["until=40", "columns={step: hours}"]):
        assert main([*words, *more]) == 0
        (cell,) = json.loads(capsys.readouterr().out)["cells"]
        assert cell["run_id"] == "grpo" and cell["interval"][0] <= run.final <= cell["interval"][1]
        found.append(cell["final"])
    assert found[0] == pytest.approx(found[1])
    for more, code, said in (
        ([], 1, "no run goes on"),
        (["until=-1"], 2, "must be positive"),
        (["until=400", "bounds=[0]"], 2, "must be two numbers"),
        (["until=400", "bounds=[0.5,1]"], 2, "the rewards of 'grpo' lie in"),
        (["until=400", "columns={reward: score}"], 2, "score"),
    ):
        assert main([*words, *more]) == code, more
        err = capsys.readouterr().err
        assert said in err and len(err.strip().splitlines()) == 1, err


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
