"""Sessions that nobody uses end, and make room for others; those in use and those wanted stay."""

from __future__ import annotations

import pytest

from fabric.classes import TrafficClass
from fabric.errors import FabricError
from fabric.io.connection import Connection
from fabric.io.endpoint import Endpoint
from fabric.sessionpolicy import SessionPolicy, Standing
from tests.support.aio import run, until
from tests.support.endpoints import SERVICES, bind, dial

both_engines = pytest.mark.parametrize("engine", ["qh3", "aioquic"])


async def session_of(node: Endpoint, other: Endpoint) -> Connection:
    """The session of `other`, as `node` sees it."""
    await until(lambda: node.connection_to(other.identity.node_id) is not None)
    found = node.connection_to(other.identity.node_id)
    assert found is not None
    return found


@both_engines
def test_a_session_without_streams_ends_and_one_with_a_stream_stays(engine: str) -> None:
    async def main() -> None:
        policy = SessionPolicy(idle_ttl_s=0.5)
        async with (
            await bind(2, engine=engine, services=SERVICES, sessions=policy) as node,
            await bind(3, engine=engine) as user,
            await bind(4, engine=engine) as idler,
        ):
            used = await dial(user, node)
            stream = await used.open("echo", TrafficClass.RELIABLE)
            idle = await dial(idler, node)
            assert await idle.closed == "idle"
            stream.write(b"still here")
            assert await stream.readexactly(10) == b"still here"
            assert node.totals.closed["idle"] == 1
            stream.reset()
            assert await used.closed == "idle"
            await until(lambda: not node.connections())

            # Who comes again is welcome.
            again = await dial(idler, node)
            assert await again.ping() > 0

    run(main)


@both_engines
def test_a_wanted_neighbour_may_stay_idle(engine: str) -> None:
    async def main() -> None:
        async with await bind(3, engine=engine) as wanted, await bind(4, engine=engine) as stranger:

            def standing(node_id: str) -> Standing:
                return Standing.WANTED if node_id == wanted.identity.node_id else Standing.STRANGER

            policy = SessionPolicy(idle_ttl_s=0.5, standing=standing)
            async with await bind(2, engine=engine, sessions=policy) as node:
                kept = await dial(wanted, node)
                assert await (await dial(stranger, node)).closed == "idle"
                assert await (await dial(stranger, node)).closed == "idle"  # much later than half a second
                assert await kept.ping() > 0
                assert not kept.closed.done()

    run(main)


@both_engines
def test_strangers_make_room_first_then_who_was_in_use_longest_ago(engine: str) -> None:
    async def main() -> None:
        async with (
            await bind(3, engine=engine) as known,
            await bind(4, engine=engine) as first,
            await bind(5, engine=engine) as second,
            await bind(6, engine=engine) as third,
        ):

            def standing(node_id: str) -> Standing:
                return Standing.KNOWN if node_id == known.identity.node_id else Standing.STRANGER

            policy = SessionPolicy(total=3, standing=standing)
            async with await bind(2, engine=engine, services=SERVICES, sessions=policy) as node:
                oldest = await dial(known, node)
                one = await dial(first, node)
                two = await dial(second, node)
                stream = await one.open("echo", TrafficClass.RELIABLE)
                stream.write(b"used")
                assert await stream.readexactly(4) == b"used"
                seen = await session_of(node, first)
                stream.reset()
                await until(lambda: not seen.session.in_use)
                # The known node waited for longest, and of the strangers the second.
                three = await dial(third, node)
                assert await two.closed == "evicted"
                assert {one.is_ready, three.is_ready, oldest.is_ready} == {True}
                assert len(node.connections()) == 3
                assert node.totals.closed["evicted"] == 1

    run(main)


@both_engines
def test_where_every_session_is_in_use_the_newcomer_is_refused(engine: str) -> None:
    async def main() -> None:
        async with (
            await bind(2, engine=engine, services=SERVICES, sessions=SessionPolicy(total=1)) as node,
            await bind(3, engine=engine) as user,
            await bind(4, engine=engine) as late,
        ):
            used = await dial(user, node)
            stream = await used.open("echo", TrafficClass.RELIABLE)
            refused = await late.start_dial(node.url, node_id=node.identity.node_id)
            assert await refused.closed == "no_room"
            stream.write(b"undisturbed")
            assert await stream.readexactly(11) == b"undisturbed"
            stream.reset()
            seen = await session_of(node, user)
            await until(lambda: not seen.session.in_use)
            assert await (await dial(late, node)).ping() > 0
            assert await used.closed == "evicted"

    run(main)


def test_who_drains_neither_dials_nor_takes_sessions() -> None:
    async def main() -> None:
        async with await bind(2) as node, await bind(3) as other, await bind(4) as late:
            before = await dial(other, node)
            node.drain()
            assert await before.closed == "going_away"
            with pytest.raises(FabricError, match="handshake_timeout"):
                await late.dial(node.url, node_id=node.identity.node_id, timeout_s=0.3)
            with pytest.raises(FabricError, match="carrier_closed"):
                await dial(node, late)
            assert await (await dial(late, other)).ping() > 0

    run(main)
