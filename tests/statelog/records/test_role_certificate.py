"""Certificates: granted by control, delegated by their holder, and delegation only narrows."""

from __future__ import annotations

from typing import Any

import pytest

from statelog.records.role_certificate import ROLES, UNDELEGABLE
from statelog.signing import record_id_of
from tests.support.authority import DAY_S, HOUR_S, Cluster, node_id
from tests.support.verdicts import ADMITTED, refusal, verdict

WIDE = {"actions": ["a", "b"], "services": ["s", "t"], "organizations": ["*"], "partitions": []}


def place(cluster: Cluster, record: dict[str, Any]) -> tuple[str, str]:
    found = refusal(cluster, record)
    assert not isinstance(found, str), found
    return found.code, found.path


def parent_of(cluster: Cluster, **changes: Any) -> dict[str, Any]:
    """A certificate of home-1 in the log, which may delegate."""
    options = {"delegation_depth": 2, "scope": WIDE, **changes}
    record = cluster.certificate("home-1", options.pop("role", "service-host"), **options)
    cluster.append(record)
    return record


def child_of(
    parent: dict[str, Any], cluster: Cluster, node: str = "node-9", **changes: Any
) -> dict[str, Any]:
    """The same role for another node, signed by the parent's."""
    options = {"parent": parent, "scope": {"partitions": []}, **changes}
    return cluster.certificate(node, options.pop("role", parent["role"]), **options)


@pytest.mark.parametrize("role", ROLES)
def test_control_grants_every_role(cluster: Cluster, role: str) -> None:
    admitted = cluster.append(cluster.certificate("home-1", role))
    certificate = cluster.state.certificate_in_force(admitted.record_id, cluster.now)
    assert certificate is not None
    assert (certificate.role, certificate.node_id, certificate.depth) == (role, node_id("home-1"), 1)


@pytest.mark.parametrize("role", ["root-authority", "control-authority", "route-authority", "node", "admin"])
def test_never_an_authority_role(cluster: Cluster, role: str) -> None:
    assert place(cluster, cluster.certificate("home-1", role)) == ("SL-SHAPE", "role")


def test_the_node_is_approved(cluster: Cluster) -> None:
    assert place(cluster, cluster.certificate("stranger")) == ("SL-NODE", "node_id")
    cluster.append(cluster.approval("stranger"))
    assert verdict(cluster, cluster.certificate("stranger")) == ADMITTED


def test_no_other_authority_grants(cluster: Cluster) -> None:
    by = ("route-1", "route-2")
    assert verdict(cluster, cluster.certificate("home-1", issuer_role="route-authority", by=by)) == "SL-ROLE"
    assert (
        verdict(cluster, cluster.certificate("home-1", issuer_role="node", by=["node:home-1"])) == "SL-ROLE"
    )


# --- delegation ---


def test_the_holder_delegates(cluster: Cluster) -> None:
    parent = parent_of(cluster)
    admitted = cluster.append(child_of(parent, cluster, delegation_depth=1))
    certificate = cluster.state.certificate_in_force(admitted.record_id, cluster.now)
    assert certificate is not None
    assert (certificate.depth, certificate.parent) == (2, record_id_of(parent))
    assert certificate.scope.actions == {"a", "b"}  # "*" is all that the parent allows
    assert certificate.scope.organizations == {"*"}
    assert certificate.scope.partitions == frozenset()


def test_nobody_else_delegates_in_its_name(cluster: Cluster) -> None:
    parent = parent_of(cluster)
    assert verdict(cluster, child_of(parent, cluster)) == ADMITTED
    assert verdict(cluster, child_of(parent, cluster, by=["node:node-9"])) == "SL-SCOPE"
    assert verdict(cluster, child_of(parent, cluster, by=["node:stranger"])) == "SL-SIG"
    assert verdict(cluster, child_of(parent, cluster, by=[])) == "SL-QUORUM"
    control = child_of(parent, cluster, issuer_role="control-authority", by=("control-1", "control-2"))
    assert verdict(cluster, control) == "SL-ROLE"


@pytest.mark.parametrize("dimension", ["actions", "organizations", "services", "partitions"])
def test_scope_only_narrows(cluster: Cluster, dimension: str) -> None:
    allowed = {"actions": ["a"], "organizations": ["x", "y"], "services": ["s"], "partitions": []}
    parent = parent_of(cluster)

    def asking(names: list[str]) -> dict[str, Any]:
        return child_of(parent, cluster, scope={**allowed, dimension: names})

    assert verdict(cluster, asking(allowed[dimension])) == ADMITTED
    assert verdict(cluster, asking([])) == ADMITTED
    assert verdict(cluster, asking(["*"])) == ADMITTED
    if dimension == "organizations":  # the parent allows all of them
        assert verdict(cluster, asking(["anything"])) == ADMITTED
    else:
        assert place(cluster, asking(["more"])) == ("SL-SCOPE", f"scope.{dimension}")


def test_a_wildcard_below_a_narrow_parent_is_narrow(cluster: Cluster) -> None:
    parent = parent_of(cluster)
    middle = child_of(parent, cluster, scope={"services": ["s"], "partitions": []}, delegation_depth=1)
    cluster.append(middle)
    everything = child_of(middle, cluster, "usa-los-1", scope={"services": ["*"]})
    admitted = cluster.append(everything)
    assert cluster.state.certificates[admitted.record_id].scope.services == {"s"}
    assert verdict(cluster, child_of(middle, cluster, "relay-1", scope={"services": ["t"]})) == "SL-SCOPE"


