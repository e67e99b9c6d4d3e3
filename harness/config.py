"""The one place that knows Hydra: where configs lie, how a verb gets its dataclass, what a bad key says."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import itertools
import os
import re
import sys
import typing
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import hydra
from hydra.core.config_store import ConfigStore
from hydra.errors import HydraException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from harness import config_dir
from harness.errors import WrongInput

Schema = TypeVar("Schema")


def verb(name: str, schema: type[Schema]) -> Callable[[Callable[[Schema], None]], Callable[[], None]]:
    """Turn `act(settings)` into a Hydra entry point reading configs/<name>.yaml against `schema`."""
    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors reach `explain` instead of Hydra's own exit
    register(name, schema)

    def decorate(act: Callable[[Schema], None]) -> Callable[[], None]:
        failures: list[Exception] = []

        @hydra.main(version_base="1.3", config_path=str(config_dir()), config_name=name)
        def run(config: DictConfig) -> None:
            try:
                act(to_settings(config))
            except Exception as error:  # raised below: Hydra would print its own lines around it
                failures.append(error)

        def entry() -> None:
            refuse_unknown_options(sys.argv[1:])
            try:
                run()
            except (HydraException, OmegaConfBaseException) as error:
                raise WrongInput(explain(error, schema)) from error
            if failures:
                raise failures.pop()

        return entry

    return decorate


def register(name: str, schema: type) -> None:
    """Make `schema` the type of configs/<name>.yaml; a typo or a wrong type is refused at compose.

    A field that is a dict takes new keys, such as columns.loss=final_loss; Hydra would lock it as well.
    """
    node = OmegaConf.structured(schema)
    for field in dataclasses.fields(schema):
        if str(field.type).startswith("dict["):
            OmegaConf.set_struct(node[field.name], False)
    ConfigStore.instance().store(name=f"{name}_schema", node=node)


def to_settings(config: DictConfig) -> Any:
    """The real dataclass, with its `__post_init__` checks. Raises WrongInput with their text."""
    schema: Any = OmegaConf.get_type(config)
    known = {field.name for field in dataclasses.fields(schema)}
    if unknown := sorted({str(key) for key in config} - known - {"hydra"}):
        raise WrongInput(no_setting(unknown[0], schema))
    try:
        return OmegaConf.to_object(config)
    except (ValueError, OmegaConfBaseException) as error:
        raise WrongInput(explain(error)) from error


@contextlib.contextmanager
def composing(name: str, schema: type) -> Iterator[Callable[[Sequence[str]], DictConfig]]:
    """Yields a function from overrides to the config of configs/<name>.yaml against `schema`.

    What Hydra and OmegaConf refuse while it is open is raised as WrongInput, in one line.
    """
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    register(name, schema)
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(version_base="1.3", config_dir=str(config_dir())):
            yield lambda overrides: compose(config_name=name, overrides=list(overrides))
    except (HydraException, OmegaConfBaseException) as error:
        raise WrongInput(explain(error, schema)) from error


def compose_all(name: str, schema: type[Schema], overrides: Sequence[Sequence[str]]) -> list[Schema]:
    """One settings object per list of overrides, from configs/<name>.yaml."""
    with composing(name, schema) as compose:
        return [to_settings(compose(item)) for item in overrides]


def task_overrides() -> list[str]:
    """The overrides the user typed, as Hydra recorded them."""
    from hydra.core.hydra_config import HydraConfig

    return list(HydraConfig.get().overrides.task)


QUOTED_TWICE = "text with = < > or quotes is quoted twice: 'where=[\"loss<3\"]'"


def explain(error: BaseException, schema: type | None = None) -> str:
    """One line out of Hydra's and OmegaConf's many, with the reason behind a refused override. `schema` is of
    the verb whose settings were meant."""
    if isinstance(error, OverrideParseException):
        return unreadable(error.override)
    text = gist(error)
    if missing := re.search(r"missing mandatory value: ([\w.]+)", text):
        return f"{missing[1]}= is missing; --help shows examples"
    if unknown := re.match(r"Could not override '([^']*)'", text):
        return no_setting(unknown[1], schema)
    behind = gist(error.__cause__) if error.__cause__ is not None else ""
    return f"{text}: {behind}" if behind and behind not in text else text


def unreadable(word: str) -> str:
    """Of a word that is not Hydra's grammar."""
    key, is_set, value = word.partition("=")
    if not is_set:
        return f"{word!r} sets nothing; settings are written key=value"
    if value[:1] in ("[", "{", "(") or '"' in value:
        return f"cannot read {word}; {QUOTED_TWICE}"
    return f"cannot read {word}; quote it twice: '{key}=\"{value}\"', of a list '{key}=[\"{value}\"]'"


def no_setting(key: str, schema: type | None) -> str:
    """Of a setting that is not there, with one that is: of the same last part, else of nearly its name."""
    groups = [path.name for path in config_dir().iterdir() if path.is_dir()]
    names = [*dotted(schema), *groups] if schema else []
    last = [name for name in names if name.split(".")[-1] == key.split(".")[-1]]
    meant = last or difflib.get_close_matches(key, names, 1)
    hint = f", did you mean {' or '.join(meant[:3])}?" if meant else ";"
    return f"there is no setting {key!r}{hint} --help lists the groups, --cfg job every value"


def dotted(schema: type) -> list[str]:
    """The names of all settings, those of groups included."""
    names = []
    for name, kind in typing.get_type_hints(schema).items():
        inner = dotted(kind) if dataclasses.is_dataclass(kind) and isinstance(kind, type) else []
        names += [name, *(f"{name}.{one}" for one in inner)]
    return names


OPTIONS = (
    *("--cfg", "-c", "--resolve", "--package", "-p", "--info", "-i", "--hydra-help", "--version"),
    *("--multirun", "-m", "--run", "-r", "--shell-completion", "-sc", "--experimental-rerun"),
    *("--config-path", "-cp", "--config-name", "-cn", "--config-dir", "-cd"),
)
"""Hydra's own."""


def refuse_unknown_options(words: Sequence[str]) -> None:
    """Raises WrongInput; Hydra would print how it is used instead."""
    for word in words:
        if word.startswith("-") and word.split("=")[0] not in OPTIONS:
            raise WrongInput(f"there is no option {word}; settings are written key=value, without dashes")


def gist(error: BaseException) -> str:
    """The message without the lines that only help Hydra's authors."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    key = next((line.removeprefix("full_key: ") for line in lines if line.startswith("full_key: ")), "")
    kept = [line for line in lines if not line.startswith(("full_key:", "object_type=", "reference_type="))]
    kept = list(
        itertools.takewhile(lambda line: not line.startswith(("Config search path", "See http")), kept)
    )
    text = (" ".join(kept) or type(error).__name__).replace(
        "str is not a ListConfig, list or tuple.", "write a list, even of one: ['...']"
    )
    if "'float'" in text and "Integer" in text:
        text += ", write it out: 1_000_000"
    return f"{text} (at {key})" if key and key not in text else text
