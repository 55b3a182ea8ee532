"""A farm of four approved nodes."""

from __future__ import annotations

import pytest

from tests.projections import facts
from tests.projections.farm import Farm


@pytest.fixture
def farm() -> Farm:
    made = Farm()
    made.log(*(facts.approval(name) for name in ("phone-a", "usa-los-1", "relay-1", "node-9")))
    return made
