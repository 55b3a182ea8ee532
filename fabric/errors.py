"""The fabric's error tree. Every error has a stable `code` that tools, counters and tests may rely on.

    FabricError
    ├── WireError      bytes from a peer that no correct peer sends; names how the bytes are wrong
    ├── SessionError   the hop machine ends, or a command is not possible on it
    ├── StreamError    one stream ends or cannot be opened; the others stay alive
    └── SealError      a sealed stream's keys, signatures or records do not hold

Foreign exceptions (msgspec, cryptography) are translated where they are caught, once.
"""

from __future__ import annotations

from collections import Counter
from enum import IntEnum

from fabric import limits


class FabricError(Exception):
    """Base of all fabric errors: `code` is stable, `sentence` is for people."""

    def __init__(self, code: str, sentence: str = "") -> None:
        super().__init__(f"{code}: {sentence}" if sentence else code)
        self.code = code
        self.sentence = sentence


class WireError(FabricError):
    """A frame, lane preface or frame body that cannot be accepted. `code` is a key of `WIRE_CODES`."""


class SessionError(FabricError):
    """The session cannot go on, or not do what was asked. `code`: `CLOSE_CODES`, or names the misuse."""


class StreamError(FabricError):
    """One stream was refused, broke, or was used wrongly. `code` is a reset reason or names the misuse."""


class SealError(StreamError):
    """A seal's key, signature or record is not valid; the stream must be reset with this `code`."""


WIRE_CODES: dict[str, str] = {
    "unsupported_version": "the version byte of a frame is not 1",
    "frame_too_large": "a frame's length is over the body limit agreed for this session",
    "truncated_frame": "a lane ended inside a frame",
    "bad_body_length": "a frame with a fixed layout has a body of another length",
    "bad_body": "a frame's MessagePack map cannot be parsed",
    "field_out_of_bounds": "a field of a frame is missing, has the wrong type, or is outside its bounds",
    "reserved_flags": "a flag that this version does not know, on a frame that it knows",
    "bad_stream_id": "a stream id that this frame type or this sender may not use",
    "unknown_critical_frame": "a frame of unknown type says that it must not be skipped",
    "bad_lane_preface": "a lane does not start with a preface that this version knows",
    "duplicate_lane": "a second lane of one class and shard",
    "too_many_lanes": "more lanes than a session may have",
    "wrong_lane": "a frame came on a lane that it does not belong to",
    "unexpected_datagram": "a DATAGRAM frame that holds a frame which belongs on a lane",
    "lane_ended": "the peer ended a lane while the session lives",
}
"""How bytes from a peer can be wrong. Each is counted by its name, and ends the session."""

CLOSE_CODES: dict[str, str] = {
    "done": "closed on purpose, nothing is wrong",
    "going_away": "drained after GOAWAY",
    "handshake_timeout": "the peer was not proved within handshake_timeout_s",
    "slow_peer": "the peer does not take what it is sent",
    "idle_timeout": "nothing was heard from the peer for idle_timeout_s",
    "pre_auth_overflow": "more bytes before AUTH than may be buffered",
    "unexpected_frame": "a frame that the session's state does not allow",
    "no_common_version": "the peers share no version of the session protocol",
    "unexpected_peer": "the listener is not the node that was dialed",
    "self_connect": "the peer has this node's own identity",
    "wrong_cluster": "the peer belongs to another cluster",
    "auth_failed": "the dialer's proof of identity is not valid",
    "credit_exceeded": "the peer sent more than the session's credit",
    "stream_id_reused": "the peer used a stream id twice",
    "reset_flood": "the peer makes more streams be reset than it lets us tell it of",
    "frame_flood": "the peer sends more frames about nothing than any need",
    "too_many_sessions": "the peer has newer sessions, and more than one node needs",
    "idle": "no stream was open for a while, and nobody wants the session",
    "evicted": "no stream was open, and others needed the place",
    "no_room": "every session that the node may have is in use",
    "carrier_lost": "the QUIC connection is gone",
    "revoked": "the peer's node was revoked or fenced",
    **WIRE_CODES,
}
"""Why a session can end; the text beside each is what an operator reads."""

