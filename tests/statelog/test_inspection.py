"""What a file is: each sort recognized, its digest, its signatures right, wrong or unknown."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

import orjson
import pytest

from statelog import canonical, ceremony, genesis, transport
from statelog.canonical import encode
from statelog.ceremony import Request
from statelog.dsse import envelope_of
from statelog.errors import Refused, UsageError
from statelog.inspection import Inspection, Known, inspect
from statelog.leaf import frame_leaf
from statelog.limits import MAX_PROOF_FILE_BYTES
from statelog.merkle import leaf_hash
from statelog.note import Note, sign_text
from statelog.signing import encode_base64, record_id_of
from tests.support.authority import Cluster, key_id, make_cluster, node_id, signer
from tests.support.logs import cosigned, head_note, replay_of


@pytest.fixture(scope="module")
def cluster() -> Cluster:
    return make_cluster()


def look(data: bytes, cluster: Cluster | None = None, **more: Any) -> Inspection:
    state = cluster.state if cluster is not None else None
    return inspect(data, Known(now=more.pop("now", 0), state=state, **more))


def verdicts(found: Inspection) -> list[str]:
    return [one.verdict for one in found.signatures]


def with_wrong_signature(record: dict[str, Any]) -> dict[str, Any]:
    first, *others = record["signatures"]
    return {**record, "signatures": [{**first, "value": encode_base64(bytes(64))}, *others]}


# -- records, requests, leaves --


def test_a_record_is_known_by_its_keys(cluster: Cluster) -> None:
    record = cluster.policy("probe")
    found = look(encode(record), cluster)
    assert (found.what, found.digest, found.sound) == ("record", record_id_of(record), True)
    assert verdicts(found) == ["right", "right"]
    assert verdicts(look(encode(record))) == ["unknown key", "unknown key"]
    assert look(encode(record)).sound  # unknown is not wrong
    spoiled = look(encode(with_wrong_signature(record)), cluster)
    assert sorted(verdicts(spoiled)) == ["right", "wrong"]
    assert not spoiled.sound


def test_a_record_that_a_node_signed(cluster: Cluster) -> None:
    record = cluster.candidates("home-1")
    assert verdicts(look(encode(record), cluster)) == ["right"]
    assert verdicts(look(encode(with_wrong_signature(record)), cluster)) == ["wrong"]


def test_a_first_descriptor_brings_its_keys(cluster: Cluster) -> None:
    found = look(encode(cluster.genesis))
    assert set(verdicts(found)) == {"right"}
    assert not look(encode(with_wrong_signature(cluster.genesis))).sound


@pytest.mark.parametrize("form", ["file", "newline", "text", "frames"])
def test_a_request_in_every_form(cluster: Cluster, form: str) -> None:
    record = cluster.policy("probe")
    signatures = tuple(record.pop("signatures"))
    data = ceremony.encode_request(Request(record, signatures, "t"))
    forms = {
        "file": data,
        "newline": data + b"\n",
        "text": transport.to_text(data).encode(),
        "frames": "\n".join(transport.to_frames(data)).encode(),
    }
    found = look(forms[form], cluster)
    assert (found.what, found.digest) == ("signing request", Request(record).record_id)
    assert verdicts(found) == ["right", "right"]
    assert ("title", "t  (not signed)") in found.facts


def test_a_leaf_has_the_hash_that_the_tree_has(cluster: Cluster) -> None:
    data = frame_leaf(encode(cluster.policy("probe")), cluster.now, 1)
    found = look(data, cluster)
    assert (found.what, found.digest) == ("log entry", leaf_hash(data).hex())
    assert verdicts(found) == ["right", "right"]


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"schema_version": "rap.fabric.policy.epoch.v9"}, "SL-SCHEMA"),
        ({"epoch": 0}, "SL-SHAPE"),
        ({"more": 1}, "SL-SHAPE"),
    ],
)
def test_a_damaged_record_is_refused(cluster: Cluster, change: dict[str, Any], code: str) -> None:
    with pytest.raises(Refused) as caught:
        look(encode({**cluster.policy("probe"), **change}), cluster)
    assert caught.value.code == code


def test_a_record_in_another_spelling_is_refused(cluster: Cluster) -> None:
    with pytest.raises(Refused) as caught:
        look(orjson.dumps(cluster.policy("probe"), option=orjson.OPT_INDENT_2), cluster)
    assert caught.value.code == "SL-CANON"


# -- notes --


def test_a_checkpoint_and_who_signed_it(cluster: Cluster) -> None:
    note = cosigned(head_note(replay_of(cluster)), ["witness-1", "witness-2"])
    found = look(note, cluster)
    assert (found.what, found.sound, verdicts(found)) == ("checkpoint", True, ["right"] * 3)
    assert ("size", str(cluster.log.size)) in found.facts
    assert found.signatures[0].by == "sequencer of authority"
    assert verdicts(look(note)) == ["unknown key"] * 3
    stranger = cosigned(head_note(replay_of(cluster), by="stranger-1"), ["witness-1"])
    assert verdicts(look(stranger, cluster)) == ["unknown key", "right"]


def test_a_checkpoint_with_a_wrong_signature(cluster: Cluster) -> None:
    note = cosigned(head_note(replay_of(cluster)), ["witness-1"])
    other = note.replace(b"\n%d\n" % cluster.log.size, b"\n%d\n" % (cluster.log.size + 1))
    assert verdicts(look(other, cluster)) == ["wrong", "wrong"]
    assert not look(other, cluster).sound


def test_a_note_that_is_no_checkpoint(cluster: Cluster) -> None:
    text = "a note\n"
    note = Note(text, (sign_text(text, "example.org", signer("stranger-1")),)).format()
    found = look(note, cluster)
    assert (found.what, found.digest) == ("signed note", sha256(text.encode()).hexdigest())
    assert verdicts(found) == ["unknown key"]
    with pytest.raises(Refused) as caught:
        look(note.replace(b"\n\n", b"\n"), cluster)
    assert caught.value.code == "SL-NOTE"


# -- keys --


def test_an_enrollment_proves_possession_for_one_cluster() -> None:
    entry = genesis.key_entry(signer("root-1"), "farm.x", "alice", "offline")
    data = orjson.dumps(entry, option=orjson.OPT_INDENT_2)
    found = look(data, cluster_id="farm.x")
    assert (found.what, found.digest, verdicts(found)) == ("enrollment", key_id("root-1"), ["right"])
    assert verdicts(look(data, cluster_id="farm.y")) == ["wrong"]
    assert verdicts(look(data)) == ["not checked"]
    assert verdicts(look(orjson.dumps({**entry, "issuer_id": "bob"}), cluster_id="farm.x")) == ["wrong"]
    assert verdicts(look(orjson.dumps({**entry, "key_id": "00" * 32}))) == ["wrong"]
    assert "witness name w1" in look(orjson.dumps({**entry, "name": "w1"})).says


def test_a_sequencer_entry_proves_possession() -> None:
    entry = genesis.sequencer_entry(signer("sequencer-1"), "farm.x", node_id("control-1"))
    found = look(orjson.dumps(entry), cluster_id="farm.x")
    assert (found.what, verdicts(found)) == ("sequencer entry", ["right"])
    other = {**entry, "node_id": node_id("home-1")}
    assert verdicts(look(orjson.dumps(other), cluster_id="farm.x")) == ["wrong"]


def test_a_key_file_shows_its_public_part() -> None:
    public = encode_base64(signer("root-1").public)
    value = {
        "schema": "statelog.keyfile.v1",
        "public": public,
        "key_id": key_id("root-1"),
        "name": "a\x1b",
        "issuer_id": "alice",
        "custody": "offline",
    }
    found = look(orjson.dumps(value))
    assert (found.what, found.digest, found.sound) == ("key file", key_id("root-1"), True)
    assert all(text.isprintable() for _, text in found.facts)
    assert not look(orjson.dumps({**value, "key_id": "00" * 32})).sound


# -- envelopes --


def lines_of(*records: dict[str, Any]) -> bytes:
    return b"".join(orjson.dumps(envelope_of(record)) + b"\n" for record in records)


@pytest.mark.parametrize("form", ["line", "pretty"])
def test_an_envelope_says_what_its_record_says(cluster: Cluster, form: str) -> None:
    record = cluster.policy("probe")
    data = lines_of(record)
    if form == "pretty":
        data = orjson.dumps(orjson.loads(data), option=orjson.OPT_INDENT_2)
    found = look(data, cluster)
    assert (found.what, found.digest, found.says) == (
        "DSSE envelope",
        record_id_of(record),
        look(encode(record)).says,
    )
    assert verdicts(found) == ["right", "right"]
    assert verdicts(look(data)) == ["unknown key", "unknown key"]
    spoiled = look(lines_of(with_wrong_signature(record)), cluster)
    assert (sorted(verdicts(spoiled)), spoiled.sound) == (["right", "wrong"], False)


def test_many_envelopes_are_counted_and_wrong_signatures_named(cluster: Cluster) -> None:
    first, second = cluster.policy("probe"), cluster.lease("route-1")
    found = look(lines_of(cluster.genesis, first, second), cluster)
    assert (found.what, found.sound, found.digest) == (
        "DSSE envelopes",
        True,
        sha256(lines_of(cluster.genesis, first, second)).hexdigest(),
    )
    assert [value for name, value in found.facts if name == "holds"] == [
        "1 of authority.descriptor",
        "1 of policy.epoch",
        "1 of route.lease",
    ]
    assert "unknown" not in dict(found.facts)["signatures"]
    assert "unknown key" in dict(look(lines_of(first, second)).facts)["signatures"]
    spoiled = look(lines_of(first, with_wrong_signature(second)), cluster)
    assert (spoiled.sound, [one.by[:7] for one in spoiled.signatures]) == (False, ["line 2,"])


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (b"\n", "SL-SHAPE"),
        (b"[]\n", "SL-SHAPE"),
        (b"{\n", "SL-SHAPE"),
        (b"x" * 99_000 + b"\n", "SL-SIZE"),
        (b'{"payload":"AAAA","payloadType":"x","signatures":[]}\n', "SL-CANON"),
    ],
)
def test_a_line_that_is_no_envelope_is_named(cluster: Cluster, line: bytes, code: str) -> None:
    good = lines_of(cluster.policy("probe"))
    assert look(good + good).what == "DSSE envelopes"
    with pytest.raises(Refused) as refused:
        look(good + line)
    assert (refused.value.code, refused.value.finding.path.split(".")[0]) == (code, "line 2")


def test_only_envelopes_may_be_long(cluster: Cluster) -> None:
    many = lines_of(cluster.policy("probe")) * 5_000
    assert len(many) > MAX_PROOF_FILE_BYTES
    assert look(many).what == "DSSE envelopes"
    with pytest.raises(Refused, match="SL-SIZE"):
        look(b"{" + many)


# -- everything else --


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b"[]", b"{}", b"hello", b"\x00" * 100, b'{"schema":"x"}', b'{"key_id":"x"}', b"\xff\xfe"],
)
def test_other_files_are_none_of_ours(data: bytes) -> None:
    with pytest.raises(UsageError, match="no file of a ceremony"):
        look(data)


def test_a_digest_is_always_32_bytes(cluster: Cluster) -> None:
    for data in (encode(cluster.genesis), head_note(replay_of(cluster))):
        assert len(bytes.fromhex(look(data).digest)) == 32
    assert canonical.decode(encode(cluster.genesis)) == cluster.genesis
