"""The reproducibility checklist of a fit as a person reads it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from harness.laws.checklist import Item
from harness.report.terminal import print_lines


def print_checklist(items: Sequence[Item]) -> None:
    for section, members in groupby(items, key=lambda item: item.section):
        print_lines(section, *(f"  {item.question}: {item.answer}" for item in members))
    unknown = sum(not item.known for item in items)
    print_lines(f"{len(items) - unknown} of {len(items)} items are answered by the runs and settings")
