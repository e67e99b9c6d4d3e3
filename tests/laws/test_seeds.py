"""The noise floor: planted scatter of each seed found again, in stars, crossed designs and plain tables."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from harness.commands.fit import Settings, show_noise
from harness.commands.observe import observe
from harness.config import compose_all
from harness.errors import CannotAnswer, WrongInput
from harness.laws.collect import collect
from harness.laws.config import LossUnit, ParamsKind
from harness.laws.observations import FLOPS_6ND, Observations, Row, best_of_cell
from harness.laws.seeds import SeedKind, SeedNoise, noise_floor, seed_noise

INIT, DATA, VALIDATION = 0.004, 0.002, 0.0005
STAR = [(0, 0), (1, 0), (2, 0), (3, 0), (0, 1), (0, 2), (0, 3), (1, 1), (2, 2), (3, 3)]


def runs(design, rungs: int, rng: np.random.Generator, lrs=(1e-3,)) -> Observations:
    """Independent effects of init, data order and validation windows in ln L at every rung and rate."""
    rows = []
    for rung, lr in product(range(rungs), lrs):
        effects = [size * rng.standard_normal(9) for size in (INIT, DATA, VALIDATION)]
        for seeds in design:
            off = sum(effect[seed] for effect, seed in zip(effects, seeds, strict=False))
            name = f"{rung}-{lr}-{seeds}"
            loss = 3 * math.exp(off + 0.3 * math.log(lr / 1e-3) ** 2)
            seed = "/".join(map(str, seeds))
            row = Row(name=name, params=1e5 * (1 + rung), tokens=1e6, flops=None, loss=loss, seed=seed)
            rows.append(replace(row, lr=lr))
    return collect(rows, ParamsKind.total, LossUnit.nats_per_token, FLOPS_6ND)


def test_a_star_tells_the_seeds_apart():
    design = [*STAR, (0, 0, 1), (0, 0, 2)]
    found = noise_floor(runs(design, 300, np.random.default_rng(0)))
    stds = {kind: noise.std for kind, noise in found.pooled.items()}
    assert stds[SeedKind.init] == pytest.approx(INIT, rel=0.07)
    assert stds[SeedKind.data_order] == pytest.approx(DATA, rel=0.07)
    assert stds[SeedKind.init_and_data_order] == pytest.approx(math.hypot(INIT, DATA), rel=0.07)
    assert found.rungs[0].noise[SeedKind.init].degrees_of_freedom == 3
    assert found.one_run is not None and found.one_run.of == "init and data order"
    assert len(found.rungs) == 300


@pytest.mark.parametrize("design", [STAR, list(product(range(3), range(3)))], ids=["star", "crossed"])
def test_intervals_hold_the_planted_scatter_at_their_level(design):
    """A crossed design meets each seed three times; counted as independent, its intervals would hold the
    truth in three cases of four."""
    rng = np.random.default_rng(1)
    inside = {SeedKind.init: 0, SeedKind.data_order: 0}
    for _ in range(300):
        pooled = noise_floor(runs(design, 2, rng)).pooled
        for kind, truth in ((SeedKind.init, INIT), (SeedKind.data_order, DATA)):
            low, high = pooled[kind].interval(0.9)
            inside[kind] += low < truth < high
    assert all(0.86 < count / 300 < 0.97 for count in inside.values()), inside


def test_the_interval_is_that_of_chi_square():
    """Ten degrees of freedom: quantiles 3.940 and 18.307 in any table."""
    low, high = SeedNoise(1.0, 10).interval(0.9)
    assert low == pytest.approx(math.sqrt(10 / 18.307), rel=1e-4)
    assert high == pytest.approx(math.sqrt(10 / 3.9403), rel=1e-4)


def test_rates_are_not_taken_for_seeds():
    """A grid of rates with one seed each says nothing of noise; with two seeds each, only these do."""
    rng = np.random.default_rng(2)
    one = runs([(0, 0)], 3, rng, lrs=(5e-4, 1e-3, 2e-3))
    assert seed_noise(one) is None
    two = runs([(0, 0), (1, 0)], 60, rng, lrs=(5e-4, 1e-3, 2e-3))
    found = seed_noise(two)
    assert found is not None and found.degrees_of_freedom == 180
    assert found.std == pytest.approx(INIT, rel=0.15) and found.of == "init"
    assert seed_noise(best_of_cell(two)) == found


def test_parts_add_up_where_both_were_not_measured_together():
    """Variances a and b with 400 and 200 degrees of freedom: (a + b)^2 / (a^2 / 400 + b^2 / 200) of both."""
    floor = noise_floor(runs([(0, 0), (1, 0), (2, 0), (0, 1)], 200, np.random.default_rng(3)))
    assert SeedKind.init_and_data_order not in floor.pooled
    a, b = (floor.pooled[kind].std ** 2 for kind in (SeedKind.init, SeedKind.data_order))
    assert floor.one_run is not None
    assert floor.one_run.of == "init plus data order"
    assert floor.one_run.std == pytest.approx(math.hypot(INIT, DATA), rel=0.08)
    assert floor.one_run.degrees_of_freedom == math.floor((a + b) ** 2 / (a**2 / 400 + b**2 / 200))


def words(*more):
    return compose_all("fit", Settings, [list(more)])[0]


def write(path, observations: Observations):
    columns = (observations.params, observations.tokens, observations.loss)
    rows = zip(*(column.tolist() for column in columns), observations.seeds, strict=True)
    lines = [f"{n},{d},{loss!r},{seed.replace('/', ',')}" for n, d, loss, seed in rows]
    path.write_text("\n".join(["params_total,tokens,loss,seed,data_seed", *lines]))


def test_a_floor_measured_elsewhere_serves_a_sweep_without_repeats(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "seeds.csv", runs(STAR, 3, np.random.default_rng(4)))
    write(tmp_path / "sweep.csv", runs([(0, 0)], 6, np.random.default_rng(5)))
    floor = seed_noise(observe(words("runs=seeds.csv"), ParamsKind.total))
    asked = words("runs=sweep.csv", "noise=seeds.csv")
    assert seed_noise(observe(words("runs=sweep.csv"), ParamsKind.total)) is None
    given = seed_noise(observe(asked, ParamsKind.total))
    assert floor is not None and given is not None
    assert (given.std, given.degrees_of_freedom) == (floor.std, floor.degrees_of_freedom)
    assert given.of == "init and data order, measured in seeds.csv"
    with pytest.raises(CannotAnswer, match=r"noise=sweep\.csv holds no run that was repeated"):
        observe(words("runs=seeds.csv", "noise=sweep.csv"), ParamsKind.total)
    with pytest.raises(CannotAnswer, match="train repeats with sweep=seeds"):
        show_noise(words("runs=sweep.csv", "seeds=true"))
    show_noise(words("runs=seeds.csv", "seeds=true"))
    assert capsys.readouterr().out.count("data order") == 9
    show_noise(words("runs=seeds.csv", "seeds=true", "format=json"))
    found = json.loads(capsys.readouterr().out)
    assert set(found["pooled"]) == {"init", "data_order", "init_and_data_order"}
    assert found["one_run"]["std"] == floor.std and len(found["rungs"]) == 3


def test_seeds_have_no_place_beside_other_responses():
    with pytest.raises(WrongInput, match="checklist= or seeds="):
        words("law=reward", "seeds=true")
