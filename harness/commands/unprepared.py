"""A sweep for Slurm whose data are not prepared: jobs that prepare them, then plan and submit the cells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

from harness.commands.cells import setting_of
from harness.commands.root import Experiment, Format
from harness.data.prepare import Unprepared, find
from harness.errors import CannotAnswer
from harness.report.launches import print_first, print_scripts
from harness.report.terminal import print_json
from harness.sweep.slurm.first import Preparer, first_of, why_ended

DATA = ("corpus", "tokenizer", "data_dir")


def prepare_first(
    settings: Experiment, schema: type[Experiment], typed: Sequence[str], dry_run: bool
) -> bool:
    """Whether the data of these settings were missing, and jobs that make them are submitted now, or were
    before. Not where the cells differ in their data: nothing says which of them to prepare."""
    if any(setting_of(axis) in DATA for axis in settings.sweep.overrides):
        return False
    try:
        find(settings.corpus, settings.tokenizer, Path(settings.data_dir))
        return False
    except Unprepared:
        pass
    own = {field.name for field in fields(schema)} - {field.name for field in fields(Experiment)}
    words = [word for word in typed if word.lstrip("+") != "launcher=slurm"]
    preparer = Preparer(
        settings.folder,
        settings.launcher,
        prepare=[word for word in words if setting_of(word) not in (*own, "launcher", "sweep", "format")],
        sweep=[word for word in words if setting_of(word) != "dry_run"],
    )
    if dry_run:
        print_scripts(preparer.preview())
    else:
        print_first(settings.folder, preparer.submit())
    return True


def show_first(settings: Experiment) -> bool:
    """Whether the sweep has no plan yet but jobs that will make one; said. Raises CannotAnswer with the
    reason when they have ended without."""
    first = first_of(settings.folder)
    if first is None:
        return False
    if not first.held:
        raise CannotAnswer(why_ended(settings.folder, first))
    if settings.format is Format.json:
        print_json({"counts": {}, "cells": [], "jobs": [vars(job) for job in first.held]})
    else:
        print_first(settings.folder, first)
    return True
