"""What is fuzzed: every parser of bytes from outside, by name.

A target takes any bytes. Whatever a parser refuses must be refused with `Refused`, or an error of the fabric
that has a code, never with another exception; whatever it accepts must be spelled again exactly as it came,
so that one value has one spelling. Each answers whether the bytes were accepted.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable

import msgspec

from fabric import wire
from fabric.classes import TrafficClass
from fabric.datagrams import DatagramReceiver
from fabric.errors import CLOSE_CODES, RESET_REASONS, WIRE_CODES, FabricError, WireError
from fabric.events import SessionClosed, StreamConfig
from fabric.lanes import PREFACE_BYTES, LaneReader, decode_preface, encode_preface
from fabric.records import RecordReceiver
from fabric.seal import StreamKeys
from fabric.session import LaneData
from fabric.wire import Frame, FrameDecoder, FrameType, decode_frame
from statelog import canonical
from statelog.admission import admit, admit_genesis
from statelog.ceremony import decode_request, encode_request
from statelog.checkpoint import parse_signed_checkpoint, verify_cosignature, witness_key
from statelog.errors import Refused
from statelog.leaf import decode_leaf, encode_leaf
from statelog.lightclient import decode_extra
from statelog.note import parse_note, parse_signature_lines
from statelog.tiles import (
    decode_bundle,
    decode_logs,
    decode_sizes,
    decode_tile,
    encode_bundle,
    encode_logs,
    encode_sizes,
    encode_tile,
    parse_tile,
)
from statelog.tlogproof import parse_tlog_proof
from statelog.witness import encode_add_checkpoint, parse_add_checkpoint, parse_size
from tests.support.authority import make_cluster
from tests.support.fabric_net import ready_pair

CLUSTER = make_cluster(nodes=("phone-a", "relay-1", "home-1"))
SEALING, OPENING = (
    StreamKeys(bytes(64), b"sixteen bytes id", TrafficClass.RELIABLE, initiator=end) for end in (True, False)
)
PLAINTEXT = bytes(range(256)) * 300
WITNESSES = [witness_key(one.name, one.public) for one in CLUSTER.state.witnesses.keys]


def record(data: bytes) -> bool:
    """A record from anybody: canonical bytes, then the whole of admission, which may end in any refusal."""
    assert canonical.encode(canonical.decode(data)) == data
    with contextlib.suppress(Refused):
        admit(CLUSTER.state, data, CLUSTER.now, log=CLUSTER.log)
    with contextlib.suppress(Refused):
        admit_genesis(data, CLUSTER.anchor)
    return True


def leaf(data: bytes) -> bool:
    """An entry from a source."""
    assert encode_leaf(decode_leaf(data)) == data
    return True


def note(data: bytes) -> bool:
    """A signed note, and signature lines alone as a witness answers them."""
    try:
        lines = parse_signature_lines(data)
        assert "".join(line.line() for line in lines).encode() == data
    except Refused:
        assert parse_note(data).format() == data
    return True


def checkpoint(data: bytes) -> bool:
    """A signed checkpoint, and each of its lines against known witnesses."""
    head, parsed = parse_signed_checkpoint(data)
    assert head.text() == parsed.text
    for line in parsed.signatures:
        for key in WITNESSES:
            if line.is_by(key):
                verify_cosignature(parsed.text, line, key)
    return True


def proof(data: bytes) -> bool:
    """A proof file, and what its extra line holds."""
    found = parse_tlog_proof(data)
    assert found.format() == data
    if found.extra:
        decode_extra(found.extra)
    return True


def tile(data: bytes) -> bool:
    """Files of a log in tiles: the first byte chooses which, the second the width of bundles and tiles."""
    which, width, body = data[:1], (data[1] if len(data) > 1 else 0) + 1, data[2:]
    if which == b"b":
        assert encode_bundle(decode_bundle(body, width)) == body
    elif which == b"t":
        assert encode_tile(decode_tile(body, width)) == body
    elif which == b"s":
        assert encode_sizes(decode_sizes(body)) == body
    elif which == b"l":
        assert encode_logs(decode_logs(body)) == body
    else:
        found = parse_tile(body.decode("utf-8", "replace"))
        return found is not None and found.path.encode() == body
    return True


def request(data: bytes) -> bool:
    """An add-checkpoint body, a size answer, a signing request."""
    if data.startswith(b"old "):
        found = parse_add_checkpoint(data)
        assert encode_add_checkpoint(found.old_size, found.proof, found.note.format()) == data
    elif data.startswith(b"{"):
        assert encode_request(decode_request(data)) == data.removesuffix(b"\n")
    else:
        assert f"{parse_size(data)}\n".encode() == data
    return True


def frames(data: bytes) -> bool:
    """Bytes of a lane: the same frames however they are cut, each body parsed or refused by a named error."""
    try:
        whole, halves, middle = FrameDecoder().feed(data), FrameDecoder(), len(data) // 2
        cut = halves.feed(data[:middle]) + halves.feed(data[middle:])
        for frame in whole:
            decode_frame(frame)
    except WireError:
        return False
    assert [(f.type, f.flags, f.stream_id, bytes(f.body)) for f in cut] == [
        (f.type, f.flags, f.stream_id, bytes(f.body)) for f in whole
    ]
    return bool(whole)


def preface(data: bytes) -> bool:
    """The first bytes of a lane."""
    assert encode_preface(decode_preface(data)) == data
    return True


def lane(data: bytes) -> bool:
    """A lane from its first byte, however it is cut: the same frames, as many as fit in what came."""
    whole, cut, third = LaneReader(1 << 20), LaneReader(1 << 20), len(data) // 3
    found = whole.feed(data)
    again = (
        cut.feed(data[:third]) + cut.feed(memoryview(data)[third : 2 * third]) + cut.feed(data[2 * third :])
    )
    assert whole.key == cut.key
    assert list(map(_whole, found)) == list(map(_whole, again))
    assert sum(wire.HEADER_BYTES + len(one.body) for one in found) + PREFACE_BYTES <= max(8, len(data))
    for one in found:
        decode_frame(one)
    return bool(found)


def datagram(data: bytes) -> bool:
    """A DATAGRAM frame's payload, and the sealed datagram in it: one that is not genuine changes nothing."""
    frame = wire.decode_datagram(data)
    if frame.type != FrameType.DATA:
        return True
    body = wire.decode_data(frame)
    head = wire.encode_data_head(frame.stream_id, body.offset, body.flags, len(body.payload))
    assert head[4:] == data[: len(head)][4:]
    into = DatagramReceiver(Counter())
    taken = into.datagram(OPENING, body.offset, body.flags, body.payload)
    assert taken is (into.next() == PLAINTEXT[:100])
    return taken


