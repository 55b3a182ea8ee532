"""The handshake: who is proved by what, and every way it must fail, beside the way it succeeds."""

from __future__ import annotations

from dataclasses import dataclass, field
from hashlib import sha256
from random import Random

import pytest

from fabric import wire
from fabric.errors import SessionError, WireError
from fabric.handshake import Handshake, Side, auth_bytes
from fabric.identity import NodeIdentity
from fabric.wire import Auth, Frame, FrameDecoder, Hello
from statelog.signing import verify
from tests.support.fabric_frames import READY, VECTORS
from tests.support.fabric_net import CLUSTER, identity

DIALER, LISTENER, STRANGER = identity(1), identity(2), identity(3)


@dataclass
class End:
    """One end of a handshake with defaults that fit the other."""

    side: Side
    me: NodeIdentity
    cluster_id: str = CLUSTER
    certificate: str = LISTENER.certificate_sha256
    expected: str | None = None
    capabilities: tuple[str, ...] = ()
    token: bytes = b""
    seed: int = 0
    machine: Handshake = field(init=False)

    def __post_init__(self) -> None:
        self.machine = Handshake(
            self.side,
            self.me,
            self.cluster_id,
            Random(self.seed).randbytes,
            READY,
            listener_certificate_sha256=self.certificate,
            expected_peer=self.expected,
            capabilities=self.capabilities,
            token=self.token,
        )


def dialer(**kwargs: object) -> End:
    return End(Side.DIALER, **{"me": DIALER, "expected": LISTENER.node_id, "seed": 1, **kwargs})  # type: ignore[arg-type]  # fields by name


def listener(**kwargs: object) -> End:
    return End(Side.LISTENER, **{"me": LISTENER, "seed": 2, **kwargs})  # type: ignore[arg-type]  # fields by name


def frames(data: list[bytes]) -> list[Frame]:
    return FrameDecoder().feed(b"".join(data))


def give(end: End, data: list[bytes]) -> list[bytes]:
    return [answer for frame in frames(data) for answer in end.machine.receive(frame)]


def flight(one: End, other: End) -> list[bytes]:
    """The dialer's first flight, after the listener's HELLO."""
    return give(one, other.machine.start())


def refusal(one: End, other: End) -> str:
    with pytest.raises((SessionError, WireError)) as caught:
        give(other, flight(one, other))
    assert not other.machine.complete
    return caught.value.code


def test_two_nodes_prove_themselves_in_one_flight_each_way() -> None:
    one, other = dialer(capabilities=("sequencer",), token=b"t"), listener(capabilities=("role:relay",))
    assert one.machine.start() == []
    first = flight(one, other)
    assert [frame.type for frame in frames(first)] == [1, 2, 3]
    assert one.machine.proved
    assert not one.machine.complete
    answer = give(other, first)
    assert [frame.type for frame in frames(answer)] == [3]
    assert other.machine.complete
    assert other.machine.peer_node_id == DIALER.node_id
    assert other.machine.token == b"t"
    assert give(one, answer) == []
    assert one.machine.complete
    assert one.machine.peer is not None
    assert one.machine.peer.capabilities == ["role:relay"]
    assert one.machine.peer_ready == READY


def test_the_listener_says_ready_only_after_the_proof() -> None:
    one, other = dialer(), listener()
    hello, auth, ready = flight(one, other)
    assert give(other, [hello]) == []
    with pytest.raises(SessionError, match="unexpected_frame"):
        give(other, [ready])
    one, other = dialer(), listener()
    hello, auth, ready = flight(one, other)
    assert [frame.type for frame in frames(give(other, [hello, auth]))] == [3]
    assert not other.machine.complete
    give(other, [ready])
    assert other.machine.complete


def test_the_dialer_goes_no_further_with_another_node() -> None:
    assert flight(dialer(), listener())
    with pytest.raises(SessionError, match="unexpected_peer"):
        flight(dialer(), listener(me=STRANGER))
    with pytest.raises(SessionError, match="unexpected_peer"):
        dialer(expected=None)


def test_a_listener_may_expect_a_node_too() -> None:
    assert give(listener(expected=DIALER.node_id), flight(dialer(), listener())[:1]) == []
    assert refusal(dialer(), listener(expected=STRANGER.node_id)) == "unexpected_peer"


