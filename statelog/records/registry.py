"""``registry.gossip_record``: where a service is, by logical role.

Any node may carry one; only its signatures make it true.  It acts ahead of the log, as a candidate, so that a
farm whose every endpoint moved heals from one delivery to one reachable node.
"""

from __future__ import annotations

from functools import lru_cache
from typing import ClassVar, Final

from statelog.limits import (
    MAX_ENDPOINT_ID_CHARS,
    MAX_ENDPOINTS,
    MAX_NAME_CHARS,
    MAX_PRIORITY,
    REGISTRY_MAX_VALIDITY_S,
)
from statelog.records.base import Form, Kind, Record
from statelog.records.shapes import (
    Fault,
    fault,
    fields,
    integer,
    list_of,
    name,
    one_of,
    quic_address,
    sha256_hex,
    text,
)
from statelog.state import CONTROL, ROUTE, STORAGE, UPDATE, AuthorityState

_UPDATE_SERVICES: Final = frozenset({"update-store", "update-cache"})

ENDPOINT_FIELDS: Final = {
    "endpoint_id": text(MAX_ENDPOINT_ID_CHARS),
    "address": quic_address,
    "transport": one_of("direct_quic", "relay_quic", "reverse_quic"),
    "reachability": text(MAX_NAME_CHARS),
    "connectivity_mode": text(MAX_NAME_CHARS),
    "priority": integer(0, MAX_PRIORITY),
    "weight": integer(0, MAX_PRIORITY),
    "peer_cert_sha256": sha256_hex,
}


class RegistryRecord(Kind):
    """``rap.fabric.registry.gossip_record.v1``."""

    max_validity_s = REGISTRY_MAX_VALIDITY_S
    ends_with_its_time: ClassVar[bool] = True
    acts_unlogged: ClassVar[bool] = True
    form = Form(
        "rap.fabric.registry.gossip_record.v1",
        {
            "service": name,
            "scope": one_of("farm", "cluster", "organization"),
            "endpoints": list_of(fields(ENDPOINT_FIELDS), 1, MAX_ENDPOINTS),
        },
        {"organization_id": name},
    )

    def coherence(self, record: Record) -> Fault | None:
        if ("organization_id" in record) != (record["scope"] == "organization"):
            return fault(
                "present exactly when scope is organization", record.get("organization_id", "nothing")
            ).under("organization_id")
        return distinct_endpoints(record, "endpoints")

    def subject(self, record: Record) -> tuple[str, ...]:
        return (record["service"], record["scope"], record.get("organization_id", ""))

    def signer_role(self, record: Record, state: AuthorityState) -> tuple[str, str | None]:
        return role_for_service(record["service"]), None


@lru_cache(maxsize=1_024)  # the same services are registered again and again
def role_for_service(service: str) -> str:
    """The role whose quorum says where ``service`` is."""
    if service in _UPDATE_SERVICES:
        return UPDATE
    if service.startswith("storage-"):
        return STORAGE
    if service == "vpn-egress-pool" or service.startswith(("relay-", "rendezvous-")):
        return ROUTE
    return CONTROL


def distinct_endpoints(record: Record, where: str) -> Fault | None:
    """Each endpoint id once: probes and health are kept by it."""
    ids = [endpoint["endpoint_id"] for endpoint in record[where]]
    return fault("distinct endpoint ids", ids).under(where) if len(set(ids)) != len(ids) else None
