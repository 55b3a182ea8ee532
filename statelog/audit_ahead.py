"""What an auditor checks of the records that act ahead of the log: a node obeys them before any log does."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from statelog.admission import admit
from statelog.audit_store import StoredLog
from statelog.errors import Refused
from statelog.findings import Finding
from statelog.replay import Replay
from statelog.times import parse_time

# The log has moved on since: what these refuse does not act any more, and its node drops it with the next
# final head, or the next start. The epochs of a partition's fences are counted in its own log.
_MOVED_ON: Final = frozenset({"SL-STALE", "SL-REVOKED", "SL-FENCED", "SL-EQUIVOCATION", "SL-EPOCH"})


def check_ahead(stored: StoredLog, replay: Replay) -> Iterator[Finding]:
    """Every such record by the rules of admission ahead of the log (docs/records/, "Admission"), signatures
    and quorum too, in the state after the newest entry of the authority log and at the time that it came; and
    its columns.
    """
    for row in stored.ahead():
        path = f"ahead_record[{row.record_id[:16]}]"
        if type(row.received_at) is not int:  # SQLite lets any column hold text
            found = str(row.received_at)[:40]
            yield Finding("SL-STORED", "a time is no number", f"{path}.received_at", "", found)
            continue
        try:
            admitted = admit(replay.state, row.data, row.received_at, ahead_of_log=True)
        except Refused as error:
            if error.code not in _MOVED_ON:
                yield error.at(record_id=row.record_id).finding.under(path)
            continue
        record, kind = admitted.record, admitted.kind
        expected = {
            "record_id": admitted.record_id,
            "schema_version": kind.schema,
            "subject": "/".join((kind.name, *admitted.subject)),
            "epoch": record["epoch"],
            "expires_at": parse_time(record["expires_at"]),
        }
        for name, value in expected.items():
            found = getattr(row, name)
            if found != value:
                sentence = "a column of the record ahead of the log is not what the record says"
                finding = Finding("SL-STORED", sentence, f"{path}.{name}", str(value), str(found))
                yield finding.at(record_id=admitted.record_id)
