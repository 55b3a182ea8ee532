"""The node daemon: one identity, one UDP endpoint, and the parts that this file puts together.

    peers      sessions with neighbours            gossip     records ahead of the log, candidate sets
    replica    the log and what it means (thread)  promoter   probes of candidate records
    sync       following the log, serving it       desk       records from outside
    reach      streams to services by any route    forwarder  records on their way into the log
    follower   the machine's addresses
    witness    where a witness key is configured   sequencing where a sequencer key is (thread)

What the replica learns arrives here as an immutable `Update`; everything that packets are judged by is in the
newest `Snapshot`. Nothing on this thread reads SQL or verifies a record.
"""

# Long on purpose: the parts of a node and how they hang together, read in one place.
from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import random
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any

from fabric import discovery, gossip, interfaces, limits, peering, sync
from fabric.candidates import candidate_set
from fabric.classes import TrafficClass
from fabric.errors import FabricError
from fabric.frames import OpenStream
from fabric.identity import NodeIdentity, format_quic_address
from fabric.io import config as settings
from fabric.io.config import ConfigError, NodeConfig
from fabric.io.connection import Connection
from fabric.io.desk import Desk, Parts, as_candidate
from fabric.io.endpoint import Endpoint
from fabric.io.engines import Address, CarrierConfig
from fabric.io.interfaces import Follower, machine_addresses
from fabric.io.peers import Peers
from fabric.io.pressure import PressureWatch
from fabric.io.reach import Reach
from fabric.io.replica import Replica
from fabric.io.routenews import RouteNews
from fabric.io.sequencing import Sequencing
from fabric.io.serving import StreamHandler
from fabric.io.streams import Stream
from fabric.io.updates import Judgement, LogStatus, Update
from fabric.io.worker import Worker
from fabric.relay import Lease
from fabric.services import gossip as gossip_protocol
from fabric.services import submit as submit_protocol
from fabric.services import witness as witness_protocol
from fabric.services.io import echoing, gossiping, logsync
from fabric.services.io.forward import TcpService
from fabric.services.io.gossiping import GossipService
from fabric.services.io.logsync import Changed, SyncClient, SyncServer
from fabric.services.io.probing import probe
from fabric.services.io.submitting import Forwarder, SubmitServer, submit
from fabric.services.io.witnessing import WitnessService, ask, leaves_for
from fabric.services.submit import ELSEWHERE, Result
from fabric.session import SessionConfig
from fabric.sessionpolicy import SessionPolicy, Standing
from projections.snapshot import Snapshot
from statelog.errors import Refused, StatelogError, UsageError
from statelog.io.doorbell import Doorbell, ring
from statelog.io.held import HeldKey
from statelog.io.sequencers import Sequencers
from statelog.io.signers import load_signer
from statelog.signing import key_id_of
from statelog.state import AUTHORITY_LOG

_log = logging.getLogger(__name__)

PROBE_ALLOW = "probe_allow"
RELAY = "relay"

DATA_PLANE = ("datagrams", "resume", "echo", "flow_pressure")
"""Capabilities of every node of this version."""

OPEN_TO_ALL = frozenset(
    (
        gossip_protocol.SERVICE,
        sync.SERVICE,
        witness_protocol.SERVICE,
        submit_protocol.SERVICE,
    )
)
"""What a node that is not approved yet may use: enough to learn the log and to be heard by it. A witness too,
for who sequences is approved in the very log that its cosignature makes final (ADR 0008).
"""


