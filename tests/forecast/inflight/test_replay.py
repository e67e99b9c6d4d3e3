"""Old logs replayed: how near the predicted ends are, whom the rule kills, and that no future leaks in."""

import json
from dataclasses import replace

import numpy as np
import pytest

from harness.cli import main
from harness.errors import CannotAnswer, WrongInput
from harness.forecast.inflight.outlook import Rule, Verdict, look_ahead
from harness.forecast.inflight.replay import LendersOf, Replay, is_best, replay
from harness.forecast.inflight.tables import read_trajectories
from harness.forecast.inflight.trajectory import Metric

from ...public_data import public_table
from .planted import constant, loss_run, wsd


def replayed(table: str, where: tuple[str, ...] = (), lenders: LendersOf = LendersOf.smaller) -> Replay:
    runs = read_trajectories(public_table(table), Metric.loss, where)
    return replay(runs, Metric.loss, Rule(), lenders)


@pytest.fixture(scope="module")
def mpl() -> Replay:
    return replayed("mpl_curves.csv")


def test_shape_of_a_smaller_model_predicts_the_end(mpl):
    """2503.12811's curves of 100M and 400M, mean absolute error in nats at 10, 25 and 50 % of each run; a
    power law of the run's own rows misses by .116 and .061 at the latter two. At 10 % the warm-up of some has
    just ended: they have two rows."""
    for share, bar, n in ((0.1, 0.04, 12), (0.25, 0.03, 18), (0.5, 0.02, 18)):
        found = mpl.errors(share)
        assert found["n"] == n
        assert found["mean_absolute_error"] <= bar
        assert found["coverage"] >= 0.9


def test_growth_between_finished_sizes_is_lent_on(mpl):
    """The decay of the rate is worth more at 100M than at 25M, so more again at 400M: with one smaller size
    to borrow from no growth is known, with two the error at 25 % is a quarter."""
    errors = {
        size: np.mean([abs(x.error) for x in mpl.looks if x.run.params == size and x.share == 0.25])
        for size in (100e6, 400e6)
    }
    assert errors[400e6] < 0.02 < errors[100e6]


def test_the_smallest_size_has_nobody_to_borrow_from(mpl):
    looks = [look.outlook for look in mpl.looks if look.run.params == 25e6]
    assert looks
    assert all(one.verdict is Verdict.unknown and "no finished run" in one.reason for one in looks)
    assert all(one.final is None and one.interval is None for one in looks)


@pytest.mark.parametrize(
    ("table", "where"),
    [
        ("mpl_curves.csv", ()),
        ("olmo_ladder_curves.csv", ("lr>0",)),
        ("nanogpt_speedrun_curves.csv", ("kind=val",)),
    ],
)
def test_few_kills_are_wrong(table, where):
    found = replayed(table, where).kills()
    assert found["watched"] >= 18
    assert found["false_kills"] <= 0.05 * found["killed"]
    assert found["false_kills"] <= 0.05 * found["best_runs"]


def test_hopeless_runs_are_killed_and_compute_is_saved(mpl):
    found = mpl.kills()
    assert found["killed"] >= 3
    assert found["compute_saved"] > 0.1


@pytest.mark.parametrize(("size", "share"), [(400e6, 0.1), (100e6, 0.25), (400e6, 0.5)])
def test_no_future_leaks_into_a_prediction(mpl, size, share):
    """Every row after the look is replaced by nonsense, and so is the result: no prediction changes."""
    before = {look.run.run_id: look.outlook for look in mpl.looks if look.share == share}
    spoiled = [spoil(run, share) if run.params == size else run for run in mpl.runs]
    after = replay(spoiled, Metric.loss, Rule(), LendersOf.smaller, [share])
    for look in after.looks:
        if look.run.params == size:
            was, now = before[look.run.run_id], look.outlook
            assert (now.final, now.interval, now.diverges) == (was.final, was.interval, was.diverges)


def spoil(run, share):
    ahead = run.steps > share * run.end
    return replace(run, values=np.where(ahead, 77.0, run.values), final=77.0)


def test_planted_runs_are_predicted_within_their_intervals():
    """Two horizons of four sizes under a schedule that decays, lent by smaller sizes."""
    runs = [
        loss_run(f"{size:g}-{steps}-{seed}", size, wsd(steps), seed)
        for size in (1e6, 3e6, 1e7, 3e7)
        for steps in (2000, 5000)
        for seed in (1, 2)
    ]
    found = replay(runs, Metric.loss, Rule(), LendersOf.smaller)
    for share, bar in ((0.1, 0.08), (0.25, 0.05), (0.5, 0.03)):
        errors = found.errors(share)
        assert errors["n"] == 12
        assert errors["mean_absolute_error"] < bar
        assert errors["coverage"] >= 0.8


def test_schedules_matter():
    """A decaying run borrows from constant ones and one that decayed: the fall to come is foreseen."""
    small = [loss_run("constant", 1e6, constant(4000), 1), loss_run("wsd", 1e6, wsd(4000), 2)]
    run = loss_run("big", 4e6, wsd(8000), 3)
    found = replay([*small, run], Metric.loss, Rule(), LendersOf.smaller)
    for look in found.looks:
        if look.run is run and look.share == 0.5:
            assert abs(look.error) < 0.05 < abs(look.blind - run.final)


