"""Rollbacks: two signed heads of which the later one is the older, and what only looks like it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from statelog.audit_store import StoredRollback
from statelog.checkpoint import Checkpoint, sign_checkpoint
from statelog.errors import Refused
from statelog.rollback import Rollback, check_rollback
from tests.statelog.test_audit_store import CLUSTER as STORED
from tests.statelog.test_audit_store import MemoryStore, found
from tests.support.authority import make_cluster, signer
from tests.support.logs import cosigned, head_note, replay_of

CLUSTER = make_cluster()
SIZE = CLUSTER.log.size
KEYS = replay_of(CLUSTER).sequencer_keys()
NEWEST, OLDER = head_note(replay_of(CLUSTER)), head_note(replay_of(CLUSTER, SIZE - 1))


def test_an_older_head_after_a_newer_one_is_a_rollback() -> None:
    for earlier in (NEWEST, cosigned(NEWEST)):
        heads = check_rollback(Rollback(earlier, OLDER), KEYS)
        assert [one.size for one in heads] == [SIZE, SIZE - 1]


@pytest.mark.parametrize(
    ("found", "sentence"),
    [
        (Rollback(b"x", OLDER), "is none"),
        (Rollback(NEWEST, b"x"), "is none"),
        (Rollback(NEWEST, head_note(replay_of(CLUSTER, SIZE - 1), "root-1")), "is none"),
        (
            Rollback(
                NEWEST,
                sign_checkpoint(
                    Checkpoint("elsewhere.example/authority", 1, b"\1" * 32), signer("sequencer-1")
                ),
            ),
            "is none",
        ),
        (Rollback(OLDER, NEWEST), "not the older"),
        (Rollback(NEWEST, NEWEST), "not the older"),
    ],
)
def test_anything_else_shows_nothing(found: Rollback, sentence: str) -> None:
    with pytest.raises(Refused, match=sentence) as refused:
        check_rollback(found, KEYS)
    assert refused.value.finding.code == "SL-EVIDENCE"


def test_a_rollback_is_no_fault_of_this_log_and_one_that_shows_nothing_is_no_evidence() -> None:
    def backs_found(kept: StoredRollback) -> list[str]:
        def change(store: MemoryStore) -> None:
            store.backs = [kept]

        return [code for code, _, _ in found(change)]

    shown = Rollback(head_note(replay_of(STORED)), head_note(replay_of(STORED, SIZE - 1)))
    sound = StoredRollback("peer", SIZE - 1, SIZE, shown)
    assert backs_found(sound) == []
    for wrong in (
        replace(sound, size=SIZE),
        replace(sound, earlier_size=SIZE + 1),
        replace(sound, found=replace(shown, later=shown.earlier)),
        replace(sound, found=replace(shown, earlier=b"nothing")),
    ):
        assert backs_found(wrong) == ["SL-EVIDENCE"]
