"""The search for the path's datagram size, `fabric.pathmtu`, driven over one carrier."""

from __future__ import annotations

from fabric.io.engines import Carrier, DatagramProbed
from fabric.pathmtu import Event, Found, Losses, Moved, PathMtu, Probed, SendProbe, Start, Timer, TooBig


class PathSize:
    """Of one connection. Every method may leave the carrier with a probe to send: flush it then."""

    def __init__(self, carrier: Carrier) -> None:
        self._carrier = carrier
        self._machine = PathMtu(carrier.datagram_bytes())
        self._host = carrier.remote[0]

    def start(self, now: float) -> None:
        """The peer is proved."""
        self._handle(now, Start(self._carrier.probe_ceiling()))

    def look(self, now: float) -> None:
        """See what the carrier has learned since; once for each flush."""
        carrier, machine = self._carrier, self._machine
        size = carrier.datagram_bytes()
        if size > machine.size:
            self._handle(now, Found(size))  # by the engine's own search
        if carrier.remote[0] != self._host:
            self._host = carrier.remote[0]
            self._handle(now, Moved())
        if machine.size > machine.base:
            losses = carrier.losses_in_a_row()
            if losses:
                self._handle(now, Losses(losses))

    def moved(self, now: float) -> None:
        """Our own address changed."""
        self._handle(now, Moved())

    def probed(self, now: float, event: DatagramProbed) -> None:
        """What became of a probe."""
        self._handle(now, Probed(event.number, event.delivered))

    def too_big(self, now: float, size: int) -> None:
        """Somebody says that the path carries UDP payloads of `size` bytes at most."""
        self._handle(now, TooBig(size))

    def timer(self) -> float | None:
        """When `handle_timer` is due."""
        return self._machine.deadline()

    def handle_timer(self, now: float) -> None:
        """Let what is due happen."""
        self._handle(now, Timer())

    def _handle(self, now: float, event: Event) -> None:
        for effect in self._machine.handle(now, event):
            if isinstance(effect, SendProbe):
                self._carrier.probe(effect.number, effect.size)
            else:
                self._carrier.use_datagram_bytes(effect.size)
