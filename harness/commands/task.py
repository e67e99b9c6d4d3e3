"""What a task of a Slurm array runs: python -m harness.commands.task MANIFEST, in the sweep's folder.

No verb of its own: `harness sweep launcher=slurm` submits it. Nothing heavy is imported before it listens
to signals, and the rest only when there is a cell to train.
"""

from __future__ import annotations

import sys

from harness import ending
from harness.signals import StopFlag

FLAG = StopFlag()
if __name__ == "__main__":
    FLAG.listen()
    ending.prepare()

import os  # noqa: E402
from collections import Counter  # noqa: E402
from collections.abc import Sequence  # noqa: E402
from pathlib import Path  # noqa: E402

from harness.runs import RunDirectory  # noqa: E402
from harness.sweep.slurm.manifest import Manifest, read_manifest, read_manifests  # noqa: E402
from harness.sweep.slurm.task import Exit, Stumbled, Train, is_gone, work  # noqa: E402


def train_cell(run: RunDirectory) -> None:
    from harness.training.run import train

    train(run, flag=FLAG, is_gone=is_gone)
    FLAG.listen()  # what trained may have put a handler of its own in front


def main(words: Sequence[str], again: Sequence[str], train: Train = train_cell) -> int:
    """The exit code of one task. `words` are the manifest and the cells that failed before in this task;
    after a failure a new process goes on, started by `again` and the same words."""
    path, failed = Path(words[0]), words[1:]
    number = int(os.environ["SLURM_ARRAY_TASK_ID"])
    while True:
        manifest = read_manifest(path)
        ended = work(Path.cwd(), manifest, number, train, FLAG, Counter(failed))
        if isinstance(ended, Stumbled):
            if FLAG.signal is not None:
                return Exit.STOPPED
            sys.stdout.flush()
            os.execv(again[0], [*again, str(path), *failed, ended.run_id])
        if ended is Exit.STOPPED or not has_more(manifest, number):
            return ended


def has_more(manifest: Manifest, number: int) -> bool:
    """Whether the task has got more cells. The arrays that wait are no part of it: their trouble must not be
    its own."""
    try:
        if any(manifest.waits for manifest in read_manifests(Path.cwd())):
            from harness.sweep.slurm.feed import feed

            return feed(Path.cwd(), manifest.number, number)
    except Exception as error:
        print(error, file=sys.stderr)
    return False


if __name__ == "__main__":
    ending.end(main(sys.argv[1:], (sys.executable, "-m", "harness.commands.task")))
