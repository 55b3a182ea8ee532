"""Shells of `statelog.submit/1`: taking records for the log at its sequencer, and forwarding them there."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from fabric import limits
from fabric.buckets import TokenBucket
from fabric.classes import TrafficClass
from fabric.errors import FabricError
from fabric.io.connection import Connection
from fabric.io.replica import Replica
from fabric.io.streams import Stream
from fabric.io.worker import Worker
from fabric.services.io.channel import Channel
from fabric.services.messages import MessageError
from fabric.services.submit import CODEC, SERVICE, Message, Result, Submit
from statelog.errors import SourceUnreadable
from statelog.wording import plain

_log = logging.getLogger(__name__)


class Host(Protocol):
    """What takes records into the log."""

    async def submit(self, data: bytes) -> Result:
        """`pending` with the index when the record is in the log, else `refused` or `unavailable`."""
        ...

    async def wait_final(self, log_index: int, log: str = ...) -> None:
        """Return when the entry of the log (the authority log by default) is final."""
        ...


class SubmitServer:
    """The service handler at a sequencer. Each peer may submit so many records a second."""

    def __init__(self, host: Host, clock: Callable[[], float]) -> None:
        self.counters: Counter[str] = Counter()
        self._host = host
        self._clock = clock
        self._rates: dict[str, TokenBucket] = {}

    async def serve(self, stream: Stream, connection: Connection) -> None:
        """The service handler: one record, its verdict, and its finality while the asker stays."""
        del connection
        channel: Channel[Message] = Channel(stream, CODEC)
        request = await channel.receive()
        if not isinstance(request, Submit):
            raise MessageError("message_unexpected", "the first message is the record")
        if not self._may(stream.peer_node_id):
            self.counters["rate"] += 1
            await channel.send(Result("unavailable", code="GS-RATE", sentence="too many records a second"))
            return
        result = await self._host.submit(request.data)
        self.counters[result.state] += 1
        await channel.send(result)
        if result.state == "pending" and result.log_index is not None:
            await self._host.wait_final(result.log_index, result.log)
            await channel.send(Result("final", result.record_id, result.log_index, log=result.log))

    def _may(self, peer: str) -> bool:
        now = self._clock()
        bucket = self._rates.pop(peer, None)
        if bucket is None:
            bucket = TokenBucket(limits.SUBMIT_PER_S, limits.SUBMIT_BURST, now)
        self._rates[peer] = bucket
        while len(self._rates) > limits.PEERS_KNOWN:
            del self._rates[next(iter(self._rates))]
        return bucket.take(now, 1)


async def submit(connection: Connection, data: bytes, *, until_final: bool) -> Result:
    """Hand a record to the sequencer at the other end. Raises FabricError when the stream breaks."""
    async with await connection.open(SERVICE, TrafficClass.RELIABLE, resume=False) as stream:
        channel: Channel[Message] = Channel(stream, CODEC)
        await channel.send(Submit(data))
        result = await _result(channel)
        if until_final and result.state == "pending":
            result = await _result(channel)
        return result


async def _result(channel: Channel[Message]) -> Result:
    message = await channel.receive()
    if not isinstance(message, Result):
        raise MessageError("message_unexpected", "the sequencer did not answer")
    return message


@dataclass(slots=True)
class _Pending:
    data: bytes
    due: float
    log: str  # empty until it is known
    from_outbox: bool
    failures: int = 0


class Forwarder:
    """Hands records to a sequencer and goes on until the log has, or refuses, every one of them.

    `hand_in(data)` does it once; what it raises means that no sequencer could be reached. A record is done
    when this node's own log says so (`settled`): an answer of one host is not the log.

    Each log has a lane of its own, one record under way at a time: where nobody can be reached, the others do
    not wait.
    """

    def __init__(
        self,
        replica: Replica,
        worker: Worker,
        hand_in: Callable[[bytes], Awaitable[Result]],
        clock: Callable[[], float],
        rng: random.Random,
    ) -> None:
        self.counters: Counter[str] = Counter()
        self.refusals: dict[str, str] = {}
        self._replica = replica
        self._worker = worker
        self._hand_in = hand_in
        self._clock = clock
        self._rng = rng
        self._pending: dict[str, _Pending] = {}
        self._others = 0  # of `_pending`, those that did not come out of the outbox, with its shares
        self._busy: set[str] = set()  # the lanes that have something under way
        self._wake = asyncio.Event()

    def add(self, record_id: str, data: bytes, *, delay_s: float = 0.0, log: str = "") -> None:
        """Forward this record, after a pause when others will forward it too. `log` is its home, when it
        comes out of the outbox.
        """
        if record_id in self._pending or (not log and self._others >= limits.SUBMIT_PENDING):
            return
        self._pending[record_id] = _Pending(data, self._clock() + delay_s, log, from_outbox=bool(log))
        self._others += not log
        self._wake.set()

    def settled(self, record_id: str) -> None:
        """The log carries the record, or it acts here no more."""
        done = self._pending.pop(record_id, None)
        self._others -= done is not None and not done.from_outbox
        self.refusals.pop(record_id, None)

    def hurry(self) -> None:
        """A session with a sequencer came up: what waits for one goes now."""
        now = self._clock()
        for pending in self._pending.values():
            if pending.failures:
                pending.due = now
        self._wake.set()

    def __len__(self) -> int:
        return len(self._pending)

    async def look(self, own: str = "") -> None:
        """Take over what another process has put into the outbox, but not for logs that node `own` writes."""
        known = {i: pending.log if pending.from_outbox else "" for i, pending in self._pending.items()}
        for record_id, data, log in await self._worker.run(self._replica.outbox, known, own):
            self.add(record_id, data, log=log)

    async def run(self) -> None:
        """Forward until cancelled."""
        async with asyncio.TaskGroup() as lanes:
            while True:
                self._wake.clear()
                await self._sort()
                now, due = self._clock(), dict[str, float]()  # the first of each idle lane
                for one in self._pending.values():
                    if one.log not in self._busy:
                        due[one.log] = min(one.due, due.get(one.log, one.due))
                for log in [log for log, at in due.items() if at <= now]:
                    del due[log]
                    self._busy.add(log)
                    lanes.create_task(self._lane(log))
                soonest = min(due.values(), default=None)
                with contextlib.suppress(TimeoutError):  # something is due
                    async with asyncio.timeout(None if soonest is None else max(0.0, soonest - now)):
                        await self._wake.wait()

    async def _sort(self) -> None:
        """Find out which lanes new records belong in."""
        new = [one for one in self._pending.values() if not one.log]
        if new:
            homes = await self._worker.run(self._replica.homes_of, [one.data for one in new])
            for one, home in zip(new, homes, strict=True):
                one.log = home

    async def _lane(self, log: str) -> None:
        """Hand in what is due of a log, up to the first that nobody takes: the others would fare alike, so
        they wait a little, and that one goes to the end.
        """
        now = self._clock()
        due = [i for i, p in self._pending.items() if p.log == log and p.due <= now]
        try:
            for number, record_id in enumerate(due):
                if not await self._forward(record_id):
                    self._postpone(record_id, due[number + 1 :])
                    return
        finally:
            self._busy.discard(log)
            self._wake.set()

    def _postpone(self, failed: str, others: list[str]) -> None:
        last = self._pending.pop(failed, None)
        if last is not None:
            self._pending[failed] = last
        due = self._clock() + limits.SUBMIT_RETRY_FIRST_S * self._rng.uniform(0.75, 1.25)
        for record_id in others:
            if record_id in self._pending:
                pending = self._pending[record_id]
                pending.due, pending.failures = due, max(pending.failures, 1)

    async def _forward(self, record_id: str) -> bool:
        """Hand in a record; False when nobody took it, or said why not."""
        pending = self._pending.get(record_id)
        if pending is None:
            return True
        try:
            result = await self._hand_in(pending.data)
        except (FabricError, SourceUnreadable, TimeoutError) as error:
            result = Result("unavailable", code=getattr(error, "code", "timeout"))
        self.counters[result.state] += 1
        if result.state == "refused":
            code, sentence = (
                plain(result.code),
                plain(result.sentence),
            )  # no database holds what some hosts say
            _log.warning("the sequencer refused record %s: %s %s", record_id[:12], code, sentence)
            self.refusals[record_id] = code
            ahead = await self._worker.run(self._replica.submission_refused, record_id, code, sentence)
            if not ahead:
                self.settled(record_id)
                return True
        pause = min(limits.SUBMIT_RETRY_FIRST_S * 2**pending.failures, limits.SUBMIT_RETRY_MAX_S)
        pending.failures = min(pending.failures + 1, 16)  # past that the pause is at its longest
        pending.due = self._clock() + pause * self._rng.uniform(0.75, 1.25)
        return result.state != "unavailable"
