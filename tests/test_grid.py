"""Axes become settings: as Hydra would compose them one by one, only sooner."""

import random
from collections.abc import Sequence

import pytest

from harness.commands.plan import Settings
from harness.config import compose_all, composing, config_dir
from harness.errors import WrongInput
from harness.grid import Choice, Grid, points, settings_of_cells, settings_of_grid
from harness.sweep.plan import grids


def cells(grid: Grid) -> list[tuple[Choice, ...]]:
    with composing("plan", Settings):
        return list(points(grid))


def texts(grid: Grid) -> list[list[str]]:
    return [[choice.text for choice in cell] for cell in cells(grid)]


def check_equal(typed: Sequence[str], grid: Grid, sample: int) -> None:
    """Every cell of the grid at once, a sample of them one compose each."""
    fast = settings_of_cells("plan", Settings, typed, [grid])
    every = texts(grid)
    assert len(fast) == len(every)
    chosen = random.Random(0).sample(range(len(every)), min(sample, len(every)))
    slow = compose_all("plan", Settings, [[*typed, *every[number]] for number in chosen])
    assert [fast[number] for number in chosen] == slow


@pytest.mark.parametrize("path", sorted(config_dir().glob("experiment/*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_sweep_is_what_composing_each_cell_gives(path):
    typed = [f"experiment={path.stem}"]
    (settings,) = compose_all("plan", Settings, [typed])
    for grid in [] if settings.sweep.is_empty else grids(settings.sweep):
        check_equal(typed, grid, sample=2)


PLAIN = (
    "seed=range(3)",
    "optim.lr=0.1,1,1e-3",
    "data_seed=7",
    "context=32,64",
    "hardware.threads=null,2",
    "hardware.deterministic=true,false",
    "hardware.precision=fp32,bf16",
    "schedule.warmup_tokens=null,1_000",
    "evaluation={tokens:5,every_tokens:6},{tokens:7,every_tokens:8}",
    "where=[a],[b,c]",
    "runs=null,runs/x,'1'",
    "group=a,b",
)
GROUPS = ("schedule=wsd,cosine", "optim=adamw", "attention=glob(s*)", "hardware=cpu,gpu")
TIED = (
    ["horizon.tokens=1_000,2_000", "optim.beta1=0.8,0.9"],
    ["horizon.tokens=null,2_000", "horizon.flops=1e9,null"],
    ["model=100k,160k", "model.width=choice(40,48)"],
)
TYPED = (
    [],
    ["data_seed=${seed}"],
    ["experiment=demo", "seed=5"],
    ["optim.reference_width=${model.width}", "columns.loss=x"],
)


@pytest.mark.parametrize("number", range(6))
def test_random_sweeps_are_what_composing_each_cell_gives(number):
    rng = random.Random(number)
    grid = [rng.choice(TIED), *([axis] for axis in [*rng.sample(PLAIN, 3), rng.choice(GROUPS)])]
    rng.shuffle(grid)
    check_equal(TYPED[number % len(TYPED)], grid, sample=3)


def test_an_interpolation_follows_the_axis_it_reads():
    typed = ["data_seed=${seed}", "evaluation.tokens=${horizon.tokens}"]
    found = settings_of_cells("plan", Settings, typed, [[["seed=3,4"], ["horizon.tokens=5,6"]]])
    assert [(one.data_seed, one.evaluation.tokens) for one in found] == [(3, 5), (3, 6), (4, 5), (4, 6)]


def test_it_composes_once_for_each_choice_of_groups():
    grid = [["model=27k,56k,100k"], ["seed=range(50)"], ["optim.lr=0.1,0.2", "optim.beta1=0.8,0.9"]]
    composed = []
    with composing("plan", Settings) as compose:

        def counting(overrides):
            composed.append(overrides)
            return compose(overrides)

        found = settings_of_grid(counting, [], list(points(grid)))
    assert len(found) == 300
    assert len(composed) == 3
    assert len({(one.model.name, one.seed, one.optim.lr) for one in found}) == 300
    assert found[1].optim.beta1 == 0.9


def test_axes_multiply_in_hydras_grammar():
    assert texts([["model=27k,56k"], ["seed=range(0,2)"]]) == [
        ["model=27k", "seed=0"],
        ["model=27k", "seed=1"],
        ["model=56k", "seed=0"],
        ["model=56k", "seed=1"],
    ]
    assert texts([["optim.lr=choice(0.1,0.2)"]]) == [["optim.lr=0.1"], ["optim.lr=0.2"]]
    assert ["attention=sdpa"] in texts([["attention=glob(s*)"]])


def test_tied_axes_move_together():
    assert texts([["model=27k,56k", "optim.lr=0.1,0.2"], ["seed=0,1"]]) == [
        ["model=27k", "optim.lr=0.1", "seed=0"],
        ["model=27k", "optim.lr=0.1", "seed=1"],
        ["model=56k", "optim.lr=0.2", "seed=0"],
        ["model=56k", "optim.lr=0.2", "seed=1"],
    ]


@pytest.mark.parametrize(
    ("grid", "said"),
    [
        ([["model=27k,,"]], "the axis model=27k,, is not Hydra's grammar: mismatched"),
        ([["seed=range(0)"]], r"no cells: its axis seed=range\(0\) is empty"),
        ([["model=27k,56k", "seed=1,2,3"]], "equally many values: model has 2, seed has 3"),
        ([["model=27k,56k", "seed=1"]], "equally many values: model has 2, seed has 1"),
        ([["seed=1,2"], ["seed=3,4"]], "sets seed by two axes"),
        ([["sede=1,2"]], "there is no setting 'sede'"),
        ([["optim.rate=1,2"]], r"there is no setting 'optim\.rate'"),
        ([["model=27k,7zillion"]], "7zillion"),
        ([["seed=1,2,fast"]], "fast"),
        ([["optim.lr=0.1,-1"]], r"optim\.lr must be positive"),
        ([["horizon.tokens=1,2"], ["horizon.flops=1e9"]], "give one of tokens, flops"),
        ([["optim.lr=interval(0,1)"]], r"the axis optim.lr=interval\(0,1\) names no values"),
        ([["model=glob(['2*k','5*k'])"]], r"the axis model=glob\(\['2\*k','5\*k'\]\) is not Hydra's grammar"),
        ([["seed=range(0,5,0)"]], r"the axis seed=range\(0,5,0\) is not Hydra's grammar"),
        ([["seed=range(0,1000000000)"]], "has more than 100,000 values"),
        ([["seed=range(1000)"], ["data_seed=range(1000)"]], "make 1,000,000 cells; 100,000 are the most"),
    ],
)
def test_what_is_wrong_with_an_axis_is_said_in_one_line(grid, said):
    with pytest.raises(WrongInput, match=said) as caught:
        settings_of_cells("plan", Settings, [], [grid])
    assert "\n" not in str(caught.value)