def test_a_node_does_not_talk_to_itself() -> None:
    assert flight(dialer(), listener())
    with pytest.raises(SessionError, match="self_connect"):
        flight(dialer(me=LISTENER), listener())


def test_another_cluster_is_named() -> None:
    assert refusal(dialer(cluster_id="other.bbbbbbbbbbbbbbbbbbbbbbbbbb"), listener()) == "wrong_cluster"


def test_a_proof_for_another_certificate_is_worth_nothing() -> None:
    """Somebody between the two who presents his own certificate to the dialer cannot pass the proof on."""
    assert refusal(dialer(certificate=STRANGER.certificate_sha256), listener()) == "auth_failed"


def test_a_proof_is_for_one_session_only() -> None:
    one, other = dialer(), listener()
    recorded = flight(one, other)
    again = listener(seed=3)
    again.machine.start()
    with pytest.raises(SessionError, match="auth_failed"):
        give(again, recorded)
    assert frames(give(other, recorded))


def test_the_hello_cannot_be_changed_on_the_way() -> None:
    one, other = dialer(capabilities=("phone",)), listener()
    hello, auth, ready = flight(one, other)
    body = wire.decode_frame(frames([hello])[0])
    assert isinstance(body, Hello)
    better = Hello(public=body.public, versions=body.versions, nonce=body.nonce, capabilities=["sequencer"])
    with pytest.raises(SessionError, match="auth_failed"):
        give(other, [wire.encode_map(better), auth, ready])
    # Not even where this version does not look: flags and unknown keys are under the signature.
    other = listener()
    one = dialer()
    hello, auth, ready = flight(one, other)
    flagged = hello[:2] + b"\x00\x00" + hello[4:]
    with pytest.raises(SessionError, match="auth_failed"):
        give(other, [flagged, auth, ready])


def test_a_node_cannot_speak_for_another() -> None:
    one, other = dialer(), listener()
    hello, _, ready = flight(one, other)
    stranger = dialer(me=STRANGER)
    _, auth, _ = flight(stranger, other)
    with pytest.raises(SessionError, match="auth_failed"):
        give(other, [hello, auth, ready])


@pytest.mark.parametrize("order", [[1], [2], [0, 0], [0, 1, 1], [0, 1, 2, 2], [0, 2]])
def test_frames_out_of_order(order: list[int]) -> None:
    one, other = dialer(), listener()
    parts = flight(one, other)
    with pytest.raises(SessionError, match="unexpected_frame"):
        give(other, [parts[number] for number in order])


def test_an_auth_to_a_dialer_is_unexpected() -> None:
    one, other = dialer(), listener()
    flight(one, other)
    with pytest.raises(SessionError, match="unexpected_frame"):
        give(one, [wire.encode_map(Auth(cluster_id=CLUSTER, signature=bytes(64)))])


def test_versions() -> None:
    _, other = dialer(), listener()
    hello = Hello(public=DIALER.public, versions=[2, 3], nonce=bytes(32))
    with pytest.raises(SessionError, match="no_common_version"):
        give(other, [wire.encode_map(hello)])
    newer = Hello(public=DIALER.public, versions=[1, 2], nonce=bytes(32))
    assert give(listener(), [wire.encode_map(newer)]) == []


def test_golden_transcript() -> None:
    golden = VECTORS["auth"]
    one, other = (
        NodeIdentity.from_seed(bytes.fromhex(golden[f"{end}_seed"])) for end in ("dialer", "listener")
    )
    hellos = [bytes.fromhex(golden[f"{end}_hello"]) for end in ("dialer", "listener")]
    signed = auth_bytes(
        cluster_id=golden["cluster_id"],
        dialer=one.node_id,
        listener=other.node_id,
        dialer_hello=hellos[0],
        listener_hello=hellos[1],
        listener_certificate_sha256=golden["listener_certificate_sha256"],
    )
    assert signed.decode() == golden["signed"]
    assert signed.startswith(b"DSSEv1 47 application/vnd.rap.fabric.session.auth.v1+json ")
    assert sha256(hellos[0]).hexdigest().encode() in signed
    assert verify(one.public, bytes.fromhex(golden["signature"]), signed)