def position(data: bytes) -> bool:
    """An OPEN that a relay sends on: but for the position, byte for byte as it came."""
    onward = wire.with_position(data, 2)
    fields = msgspec.msgpack.Decoder(dict[str, msgspec.Raw])
    before, after = fields.decode(data), fields.decode(onward)
    route = before.pop("route"), after.pop("route")
    assert {key: bytes(value) for key, value in before.items()} == {
        key: bytes(value) for key, value in after.items()
    }
    old, new = map(fields.decode, route)
    assert bytes(new.pop("position")) == b"\x02"
    assert {**old, "position": b""}.keys() == {**new, "position": b""}.keys()
    assert wire.with_position(onward, 2) == onward
    return True


def records(data: bytes) -> bool:
    """DATA frames of one stream, damaged, left out, doubled: what is read is how the plaintext begins."""
    into = RecordReceiver(StreamConfig(), 0.0)
    try:
        for frame in FrameDecoder().feed(data):
            if frame.type == FrameType.DATA:
                body = wire.decode_data(frame)
                into.take(OPENING, body.offset, body.flags, body.payload)
    finally:
        assert into.received <= into.limit
        read = into.read()
        assert len(read) == into.received
        assert PLAINTEXT.startswith(read)
    return into.ended


def session(data: bytes) -> bool:
    """A lane into a session that is ready: it goes on, or ends with a code, with no more to show for it than
    came.
    """
    net, _, listener = ready_pair()
    events = listener.handle(net.now, LaneData(4098, data))
    assert len(events) <= len(data) // wire.HEADER_BYTES + 1
    assert (
        sum(len(chunk) for _, chunk in listener.outgoing(net.now, lambda _lane: 1 << 20))
        <= len(data) * 64 + 64
    )
    if listener.closed:
        end = events[-1]
        assert isinstance(end, SessionClosed)
        assert end.code in CLOSE_CODES
        return False
    return len(data) > PREFACE_BYTES


def _whole(frame: Frame) -> tuple[int, int, int, bytes]:
    return frame.type, frame.flags, frame.stream_id, bytes(frame.body)


TARGETS: dict[str, Callable[[bytes], bool]] = {
    one.__name__: one
    for one in (
        record,
        leaf,
        note,
        checkpoint,
        proof,
        tile,
        request,
        frames,
        preface,
        lane,
        datagram,
        position,
        records,
        session,
    )
}


def run(name: str, data: bytes) -> bool:
    """One input to one target; whether it was accepted. Any exception but `Refused`, or one of the fabric
    with a code that is known, is a bug found.
    """
    try:
        return TARGETS[name](data)
    except Refused:
        return False
    except FabricError as error:
        if error.code not in WIRE_CODES.keys() | RESET_REASONS.keys():
            raise
        return False
