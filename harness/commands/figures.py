"""Figures that a verb draws on request, each with the command that draws it again from the same logs."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from harness.config import task_overrides
from harness.errors import WrongInput
from harness.runs import write_text

SUFFIX = ".svg"


def typed(verb: str, *more: str, without: tuple[str, ...] = ()) -> str:
    """The command as it was typed, but for the settings named in `without`, and with `more` at its end."""
    words = [word for word in task_overrides() if word.split("=", 1)[0] not in without]
    return shlex.join(["harness", verb, *words, *more])


def write_figure(path: str, svg: str, command: str) -> dict[str, Any]:
    """What JSON says of a figure once it is written. Raises WrongInput for a name of another format."""
    if Path(path).suffix != SUFFIX:
        raise WrongInput(f"figure={path}: figures are SVG text; give a name that ends in {SUFFIX}")
    write_text(Path(path), svg)
    return {"path": path, "command": command}


def figure_line(figure: dict[str, Any]) -> str:
    return f"figure {figure['path']}: {figure['command']}"
