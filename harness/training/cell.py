"""A cell: one run, fully resolved and frozen, so that nothing edited later can reach it. No torch."""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from pathlib import Path
from typing import Any

from harness.budget import Horizon, build_horizon
from harness.data.prepare import Prepared
from harness.errors import WrongInput
from harness.later import is_unwritten
from harness.model.settings import ParametrizationKind
from harness.runs import CONFIG, RunDirectory, content_hash, write_frozen
from harness.shape import ModelShape, build_shape
from harness.training.settings import TrainConfig


@dataclass(frozen=True)
class Cell:
    """One planned run and what follows from its config."""

    config: TrainConfig
    shape: ModelShape
    horizon: Horizon
    tokens_path: str
    corpus_hash: str
    tokenizer_hash: str

    @property
    def flops(self) -> float:
        return self.shape.training_flops(self.horizon.tokens)

    @property
    def peak_lr(self) -> float:
        return self.config.optim.peak_lr(self.shape.width)

    @cached_property
    def config_hash(self) -> str:
        return science_hash(self.frozen)

    @property
    def run_id(self) -> str:
        millions = self.horizon.tokens / 1e6
        tokens = f"{millions:.3g}m" if millions < 999.5 else f"{millions / 1e3:.3g}b"
        return f"{self.config.model.name}-{tokens}-s{self.config.seed}-{self.config_hash[:8]}"

    @cached_property
    def frozen(self) -> dict[str, Any]:
        """What config.json holds beside its hash. Shared: not to be changed."""
        return {
            "config": to_plain(self.config),
            "shape": to_plain(self.shape),
            "horizon": to_plain(self.horizon),
            "tokens_path": self.tokens_path,
            "corpus_hash": self.corpus_hash,
            "tokenizer_hash": self.tokenizer_hash,
        }


NOT_SCIENCE = {"": ("group", "saving"), "hardware": ("peak_flops", "timeout_seconds"), "corpus": ("path",)}


def science_hash(frozen: dict[str, Any]) -> str:
    return content_hash(science(frozen))


def science(frozen: dict[str, Any]) -> dict[str, Any]:
    """Everything that bears on the result: not where files lie (the text is in the corpus hash), how
    often the run writes down where it is, or what the sweep is called. The standard parametrization is left
    out too: it is what every run had before there was a choice, and reads none of its settings."""
    config = {key: value for key, value in frozen["config"].items() if key not in NOT_SCIENCE[""]}
    if config.get("parametrization", {}).get("kind") == ParametrizationKind.standard.value:
        del config["parametrization"]
    for part in ("hardware", "corpus"):
        config[part] = {key: value for key, value in config[part].items() if key not in NOT_SCIENCE[part]}
    kept = ("shape", "horizon", "corpus_hash", "tokenizer_hash")
    return {"config": config, **{key: frozen[key] for key in kept}}


def freeze(config: TrainConfig, prepared: Prepared) -> Cell:
    """Resolve a config against prepared data. Raises WrongInput when the two do not fit, and for a setting
    that is no finite number: none could be frozen."""
    if odd := not_finite(config):
        raise WrongInput(f"{odd} must be a finite number")
    shape = build_shape(config.model, prepared.vocab_size, config.context)
    return Cell(
        config=config,
        shape=shape,
        horizon=build_horizon(config.horizon, shape),
        tokens_path=str(prepared.path.resolve()),
        corpus_hash=prepared.corpus_hash,
        tokenizer_hash=prepared.tokenizer_hash,
    )


def not_finite(config: Any) -> str:
    """The first number of nested dataclasses that is NaN or infinite, by its dotted name; else empty."""
    for name, value in vars(config).items():
        if isinstance(value, float) and not math.isfinite(value):
            return name
        if dataclasses.is_dataclass(value) and (inner := not_finite(value)):
            return f"{name}.{inner}"
    return ""


def write_cell(runs_dir: Path, cell: Cell) -> RunDirectory:
    """Create the run directory with its frozen config; an existing one stays, but for where the data lie."""
    run = RunDirectory(runs_dir / cell.config.group / cell.run_id)
    write_frozen(run, cell.config_hash, cell.frozen)
    return run


def read_cell(run: RunDirectory) -> Cell:
    """The frozen cell of a run directory. Raises WrongInput when it was edited since."""
    value = run.config()
    try:
        found = science_hash(value)
        cell = Cell(
            config=from_plain(TrainConfig, value["config"]),
            shape=from_plain(ModelShape, value["shape"]),
            horizon=from_plain(Horizon, value["horizon"]),
            tokens_path=value["tokens_path"],
            corpus_hash=value["corpus_hash"],
            tokenizer_hash=value["tokenizer_hash"],
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise WrongInput(f"{run.path / CONFIG} is damaged or of another version: {error}") from error
    if found != value["hash"]:
        raise WrongInput(
            f"{run.path / CONFIG} was edited after it was frozen; plan a new run instead "
            "(later edits must not reach planned runs)"
        )
    return cell


def to_plain(value: Any) -> Any:
    """Dataclasses and enums as JSON-able values, without what `harness.later` leaves out."""
    if dataclasses.is_dataclass(value):
        values = {f.name: (f, getattr(value, f.name)) for f in dataclasses.fields(value)}
        return {name: to_plain(item) for name, (f, item) in values.items() if not is_unwritten(f, item)}
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, list | tuple):
        return [to_plain(item) for item in value]
    if isinstance(value, dict):
        return {key: to_plain(item) for key, item in value.items()}
    return value


def from_plain(kind: Any, value: Any) -> Any:
    """The inverse of `to_plain` for a type annotation. Raises TypeError or ValueError on a misfit."""
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        hints = typing.get_type_hints(kind)
        if unknown := value.keys() - hints.keys():
            raise ValueError(f"{kind.__name__} has no {', '.join(sorted(unknown))}")
        return kind(**{name: from_plain(hints[name], item) for name, item in value.items()})
    if isinstance(kind, type) and issubclass(kind, Enum):
        return kind(value)
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        options = [option for option in typing.get_args(kind) if option is not type(None)]
        return None if value is None else from_plain(options[0], value)
    if typing.get_origin(kind) is list:
        return [from_plain(typing.get_args(kind)[0], item) for item in value]
    return value
