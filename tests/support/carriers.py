"""Two ends of a sealed stream over hop streams that may die at any moment, without sessions around them.

A `Hop` keeps what a real one keeps: the lane of the stream in order, the control lane in order, and no order
between the two. What is in flight when it dies is lost, and each end learns of it when the test says so.
"""

from __future__ import annotations

from collections import deque
from random import Random

from fabric.classes import Mode, TrafficClass
from fabric.errors import StreamError
from fabric.events import (
    Failed,
    Finished,
    HopAccepted,
    HopAck,
    HopClosed,
    HopLost,
    HopRecord,
    HopReset,
    SendAccepted,
    SendAck,
    SendClose,
    SendRecord,
    SendReset,
    StreamConfig,
    StreamEvent,
)
from fabric.stream import EndToEnd, Outcome
from fabric.wire import OpenStream, RouteRef
from tests.support.fabric_net import CLUSTER, identity

ONE, OTHER = identity(1), identity(2)
Effect = SendAccepted | SendRecord | SendAck | SendClose | SendReset
ROOM = 1 << 20


class Hop:
    """One hop stream: for each receiving side (0 initiator, 1 responder) its lane and its control lane."""

    def __init__(self, opening: OpenStream) -> None:
        self.opening = opening
        self.opened = False
        self.arrived = False
        """Whether the OPEN got through, rather than dying on the way."""
        self.dead = False
        self.lanes: tuple[deque[Effect], deque[Effect]] = (deque(), deque())
        self.controls: tuple[deque[Effect], deque[Effect]] = (deque(), deque())
        self.delivered: tuple[list[SendRecord], list[SendRecord]] = ([], [])

    def send(self, to: int, effect: Effect) -> None:
        if self.dead:
            return
        queue = self.controls if isinstance(effect, SendAck | SendReset) else self.lanes
        queue[to].append(effect)

    def die(self) -> None:
        self.dead = True
        for queue in (*self.lanes, *self.controls):
            queue.clear()


class Ends:
    """The initiator and, once it has the OPEN, the responder; `hops[side]` is what each is bound to."""

    def __init__(
        self, seed: int = 0, *, mode: Mode = Mode.STREAM, config: StreamConfig | None = None
    ) -> None:
        self.now = 0.0
        self.random = Random(seed)
        self.config = config or StreamConfig(window=20_000, window_max=40_000, send_buffer=100_000)
        one, opening = EndToEnd.initiate(
            self.now,
            ONE,
            CLUSTER,
            OTHER.node_id,
            "echo",
            TrafficClass.RELIABLE,
            self.random.randbytes,
            mode=mode,
            config=self.config,
        )
        first = Hop(opening.open)
        self.ends: list[EndToEnd | None] = [one, None]
        self.hops: list[Hop | None] = [first, None]
        self.events: tuple[list[StreamEvent], list[StreamEvent]] = ([], [])
        self.openings = [first]

    @property
    def initiator(self) -> EndToEnd:
        end = self.ends[0]
        assert end is not None
        return end

    @property
    def responder(self) -> EndToEnd:
        end = self.ends[1]
        assert end is not None
        return end

    def failure(self, side: int) -> str:
        return next((e.reason for e in self.events[side] if isinstance(e, Failed)), "")

    def finished(self, side: int) -> bool:
        return any(isinstance(e, Finished) for e in self.events[side])

    def open(self, hop: Hop) -> str:
        """The OPEN of a hop reaches the responder; returns the reason if it is refused."""
        hop.opened = True
        if hop.dead:
            return ""
        hop.arrived = True
        try:
            if hop.opening.resume is None:
                if self.ends[1] is not None:
                    raise StreamError("uid_in_use")  # noqa: TRY301 - as the shell does
                self.ends[1], outcome = EndToEnd.respond(
                    self.now,
                    OTHER,
                    CLUSTER,
                    ONE.node_id,
                    hop.opening,
                    self.random.randbytes,
                    config=self.config,
                )
            else:
                end = self.ends[1]
                if end is None or end.over:
                    raise StreamError("gone")  # noqa: TRY301 - same
                outcome = end.resumed(self.now, hop.opening)
        except StreamError as error:
            hop.send(0, SendReset(error.code))
            return error.code
        self.hops[1] = hop
        self.perform(1, outcome)
        return ""

    def perform(self, side: int, outcome: list[Outcome]) -> None:
        hop = self.hops[side]
        for item in outcome:
            if isinstance(item, SendAccepted | SendRecord | SendAck | SendClose | SendReset):
                if hop is not None:
                    hop.send(1 - side, item)
            else:
                self.events[side].append(item)

    def pump(self, side: int, room: int = ROOM) -> bool:
        end = self.ends[side]
        if end is None:
            return False
        outcome = end.pull(self.now, room)
        self.perform(side, outcome)
        return bool(outcome)

    def deliver(self, side: int, hop: Hop, *, control: bool) -> bool:
        """The next frame of a lane reaches `side`; whether there was one."""
        queue = (hop.controls if control else hop.lanes)[side]
        if not queue:
            return False
        effect, end = queue.popleft(), self.ends[side]
        if end is None or self.hops[side] is not hop:
            return True  # late: the stream is elsewhere by now
        if isinstance(effect, SendRecord):
            hop.delivered[side].append(effect)
        self.perform(side, end.handle(self.now, hop_event(effect)))
        return True

    def notice(self, side: int) -> None:
        """The side learns that its hop stream is dead, if it is."""
        end, hop = self.ends[side], self.hops[side]
        if end is not None and hop is not None and hop.dead:
            self.hops[side] = None
            self.perform(side, end.handle(self.now, HopLost()))

    def resume(self, route: RouteRef | None = None) -> Hop | None:
        """The initiator tries another hop stream, if it can."""
        try:
            opening = self.initiator.resume(self.now, route)
        except StreamError:
            return None
        hop = self.hops[0] = Hop(opening.open)
        self.openings.append(hop)
        return hop

    def settle(self, rounds: int = 400) -> None:
        """From here on nothing breaks: go on until nothing moves."""
        for _ in range(rounds):
            moved = False
            for side in (0, 1):
                self.notice(side)
            if not self.initiator.bound and not self.initiator.resuming and not self.initiator.over:
                self.resume()
            hop = self.hops[0]
            if hop is not None and not hop.opened:
                self.open(hop)
                moved = True
            for side in (0, 1):
                moved |= self.pump(side)
                for each in {id(h): h for h in self.hops if h is not None}.values():
                    while self.deliver(side, each, control=False) or self.deliver(side, each, control=True):
                        moved = True
            if not moved:
                return
        raise AssertionError("still moving")


def hop_event(effect: Effect) -> HopAccepted | HopRecord | HopAck | HopClosed | HopReset | HopLost:
    """What the other end's session makes of an effect."""
    if isinstance(effect, SendAccepted):
        return HopAccepted(effect.accepted)
    if isinstance(effect, SendRecord):
        return HopRecord(effect.offset, effect.flags, effect.ciphertext)
    if isinstance(effect, SendAck):
        return HopAck(effect.received_up_to, effect.limit)
    if isinstance(effect, SendClose):
        return HopClosed()
    if effect.reason == "route_failed":
        return HopLost(effect.reason, effect.detail)
    return HopReset(effect.reason, effect.detail)