@pytest.mark.parametrize("size", [1e6, 4e6])
def test_what_no_law_describes_is_lent_by_runs_alike(size):
    """A bump that no shape has, in every run under a schedule: seeds of the cell, or runs of a smaller size,
    foretell it. Runs under another schedule cannot."""
    run = bent(loss_run("run", size, wsd(3000), 7))
    alike = [bent(loss_run(f"s{seed}", 1e6, wsd(3000), seed)) for seed in range(3)]
    unlike = [bent(loss_run(f"c{seed}", 1e6, constant(9000), seed)) for seed in range(3)]
    for share in (0.25, 0.4):
        known, unknown = (
            look_ahead([run.until(share)], lent, Metric.loss, Rule())[0] for lent in (alike, unlike)
        )
        assert abs(known.final - run.final) < 0.05 < abs(unknown.final - run.final)
        assert known.interval[0] <= run.final <= known.interval[1]


def test_another_learning_rate_is_no_repeat():
    """Runs of one cell at a hundredth of the rate fall by .4 of what the others do: they follow their own."""
    fast = [loss_run(f"f{seed}", 1e6, wsd(3000), seed) for seed in range(4)]
    slow = [slowed(loss_run(f"s{seed}", 1e6, wsd(3000), seed)) for seed in range(4, 6)]
    (found,) = look_ahead([slow[0].until(0.25)], [*fast, slow[1]], Metric.loss, Rule())
    assert abs(found.final - slow[0].final) < 0.03
    assert found.interval[0] <= slow[0].final <= found.interval[1]


def slowed(run):
    schedule = replace(run.schedule, peak=0.01 * run.schedule.peak)
    values = run.final + 2 + 0.4 * (run.values - run.final)
    return replace(run, schedule=schedule, values=values, final=run.final + 2)


def bent(run):
    return replace(run, values=run.values + 0.8 * np.exp(-(((run.steps / run.end - 0.35) / 0.1) ** 2)))


def test_a_hopeless_planted_run_dies_and_its_winner_lives():
    lent = [loss_run(f"small{seed}", 1e6, wsd(3000), seed) for seed in range(3)]
    good, bad = (
        loss_run(name, 3e6, wsd(3000), 9, worse=worse) for name, worse in (("good", 0.0), ("bad", 0.6))
    )
    found = replay([*lent, good, bad], Metric.loss, Rule(), LendersOf.smaller)
    kills = {look.run.run_id for look in found.looks if look.outlook.verdict is Verdict.kill}
    assert kills == {"bad"}
    assert is_best(good, found.runs, Metric.loss, Rule().rivals)
    assert found.kills()["false_kills"] == 0


def test_replay_on_the_command_line(capsys):
    words = ["watch", f"replay={public_table('mpl_curves.csv')}"]
    assert main([*words, "format=json", "shares=[0.5]"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [row["share"] for row in found["errors"]] == [0.5]
    assert len(found["looks"]) == 27
    assert main([*words, "shares=[0.5]"]) == 0
    out = capsys.readouterr().out
    assert "50%" in out
    assert "compute saved" in out


def table(tmp_path, text):
    path = tmp_path / "t_curves.csv"
    path.write_text(text)
    return path


def test_bad_tables_are_refused_in_one_line(tmp_path):
    rows = "".join(f"a,{step},{3 - step / 10}\n" for step in range(1, 6))
    with pytest.raises(WrongInput, match="no column 'loss'"):
        read_trajectories(table(tmp_path, "run_id,step,x\n" + rows), Metric.loss)
    with pytest.raises(WrongInput, match="must be numbers that increase"):
        read_trajectories(table(tmp_path, "run_id,step,loss\n" + rows + rows), Metric.loss)
    with pytest.raises(WrongInput, match="by=group"):
        read_trajectories(table(tmp_path, "run_id,step,loss\n" + rows), Metric.loss, by="group")
    with pytest.raises(CannotAnswer, match="no run of at least"):
        read_trajectories(table(tmp_path, "run_id,step,loss\na,1,2\n"), Metric.loss)
    kinds = "run_id,step,loss,kind\na,1,2,train\na,2,2,val\na,3,2,val\na,4,2,val\n"
    with pytest.raises(WrongInput, match="kind=val"):
        read_trajectories(table(tmp_path, kinds), Metric.loss)
    with pytest.raises(WrongInput, match="not positive"):
        below = "".join(f"a,{step},{2 - step}\n" for step in range(1, 5))
        read_trajectories(table(tmp_path, "run_id,step,loss\n" + below), Metric.loss)


def test_a_table_of_unfinished_runs_cannot_be_replayed(tmp_path):
    rows = "".join(f"a,{step},{3 - step / 10},100\n" for step in range(1, 6))
    runs = read_trajectories(table(tmp_path, "run_id,step,loss,horizon\n" + rows), Metric.loss)
    assert runs[0].final is None
    with pytest.raises(CannotAnswer, match="nothing to replay"):
        replay(runs, Metric.loss, Rule(), LendersOf.smaller)
