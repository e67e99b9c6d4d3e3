"""Every forecast that was ever scored, one line each, and what they say of the forecaster."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.errors import WrongInput
from harness.forecast.score import Score
from harness.runs import one_at_a_time

NEEDED = ("sha256", "run_id", "error", "inside", "level")


def append_score(path: Path, score: Score) -> None:
    """Add the score, unless this seal was scored with this run before; lines are never changed."""
    with one_at_a_time(path.parent, f".{path.name}.lock"):
        lines = read_scores(path)
        if any((line["sha256"], line["run_id"]) == (score.sha256, score.run_id) for line in lines):
            return
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(score.to_json(), allow_nan=False) + "\n")


def read_scores(path: Path) -> list[dict[str, Any]]:
    """In the order they were scored; empty where there is no record. Raises WrongInput on a damaged line."""
    if not path.exists():
        return []
    found = []
    for number, text in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            line = json.loads(text)
        except json.JSONDecodeError as error:
            raise WrongInput(
                f"{path}, line {number}: is damaged; remove the line, then score again"
            ) from error
        if not isinstance(line, dict) or any(name not in line for name in NEEDED):
            raise WrongInput(f"{path}, line {number}: is no score (it lacks {', '.join(NEEDED)})")
        found.append(line)
    return found


def summarise(scores: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Coverage beside the level that was promised (their mean), and the errors. None where nothing was
    scored."""
    errors = [float(line["error"]) for line in scores]
    return {
        "scored": len(scores),
        "coverage": statistics.mean(bool(line["inside"]) for line in scores) if scores else None,
        "level": statistics.mean(float(line["level"]) for line in scores) if scores else None,
        "bias": statistics.mean(errors) if scores else None,
        "error_median": statistics.median(map(abs, errors)) if scores else None,
        "too_high": sum(error > 0 for error in errors),
    }
