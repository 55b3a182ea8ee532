"""Hosts in a row with a lease along it, all but the ends relaying."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from fabric.classes import Mode, TrafficClass
from fabric.relay import Lease
from fabric.stream import Failed
from fabric.wire import RouteRef
from tests.support.fabric_net import Host, Net, Stream
from tests.support.leases import LEASE, hops


class Chain:
    """Hosts 1, 2, ... in a row, all but the ends relaying, and one lease along the whole row."""

    def __init__(self, length: int = 3, **lease: Any) -> None:
        self.net = Net()
        self.links = [self.net.connect(number, number + 1) for number in range(1, length)]
        self.net.run()
        self.lease = replace(LEASE, hops=hops(*range(1, length + 1)), **lease)
        self.relays = [self.host(number).relays() for number in range(2, length)]
        self.length = length
        self.know(self.lease)

    def host(self, number: int) -> Host:
        return self.net.host(number)

    def know(self, lease: Lease | None, *numbers: int) -> None:
        """All hosts, or those named, have this lease now."""
        for number in numbers or range(1, self.length + 1):
            if lease is None:
                self.host(number).leases.pop("r", None)
            else:
                self.host(number).leases["r"] = lease

    def ask(
        self,
        traffic_class: TrafficClass = TrafficClass.RELIABLE,
        *,
        service: str = "echo",
        epoch: int = 3,
        position: int = 1,
        mode: Mode = Mode.STREAM,
    ) -> Stream:
        """A stream from the first host to the last, whose OPEN has not left yet."""
        return self.host(1).open(
            self.links[0][0],
            service,
            traffic_class,
            to=self.host(self.length),
            route=RouteRef(route_id="r", epoch=epoch, position=position),
            mode=mode,
        )

    def open(self, traffic_class: TrafficClass = TrafficClass.RELIABLE, **asked: Any) -> Stream:
        """As `ask`, and all that follows from it has happened."""
        stream = self.ask(traffic_class, **asked)
        self.net.run()
        return stream

    def opened(self) -> tuple[Stream, Stream]:
        """Both ends of a stream through the chain."""
        stream = self.open()
        assert stream.kinds() == ["Opened"]
        return stream, self.host(self.length).accepted[-1]

    def reason(self, stream: Stream) -> str:
        self.net.run()
        return next((event.reason for event in stream.events if isinstance(event, Failed)), "")