def test_time_only_narrows(cluster: Cluster) -> None:
    parent = parent_of(cluster, lifetime_s=DAY_S)
    assert verdict(cluster, child_of(parent, cluster, lifetime_s=DAY_S)) == ADMITTED
    assert place(cluster, child_of(parent, cluster, lifetime_s=DAY_S + 1)) == ("SL-VALIDITY", "expires_at")
    earlier = child_of(parent, cluster, issued_at=cluster.now - 1, lifetime_s=DAY_S)
    assert place(cluster, earlier) == ("SL-VALIDITY", "expires_at")


def test_depth_falls(cluster: Cluster) -> None:
    parent = parent_of(cluster, delegation_depth=1)
    assert verdict(cluster, child_of(parent, cluster, delegation_depth=0)) == ADMITTED
    assert place(cluster, child_of(parent, cluster, delegation_depth=1)) == (
        "SL-DELEGATION",
        "delegation_depth",
    )


def test_without_depth_there_is_no_delegation(cluster: Cluster) -> None:
    parent = parent_of(cluster, delegation_depth=0)
    assert place(cluster, child_of(parent, cluster)) == ("SL-DELEGATION", "delegation_depth")


def test_the_chain_is_short(cluster: Cluster) -> None:
    parent = parent_of(cluster, delegation_depth=4)
    for depth, node in ((3, "node-9"), (2, "usa-los-1"), (1, "relay-1")):
        parent = child_of(parent, cluster, node, delegation_depth=depth)
        cluster.append(parent)
    assert place(cluster, child_of(parent, cluster, "phone-a")) == ("SL-DELEGATION", "parent")


@pytest.mark.parametrize("role", ROLES)
def test_some_roles_cannot_be_delegated(cluster: Cluster, role: str) -> None:
    parent = parent_of(cluster, role=role)
    expected = "SL-ROLE" if role in UNDELEGABLE else ADMITTED
    assert verdict(cluster, child_of(parent, cluster)) == expected


def test_only_the_parents_role(cluster: Cluster) -> None:
    parent = parent_of(cluster, role="service-host")
    assert place(cluster, child_of(parent, cluster, role="exit")) == ("SL-ROLE", "role")


def test_nobody_delegates_to_oneself(cluster: Cluster) -> None:
    parent = parent_of(cluster)
    assert place(cluster, child_of(parent, cluster, "home-1")) == ("SL-ROLE", "node_id")
    middle = child_of(parent, cluster, delegation_depth=1)
    cluster.append(middle)
    assert place(cluster, child_of(middle, cluster, "home-1")) == ("SL-ROLE", "node_id")


def test_the_parent_is_in_force(cluster: Cluster) -> None:
    unlogged = cluster.certificate("home-1", delegation_depth=1, scope=WIDE)
    assert place(cluster, child_of(unlogged, cluster)) == ("SL-DELEGATION", "parent")
    parent = parent_of(cluster, lifetime_s=HOUR_S)
    child = child_of(parent, cluster, lifetime_s=HOUR_S)
    assert verdict(cluster, child) == ADMITTED
    cluster.now += HOUR_S
    late = child_of(parent, cluster, lifetime_s=HOUR_S)
    assert place(cluster, late) == ("SL-DELEGATION", "parent")


# --- the end ---


def in_force(cluster: Cluster, *records: dict[str, Any]) -> list[bool]:
    return [
        cluster.state.certificate_in_force(record_id_of(record), cluster.now) is not None
        for record in records
    ]


def family(cluster: Cluster) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    parent = parent_of(cluster)
    child = child_of(parent, cluster, delegation_depth=1)
    cluster.append(child)
    grandchild = child_of(child, cluster, "usa-los-1")
    cluster.append(grandchild)
    assert in_force(cluster, parent, child, grandchild) == [True, True, True]
    return parent, child, grandchild


def test_revoked_with_the_parent(cluster: Cluster) -> None:
    parent, child, grandchild = family(cluster)
    cluster.append(cluster.revocation({"certificate": record_id_of(child)}))
    assert in_force(cluster, parent, child, grandchild) == [True, False, False]
    assert place(cluster, child_of(child, cluster, "relay-1")) == ("SL-REVOKED", "parent")
    cluster.append(cluster.revocation({"certificate": record_id_of(parent)}))
    assert in_force(cluster, parent, child, grandchild) == [False, False, False]


def test_a_revoked_node_takes_its_certificates_along(cluster: Cluster) -> None:
    parent, child, grandchild = family(cluster)
    cluster.append(cluster.revocation({"node_id": node_id("node-9")}))
    assert in_force(cluster, parent, child, grandchild) == [True, False, False]
    assert verdict(cluster, child_of(parent, cluster)) == "SL-REVOKED"
    assert verdict(cluster, child_of(child, cluster, "relay-1")) == "SL-REVOKED"


def test_a_later_certificate_of_the_subject_replaces(cluster: Cluster) -> None:
    parent, child, grandchild = family(cluster)
    renewed = cluster.certificate("home-1", delegation_depth=2, scope=WIDE, lifetime_s=2 * DAY_S)
    cluster.append(renewed)
    assert in_force(cluster, parent, child, grandchild, renewed) == [False, False, False, True]


def test_a_certificate_revoked_before_it_was_logged_stays_out(cluster: Cluster) -> None:
    record = cluster.certificate("home-1")
    assert verdict(cluster, record) == ADMITTED
    cluster.append(cluster.revocation({"certificate": record_id_of(record)}))
    assert verdict(cluster, record) == "SL-REVOKED"
    assert verdict(cluster, cluster.certificate("home-1", lifetime_s=HOUR_S)) == ADMITTED  # another record


def test_it_ends_with_its_own_time(cluster: Cluster) -> None:
    record = parent_of(cluster, lifetime_s=HOUR_S)
    cluster.now += HOUR_S - 1
    assert in_force(cluster, record) == [True]
    cluster.now += 1
    assert in_force(cluster, record) == [False]
