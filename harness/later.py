"""Settings that came after the first frozen configs."""

from __future__ import annotations

import dataclasses
from typing import Any

LATER = "unwritten at its default"


def later(default: Any) -> Any:
    """A dataclass field that is frozen only when it is set: at its default it is left out of config.json, so
    that every run from before it keeps its text and its hash. The default must do what was done before."""
    return dataclasses.field(default=default, metadata={LATER: True})


def is_unwritten(field: dataclasses.Field, value: Any) -> bool:
    return LATER in field.metadata and value == field.default
