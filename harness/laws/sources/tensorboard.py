"""TensorBoard event files: the last value of every scalar, and the hyperparameters of the hparams plugin.

A folder with event files is a run. Two kinds of folder belong to the run above them: those named after a
split (Keras writes run/train and run/validation) and those named by a time stamp, which torch's
`add_hparams` makes. TensorBoard does not record whether a run came to its end, but for the hparams plugin.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from harness.errors import CannotAnswer, WrongInput
from harness.laws.sources.table import Table, as_text
from harness.runs import Skipped

EVENTS = "tfevents"
SPLITS = {"train", "training", "val", "valid", "validation", "eval", "evaluation", "test"}
TIME_STAMP = re.compile(r"\d{9,}(\.\d+)?")
NOT_FINISHED = {2: "failed", 3: "running"}
"""Of the hparams plugin's Status; 0 is unknown and 1 success."""


def is_event_file(path: Path) -> bool:
    return EVENTS in path.name


def read_tensorboard(root: Path) -> Table:
    """One row a run; columns are tags, hyperparameters and `step`. A split's tags start with its name.

    Raises WrongInput when tensorboard is not installed, CannotAnswer when no run holds a scalar.
    """
    runs: dict[str, dict[str, Any]] = {}
    for folder in sorted({file.parent for file in root.rglob(f"*{EVENTS}*")}):
        run, prefix = owner(folder, root)
        merge(runs.setdefault(run, {}), read_folder(folder, prefix))
    rows = [{"run_id": run, **found} for run, found in runs.items() if found]
    if not rows:
        raise CannotAnswer(f"the event files of {root} hold no scalars")
    empty = tuple(Skipped(run, "nothing was logged") for run, found in runs.items() if not found)
    return Table(path=root, rows=as_text(rows), skipped=empty)


def merge(run: dict[str, Any], found: dict[str, Any]) -> None:
    """Add what one folder holds to its run, whose step is the largest of all its folders."""
    steps = [part["step"] for part in (run, found) if "step" in part]
    run |= found
    if steps:
        run["step"] = max(steps)


def owner(folder: Path, root: Path) -> tuple[str, str]:
    """The run that a folder of event files belongs to, and what its tags start with."""
    parts = list(folder.relative_to(root).parts)
    while parts and TIME_STAMP.fullmatch(parts[-1]):
        parts.pop()
    prefix = f"{parts.pop()}/" if parts and parts[-1].lower() in SPLITS else ""
    return "/".join(parts) or root.resolve().name, prefix


def read_folder(folder: Path, prefix: str) -> dict[str, Any]:
    """Last scalars and hyperparameters of one folder's event files."""
    try:
        from tensorboard.backend.event_processing.plugin_event_accumulator import TENSORS, EventAccumulator
        from tensorboard.util.tensor_util import make_ndarray
    except ImportError as error:
        raise WrongInput(
            f"{folder} holds TensorBoard event files; pip install tensorboard to read them"
        ) from error
    events = EventAccumulator(str(folder), size_guidance={TENSORS: 1}).Reload()
    found: dict[str, Any] = hyperparameters(events)
    for tag, metadata in events.AllSummaryMetadata().items():
        if metadata.plugin_data.plugin_name == "scalars":
            last = events.Tensors(tag)[-1]
            found[prefix + tag] = float(make_ndarray(last.tensor_proto))
            found["step"] = max(last.step, found.get("step", 0))
    return found


def hyperparameters(events: Any) -> dict[str, Any]:
    """What the hparams plugin recorded, and `status` where it says that the run did not finish."""
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    found: dict[str, Any] = {}
    for metadata in events.AllSummaryMetadata().values():
        if metadata.plugin_data.plugin_name == "hparams":
            session = HParamsPluginData.FromString(metadata.plugin_data.content)
            found |= {name: plain(value) for name, value in session.session_start_info.hparams.items()}
            if status := NOT_FINISHED.get(session.session_end_info.status):
                found["status"] = status
    return found


def plain(value: Any) -> Any:
    """The content of a protobuf Value."""
    return getattr(value, value.WhichOneof("kind"))
