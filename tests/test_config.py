"""Every shipped YAML composes, and what a user mistypes is said in one line."""

import importlib

import pytest

from harness.cli import VERBS
from harness.commands.root import train_config
from harness.commands.sweep import Settings
from harness.config import compose_all, config_dir
from harness.errors import WrongInput
from harness.grid import settings_of_cells
from harness.sweep.plan import grids
from harness.training.cell import to_plain

GROUPED = [f"{path.parent.name}={path.stem}" for path in sorted(config_dir().glob("*/*.yaml"))]


def settings(verb: str, *overrides: str):
    schema = importlib.import_module(f"harness.commands.{verb}").Settings
    return compose_all(verb, schema, [overrides])[0]


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_composes(verb):
    needed = ["what=train"] if verb == "bench" else []
    assert settings(verb, *needed).group == "adhoc"


def test_a_missing_value_is_named():
    with pytest.raises(WrongInput, match="what= is missing"):
        settings("bench")


@pytest.mark.parametrize("option", GROUPED)
def test_every_group_option_composes(option):
    settings("train", option)


def test_an_unknown_key_is_named():
    with pytest.raises(WrongInput, match=r"optim\.learning_rate"):
        settings("train", "optim.learning_rate=1")


def test_a_wrong_type_is_named():
    with pytest.raises(WrongInput, match=r"'fast'.*seed|seed.*'fast'"):
        settings("train", "seed=fast")


def test_an_unknown_choice_is_named():
    with pytest.raises(WrongInput, match=r"model/7zillion"):
        settings("train", "model=7zillion")


def test_a_wrong_value_says_what_would_be_right():
    with pytest.raises(WrongInput, match="cooldown"):
        settings("train", "schedule.cooldown_fraction=2")
    with pytest.raises(WrongInput, match="plain folder name"):
        settings("train", "group=a/b")


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("optim.weight_decay=-1", "optim.weight_decay must not be negative"),
        ("optim.eps=-1", "optim.eps must not be negative"),
        ("optim.reference_width=0", "optim.reference_width must be at least 1"),
        ("model.rope_base=0", "model.rope_base must be positive"),
        ("seed=99999999999999999999", "seed=99999999999999999999 must lie"),
        ("data_seed=-99999999999999999999", "data_seed=-99999999999999999999 must lie"),
        ("hardware.threads=100_000", "hardware.threads must lie between 1 and 1024"),
        ("hardware.peak_flops=-1", "hardware.peak_flops must be positive"),
        ("data_dir=", "data_dir= is empty"),
    ],
)
def test_a_setting_that_would_train_nonsense_or_crash_is_refused(override, said):
    with pytest.raises(WrongInput, match=said):
        settings("train", override)


def test_explanations_are_one_line():
    for overrides in (["optim.learning_rate=1"], ["seed=fast"], ["model=7zillion"], ["=="], ["optim.lr=-1"]):
        with pytest.raises(WrongInput) as caught:
            settings("train", *overrides)
        assert "\n" not in str(caught.value)


def test_the_factor_of_a_grid_multiplies_what_the_width_rule_says():
    plain = settings("train", "optim.lr=0.007", "optim.width_exponent=1").optim
    twice = settings("train", "optim.lr=0.007", "optim.width_exponent=1", "optim.lr_factor=2").optim
    assert plain.peak_lr(32) == 0.007 * 2
    assert twice.peak_lr(32) == 0.007 * 2 * 2
    with pytest.raises(WrongInput, match=r"optim\.lr_factor must be positive"):
        settings("train", "optim.lr_factor=0")


def test_settings_that_came_later_leave_older_configs_as_they_were():
    frozen = to_plain(train_config(settings("train")))
    assert "lr_factor" not in frozen["optim"] and "seed" not in frozen["evaluation"]
    moved = to_plain(train_config(settings("train", "optim.lr_factor=2", "evaluation.seed=1")))
    assert moved["optim"]["lr_factor"] == 2 and moved["evaluation"]["seed"] == 1


@pytest.mark.parametrize("sweep, cells, rungs", [("lr", 35, 5), ("lr_batch", 80, 5), ("seeds", 26, 2)])
def test_shipped_sweeps_of_settings_have_their_cells(sweep, cells, rungs):
    typed = ["experiment=demo", f"sweep={sweep}", "group=tuning"]
    sweep_config = settings("sweep", *typed).sweep
    found = settings_of_cells("sweep", Settings, typed, grids(sweep_config))
    keys = [(c.model.name, c.horizon.tokens) for c in found]
    tried = {
        (*key, c.optim.lr_factor, c.horizon.batch_tokens, c.seed, c.data_seed, c.evaluation.seed)
        for key, c in zip(keys, found, strict=True)
    }
    assert len(found) == len(tried) == cells and len(set(keys)) == rungs
