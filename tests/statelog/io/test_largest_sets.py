"""The most witnesses that there can be, at a change of all of them: 128 cosignatures under one head."""

from __future__ import annotations

from pathlib import Path

from statelog import witness
from statelog.audit import audit
from statelog.checkpoint import parse_signed_checkpoint
from statelog.io.export import export_logs
from statelog.io.mirror import mirror
from statelog.io.resources import FolderResources
from statelog.io.sources import open_source
from statelog.io.store import Store
from statelog.limits import MAX_KEYS_IN_SET, MAX_NAME_CHARS
from statelog.tilelog import TileLog
from tests.support.authority import BASE_TIME, CLUSTER_ID, Cluster
from tests.support.logs import finalize, new_store

OLD = tuple(f"w{n}" for n in range(MAX_KEYS_IN_SET))
NEW = tuple(f"v{n}" for n in range(MAX_KEYS_IN_SET))
LONG = MAX_NAME_CHARS - len("keeper-of-")  # the issuer of such a key is as long as it may be


def names_of(which: tuple[str, ...]) -> tuple[str, ...]:
    """Keys with names as long as their issuers allow."""
    return tuple(f"{name}-{'x' * (LONG - len(name) - 1)}" for name in which)


def test_128_cosignatures_go_everywhere(tmp_path: Path) -> None:
    old, new = names_of(OLD), names_of(NEW)
    made = Cluster("production", CLUSTER_ID, BASE_TIME, witnesses=_set(old))
    made.append(made.log_term())
    made.append(made.descriptor(witnesses=_set(new)))
    engine, _ = new_store(tmp_path / "state.db", made)
    store = Store(engine)
    finalize(store, [*old, *new])
    note = store.checkpoint()
    assert note is not None
    assert len(parse_signed_checkpoint(note)[1].signatures) == 1 + 2 * MAX_KEYS_IN_SET

    head = store.head()
    assert head is not None
    assert head.final_size == made.log.size
    body = witness.encode_add_checkpoint(made.log.size, (), note)
    assert witness.parse_add_checkpoint(body).note.format() == note

    with open_source(f"sqlite:///{tmp_path / 'state.db'}") as source:
        assert audit(source, made.anchor).findings == ()
    export_logs(store, made.anchor, tmp_path / "tiles")
    assert (tmp_path / "tiles" / "checkpoint").read_bytes() == note
    assert audit(TileLog(FolderResources(tmp_path / "tiles")), made.anchor).findings == ()
    assert mirror(FolderResources(tmp_path / "tiles"), tmp_path / "copy", lambda *_: True)
    assert (tmp_path / "copy" / "checkpoint").read_bytes() == note
    engine.dispose()


def _set(names: tuple[str, ...]) -> dict[str, object]:
    return Cluster("production", CLUSTER_ID, BASE_TIME).witness_set(*names, threshold=40, faulty=1)
