"""Who may start a connection: verdicts and bounds."""

from __future__ import annotations

from fabric import limits
from fabric.io.doorman import Answer, Doorman, Welcome
from fabric.io.engines.packets import QUIC_V1, LongHeader, parse_long_header

ADDR = ("192.0.2.1", 4433)
NOW = 100.0
FIRST = LongHeader(QUIC_V1, b"original", b"client01", is_initial=True, token=b"")


def host(number: int) -> tuple[str, int]:
    return (f"198.51.{number // 250}.{number % 250}", 4433)


def fill(doorman: Doorman, count: int) -> None:
    for number in range(count):
        doorman.opened(object(), host(number))


def test_an_initial_packet_is_welcome() -> None:
    assert Doorman().judge(FIRST, 1200, ADDR, NOW) == Welcome(b"original", None)


def test_a_short_datagram_is_met_with_silence() -> None:
    assert Doorman().judge(FIRST, 1199, ADDR, NOW) is None


def test_other_packets_of_strangers_are_met_with_silence() -> None:
    handshake = LongHeader(QUIC_V1, b"original", b"client01", is_initial=False, token=b"")
    short_id = LongHeader(QUIC_V1, b"origina", b"client01", is_initial=True, token=b"")
    assert Doorman().judge(handshake, 1200, ADDR, NOW) is None
    assert Doorman().judge(short_id, 1200, ADDR, NOW) is None


def test_another_version_is_told_ours_and_version_zero_nothing() -> None:
    doorman = Doorman()
    other = LongHeader(0x6B3343CF, b"original", b"client01", is_initial=False, token=b"")
    answer = doorman.judge(other, 1200, ADDR, NOW)
    assert isinstance(answer, Answer)
    assert answer.datagram.endswith(QUIC_V1.to_bytes(4, "big"))
    assert len(answer.datagram) < 1200
    assert doorman.judge(other, 1199, ADDR, NOW) is None
    negotiation = LongHeader(0, b"original", b"client01", is_initial=False, token=b"")
    assert doorman.judge(negotiation, 1200, ADDR, NOW) is None
    assert doorman.counters["version_negotiations"] == 1


def test_a_retry_makes_the_client_prove_its_address() -> None:
    doorman = Doorman("always")
    answer = doorman.judge(FIRST, 1200, ADDR, NOW)
    assert isinstance(answer, Answer)
    sent = parse_long_header(answer.datagram)
    assert sent is not None
    token = answer.datagram[7 + len(sent.destination_cid) + len(sent.source_cid) : -16]
    again = LongHeader(QUIC_V1, sent.source_cid, b"client01", is_initial=True, token=token)
    assert doorman.judge(again, 1200, ADDR, NOW + 1) == Welcome(b"original", sent.source_cid)
    # Elsewhere the token proves nothing: that stranger gets a Retry of its own.
    assert isinstance(doorman.judge(again, 1200, ("192.0.2.9", 4433), NOW + 1), Answer)
    assert doorman.counters["tokens_refused"] == 1
    assert doorman.counters["retries_sent"] == 2


def test_a_foreign_token_matters_only_under_load() -> None:
    doorman = Doorman()
    foreign = LongHeader(QUIC_V1, b"original", b"client01", is_initial=True, token=b"x" * 60)
    assert doorman.judge(foreign, 1200, ADDR, NOW) == Welcome(b"original", None)


def test_retry_starts_under_load_and_stops_after_it() -> None:
    doorman = Doorman()
    fill(doorman, limits.ENDPOINT_HALF_OPEN_RETRY - 1)
    assert isinstance(doorman.judge(FIRST, 1200, ADDR, NOW), Welcome)
    last = object()
    doorman.opened(last, host(999))
    assert isinstance(doorman.judge(FIRST, 1200, ADDR, NOW), Answer)
    doorman.proved(last)
    assert isinstance(doorman.judge(FIRST, 1200, ADDR, NOW), Welcome)


def test_a_policy_of_never_holds_under_load() -> None:
    doorman = Doorman("never")
    fill(doorman, limits.ENDPOINT_HALF_OPEN - 1)
    assert isinstance(doorman.judge(FIRST, 1200, ADDR, NOW), Welcome)


def test_half_open_connections_are_bounded() -> None:
    doorman = Doorman("never")
    fill(doorman, limits.ENDPOINT_HALF_OPEN)
    assert doorman.half_open == limits.ENDPOINT_HALF_OPEN
    assert doorman.judge(FIRST, 1200, ADDR, NOW) is None
    assert doorman.counters["connections_refused"] == 1


def test_one_address_cannot_use_up_the_allowance() -> None:
    doorman = Doorman("never")
    held = [object() for _ in range(limits.ENDPOINT_HALF_OPEN_PER_ADDRESS)]
    for connection in held:
        doorman.opened(connection, ("192.0.2.1", 1000))
    assert doorman.judge(FIRST, 1200, ("192.0.2.1", 2000), NOW) is None
    assert isinstance(doorman.judge(FIRST, 1200, ("192.0.2.2", 2000), NOW), Welcome)
    doorman.proved(held[0])
    doorman.proved(held[0])
    assert doorman.half_open == len(held) - 1
    assert isinstance(doorman.judge(FIRST, 1200, ("192.0.2.1", 2000), NOW), Welcome)


def test_an_ipv6_host_has_one_allowance_however_many_addresses_it_uses() -> None:
    doorman = Doorman("never")
    for number in range(limits.ENDPOINT_HALF_OPEN_PER_ADDRESS):
        doorman.opened(object(), (f"2001:db8:0:1::{number:x}", 1000))
    assert doorman.judge(FIRST, 1200, ("2001:db8:0:1:ffff::1", 2000), NOW) is None
    assert isinstance(doorman.judge(FIRST, 1200, ("2001:db8:0:2::1", 2000), NOW), Welcome)
    for number in range(limits.ENDPOINT_HALF_OPEN_PER_ADDRESS):
        doorman.opened(number, ("::ffff:192.0.2.1", 1000 + number))
    assert doorman.judge(FIRST, 1200, ("192.0.2.1", 2000), NOW) is None
    assert isinstance(doorman.judge(FIRST, 1200, ("::ffff:192.0.2.2", 2000), NOW), Welcome)
