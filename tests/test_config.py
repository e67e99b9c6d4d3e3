"""Every shipped YAML composes, and what a user mistypes is said in one line."""

import importlib

import pytest

from harness.cli import VERBS
from harness.config import compose_all, config_dir
from harness.errors import WrongInput

GROUPED = [f"{path.parent.name}={path.stem}" for path in sorted(config_dir().glob("*/*.yaml"))]


def settings(verb: str, *overrides: str):
    schema = importlib.import_module(f"harness.commands.{verb}").Settings
    return compose_all(verb, schema, [overrides])[0]


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_composes(verb):
    needed = ["what=train"] if verb == "bench" else []
    assert settings(verb, *needed).group == "adhoc"


def test_a_missing_value_is_named():
    with pytest.raises(WrongInput, match="missing mandatory value: what"):
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


def test_explanations_are_one_line():
    for overrides in (["optim.learning_rate=1"], ["seed=fast"], ["model=7zillion"], ["=="], ["optim.lr=-1"]):
        with pytest.raises(WrongInput) as caught:
            settings("train", *overrides)
        assert "\n" not in str(caught.value)
