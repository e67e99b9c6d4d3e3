"""Where every planned cell of a sweep stands, from the run directories alone.

harness status experiment=demo
harness status group=mine
harness status group=mine format=json
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

from harness.commands.root import Experiment, Format
from harness.config import verb
from harness.report.tables import print_states
from harness.report.terminal import print_json
from harness.sweep.ledger import counts, survey
from harness.sweep.plan import read_plan


@dataclass(kw_only=True)
class Settings(Experiment):
    pass


@verb("status", Settings)
def main(settings: Settings) -> None:
    states = survey(settings.folder, read_plan(settings.folder))
    if settings.format is Format.json:
        print_json({"counts": counts(states), "cells": [asdict(state) for state in states]})
    else:
        print_states(settings.group, states)
