"""``endpoint.candidates``: the addresses at which a node may be tried, signed by the node, for minutes.

Never in a log.  ``listen`` is what the node has bound; ``candidates`` is what others may try.
"""

from __future__ import annotations

from statelog.limits import (
    CANDIDATES_MAX_VALIDITY_S,
    MAX_ADDRESS_CHARS,
    MAX_CANDIDATES,
    MAX_ENDPOINTS,
    MAX_NAME_CHARS,
)
from statelog.records.base import Form, NodeSigned, Record
from statelog.records.registry import ENDPOINT_FIELDS, distinct_endpoints
from statelog.records.shapes import Fault, fields, list_of, sha256_hex, text

_LABEL = text(MAX_NAME_CHARS)


class EndpointCandidates(NodeSigned):
    """``rap.fabric.endpoint.candidates.v1``."""

    max_validity_s = CANDIDATES_MAX_VALIDITY_S
    form = Form(
        "rap.fabric.endpoint.candidates.v1",
        {
            "node_id": sha256_hex,
            "listen": list_of(text(MAX_ADDRESS_CHARS), 0, MAX_ENDPOINTS, distinct=True),
            "candidates": list_of(
                fields(
                    ENDPOINT_FIELDS,
                    {
                        "interface": _LABEL,
                        "provider": _LABEL,
                        "nat_group": _LABEL,
                        "maps_to": text(MAX_ADDRESS_CHARS),
                    },
                ),
                0,
                MAX_CANDIDATES,
            ),
        },
    )

    def coherence(self, record: Record) -> Fault | None:
        return distinct_endpoints(record, "candidates")
