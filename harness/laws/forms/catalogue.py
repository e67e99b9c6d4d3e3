"""Every form by name. To add one: a file with its `Form`, a line here, and its name in `LawName`."""

from __future__ import annotations

from harness.laws.forms.bnsl import BNSL, BNSL_TWO
from harness.laws.forms.ces import CES, CES_FOURTH_ROOT, CES_SQUARE_ROOT
from harness.laws.forms.chinchilla import CHINCHILLA
from harness.laws.forms.chinchilla_tied import CHINCHILLA_TIED
from harness.laws.forms.farseer import FARSEER
from harness.laws.forms.form import Form
from harness.laws.forms.frontier import FRONTIER
from harness.laws.forms.kaplan import KAPLAN
from harness.laws.forms.overtrain import OVERTRAIN
from harness.laws.forms.repetition import REPETITION
from harness.laws.forms.skaling import SKALING

FORMS: dict[str, Form] = {
    form.name: form
    for form in (
        *(CHINCHILLA, CHINCHILLA_TIED, SKALING, KAPLAN, FARSEER),
        *(OVERTRAIN, REPETITION, FRONTIER, BNSL, BNSL_TWO),
        *(CES, CES_SQUARE_ROOT, CES_FOURTH_ROOT),
    )
}
