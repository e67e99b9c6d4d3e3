"""The one place that knows Hydra: where configs lie, how a verb gets its dataclass, what a bad key says."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import hydra
from hydra.core.config_store import ConfigStore
from hydra.errors import HydraException
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
            try:
                run()
            except (HydraException, OmegaConfBaseException) as error:
                raise WrongInput(explain(error)) from error
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
        raise WrongInput(f"there is no setting {unknown[0]!r}; --help lists the groups")
    try:
        return OmegaConf.to_object(config)
    except ValueError as error:
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
        raise WrongInput(explain(error)) from error


def compose_all(name: str, schema: type[Schema], overrides: Sequence[Sequence[str]]) -> list[Schema]:
    """One settings object per list of overrides, from configs/<name>.yaml."""
    with composing(name, schema) as compose:
        return [to_settings(compose(item)) for item in overrides]


def task_overrides() -> list[str]:
    """The overrides the user typed, as Hydra recorded them."""
    from hydra.core.hydra_config import HydraConfig

    return list(HydraConfig.get().overrides.task)


QUOTED_TWICE = "text with = < > or quotes is quoted twice: 'where=[\"loss<3\"]'"


def explain(error: BaseException) -> str:
    """One line out of Hydra's and OmegaConf's many, with the reason behind a refused override."""
    text = gist(error)
    if text.startswith("Could not override"):
        return text.split(". To append")[0].replace("Could not override", "there is no setting") + (
            "; --help lists the groups, --cfg job every value"
        )
    if text.startswith("LexerNoViableAlt"):
        typed = text.split(": ", 1)[-1].removesuffix(" ^")
        return f"cannot read {typed}; {QUOTED_TWICE}"
    if text.startswith("no viable alternative") and "=" in text:
        return f"cannot read {text.rpartition('at input ')[2]}; {QUOTED_TWICE}"
    behind = gist(error.__cause__) if error.__cause__ is not None else ""
    return f"{text}: {behind}" if behind and behind not in text else text


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
