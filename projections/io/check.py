"""Stored projections against a fresh fold of the stored log: what `statelog verify` adds for a database."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import sqlalchemy as sa

from projections.all import FOLD_VERSION, TABLES, fold_all
from projections.base import AUTHORITY, Row, Table
from projections.io.rows import select_rows
from projections.io.tables import projection_cursor
from projections.io.writer import stored_facts
from statelog.errors import Refused
from statelog.findings import Finding
from statelog.io.database import read_transaction
from statelog.io.tables import log_entry
from statelog.limits import MAX_AUDIT_FINDINGS

CODE = "SL-PROJECTION"
_SHOWN_CHARS = 300  # of a key or a value in a finding


def check_against_fresh_fold(engine: sa.Engine) -> list[Finding]:
    """One finding per row that a fold of the stored logs, each to its cursor, would have written otherwise,
    at most `MAX_AUDIT_FINDINGS`; of rows that no fold makes, no more are read than that.

    It has the shape of every check that `statelog verify` accepts for a database: an engine in, findings out.
    """
    with read_transaction(engine) as connection:
        rows = connection.execute(sa.select(projection_cursor)).all()
        found = sorted(rows, key=lambda row: (row.log != AUTHORITY, row.log))
        findings = [finding.of(row.log) for row in found for finding in _cursor_findings(connection, row)]
        facts = itertools.chain.from_iterable(stored_facts(connection, row.log, 0, row.size) for row in found)
        try:
            fresh = fold_all(facts)
        except (Refused, LookupError, TypeError, ValueError, AttributeError) as error:
            # A fold takes admitted records for granted; the audit of the entries says which is not.
            sentence = "The stored entries cannot be folded, so the projections cannot be compared."
            return [*findings, Finding(CODE, sentence, found=f"{type(error).__name__}: {error}"[:200])]
        for table in TABLES:
            made = list(fresh.rows(table.name))
            stored = select_rows(connection, table.name, most=len(made) + MAX_AUDIT_FINDINGS)
            room = MAX_AUDIT_FINDINGS - len(findings)
            findings.extend(itertools.islice(_row_findings(table, stored, made), max(room, 0)))
    return findings


def _cursor_findings(connection: sa.Connection, cursor: sa.Row[tuple[str, int, int]]) -> Iterator[Finding]:
    if cursor.fold_version != FOLD_VERSION:
        yield Finding(
            CODE,
            "The projections were written by another version of the folds.",
            path="projection_cursor.fold_version",
            expected=str(FOLD_VERSION),
            found=str(cursor.fold_version),
        )
    entries = connection.execute(
        sa.select(sa.func.count()).select_from(log_entry).where(log_entry.c.log == cursor.log)
    ).scalar_one()
    if cursor.size > entries:
        yield Finding(
            CODE,
            "The projections claim to stand for more entries than the log holds.",
            path="projection_cursor.size",
            expected=f"at most {entries}",
            found=str(cursor.size),
        )


def _row_findings(table: Table, stored: Sequence[Row], fresh: Sequence[Row]) -> Iterator[Finding]:
    stored_by_key = {table.key_of(row): row for row in stored}
    fresh_by_key = {table.key_of(row): row for row in fresh}
    for key in sorted(stored_by_key.keys() | fresh_by_key.keys()):
        path = f"{table.name}[{'/'.join(key)[:_SHOWN_CHARS]}]"
        kept, made = stored_by_key.get(key), fresh_by_key.get(key)
        if kept is None and made is not None:
            sentence = "A row that the log makes is not in the projections."
            yield Finding(
                CODE,
                sentence,
                path,
                expected="present",
                found="absent",
                log_index=made["log_index"],
                record_id=made["record_id"],
                log=made.get("log", AUTHORITY),
            )
        elif made is None and kept is not None:
            sentence = "A row of the projections is made by no entry of the log."
            yield Finding(CODE, sentence, path, expected="absent", found="present")
        elif made is not None and kept is not None:
            for column in table.columns:
                if made[column] != kept[column]:
                    sentence = "A row of the projections differs from what the log makes."
                    yield Finding(
                        CODE,
                        sentence,
                        f"{path}.{column}",
                        expected=str(made[column])[:_SHOWN_CHARS],
                        found=str(kept[column])[:_SHOWN_CHARS],
                        log_index=made["log_index"],
                        record_id=made["record_id"],
                        log=made.get("log", AUTHORITY),
                    )
