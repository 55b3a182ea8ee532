"""The data plane between two processes on loopback, against what the same engines do bare and against limits.

Throughput is here; `session_latency`, `session_scale` and `session_codec` measure the rest. The peers are in
`session_peers`: a plain loop over qh3's connection and socket state with nothing above QUIC, aioquic's own
asyncio client and server, and packets as base64 in JSON in HTTP POSTs, which this protocol replaced. Ours is
the whole product: endpoint, session, hop and end-to-end credit, AES-256-GCM records, asyncio streams on both
sides. Every run measures ours and the peer one after the other, so that both meet the same machine.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from ops.benchmarks import session_codec, session_latency, session_scale
from ops.benchmarks.common import repeat, result
from ops.benchmarks.session_node import Child

_DEADLINE_S = 180.0


def run(runs: int, quick: bool = False) -> list[dict[str, Any]]:
    """Measure; throughput is in Mbit/s of application bytes."""
    scale = 8 if quick else 1
    return [
        *engines(runs, scale),
        old_way(runs, scale),
        many_streams(runs, scale),
        long_path(runs, scale),
        *session_latency.rows(runs, quick),
        *session_scale.rows(runs, quick),
        *session_codec.rows(runs, quick),
    ]


def engines(runs: int, scale: int) -> list[dict[str, Any]]:
    """One bulk stream on each engine, against the engine without us."""
    rows = []
    for engine, datagram, megabytes, peer, target in (
        ("qh3", 1200, 400, "plain loop over qh3", 0.75),
        ("qh3", 1452, 400, "plain loop over qh3", 0.75),
        ("aioquic", 1200, 40, "aioquic's own server", 1.8),
    ):
        role = "loop" if engine == "qh3" else "aioquic"
        ours, peers = repeat(
            runs,
            lambda e=engine, d=datagram, m=megabytes // scale, r=role: (  # type: ignore[misc]  # of this turn
                bulk(m, engine=e, datagram=d),
                bare(r, m, d),
            ),
        )
        rows.append(
            result(
                f"session bulk, sealed, {engine}, {datagram} B datagrams",
                "Mbit/s",
                ours,
                peer=peer,
                peer_values=peers,
                target=target,
            )
        )
    return rows


def old_way(runs: int, scale: int) -> dict[str, Any]:
    """What the session replaced: packets as base64 in JSON, a POST each, over one connection."""
    ours, peers = repeat(runs, lambda: (bulk(400 // scale), bare("http", 4 // min(scale, 4), 1200)))
    return result(
        "session bulk, sealed, against packets in JSON",
        "Mbit/s",
        ours,
        peer="1,200 B packets, base64 in JSON, one POST each, uvicorn",
        peer_values=peers,
        target=50,
    )


def many_streams(runs: int, scale: int) -> dict[str, Any]:
    """A hundred streams at once against one, the same bytes in all."""
    ours, peers = repeat(runs, lambda: (bulk(400 // scale, streams=100), bulk(400 // scale)))
    return result(
        "100 concurrent bulk streams",
        "Mbit/s",
        ours,
        peer="one bulk stream",
        peer_values=peers,
        target=0.8,
    )


def long_path(runs: int, scale: int) -> dict[str, Any]:
    """One stream over a path that takes 50 ms each way."""
    values = [bulk(200 // scale, delay_ms=50) for _ in range(runs)]
    return result(
        "one bulk stream over a round trip of 100 ms",
        "Mbit/s",
        values,
        peer="what a device is to have",
        peer_values=[100.0] * runs,
        target=1.0,
    )


def bulk(megabytes: int, *, delay_ms: int = 0, streams: int = 1, **options: object) -> float:
    """Mbit/s of one transfer between fresh processes, over a slow path if there is a delay."""
    with Child("node", **options) as node:
        port = node.read()["port"]
        with Child("link", port=port, delay_ms=delay_ms) as link:
            via = link.read()["port"] if delay_ms else port
            with Child("bulk", port=via, megabytes=megabytes, streams=streams, **options) as dialer:
                return megabytes * 8 / float(dialer.read()["seconds"])


def bare(what: str, megabytes: int, datagram: int) -> float:
    """Mbit/s of one transfer between two fresh processes of a peer."""
    common = [sys.executable, "-m", "ops.benchmarks.session_peers"]
    common += ["--megabytes", str(megabytes), "--datagram", str(datagram)]
    receiver = subprocess.Popen([*common, f"{what}-receiver"], stdout=subprocess.PIPE, text=True)
    try:
        if receiver.stdout is None:
            raise RuntimeError("the receiver has no output")
        port = json.loads(receiver.stdout.readline())["port"]
        sender = subprocess.run(
            [*common, f"{what}-sender", "--port", str(port)],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
            timeout=_DEADLINE_S,
        )
    finally:
        receiver.terminate()
        receiver.wait()
    return megabytes * 8 / float(json.loads(sender.stdout)["seconds"])
