"""From the axes of a sweep to the settings of every cell, with as few composes as can be.

A compose takes Hydra a tenth of a second, so it is done once for each distinct choice of config groups.
After a compose, Hydra sets plain values (`seed=3`, `optim.lr=0.1`) leaf by leaf; we do the same to the
finished settings, and where an interpolation reads such a leaf, to the config before it is resolved.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Transformer
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, ValueNode
from omegaconf.errors import OmegaConfBaseException

from harness.config import composing, explain, gist, to_settings
from harness.errors import WrongInput

Schema = TypeVar("Schema")
Axis = Sequence[str]
"""Overrides in Hydra's grammar, each with its values: one, or several that move together."""
Grid = Sequence[Axis]
"""Every value of one axis with every value of the others."""
Compose = Callable[[Sequence[str]], DictConfig]


@dataclass(frozen=True)
class Choice:
    """One value of an axis: parsed, and as the override that one would type."""

    key: str
    value: Any
    text: str


Point = tuple[Choice, ...]

MOST_CELLS = 100_000
"""Of a sweep: minutes to plan and .3 GB on disk, so more is taken for a slip."""


def settings_of_cells(
    name: str, schema: type[Schema], typed: Sequence[str], grids: Sequence[Grid]
) -> list[Schema]:
    """One settings object a cell, from configs/<name>.yaml: what was typed, then the cell's own choices.

    Raises WrongInput for an axis that is unknown, empty, given twice or tied to one of another length.
    """
    with composing(name, schema) as compose:
        cells = [points(grid) for grid in grids]
        return [settings for grid in cells for settings in settings_of_grid(compose, typed, list(grid))]


def points(grid: Grid) -> Iterator[Point]:
    """The cells of a grid, the last axis changing fastest."""
    parser = OverridesParser.create(config_loader=GlobalHydra.instance().config_loader())
    columns = [tied([choices(parsed(parser, override)) for override in axis]) for axis in grid]
    twice = [key for key, n in Counter(c.key for column in columns for c in column[0]).items() if n > 1]
    if twice:
        raise WrongInput(f"the sweep sets {twice[0]} by two axes; one cell can have only one value of it")
    if (number := math.prod(map(len, columns))) > MOST_CELLS:
        raise WrongInput(f"the sweep's axes make {number:,} cells; {MOST_CELLS:,} are the most")
    return (tuple(itertools.chain(*cell)) for cell in itertools.product(*columns))


def parsed(parser: OverridesParser, axis: str) -> Override:
    try:
        return parser.parse_overrides([axis])[0]
    except HydraException as error:
        raise WrongInput(f"the axis {axis} is not Hydra's grammar: {gist(error)}") from error


def choices(axis: Override) -> list[Choice]:
    """The values of one axis, at least one."""
    key = axis.get_key_element()
    if not axis.is_sweep_override():
        return [Choice(key, axis.value(), str(axis.input_line))]
    if not axis.is_discrete_sweep():
        raise WrongInput(f"the axis {axis.input_line} names no values; list them, or use range or glob")
    try:
        values = list(itertools.islice(axis.sweep_iterator(), MOST_CELLS + 1))
    except (TypeError, ValueError) as error:  # Hydra's own, of a quoted glob or a step of 0
        raise WrongInput(f"the axis {axis.input_line} is not Hydra's grammar: {error}") from error
    if not values:
        raise WrongInput(f"the sweep has no cells: its axis {axis.input_line} is empty")
    if len(values) > MOST_CELLS:
        raise WrongInput(f"the axis {axis.input_line} has more than {MOST_CELLS:,} values")
    return [Choice(key, value, f"{key}={Transformer.str(value)}") for value in values]


def tied(axes: Sequence[Sequence[Choice]]) -> list[Point]:
    """The first values of all axes, the second values of all, and so on."""
    lengths = {axis[0].key: len(axis) for axis in axes}
    if len(set(lengths.values())) > 1:
        said = ", ".join(f"{key} has {length}" for key, length in lengths.items())
        raise WrongInput(f"tied axes must have equally many values: {said}")
    return list(zip(*axes, strict=True))


def settings_of_grid(compose: Compose, typed: Sequence[str], cells: Sequence[Point]) -> list[Any]:
    """The settings of every cell of one grid, in order. All cells set the same keys."""
    sample = compose(overrides(typed, cells[0]))
    leaves = plain_leaves(sample, cells)
    composed = [place for place in range(len(cells[0])) if place not in {leaf.place for leaf in leaves}]
    together: dict[tuple[str, ...], list[int]] = {}
    for number, cell in enumerate(cells):
        together.setdefault(tuple(cell[place].text for place in composed), []).append(number)
    found: dict[int, Any] = {}
    for numbers in together.values():
        members = [cells[number] for number in numbers]
        config = compose(overrides(typed, members[0])) if numbers[0] else sample
        found |= zip(numbers, variants(config, members, leaves), strict=True)
    return [found[number] for number in range(len(cells))]


