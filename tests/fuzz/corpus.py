"""The seed corpus: small valid inputs of every target, and some that are almost valid.

    python -m tests.fuzz.corpus       writes tests/fuzz/corpus/<target>/<name>

Everything is made by the product's own encoders from the test cluster. Inputs that found a bug are put beside
them by hand.
"""

from __future__ import annotations

from pathlib import Path

from statelog.canonical import encode
from statelog.ceremony import Request, encode_request
from statelog.checkpoint import parse_signed_checkpoint
from statelog.tiles import encode_bundle, encode_logs, encode_sizes, encode_tile, tile_path
from statelog.tlogproof import TlogProof
from tests.fuzz.targets import CLUSTER
from tests.support.fabric_frames import GOLDEN
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
    }


def main() -> None:
    """Write the files."""
    for target, inputs in corpus().items():
        (FOLDER / target).mkdir(parents=True, exist_ok=True)
        for name, data in inputs.items():
            (FOLDER / target / name).write_bytes(data)


if __name__ == "__main__":
    main()
