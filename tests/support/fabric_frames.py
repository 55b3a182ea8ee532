"""Frames written down once (tests/vectors/fabric_v1.json), and strategies that make others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
from hypothesis import strategies as st

from fabric import limits
from fabric.wire import (
    AES_256_GCM,
    CHACHA20_POLY1305,
    Ack,
    Auth,
    CloseStream,
    Data,
    Goaway,
    Hello,
    MapBody,
    NodePressure,
    OpenStream,
    Ping,
    Pong,
    ResetStream,
    Resume,
    RouteRef,
    RouteUpdate,
    SealAnswer,
    SealOffer,
    SessionReady,
    StreamAccepted,
    StreamCredit,
)

VECTORS: dict[str, Any] = json.loads(
    (Path(__file__).parents[1] / "vectors" / "fabric_v1.json").read_text("utf-8")
)
GOLDEN = {name: bytes.fromhex(text) for name, text in VECTORS["frames"].items()}


def _b(number: int, count: int) -> bytes:
    return bytes([number]) * count


ROUTE = RouteRef(route_id="route-7", epoch=41, position=1)
OFFER = SealOffer(key=_b(5, 32), public=_b(6, 32), signature=_b(7, 64))
ANSWER = SealAnswer(key=_b(8, 32), public=_b(9, 32), signature=_b(10, 64))
CHOICE = msgspec.structs.replace(OFFER, suites=[CHACHA20_POLY1305, AES_256_GCM])
CHOSEN = msgspec.structs.replace(ANSWER, suite=CHACHA20_POLY1305)
READY = SessionReady(
    body_limit=66560,
    session_credit=33554432,
    session_reserve=1048576,
    stream_credit=2621440,
    max_streams=1024,
    idle_timeout_s=30,
    route_epoch=7,
    peer_epoch=9,
)
LEASED_OPEN = OpenStream(
    uid=_b(4, 16), service="forward/ssh", class_=2, mode=0, limit=1048576, seal=OFFER, route=ROUTE
)
DIRECT_OPEN = OpenStream(
    uid=_b(4, 16), service="statelog.sync/1", class_=3, mode=0, limit=1048576, seal=OFFER
)
RESUME = Resume(attempt=2, received_up_to=65536, limit=1114112, mac=_b(12, 32))
RESUMED_OPEN = OpenStream(
    uid=_b(4, 16),
    service="forward/ssh",
    class_=2,
    mode=0,
    limit=1114112,
    seal=OFFER,
    route=ROUTE,
    resume=RESUME,
    hold_s=30,
)

MAPS: dict[str, tuple[MapBody, int]] = {
    "HELLO": (
        Hello(public=_b(1, 32), versions=[1], nonce=_b(2, 32), capabilities=["sequencer", "role:relay"]),
        0,
    ),
    "AUTH": (Auth(cluster_id="farm.abcdefghijklmnopqrstuvwxyz", signature=_b(3, 64), token=b"t"), 0),
    "SESSION_READY": (READY, 0),
    "OPEN_STREAM": (LEASED_OPEN, 2),
    "OPEN_STREAM suites": (msgspec.structs.replace(LEASED_OPEN, seal=CHOICE), 2),
    "OPEN_STREAM direct": (DIRECT_OPEN, 4),
    "OPEN_STREAM resumed": (RESUMED_OPEN, 6),
    "STREAM_ACCEPTED": (StreamAccepted(limit=1048576, seal=ANSWER), 2),
    "STREAM_ACCEPTED suite": (StreamAccepted(limit=1048576, seal=CHOSEN), 2),
    "STREAM_ACCEPTED resumed": (StreamAccepted(limit=1114112, seal=ANSWER, resume=RESUME), 6),
    "CLOSE_STREAM": (CloseStream(), 2),
    "RESET_STREAM": (ResetStream(reason="no_lease", detail="no such lease is known here"), 2),
    "GOAWAY": (Goaway(last_id=6, drain_s=10, reason="going_away"), 0),
    "NODE_PRESSURE": (NodePressure(queue=10, cpu=20, memory=30, sockets=40, network=50), 0),
    "ROUTE_UPDATE": (
        RouteUpdate(
            route_id="route-7", epoch=42, record_id="ab" * 32, alternates=["route-8"], reason="renewed"
        ),
        0,
    ),
}
"""What the golden map frames say, and their stream ids."""

FIXED = {
    "DATA": (Data(65536, 2, _b(11, 20)), 2),
    "ACK": (Ack(65536, 1114112), 2),
    "PING": (Ping(0x0102030405060708, 1700000000000000), 0),
    "PONG": (Pong(0x0102030405060708, 1700000000000000), 0),
    "STREAM_CREDIT": (StreamCredit(67108864), 0),
}
"""What the golden frames of fixed layout say, and their stream ids."""

u63 = st.integers(0, (1 << 63) - 1)
epochs = st.integers(0, (1 << 53) - 1)
reasons = st.from_regex(r"[a-z0-9_]{1,64}", fullmatch=True)


def _text(low: int, high: int) -> st.SearchStrategy[str]:
    return st.text(st.characters(codec="utf-8"), min_size=low, max_size=high)


def _exactly(count: int) -> st.SearchStrategy[bytes]:
    return st.binary(min_size=count, max_size=count)


routes = st.builds(RouteRef, route_id=_text(1, 128), epoch=epochs, position=st.integers(1, 15))
resumes = st.none() | st.builds(
    Resume, attempt=st.integers(1, (1 << 32) - 1), received_up_to=u63, limit=u63, mac=_exactly(32)
)
suites = st.from_regex(r"[a-z0-9-]{1,32}", fullmatch=True)
offers = st.builds(
    SealOffer,
    key=_exactly(32),
    public=_exactly(32),
    signature=_exactly(64),
    suites=st.lists(suites, max_size=8),
)
answers = st.builds(SealAnswer, key=_exactly(32), public=_exactly(32), signature=_exactly(64), suite=suites)
session_bodies: st.SearchStrategy[MapBody] = st.one_of(
    st.builds(
        Hello,
        public=_exactly(32),
        versions=st.lists(st.integers(0, 65535), min_size=1, max_size=8),
        nonce=_exactly(32),
        capabilities=st.lists(_text(1, 12), max_size=32),
    ),
    st.builds(Auth, cluster_id=_text(1, 63), signature=_exactly(64), token=st.binary(max_size=64)),
    st.builds(
        SessionReady,
        body_limit=st.integers(limits.FRAME_BODY_BYTES_MIN, 1 << 20),
        session_credit=u63,
        session_reserve=u63,
        stream_credit=u63,
        max_streams=st.integers(0, (1 << 32) - 1),
        idle_timeout_s=st.integers(1, 86400),
        route_epoch=epochs,
        peer_epoch=epochs,
    ),
    st.builds(Goaway, last_id=u63, drain_s=st.integers(0, 3600), reason=reasons),
    st.builds(NodePressure, **{name: st.integers(0, 100) for name in ("queue", "cpu", "memory", "sockets")}),
    st.builds(
        RouteUpdate,
        route_id=_text(1, 128),
        epoch=epochs,
        record_id=st.none() | st.from_regex(r"[0-9a-f]{64}", fullmatch=True),
        alternates=st.lists(_text(1, 16), max_size=8),
        reason=reasons,
    ),
)
stream_bodies: st.SearchStrategy[MapBody] = st.one_of(
    st.builds(
        OpenStream,
        uid=_exactly(16),
        service=_text(1, 128),
        class_=st.integers(0, 5),
        mode=st.integers(0, 2),
        limit=u63,
        seal=offers,
        route=st.none() | routes,
        resume=resumes,
    ),
    st.builds(StreamAccepted, limit=u63, seal=answers, resume=resumes),
    st.just(CloseStream()),
    st.builds(ResetStream, reason=reasons, detail=_text(0, 256)),
)
