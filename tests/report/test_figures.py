"""Figures of every law, and what the page refuses to be of."""

from __future__ import annotations

from dataclasses import replace
from xml.etree import ElementTree

import pytest

from harness.commands.report import Settings
from harness.config import compose_all
from harness.errors import WrongInput
from harness.laws.config import LawConfig, LawName
from harness.laws.fit import fit_law
from harness.report.figures import law_figure, residual_figure

from ..public_data import planted_sweep


@pytest.mark.parametrize("name", [LawName.kaplan, LawName.repetition, LawName.frontier])
def test_a_law_is_drawn_from_whatever_columns_it_reads(name):
    sweep = planted_sweep(0, 0.003)
    rows = replace(sweep, unique_tokens=sweep.tokens / 2)
    fit = fit_law(rows, LawConfig(name=name))
    for text in (law_figure(rows, fit, None), residual_figure(rows, fit)):
        ElementTree.fromstring(text.replace("xlink:", ""))


def test_a_page_of_another_response_is_refused_before_anything_is_read():
    with pytest.raises(WrongInput, match="use harness fit law=reward"):
        compose_all("report", Settings, [["law=reward", "runs=nothing.csv"]])
