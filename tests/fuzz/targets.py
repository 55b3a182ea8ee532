"""What is fuzzed: every parser of bytes from outside, by name.

A target takes any bytes. Whatever a parser refuses must be refused with `Refused`, never with another
exception; whatever it accepts must be spelled again exactly as it came, so that one value has one spelling.
Each answers whether the bytes were accepted.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from fabric.errors import WireError
from fabric.wire import FrameDecoder, decode_frame
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

CLUSTER = make_cluster(nodes=("phone-a", "relay-1", "home-1"))
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


TARGETS: dict[str, Callable[[bytes], bool]] = {
    one.__name__: one for one in (record, leaf, note, checkpoint, proof, tile, request, frames)
}


def run(name: str, data: bytes) -> bool:
    """One input to one target; whether it was accepted. Any exception but `Refused` is a bug found."""
    try:
        return TARGETS[name](data)
    except Refused:
        return False
