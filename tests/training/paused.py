"""`harness WORDS`, but training stands still from a step on, until a signal asks it to stop.

python paused.py STEP WORDS...      for tests that stop or kill a run midway, however slow they are to do so
"""

from __future__ import annotations

import sys
import time

from harness import ending
from harness.cli import main
from harness.signals import StopFlag
from harness.training.module import Span, TrainingModule


def pause_at(step: int) -> None:
    """Before the first span that starts at `step` or later."""
    asked: list[int] = []
    note, train = StopFlag.note, TrainingModule.training_step

    def noted(flag: StopFlag, number: int, frame: object) -> None:
        asked.append(number)
        note(flag, number, frame)

    def paused(module: TrainingModule, span: Span, index: int) -> None:
        while span.start >= step and not asked:
            time.sleep(0.01)
        train(module, span, index)

    StopFlag.note, TrainingModule.training_step = noted, paused


if __name__ == "__main__":
    ending.prepare()
    pause_at(int(sys.argv[1]))
    ending.end(main(sys.argv[2:]))