def overrides(typed: Sequence[str], cell: Point) -> list[str]:
    return [*typed, *(choice.text for choice in cell)]


@dataclass(frozen=True)
class Leaf:
    """A place in every cell that does nothing but set one leaf of the settings. `values` has what the leaf
    makes of each choice, by the choice's text: `optim.lr=1` is 1.0."""

    place: int
    key: str
    values: dict[str, Any]


def plain_leaves(config: DictConfig, cells: Sequence[Point]) -> list[Leaf]:
    """The places of the cells whose every choice is plain."""
    keys = [choice.key for choice in cells[0]]
    leaves = []
    for place, key in enumerate(keys):
        node = node_of(config, key)
        if node is None or any(overlap(key, other) for other in keys if other != key):
            continue
        different = {cell[place].text: cell[place].value for cell in cells}
        if all(fits(node, value) for value in different.values()):
            values = {text: node.validate_and_convert(value) for text, value in different.items()}
            leaves.append(Leaf(place, key, values))
    return leaves


def node_of(config: DictConfig, key: str) -> ValueNode | None:
    """What `key` names, if it is one value of the dataclasses and not a config group."""
    if not all(part.isidentifier() for part in key.split(".")):
        return None
    if GlobalHydra.instance().config_loader().get_group_options(key):
        return None
    node: Any = config
    for part in key.split("."):
        known = isinstance(node, DictConfig) and dataclasses.is_dataclass(OmegaConf.get_type(node))
        if not known or part not in node:
            return None
        node = node._get_node(part)
    return node if isinstance(node, ValueNode) else None


def overlap(one: str, other: str) -> bool:
    return f"{one}.".startswith(f"{other}.") or f"{other}.".startswith(f"{one}.")


def fits(node: ValueNode, value: Any) -> bool:
    """Whether the node takes the value as it is; if not, Hydra itself will say why."""
    if not isinstance(value, bool | int | float | str | None):
        return False
    if isinstance(value, str) and ("${" in value or value == "???"):
        return False
    try:
        node.validate_and_convert(value)
    except OmegaConfBaseException:
        return False
    return True


def variants(config: DictConfig, cells: Sequence[Point], leaves: Sequence[Leaf]) -> Iterator[Any]:
    """The settings of cells that differ in plain values only; `config` is composed for the first."""
    first = to_settings(config)
    yield first
    tree = tree_of([leaf.key for leaf in leaves])
    resolve = entangled(config, leaves)
    for cell in cells[1:]:
        values = [leaf.values[cell[leaf.place].text] for leaf in leaves]
        yield resolved(config, leaves, values) if resolve else replaced(first, tree, values)


def resolved(config: DictConfig, leaves: Sequence[Leaf], values: Sequence[Any]) -> Any:
    """The settings after setting every leaf of the config; slower, but interpolations follow."""
    for leaf, value in zip(leaves, values, strict=True):
        OmegaConf.update(config, leaf.key, value)
    return to_settings(config)


def entangled(config: DictConfig, leaves: Sequence[Leaf]) -> bool:
    """Whether some interpolation may read one of the leaves: it has a word in common with their keys, or
    calls a resolver that could read anything."""
    parts = {part for leaf in leaves for part in leaf.key.split(".")}
    for text in interpolations(OmegaConf.to_container(config, resolve=False)):
        if re.search(r"\$\{(?!oc\.)[\w.]+:", text) or parts & set(re.findall(r"\w+", text)):
            return True
    return False


def interpolations(value: Any) -> Iterator[str]:
    if isinstance(value, str) and "${" in value:
        yield value
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from interpolations(item)


def tree_of(keys: Iterable[str]) -> dict[str, Any]:
    """`["seed", "optim.lr"]` as {"seed": 0, "optim": {"lr": 1}}: each leaf the number of its key."""
    tree: dict[str, Any] = {}
    for number, key in enumerate(keys):
        *parents, last = key.split(".")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = number
    return tree


def replaced(settings: Any, tree: dict[str, Any], values: Sequence[Any]) -> Any:
    """The dataclass with new leaves, each dataclass on the way built, and so checked, once."""
    changes = {
        name: replaced(getattr(settings, name), part, values) if isinstance(part, dict) else values[part]
        for name, part in tree.items()
    }
    try:
        return dataclasses.replace(settings, **changes)
    except ValueError as error:
        raise WrongInput(explain(error)) from error
