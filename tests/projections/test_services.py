"""The own columns of `service_lease`; what all such tables share is in test_latest."""

from __future__ import annotations

from tests.projections import facts
from tests.projections.test_latest import rows_of


def test_its_own_columns() -> None:
    together, led = (
        facts.service_lease("dns", "n1", "n2"),
        facts.service_lease("web", "n1", "n2", leader="n2"),
    )
    dns, web = rows_of("service_lease", together, led)
    assert (dns["mode"], dns["leader"], dns["replicas"]) == ("active-active", "", together["replicas"])
    assert (web["mode"], web["leader"]) == ("leader-follower", led["leader"])
