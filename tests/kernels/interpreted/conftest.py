from __future__ import annotations

from collections.abc import Iterator

import pytest

from kernels.interpreter import faithful_interpreter


@pytest.fixture(autouse=True)
def faithful() -> Iterator[None]:
    with faithful_interpreter(order_seed=1):
        yield
