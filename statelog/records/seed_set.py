"""``bootstrap.seed_set``: where a freshly installed node of a platform and site finds its first peers.

Signed by the control quorum and laid beside the installed artifact.  It names the trust anchor, so that a
node that knows nothing else cannot be led into another cluster.
"""

from __future__ import annotations

from statelog.errors import refuse
from statelog.limits import MAX_ENDPOINTS, SEED_SET_MAX_VALIDITY_S
from statelog.records.base import Context, Form, Kind, Record
from statelog.records.registry import ENDPOINT_FIELDS, distinct_endpoints
from statelog.records.shapes import Fault, fields, list_of, name, sha256_hex
from statelog.state import CONTROL, AuthorityState, Edit


class SeedSet(Kind):
    """``rap.fabric.bootstrap.seed_set.v1``."""

    max_validity_s = SEED_SET_MAX_VALIDITY_S
    form = Form(
        "rap.fabric.bootstrap.seed_set.v1",
        {
            "platform": name,
            "site": name,
            "anchor": sha256_hex,
            "endpoints": list_of(fields(ENDPOINT_FIELDS), 1, MAX_ENDPOINTS),
        },
    )

    def coherence(self, record: Record) -> Fault | None:
        return distinct_endpoints(record, "endpoints")

    def subject(self, record: Record) -> tuple[str, ...]:
        return (record["platform"], record["site"])

    def signer_role(self, record: Record, state: AuthorityState) -> tuple[str, str | None]:
        return CONTROL, None

    def judge(self, record: Record, state: AuthorityState, ctx: Context) -> tuple[Edit, ...]:
        if record["anchor"] != state.anchor:
            raise refuse(
                "SL-ANCHOR",
                "the seeds lead to another log",
                path="anchor",
                expected=state.anchor,
                found=record["anchor"],
            )
        return ()
