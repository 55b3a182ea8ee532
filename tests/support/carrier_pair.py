"""Two carriers joined by an in-memory link under a virtual clock: loss, delay and what each side saw."""

from __future__ import annotations

import random
from collections.abc import Callable

from fabric.identity import NodeIdentity
from fabric.io.engines import (
    DEFAULT_CONFIG,
    Address,
    Carrier,
    CarrierConfig,
    CarrierEvent,
    CidIssued,
    CidRetired,
    DatagramBytes,
    Handshaken,
    LaneBytes,
    Terminated,
    load_engine,
)
from fabric.io.engines.packets import parse_long_header

DIALER_ADDR: Address = ("192.0.2.1", 1111)
LISTENER_ADDR: Address = ("192.0.2.2", 2222)


def identity(number: int = 1) -> NodeIdentity:
    """A node identity that depends on `number` alone."""
    return NodeIdentity.from_seed(bytes([number]) * 32)


class Side:
    """One end of the pair: its carrier and everything that came out of it."""

    def __init__(self, carrier: Carrier | None, addr: Address) -> None:
        self.maybe = carrier
        self.addr = addr
        self.events: list[CarrierEvent] = []
        self.received: dict[int, bytearray] = {}
        self.ended: set[int] = set()
        self.datagrams: list[bytes] = []
        self.handshaken: Handshaken | None = None
        self.terminated: Terminated | None = None
        self.ids: set[bytes] = set()

    @property
    def carrier(self) -> Carrier:
        assert self.maybe is not None, "no packet has made this carrier yet"
        return self.maybe

    def collect(self) -> None:
        for event in self.carrier.events():
            self.events.append(event)
            if isinstance(event, LaneBytes):
                self.received.setdefault(event.quic_stream_id, bytearray()).extend(event.data)
                if event.fin:
                    self.ended.add(event.quic_stream_id)
            elif isinstance(event, DatagramBytes):
                self.datagrams.append(event.data)
            elif isinstance(event, Handshaken):
                self.handshaken = event
            elif isinstance(event, CidIssued):
                self.ids.add(event.connection_id)
            elif isinstance(event, CidRetired):
                self.ids.discard(event.connection_id)
            elif isinstance(event, Terminated):
                self.terminated = event


class Pair:
    """A dialer and a listener. `run` moves packets and time until a condition holds."""

    def __init__(
        self,
        dialer: str,
        listener: str,
        *,
        dialer_config: CarrierConfig = DEFAULT_CONFIG,
        listener_config: CarrierConfig = DEFAULT_CONFIG,
        listener_identity: NodeIdentity | None = None,
        delay_s: float = 0.01,
        loss: float = 0.0,
        seed: int = 1,
    ) -> None:
        self.now = 1000.0
        self.delay_s = delay_s
        self.loss = loss
        self.random = random.Random(seed)
        self.lost = 0
        self.wire: list[tuple[float, int, bytes, bool]] = []
        self.count = 0
        self.listener_engine = load_engine(listener, listener_identity or identity(2), listener_config)
        self.dialer_engine = load_engine(dialer, identity(1), dialer_config)
        self.dialer = Side(self.dialer_engine.dial(LISTENER_ADDR, self.now), DIALER_ADDR)
        self.listener = Side(None, LISTENER_ADDR)
        self.bytes_to = {True: 0, False: 0}

    def flush(self) -> None:
        for side, to_listener in ((self.dialer, True), (self.listener, False)):
            if side.maybe is None:
                continue
            side.collect()
            for data, _ in side.carrier.datagrams_to_send(self.now):
                self.bytes_to[to_listener] += len(data)
                if self.random.random() < self.loss:
                    self.lost += 1
                    continue
                self.count += 1
                self.wire.append((self.now + self.delay_s, self.count, data, to_listener))
            side.collect()

    def deliver(self) -> None:
        due = sorted(packet for packet in self.wire if packet[0] <= self.now)
        self.wire = [packet for packet in self.wire if packet[0] > self.now]
        for to_listener in (True, False):
            batch = [packet[2] for packet in due if packet[3] is to_listener]
            if not batch:
                continue
            side, source = (self.listener, DIALER_ADDR) if to_listener else (self.dialer, LISTENER_ADDR)
            if side.maybe is None:
                header = parse_long_header(batch[0])
                if header is None or not header.is_initial:
                    continue
                side.maybe = self.listener_engine.accept(
                    original_destination_cid=header.destination_cid,
                    retry_source_cid=None,
                    addr=source,
                    now=self.now,
                )
            side.carrier.receive(batch, source, self.now)

    def step(self) -> bool:
        """To the next thing that happens; False when nothing ever will."""
        self.flush()
        times = [packet[0] for packet in self.wire]
        sides = [side for side in (self.dialer, self.listener) if side.maybe is not None]
        times += [timer for side in sides if (timer := side.carrier.timer()) is not None]
        if not times:
            return False
        self.now = max(self.now, min(times))
        self.deliver()
        for side in (self.dialer, self.listener):
            if side.maybe is not None and (timer := side.carrier.timer()) is not None and timer <= self.now:
                side.carrier.handle_timer(self.now)
        self.flush()
        return True

    def run(self, until: Callable[[], bool], *, within_s: float = 20.0) -> float:
        """Seconds of virtual time until `until()`; fails past `within_s`."""
        start = self.now
        self.flush()
        for _ in range(200_000):
            if until():
                return self.now - start
            if not self.step():
                break
            assert self.now - start <= within_s, f"nothing within {within_s} s of virtual time"
        assert until(), "the carriers went silent"
        return self.now - start

    def handshake(self) -> float:
        return self.run(lambda: self.dialer.handshaken is not None and self.listener.handshaken is not None)

    def advance(self, seconds: float) -> None:
        """Let packets and timers run for so long, whatever happens."""
        end = self.now + seconds
        while self.now < end:
            self.now += 0.01
            self.deliver()
            for side in (self.dialer, self.listener):
                timer = side.carrier.timer()
                if timer is not None and timer <= self.now:
                    side.carrier.handle_timer(self.now)
            self.flush()