RESUMABLE_CODES = frozenset(
    {"carrier_lost", "idle_timeout", "going_away", "too_many_sessions", "idle", "evicted", "no_room"}
)
"""Ends of a session that say nothing about its streams: they may go on over another."""

RESET_REASONS: dict[str, str] = {
    "cancelled": "the application gave the stream up",
    "refused": "the node does not serve this stream",
    "unknown_service": "no such service on this node",
    "not_approved": "the peer may not use this service yet",
    "mode_not_supported": "this node does not carry streams of this mode",
    "too_many_streams": "the peer's limit of open streams is reached",
    "going_away": "the node drains and takes no new streams",
    "credit_exceeded": "the stream was sent more than its credit",
    "stream_state": "a frame that the stream's state does not allow",
    "accept_timeout": "the stream was not accepted in time",
    "confirm_timeout": "no first valid record arrived in time",
    "gone": "the stream is not known here",
    "uid_in_use": "a live stream has this uid already",
    "resume_invalid": "a resumption that the stream's other end did not ask for",
    "resume_stale": "a resumption that was tried before, or after a newer one",
    "route_failed": "a hop of the route broke; never an end of data",
    "no_lease": "no valid lease for this route is known at this hop",
    "lease_expired": "the route's lease has expired",
    "fenced": "the route, one of its nodes or its partition is fenced",
    "wrong_hop": "this node is not the hop that the stream names",
    "not_permitted": "the node holds no role in force for its place on the route",
    "wrong_previous": "the stream came from a node that is not the hop before this one",
    "class_not_allowed": "the lease does not allow this traffic class",
    "service_not_allowed": "the lease does not allow this service",
    "next_hop_unreachable": "this hop has no session with the next one",
    "seal_initiator": "the initiator is not the node that may open this stream",
    "seal_responder": "the answer does not come from the node that was addressed",
    "seal_key": "an X25519 key that cannot be used",
    "seal_signature": "a signature over the seal's transcript is wrong",
    "seal_suite": "the ends have no cipher in common, or one was chosen that was not offered",
    "record_invalid": "a record that fails authentication",
    "record_gap": "a record is missing before this one",
    "record_overlap": "a record that does not start where one ended",
    "record_after_end": "a record after the end of data",
    "record_shape": "a record whose size or flags no sender may produce",
    "memory_exceeded": "the stream holds more unread than the node has room for",
    "window_exceeded": "the peer sent beyond the window it was given",
    "stream_truncated": "the direction was closed before its sealed end of data",
    "stream_too_long": "more bytes than one key may seal",
    "bad_ack": "an acknowledgement of bytes that were never sent",
}
"""Reasons that RESET_STREAM carries and `Failed` reports. An unknown one from a peer is passed on as text."""


class CloseNumber(IntEnum):
    """Application error number of QUIC's CONNECTION_CLOSE; the stable code travels as its reason phrase."""

    DONE = 0
    PROTOCOL = 1
    AUTH = 2
    TIMEOUT = 3
    REVOKED = 4


def close_number(code: str) -> CloseNumber:
    """The QUIC error number for a session's close code."""
    if code in {"done", "going_away", "idle", "evicted"}:
        return CloseNumber.DONE
    if code in {"handshake_timeout", "idle_timeout", "slow_peer", "carrier_lost"}:
        return CloseNumber.TIMEOUT
    if code in {"unexpected_peer", "self_connect", "wrong_cluster", "auth_failed"}:
        return CloseNumber.AUTH
    if code == "revoked":
        return CloseNumber.REVOKED
    return CloseNumber.PROTOCOL


def count_code(counters: Counter[str], what: str, code: str) -> None:
    """Count `<what>_<code>`. A code may be a peer's own word, so once a table has
    `limits.COUNTED_CODES` names, a new one counts as `<what>_other`.
    """
    name = f"{what}_{code}"
    if name not in counters and len(counters) >= limits.COUNTED_CODES:
        name = f"{what}_other"
    counters[name] += 1