class Node:
    """A running node. `start` binds and joins, `close` leaves. All on one event loop."""

    def __init__(
        self,
        config: NodeConfig,
        identity: NodeIdentity,
        *,
        clock: Callable[[], float] = time.time,
        rng: random.Random | None = None,
    ) -> None:
        self.config = config
        self.identity = identity
        self.node_id = identity.node_id
        self.clock = clock
        self.started_at = clock()
        self.counters: Counter[str] = Counter()
        self.update = Update(Snapshot(), None)
        self.snapshot = self.update.snapshot
        self.endpoint: Endpoint
        self.pressure: PressureWatch
        self.sequencing: Sequencing | None = None
        self.witness: WitnessService | None = None
        self._rng = rng or random.Random(identity.seed + str(clock()).encode())  # noqa: S311 - jitter, no secret
        self._tasks: set[asyncio.Task[None]] = set()
        self._timers: list[asyncio.TimerHandle] = []
        self._promoter_timer: asyncio.TimerHandle | None = None
        self._bell: Doorbell | None = None
        self._epoch = 0
        self._readdressed = asyncio.Event()
        self._alarmed: frozenset[str] = frozenset()
        self._closing = False
        self._loop = asyncio.get_running_loop()
        self._url = settings.store_url(config)
        self._make_parts()

    def _make_parts(self) -> None:
        rng, clock = self._rng, self.clock
        self.worker = Worker("replica")
        self.replica = Replica(
            self._url,
            self.config.anchor,
            self.config.cluster,
            clock,
            self._publish_soon,
            self.config.partitions,
        )
        self.changed = Changed()
        self._asked: set[str] = set()  # peers whose heads are on their way
        self.sync_server = SyncServer(self.replica, self.worker, self.changed, self._ask_again)
        self.sync_clients: dict[str, SyncClient] = {}
        self.sync_client = self._follow(AUTHORITY_LOG)
        self.promoter = discovery.Promoter(rng, clock(), spread_s=self.config.probe_jitter_s)
        self.peers = Peers(
            peering.Peering(self.node_id, rng),
            clock,
            self._peer_up,
            self._peer_down,
            self._is_barred,
        )
        self.gossip = GossipService(self.node_id, rng, self.replica, self.worker, clock, self._judged)
        self.routes = RouteNews(
            self.node_id, self.peers.sessions, lambda peer: self.gossip.handle(gossip.Repair(peer))
        )
        self.forwarder = Forwarder(self.replica, self.worker, self._hand_in, clock, rng)
        self.desk = Desk(
            Parts(
                self.replica,
                self.worker,
                self.gossip,
                self.peers,
                self.forwarder,
                self.promote,
                lambda: self.snapshot,
            ),
            rng,
        )
        self.reach = Reach(self.node_id, self.peers, lambda: self.snapshot, clock)
        self.echo = echoing.EchoService()
        self.services = {
            name: TcpService(name, *settings.parse_service(name, target)[1:])
            for name, target in self.config.services.items()
        }

    def _follow(self, log: str) -> SyncClient:
        """What follows a log that this node holds, at whoever serves it."""
        if log not in self.sync_clients:
            sources = sync.Sources(self._rng)
            self.sync_clients[log] = SyncClient(
                self.replica,
                self.worker,
                sources,
                self._connect,
                self.clock,
                self.changed,
                self._ask_again,
                log,
            )
        return self.sync_clients[log]

    # -- life ------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Open the store, bind the endpoint, begin to join. Raises FabricError: `bad_config`, `bad_store`,
        `port_taken`, and whatever the socket says."""
        try:
            opened = await self.worker.run(self.replica.open)
            await self._take_keys()
            rule = interfaces.Rule(dict(self.config.listen))
            bound = await self._bind(rule)
        except BaseException:
            await self._close_threads()
            raise
        self.follower = Follower(self.endpoint, rule, bound, self._readdressed.set)
        self.peers.endpoint = self.endpoint
        self.endpoint.resuming.ways = self.reach.ways
        self.endpoint.on_route_told = self.routes.heard
        self.endpoint.relaying.on_missing = lambda node_id: self.peers.handle(peering.Need(node_id))
        self.publish(opened)
        self.desk.restored(await self.worker.run(self.replica.unlogged))
        await self._look_at_outbox()
        self._watch_store()
        for seed in self.config.seeds:
            self.peers.handle(peering.Learn(seed.node_id, (seed.address,), seed=True))
        self.pressure = PressureWatch(self.endpoint, self.clock)
        self._spawn(self.forwarder.run())
        self._every(limits.PRESSURE_PERIOD_S, self._look_at_load)
        self._every(limits.EXPIRY_CHECK_S, self._expire)
        self._every(limits.STORE_RECHECK_S, self._look_at_store)
        self._every(limits.HEADS_COMPARE_S, self._compare_with_one)
        self._spawn(self._publish_candidates())
        _log.info("node %s of %s listens at %s", self.node_id, self.config.cluster, self.address)

    async def close(self) -> None:
        """Say GOAWAY, end what runs, close sessions and store."""
        self._closing = True
        self.follower.close()
        self.endpoint.drain()
        for timer in self._timers:
            timer.cancel()
        if self._promoter_timer is not None:
            self._promoter_timer.cancel()
        if self._bell is not None:
            asyncio.get_running_loop().remove_reader(self._bell.fileno())
            self._bell.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.peers.close()
        for client in self.sync_clients.values():
            await client.close()
        await self.gossip.close()
        await self.endpoint.aclose("done")  # for good: nobody shall wait for these streams to go on
        await self._close_threads()

    async def _close_threads(self) -> None:
        if self.sequencing is not None:
            await self.sequencing.close()
        with contextlib.suppress(AttributeError):  # the store was never opened
            await self.worker.run(self.replica.close)
        await self.worker.close()

    @property
    def address(self) -> str:
        """Where the endpoint is bound, as `quic://host:port`; the first of several."""
        host, port = (self.endpoint.addresses or [self.endpoint.local_address])[0][:2]
        return format_quic_address(str(host), int(port))

    async def _take_keys(self) -> None:
        """Open the witness and sequencer keys; key files cost a derivation each, so on a thread."""
        config = self.config
        if config.witness_key is not None and config.witness_name is not None:
            signer = await self._signer(config.witness_key)
            self.witness = WitnessService(
                self.replica,
                self.worker,
                config.witness_name,
                signer,
                self.clock,
                lambda node_id: any(node_id in one.sequencers for one in self.update.logs),
            )
            self._witness_key_id = key_id_of(signer.public)
        if config.sequencer_key is not None:
            signer = await self._signer(config.sequencer_key)
            sequencers = Sequencers(self.replica.engine, config.anchor, signer)
            self.sequencing = Sequencing(
                self._url,
                sequencers,
                self._ask_witness,
                self._log_moved,
                self.clock,
                settings.https_witnesses(config),
            )
            self.submit_server = SubmitServer(self.sequencing, self.clock)

    async def _signer(self, source: str) -> HeldKey:
        try:
            return await asyncio.to_thread(load_signer, settings.key_source(self.config, source))
        except (UsageError, Refused) as error:
            raise ConfigError(str(error)) from error

    async def _bind(self, rule: interfaces.Rule) -> dict[str, Address]:
        """Bind the first address of the rule that is there; the follower binds the others."""
        wanted = rule.wanted(machine_addresses())
        first = next((host for host, _ in self.config.listen if host in wanted), min(wanted, default=""))
        host = first or self.config.listen_host
        if host == interfaces.EVERY:
            host = "127.0.0.1"  # until the machine has an address
        self.endpoint = await self._endpoint(host, rule.port(host))
        return {host: self.endpoint.local_address}

    async def _endpoint(self, host: str, port: int) -> Endpoint:
        services: dict[str, StreamHandler] = {
            gossip_protocol.SERVICE: self.gossip.serve,
            sync.SERVICE: self.sync_server.serve,
            echoing.SERVICE: self.echo.serve,
            **{name: service.serve for name, service in self.services.items()},
        }
        capabilities = [gossiping.CAPABILITY, logsync.CAPABILITY, *DATA_PLANE]
        if self.witness is not None:
            services[witness_protocol.SERVICE] = self.witness.serve
            capabilities.append(witness_protocol.CAPABILITY + self._witness_key_id)
        if self.sequencing is not None:
            services[submit_protocol.SERVICE] = self.submit_server.serve
            capabilities.append(submit_protocol.CAPABILITY)
        return await Endpoint.bind(
            self.identity,
            self.config.cluster,
            host,
            port,
            engine=self.config.engine,
            carrier=CarrierConfig(qlog_folder=self.config.qlog_folder),
            session=SessionConfig(
                capabilities=tuple(capabilities),
                shards={
                    TrafficClass.INTERACTIVE: self.config.interactive_shards,
                    TrafficClass.BULK: self.config.bulk_shards,
                },
            ),
            services=services,
            authorize=self._authorize,
            lookup_lease=self._lookup_lease,
            on_connection=self.peers.on_connection,
            sessions=SessionPolicy(standing=self._standing),
            suites=self.config.seal_suites,
        )

    # -- who may do what -------------------------------------------------------------------------------------

    def _authorize(self, connection: Connection, opening: OpenStream, initiator: str) -> str | None:
        """A reset reason when `initiator` may not use the service here, or None."""
        del connection
        if self.snapshot.revoked(initiator):
            self.counters["refused_revoked"] += 1
            return "not_approved"
        if self._may_use(opening.service, initiator):
            return None
        self.counters["refused_not_approved"] += 1
        return "not_approved"

    def _may_use(self, service: str, node_id: str) -> bool:
        return service in OPEN_TO_ALL or self.snapshot.approved(node_id, self.clock())

    def _standing(self, node_id: str) -> Standing:
        """What a neighbour is to this node, when sessions have to end that nobody uses."""
        if self.peers.machine.wants(node_id):
            return Standing.WANTED
        return Standing.KNOWN if self.snapshot.approved(node_id, self.clock()) else Standing.STRANGER

    def _lookup_lease(self, route_id: str) -> Lease | None:
        """A lease for the relay, and for streams that end here. Between the ends only a relay may stand."""
        snapshot, now = self.snapshot, self.clock()
        row = snapshot.leases.get(route_id)
        if row is None:
            return None
        at_end = self.node_id in (row.hops[:1] + row.hops[-1:])
        permitted = at_end or snapshot.has_role(self.node_id, RELAY, now)
        return Lease.of(row, stands=snapshot.stands(row), permitted=permitted)

    # -- what the replica learned ----------------------------------------------------------------------------

    def _publish_soon(self, update: Update) -> None:
        """From the replica's thread to the loop; in order, whoever asked for it."""
        with contextlib.suppress(RuntimeError):  # the loop has ended, and everything with it
            self._loop.call_soon_threadsafe(self.publish, update)

    def publish(self, update: Update) -> None:
        """Take over an update: everything that depends on the log or acts ahead of it follows now."""
        if self._closing:
            return
        before, self.update, self.snapshot = self.snapshot, update, update.snapshot
        self._end_what_was_revoked(before)
        self._tell_gossip(update)
        self._tell_promoter(update)
        for record_id in (*update.news.settled, *(one.record_id for one in update.news.logged)):
            self.forwarder.settled(record_id)
        for status in update.logs:
            self._log_is_at(status)
        if before.leases is not self.snapshot.leases:
            self.peers.handle(peering.Keep(self._next_hops()))
        self.routes.changed(before, self.snapshot)
        self._show_epochs()
        self.changed.set(update.version)
        self._watch_alarms()
        if update.news.advanced or update.news.registry:
            self._spawn(self._ring())

    def _log_is_at(self, status: LogStatus) -> None:
        """A log that this node holds, perhaps since just now."""
        if status.log not in self.sync_clients:
            client = self._follow(status.log)
            for connection in self.peers.sessions().values():
                self._offer(client, connection)
        self.sync_clients[status.log].advanced(status.final_size)
        if self.sequencing is not None:
            self.sequencing.advanced(status.final_size, status.log)

    def _offer(self, client: SyncClient, connection: Connection) -> None:
        """A neighbour that serves logs, to the follower of one: whoever writes that log is asked first."""
        if logsync.CAPABILITY not in connection.capabilities:
            return
        status, peer = self.update.status_of(client.log), connection.peer_node_id
        writes = () if status is None else status.sequencers
        sequences = submit_protocol.CAPABILITY in connection.capabilities
        shown = connection.peer_route_epoch if client.log == AUTHORITY_LOG else 0
        client.peer_up(peer, preferred=sequences and (not writes or peer in writes), shown=shown)

    def _end_what_was_revoked(self, before: Snapshot) -> None:
        snapshot, now = self.snapshot, self.clock()
        for connection in self.endpoint.connections():
            if snapshot.revoked(connection.peer_node_id):
                _log.warning("node %s is revoked: its sessions end", connection.peer_node_id[:12])
                self.counters["revoked_sessions"] += 1
                for stream in connection.streams():
                    if not snapshot.revoked(stream.peer_node_id):
                        stream.leave_route("fenced", "a relay is revoked")
                connection.close("revoked")
                self.peers.handle(peering.Forbid(connection.peer_node_id))
        for node_id in sorted(before.ahead.nodes - snapshot.ahead.nodes):
            if not snapshot.revoked(node_id):
                _log.warning("the log refused the revocation of node %s: it may come back", node_id[:12])
                self.counters["revocations_undone"] += 1
                self.peers.handle(peering.Allow(node_id))
        leases = before.leases is not snapshot.leases or before.fences is not snapshot.fences
        roles = before.nodes is not snapshot.nodes or before.certificates is not snapshot.certificates
        if leases or roles or before.ahead is not snapshot.ahead:
            self.endpoint.relaying.recheck()
            for stream in self._streams():
                lease = None if stream.route is None else snapshot.leases.get(stream.route.route_id)
                if lease is not None and not snapshot.stands(lease, now=now):
                    stream.leave_route("fenced", f"route {lease.route_id} has ended")
        for stream in self.endpoint.resuming.held():
            if snapshot.revoked(stream.peer_node_id):
                stream.reset("fenced", "the node at the other end is revoked")

    def _streams(self) -> list[Stream]:
        """Streams that begin or end here and have a carrier."""
        return [one for connection in self.endpoint.connections() for one in connection.streams()]

    def _leave_ending_leases(self) -> None:
        for stream in self._streams():
            if stream.route is not None and self.reach.ending(stream.route):
                self.endpoint.resuming.leave(stream, "fenced", self.endpoint.now())

    def _show_epochs(self) -> None:
        """What new sessions are told: how much of the log this node has, and its newest candidate set."""
        log, config = self.update.log, self.endpoint.session_config
        entries = 0 if log is None else log.final_size
        if (config.route_epoch, config.peer_epoch) != (entries, self._epoch):
            self.endpoint.session_config = dataclasses.replace(
                config, route_epoch=entries, peer_epoch=self._epoch
            )

    def _tell_gossip(self, update: Update) -> None:
        for one in update.news.logged:
            self.gossip.handle(gossip.Logged(one.record_id, one.subject, one.order))
        for record_id, code in update.news.dropped:
            _log.warning("record %s is dropped: %s", record_id[:12], code)
            self.counters[f"dropped_{code}"] += 1
            self.gossip.handle(gossip.Dropped(record_id))
            self.forwarder.settled(record_id)
        if update.news.advanced:
            self.gossip.handle(gossip.HeadAdvanced())
            self.gossip.handle(gossip.Population(max(1, len(update.snapshot.nodes))))

    def _tell_promoter(self, update: Update) -> None:
        for change in update.news.registry:
            if change.after != "candidate":
                self.promote(discovery.Withdrawn(change.record_id))
                if change.after == "active":
                    _log.info("%s is now at record %s", change.subject[0], change.record_id[:12])
                continue
            view = self.snapshot.registry.get(change.subject)
            for record in () if view is None else view.candidates:
                if record.record_id == change.record_id and view is not None:
                    self.promote(as_candidate(record, urgent=view.active is None))

    def _next_hops(self) -> tuple[str, ...]:
        """The neighbours that leases through this node lead to next; kept warm."""
        found: dict[str, None] = {}
        for lease in self.snapshot.leases.values():
            if self.node_id in lease.hops[:-1] and self.snapshot.stands(lease, now=self.clock()):
                found[lease.hops[lease.hops.index(self.node_id) + 1]] = None
                if len(found) >= limits.PEERS_KEPT:
                    break
        return tuple(found)

    # -- probes ----------------------------------------------------------------------------------------------

    def promote(self, event: discovery.Event) -> None:
        """Give the promoter an event and perform what it answers."""
        for effect in self.promoter.handle(self.clock(), event):
            if isinstance(effect, discovery.Probe):
                self._spawn(self._probe(effect))
            else:
                self._spawn(self._verified(effect.record_id))
        if self._promoter_timer is not None:
            self._promoter_timer.cancel()
            self._promoter_timer = None
        at = self.promoter.deadline()
        if at is not None:
            delay = max(0.0, at - self.clock())
            loop = asyncio.get_running_loop()
            self._promoter_timer = loop.call_later(delay, self.promote, discovery.Timer())

    async def _probe(self, effect: discovery.Probe) -> None:
        policy = self.snapshot.policy(PROBE_ALLOW, now=self.clock())
        cidrs = () if policy is None else policy.document.get("cidrs", ())
        allowed = discovery.parse_networks(cidrs if isinstance(cidrs, list | tuple) else ())
        reason = await probe(self.endpoint, effect, allowed)
        endpoint_id = effect.endpoint.endpoint_id
        if reason is None:
            self.promote(discovery.ProbeOk(effect.record_id, endpoint_id))
        else:
            _log.info("probe of %s for %s failed: %s", effect.endpoint.address, effect.service, reason)
            self.promote(discovery.ProbeFailed(effect.record_id, endpoint_id, reason))

    async def _verified(self, record_id: str) -> None:
        await self.worker.run(self.replica.verified, record_id)

    # -- sessions --------------------------------------------------------------------------------------------

    def _peer_up(self, connection: Connection) -> None:
        capabilities = connection.capabilities
        if connection.is_dialer and gossiping.CAPABILITY in capabilities:
            self._spawn(self.gossip.dialed(connection))
        sequences = submit_protocol.CAPABILITY in capabilities
        for client in self.sync_clients.values():
            self._offer(client, connection)
        if connection.is_dialer and logsync.CAPABILITY in capabilities:
            self._spawn(self._compare(connection))
        if sequences:
            self.forwarder.hurry()
        if self.sequencing is not None and any(
            one.startswith(witness_protocol.CAPABILITY) for one in capabilities
        ):
            self.sequencing.wake()
        self._spawn(_measure(connection))

    def _peer_down(self, connection: Connection, last: bool) -> None:
        for client in self.sync_clients.values() if last else ():
            client.peer_down(connection.peer_node_id)

    async def _connect(self, node_id: str) -> Connection | None:
        return self.endpoint.connection_to(node_id)

    # -- heads ----------------------------------------------------------------------------------------------

    async def _compare(self, connection: Connection) -> None:
        """Exchange heads with a peer: two histories are found out where two of their readers meet."""
        self._asked.add(connection.peer_node_id)
        try:
            for client in list(self.sync_clients.values()):
                await client.compare(connection)
        except (FabricError, Refused, TimeoutError) as error:
            self.counters["heads_not_compared"] += 1
            _log.info("no heads exchanged with node %s: %s", connection.peer_node_id[:12], error)
        finally:
            self._asked.discard(connection.peer_node_id)

    def _ask_again(self, node_id: str) -> None:
        """A peer showed less than it did; only what it answers from now on says that it went back."""
        connection = self.endpoint.connection_to(node_id)
        waits = node_id in self._asked
        if connection is not None and not waits and logsync.CAPABILITY in connection.capabilities:
            self._spawn(self._compare(connection))

    async def _compare_with_one(self) -> None:
        known = [c for c in self.peers.sessions().values() if logsync.CAPABILITY in c.capabilities]
        if known:
            await self._compare(self._rng.choice(known))

    def _watch_alarms(self) -> None:
        """Say once that an alarm began, and once that it ended."""
        alarms = self.update.alarms(self.clock())
        found = {one.code if one.log is None else f"{one.code} of {one.log}": one for one in alarms}
        for name, finding in found.items():
            if name not in self._alarmed:
                self.counters[f"alarm_{finding.code}"] += 1
                _log.error("alarm: %s", finding)
        for code in self._alarmed.difference(found):
            _log.warning("alarm over: %s", code)
        self._alarmed = frozenset(found)

    # -- the log's writer ------------------------------------------------------------------------------------

    async def _hand_in(self, data: bytes) -> Result:
        """Give a record to who writes its log: this node, a neighbour, or a node that the term names."""
        if self.sequencing is not None:
            result = await self.sequencing.submit(data)
            if result.code != ELSEWHERE:
                return result
        writers = await self.worker.run(self.replica.writers_of, data)
        around = [c for c in self.peers.sessions().values() if submit_protocol.CAPABILITY in c.capabilities]
        around.sort(key=lambda connection: connection.peer_node_id not in writers)
        failure = FabricError("no_sequencer", "nobody who writes the record's log can be reached")
        for node_id in dict.fromkeys((*(one.peer_node_id for one in around), *writers)):
            try:
                result = await submit(await self.peers.session(node_id), data, until_final=False)
            except FabricError as error:
                failure = error
                continue
            if result.code != ELSEWHERE:
                return result
        raise failure

    async def _ask_witness(self, key_id: str, body: bytes) -> tuple[int, bytes]:
        """An add-checkpoint to the witness with this key. Anyone may claim to be it; approved nodes first."""
        wanted, now = witness_protocol.CAPABILITY + key_id, self.clock()
        found = [c for c in self.peers.sessions().values() if wanted in c.capabilities]
        found.sort(key=lambda c: not self.snapshot.approved(c.peer_node_id, now))
        failure: Exception = FabricError("no_session", "no neighbour runs this witness")
        log, start, leaves = await self.worker.run(leaves_for, self.replica, body)
        for connection in found:
            try:
                return await ask(connection, body, start, leaves, self.replica, self.worker, log)
            except (FabricError, TimeoutError) as error:
                failure = error
        raise failure

    def _log_moved(self) -> None:
        """A head became final in the shared store: fold it."""
        self._spawn(self._refresh())

    async def _refresh(self) -> None:
        await self.worker.run(self.replica.refresh)

    # -- other processes on this store -----------------------------------------------------------------------

    def _watch_store(self) -> None:
        try:
            self._bell = Doorbell(self._url)
        except StatelogError as error:
            _log.info("no doorbell beside the store: %s", error)
            return
        asyncio.get_running_loop().add_reader(self._bell.fileno(), self._on_bell)

    def _on_bell(self) -> None:
        if self._bell is not None and self._bell.drain():
            self._spawn(self._look_at_store())

    async def _look_at_store(self) -> None:
        """Another process may have appended, or put something into the outbox; a ring may have been lost."""
        if self.sequencing is not None:
            self.sequencing.wake()
            await self._refresh()
        await self._look_at_outbox()

    async def _look_at_outbox(self) -> None:
        """What this node may not sequence itself it forwards."""
        await self.forwarder.look("" if self.sequencing is None else self.node_id)

    async def _look_at_load(self) -> None:
        self.pressure.look()

    async def _ring(self) -> None:
        await self.worker.run(ring, self._url)

    def _is_barred(self, node_id: str) -> bool:
        return self.snapshot.revoked(node_id)

    def _judged(self, judgement: Judgement) -> None:
        self.desk.judged(judgement)

    # -- small jobs ------------------------------------------------------------------------------------------

    async def _expire(self) -> None:
        self._watch_alarms()
        self._leave_ending_leases()
        self.endpoint.relaying.recheck()  # a role of ours may have ended by itself
        for stream in self._streams():
            if not (stream.is_initiator or self._may_use(stream.service, stream.peer_node_id)):
                stream.reset("not_approved", "the approval has ended")
        await self.worker.run(self.replica.expired)

    async def _publish_candidates(self) -> None:
        """This node's addresses, signed anew at half their life; at once when they have changed, or when it
        has just been approved.
        """
        while True:
            self._readdressed.clear()
            version = self.changed.version
            addresses = settings.advertised(self.config, self.follower.reachable())
            if addresses and not self.snapshot.approved(self.node_id, self.clock()):
                await self.changed.beyond(version)
                continue
            if addresses:
                data, self._epoch = candidate_set(
                    self.identity,
                    self.config.cluster,
                    [f"{one[0]}:{one[1]}" for one in self.endpoint.addresses],
                    addresses,
                    self.clock(),
                    self._epoch,
                )
                self._show_epochs()
                await self.desk.deliver(data)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(limits.CANDIDATES_VALIDITY_S / 2):  # renewed at half its life
                    await self._readdressed.wait()

    def _every(self, seconds: float, job: Callable[[], Coroutine[Any, Any, None]]) -> None:
        async def repeat() -> None:
            while True:
                await asyncio.sleep(seconds)  # a period is what the caller asks for
                await job()

        self._spawn(repeat())

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.counters["failed_tasks"] += 1
            _log.error("a task of the node failed", exc_info=error)


async def _measure(connection: Connection) -> None:
    with contextlib.suppress(FabricError):
        await connection.ping()
