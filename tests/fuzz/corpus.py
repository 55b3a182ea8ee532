"""The seed corpus: small valid inputs of every target, and some that are almost valid.

    python -m tests.fuzz.corpus       writes tests/fuzz/corpus/<target>/<name>

Everything is made by the product's own encoders from the test cluster. Inputs that found a bug are put beside
them by hand.
"""

from __future__ import annotations

from pathlib import Path

from fabric.classes import TrafficClass
from fabric.lanes import CONTROL_LANE, LaneKey, encode_preface
from fabric.seal import RECORD_DATAGRAM, RECORD_EMPTY, RECORD_END
from fabric.wire import (
    HEADER_BYTES,
    ResetStream,
    encode_data_head,
    encode_frame,
    encode_map,
    encode_ping,
)
from statelog.canonical import encode
from statelog.ceremony import Request, encode_request
from statelog.checkpoint import parse_signed_checkpoint
from statelog.tiles import encode_bundle, encode_logs, encode_sizes, encode_tile, tile_path
from statelog.tlogproof import TlogProof
from tests.fuzz.targets import CLUSTER, PLAINTEXT, SEALING
from tests.support.fabric_frames import DIRECT_OPEN, GOLDEN, LEASED_OPEN
from tests.support.logs import consistency, cosigned, head_note, replay_of, request_body

FOLDER = Path(__file__).parent / "corpus"


def corpus() -> dict[str, dict[str, bytes]]:
    """Inputs by target and name; deterministic."""
    leaves, size = CLUSTER.leaves(), CLUSTER.log.size
    head = head_note(replay_of(CLUSTER))
    whole = cosigned(head)
    lease = CLUSTER.lease("route-1")
    unsigned = {name: value for name, value in lease.items() if name != "signatures"}
    proof = consistency(leaves, 5, size)
    return {
        "record": {
            "genesis": encode(CLUSTER.genesis),
            "lease": encode(lease),
            "registry": encode(CLUSTER.registry("web-admin")),
            "revocation": encode(CLUSTER.revocation({"node_id": lease["hops"][0]})),
            "numbers": b'{"a":0,"b":9007199254740991,"c":[true,false,null],"d":"\\u0000\xc3\xa9"}',
            "duplicate-keys": b'{"a":1,"a":1}',
            "lone-surrogate": b'{"a":"\\ud800"}',
            "not-a-number": b'{"a":NaN}',
            "deep": b'{"a":' * 20 + b"1" + b"}" * 20,
        },
        "leaf": {"genesis": leaves[0], "term": leaves[1], "members": leaves[2]},
        "note": {
            "head": head,
            "cosigned": whole,
            "lines": b"".join(line.line().encode() for line in parse_signed_checkpoint(whole)[1].signatures),
        },
        "checkpoint": {"head": head, "cosigned": whole, "extension": head.replace(b"\n\n", b"\nmore\n\n", 1)},
        "proof": {
            "inclusion": TlogProof(5, tuple(proof), head).format(),
            "extra": TlogProof(5, tuple(proof), head, b'{"schema":"x"}').format(),
        },
        "tile": {
            "bundle": b"b\x02" + encode_bundle(leaves[:3]),
            "tile": b"t\x03" + encode_tile(proof[:1] * 4),
            "sizes": b"s\x00" + encode_sizes([2, 5, 9]),
            "logs": b"l\x00" + encode_logs(["routes-eu-1", "routes-us-1"]),
            "path": b"p\x00" + tile_path(1, 1_234_067, 7).encode(),
        },
        "request": {
            "add-checkpoint": request_body(CLUSTER, 5, size),
            "size": b"12\n",
            "sigreq": encode_request(Request(unsigned, (), "a lease")),
        },
        "frames": {**GOLDEN, "many": b"".join(GOLDEN.values())},
        **_lanes(),
        **_sealed(),
    }


def _lanes() -> dict[str, dict[str, bytes]]:
    bulk = LaneKey(TrafficClass.BULK, 3)
    control, reliable = encode_preface(CONTROL_LANE), encode_preface(LaneKey(TrafficClass.RELIABLE, 0))
    stream = encode_map(DIRECT_OPEN, 2)
    leased = encode_map(LEASED_OPEN, 2)[HEADER_BYTES:]
    return {
        "preface": {
            "bulk": encode_preface(bulk),
            "control": control,
            "refused version": control[:4] + b"\x02\0\0\0",
        },
        "lane": {
            "golden": control + b"".join(GOLDEN.values()),
            "open": reliable + stream,
            "refused preface": b"HTTP/1.1" + stream,
        },
        "position": {
            "leased": leased,
            "strange": bytes([leased[0] + 1]) + leased[1:] + b"\xa1i\xd2\x00\x00\x00\x01",
            "refused direct": stream[HEADER_BYTES:],
        },
        "session": {
            "open": reliable + stream,
            "open and reset": reliable + stream + encode_map(ResetStream(reason="cancelled"), 2),
            "later": encode_preface(bulk) + encode_frame(99, 2, b"unknown"),
            "refused control": control + encode_ping(0, 1, 2),
            "refused data": reliable + encode_frame(5, 2, bytes(24)),
        },
    }


def _sealed() -> dict[str, dict[str, bytes]]:
    def data(offset: int, flags: int, plaintext: bytes) -> bytes:
        sealed = SEALING.seal(offset, flags, plaintext)
        return encode_data_head(2, offset, flags, len(sealed)) + sealed

    parts = [
        data(0, 0, PLAINTEXT[:1000]),
        data(1000, 0, PLAINTEXT[1000:1500]),
        data(1500, RECORD_END, PLAINTEXT[1500:1600]),
    ]
    return {
        "datagram": {
            "first": data(0, RECORD_DATAGRAM, PLAINTEXT[:100]),
            "late": data(1 << 40, RECORD_DATAGRAM, PLAINTEXT[:100]),
            "later": encode_frame(99, 2, b"unknown"),
            "refused ping": encode_ping(0, 1, 2),
            "refused record": data(0, 0, PLAINTEXT[:100]),
        },
        "records": {
            "whole": b"".join(parts),
            "twice": parts[0] + b"".join(parts) + parts[1] + parts[2],
            "empty": data(0, RECORD_EMPTY, b"") + data(0, RECORD_END, b""),
            "refused gap": parts[0] + parts[2],
            "refused after the end": b"".join(parts) + data(1600, 0, b"more"),
        },
    }


def main() -> None:
    """Write the files."""
    for target, inputs in corpus().items():
        (FOLDER / target).mkdir(parents=True, exist_ok=True)
        for name, data in inputs.items():
            (FOLDER / target / name).write_bytes(data)


if __name__ == "__main__":
    main()
