"""Two validly signed records of one subject and epoch, kept as evidence wherever the second one turns up.

Whoever refuses a record with SL-EQUIVOCATION has verified its signatures (docs/findings.md): both sides of
the pair are what a quorum said.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

import sqlalchemy as sa

from statelog import canonical
from statelog.io.evidence import Evidence
from statelog.io.store import Store
from statelog.leaf import split_leaf
from statelog.records import KINDS
from statelog.signing import record_id_of
from statelog.state import AuthorityState

_log = logging.getLogger(__name__)

CODE = "SL-EQUIVOCATION"


def keep_equivocation(
    store: Store,
    state: AuthorityState,
    data: bytes,
    now: int,
    connection: sa.Connection | None = None,
    *,
    unstored: Mapping[str, bytes] | None = None,
) -> bool:
    """Keep a record that was refused with SL-EQUIVOCATION, and the one it contradicts; whether that is new.

    `state` refused it. `unstored`: records of entries that the store has not yet, by record id.
    """
    record = canonical.decode(data)
    kind = KINDS[record["schema_version"]]
    subject = (kind.name, *kind.subject(record))
    known = state.subjects.get(subject)
    if known is None or known.log_index is None:
        return False
    logged = (unstored or {}).get(known.record_id)
    place = store.locate(known.record_id, connection) if logged is None else None
    for row in () if place is None else place[0].entries(place[1], place[1] + 1, connection):
        logged = split_leaf(row.leaf).record
    if logged is None:
        return False  # a record alone contradicts nothing
    pair = {known.record_id: logged, record_id_of(record): data}
    return keep_pair(store, subject, known.epoch, pair, now, connection)


def keep_pair(
    store: Store,
    subject: tuple[str, ...],
    epoch: int,
    pair: Mapping[str, bytes],
    now: int,
    connection: sa.Connection | None = None,
) -> bool:
    """Keep two records, by record id, both or neither; whether one is new. `now`: Unix seconds."""
    name, news = "/".join(subject), []
    with store.writing(connection) as used:
        for record_id, data in pair.items():
            if store.evidence_add(Evidence(name, epoch, record_id, data, now), used):
                news.append(record_id)
    for record_id in news:
        _log.warning("equivocation: record %s of %s at epoch %d", record_id, name, epoch)
    return bool(news)
