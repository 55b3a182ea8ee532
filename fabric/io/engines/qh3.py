"""The fast carrier: qh3's `QuicConnection`, whose packet core is native code."""

# ruff: noqa: SLF001 - a carrier is made of its library's state; versions are pinned, the contract suite guards it

from __future__ import annotations

import base64
import contextlib
import ssl
from collections import deque
from functools import partial
from operator import itemgetter
from typing import Any, cast

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from qh3.quic import events as quic_events
from qh3.quic.configuration import QuicConfiguration
from qh3.quic.connection import QuicConnection, QuicConnectionError, QuicConnectionState
from qh3.quic.logger import QuicLoggerTrace
from qh3.quic.packet import QuicErrorCode, QuicProtocolVersion
from qh3.tls import SignatureAlgorithm

from fabric import limits
from fabric.errors import CloseNumber
from fabric.identity import NodeIdentity
from fabric.io.engines import (
    Address,
    Carrier,
    CarrierConfig,
    CarrierError,
    CarrierEvent,
    CarrierStats,
    DatagramBytes,
    EngineName,
    LaneBytes,
)
from fabric.io.engines.base import BaseCarrier, too_many_pending
from fabric.io.engines.packets import CID_BYTES
from fabric.io.engines.qlog import QlogFolder

_DATA_AND_ADDRESS = itemgetter(0, 1)
_ACK_DELAY_EXPONENT, _MAX_ACK_DELAY_S = 3, 0.025
"""What a peer that does not say has: RFC 9000 section 18.2."""


class Qh3Engine:
    """Makes carriers over qh3."""

    name: EngineName = "qh3"

    def __init__(self, identity: NodeIdentity, config: CarrierConfig) -> None:
        self._config = config
        folder = config.qlog_folder
        self._qlog = None if folder is None else QlogFolder(folder, QuicLoggerTrace)
        self._dialer = self._configuration(is_client=True)
        # The library parses certificates and keys from PEM alone; once is enough.
        self._listener = self._configuration(is_client=False)
        body = base64.encodebytes(identity.certificate_der)
        key = Ed25519PrivateKey.from_private_bytes(identity.seed)
        self._listener.load_cert_chain(
            b"-----BEGIN CERTIFICATE-----\n" + body + b"-----END CERTIFICATE-----\n",
            key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        )

    def dial(self, addr: Address, now: float) -> Carrier:
        """Start a connection to `addr`."""
        quic = _Connection(configuration=self._dialer)
        quic.connect(addr, now=now)
        return Qh3Carrier(quic, self._config, addr)

    def accept(
        self, *, original_destination_cid: bytes, retry_source_cid: bytes | None, addr: Address, now: float
    ) -> Carrier:
        """A carrier for an Initial packet; see `fabric.io.engines.Engine`."""
        del now
        quic = _Connection(
            configuration=self._listener,
            original_destination_connection_id=original_destination_cid,
            retry_source_connection_id=retry_source_cid,
        )
        return Qh3Carrier(quic, self._config, addr)

    def _configuration(self, *, is_client: bool) -> QuicConfiguration:
        config = self._config
        made = QuicConfiguration(
            is_client=is_client,
            alpn_protocols=list(config.alpn),
            connection_id_length=CID_BYTES,
            idle_timeout=config.idle_timeout_s,
            max_data=config.connection_window_bytes,
            max_stream_data=config.lane_window_bytes,
            max_datagram_size=config.max_datagram_bytes,
            # The core searches by itself, on the dialer alone, up to what Ethernet carries.
            probe_datagram_size=config.probe_datagram_bytes > config.max_datagram_bytes,
            max_datagram_frame_size=limits.CARRIER_DATAGRAM_FRAME_BYTES,
            initial_rtt=limits.CARRIER_INITIAL_RTT_S,
            supported_versions=[QuicProtocolVersion.VERSION_1],
        )
        if self._qlog is not None:
            made.quic_logger = cast("Any", self._qlog)
        if is_client:
            # The certificate is checked by pin and node id above; CertificateVerify is checked regardless.
            made.verify_mode = ssl.CERT_NONE
            # Node certificates are Ed25519, which the library does not offer by itself.
            made.signature_algorithms = [SignatureAlgorithm.ED25519]
        return made


class _Connection(QuicConnection):
    """qh3's connection, handing over lane bytes in one piece per batch instead of one event per packet."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.lane_parts: dict[int, list[bytes]] = {}
        self.lane_ends: set[int] = set()
        self.datagrams: list[bytes] = []

    def receive_batch(self, datagrams: list[bytes], addr: Address, now: float) -> None:
        """`receive_many_datagrams` without a look at each datagram for a log nobody asked for."""
        if not self._handshake_complete or self._core is None or self._quic_logger is not None:
            self.receive_many_datagrams(datagrams, addr, now)
            return
        self._core.receive_many_datagrams(datagrams, addr, now)
        self._drain_core()

    def _drain_core(self) -> None:
        core: Any = self._core
        next_event = core.next_event
        while (native := next_event()) is not None:
            kind = native[0]
            if kind == "stream_data":
                _, quic_stream_id, data, fin = native
                parts = self.lane_parts.get(quic_stream_id)
                if parts is None:
                    self.lane_parts[quic_stream_id] = [data]
                else:
                    parts.append(data)
                if fin:
                    self.lane_ends.add(quic_stream_id)
            elif kind == "datagram":
                self.datagrams.append(native[1])
            else:
                # Everything rare stays the library's business: it sees a core with this one event waiting.
                self._core = cast("Any", _Replay(core, native))
                try:
                    super()._drain_core()
                finally:
                    self._core = core


class _Replay:
    """The native core with one event, already taken from it, put back."""

    def __init__(self, core: Any, event: Any) -> None:
        self._wrapped = core
        self._event = event

    def next_event(self) -> Any:
        event, self._event = self._event, None
        return event

    def __getattr__(self, name: str) -> Any:
        return getattr(self._wrapped, name)


class _LargeLosses:
    """How often packets over a size were lost since one was acknowledged, out of what the core tells: which
    packets are under way, and how many were lost in all.
    """

    def __init__(self, base: int) -> None:
        self._base = base
        self._sent = self._gone = self._lost = self._count = 0

    def sent(self, datagrams: list[tuple[bytes, Address]]) -> None:
        """These leave now."""
        self._sent += sum(len(data) > self._base for data, _ in datagrams)

    def look(self, core: Any) -> int:
        """The count now."""
        lost, timeouts = core.loss_total - self._lost, core.pto_count
        if not lost and timeouts < limits.PATH_MTU_LOSSES:
            return self._count
        under_way = sum(size > self._base for _, size, _ in core.outstanding_application_packets)
        if lost:
            gone = self._sent - under_way - self._gone
            self._gone, self._lost = self._gone + gone, self._lost + lost
            # More than were lost are no longer under way: some of them got through.
            self._count = (1 if gone > lost else self._count + 1) if gone else self._count
        return max(self._count, timeouts if under_way else 0)


class Qh3Carrier(BaseCarrier):
    """One qh3 connection behind the carrier port."""

    _quic: _Connection

    def __init__(self, quic: _Connection, config: CarrierConfig, addr: Address) -> None:
        super().__init__(quic, config, addr)
        self._datagrams: deque[bytes] = deque()
        """DATAGRAM frames that wait for the congestion window: the core would send them regardless, and no
        lane would get anything until they were acknowledged.
        """
        self._close_after_finished = False
        self._losses = _LargeLosses(config.max_datagram_bytes)
        self._paths: set[Address] = {addr}
        """Where datagrams came from that the core took."""
        self._unfollowed: Address | None = None

    @property
    def remote(self) -> Address:
        core = self._quic._core
        return self._addr if core is None else core.active_path[2]

    @property
    def done(self) -> bool:
        return self._quic._state is QuicConnectionState.TERMINATED

    def receive(self, datagrams: list[bytes], addr: Address, now: float) -> None:
        if addr in self._paths or self.is_dialer or not self._quic._handshake_complete:
            self._take(datagrams, addr, now)
        else:
            self._follow(datagrams, addr, now)

    def _follow(self, datagrams: list[bytes], addr: Address, now: float) -> None:
        """The peer may have moved. The core has room for three addresses after the first and drops what comes
        from any other unread: then the peer would speak to nobody until it gives up. So it is told to dial
        again. Whether a datagram is the peer's at all, only the core can say, once it comes from elsewhere.
        """
        before = self._heard()
        self._take(datagrams, addr, now)
        if self._heard() != before:
            self._paths.add(addr)
            return
        self._take(datagrams, self.remote, now)
        if self._heard() != before and self._quic._close_event is None:
            self._unfollowed = addr
            self.close(CloseNumber.TIMEOUT, "carrier_lost")

    def _heard(self) -> tuple[object, ...]:
        """What changes when the core takes a packet for the peer's: its own timers and counts, or ours."""
        quic = self._quic
        core = cast("Any", quic._core)
        lanes = sum(map(len, quic.lane_parts.values()))
        timer = core.get_timer()
        return (
            timer if timer is not None and timer[0] != "idle" else None,  # that one starts anew for anything
            core.bytes_in_flight,
            core.latest_rtt,
            len(quic._events),
            lanes,
            len(quic.datagrams),
        )

    def _take(self, datagrams: list[bytes], addr: Address, now: float) -> None:
        try:
            self._quic.receive_batch(datagrams, addr, now)
        except (RuntimeError, QuicConnectionError) as error:
            # The core's verdict on a packet that breaks the protocol.
            self._quic.close(error_code=QuicErrorCode.INTERNAL_ERROR, frame_type=0, reason_phrase=str(error))

    def datagrams_to_send(self, now: float) -> list[tuple[bytes, Address]]:
        datagrams: list[tuple[bytes, Address]] = []
        core = self._quic._core
        if core is None:
            return datagrams
        room = core.congestion_window - core.bytes_in_flight
        while self._datagrams and room > 0 and self._quic._close_event is None:
            room -= len(self._datagrams[0])
            self._quic.send_datagram_frame(self._datagrams.popleft())
        self._poll(datagrams, now)
        if self._close_after_finished:
            self._close_after_finished = False
            event = self._quic._close_event
            if event is not None:
                core.close(event.error_code, None, event.reason_phrase.encode())
                self._poll(datagrams, now)
        if self._unfollowed is not None:
            datagrams += [(data, self._unfollowed) for data, _ in datagrams]
            self._unfollowed = None
        self._sealed(len(datagrams))
        if core.active_path[5] > self._config.max_datagram_bytes:
            self._losses.sent(datagrams)
        return datagrams

    def _poll(self, datagrams: list[tuple[bytes, Address]], now: float) -> None:
        poll = cast("Any", self._quic._core).poll_transmit
        try:
            # No bytecode for each of many; what was gathered stays when it fails.
            datagrams.extend(map(_DATA_AND_ADDRESS, iter(partial(poll, now), None)))
        except RuntimeError as error:
            # The core fails to build a packet when what it may send to an unproved address is almost used
            # up. It goes on once more has come from there; the library's own loop loses what it gathered.
            if "capacity exhausted" not in str(error):
                raise

    def moved(self) -> None:
        # Without an id left the library raises; the peer sees the new address under the old one then.
        with contextlib.suppress(ValueError):
            super().moved()

    def close(self, code: int, reason: str) -> None:
        quic = self._quic
        if not self.is_dialer or not quic._handshake_complete or quic._handshake_confirmed:
            super().close(code, reason)
        elif quic._close_event is None:
            # The core would drop the pending Finished and close in a packet that the listener has no key for
            # yet, leaving it half open. So the Finished goes out first (it carries nothing of ours).
            quic._close_event = quic_events.ConnectionTerminated(code, None, reason)
            self._close_after_finished = True
            self._end_trace()

    def handle_timer(self, now: float) -> None:
        self._quic.handle_timer(now)

    def events(self) -> list[CarrierEvent]:
        found: list[CarrierEvent] = []
        quic = self._quic
        while (event := quic.next_event()) is not None:
            if (translated := self._translate(event)) is not None:
                found.append(translated)
        if quic.datagrams:
            found += [DatagramBytes(data) for data in quic.datagrams]
            quic.datagrams.clear()
        if quic.lane_parts:
            for quic_stream_id, parts in quic.lane_parts.items():
                data = parts[0] if len(parts) == 1 else b"".join(parts)
                found.append(LaneBytes(quic_stream_id, data, quic_stream_id in quic.lane_ends))
            quic.lane_parts.clear()
            quic.lane_ends.clear()
        return found + self._end() if quic._close_event is not None else found

    def open_lane(self) -> int:
        self._require_open()
        return int(self._quic._open_stream(is_unidirectional=True))

    def send(self, quic_stream_id: int, data: bytes | memoryview, fin: bool = False) -> None:
        self._require_open()
        self._quic.send_stream_data(quic_stream_id, data, fin)

    def reset_lane(self, quic_stream_id: int, error_code: int) -> None:
        self._require_open()
        self._quic.reset_stream(quic_stream_id, error_code)

    def unsent(self, quic_stream_id: int | None = None) -> int:
        return int(self._quic.get_send_buffer_size(quic_stream_id))

    def in_flight(self) -> int:
        core = self._quic._core
        return 0 if core is None else core.bytes_in_flight

    def round_trip(self) -> float | None:
        core = self._quic._core
        return None if core is None else core.latest_rtt

    def datagram_bytes(self) -> int:
        core = self._quic._core
        return self._config.max_datagram_bytes if core is None else core.active_path[5]

    def probe_ceiling(self) -> int:
        return self._config.max_datagram_bytes

    def probe(self, number: int, size: int) -> None:
        raise CarrierError("no_probe", f"probe {number} of {size} bytes: qh3 searches by itself")

    def use_datagram_bytes(self, size: int) -> None:
        # The core knows one way to send less: that the peer takes no more. It never grows again after that.
        quic = self._quic
        parameters: Any = quic._applied_transport_parameters
        if quic._core is None or parameters is None or size >= self.datagram_bytes():
            return
        quic._core.apply_peer_transport_parameters(
            parameters.initial_max_data or 0,
            parameters.initial_max_stream_data_bidi_local or 0,
            parameters.initial_max_stream_data_bidi_remote or 0,
            parameters.initial_max_stream_data_uni or 0,
            parameters.initial_max_streams_bidi or 0,
            parameters.initial_max_streams_uni or 0,
            _ACK_DELAY_EXPONENT if parameters.ack_delay_exponent is None else parameters.ack_delay_exponent,
            _MAX_ACK_DELAY_S if parameters.max_ack_delay is None else parameters.max_ack_delay / 1000,
            parameters.max_idle_timeout / 1000 if parameters.max_idle_timeout else None,
            parameters.max_datagram_frame_size,
            None,
            parameters.active_connection_id_limit or 2,
            bool(parameters.disable_active_migration),
            size,
        )

    def losses_in_a_row(self) -> int:
        core = self._quic._core
        return 0 if core is None else self._losses.look(core)

    def _datagram_frame_bytes(self) -> int:
        # The core keeps a frame that waits as it is: one made for a larger size would block it after a fall.
        return self._config.max_datagram_bytes

    def send_datagram(self, data: bytes) -> None:
        self._check_datagram(data)
        if too_many_pending(len(self._datagrams)):
            self._datagrams.popleft()
            self.datagrams_dropped += 1
        self._datagrams.append(data)

    def stats(self) -> CarrierStats:
        core = cast("Any", self._quic._core)
        if core is None:
            return CarrierStats()
        return CarrierStats(
            core.congestion_window,
            core.bytes_in_flight,
            core.smoothed_rtt,
            packets_lost=core.loss_total,
            probe_timeouts=core.pto_total,
        )

    def _update_keys(self) -> bool:
        try:
            return super()._update_keys()
        except ValueError:
            return False

    def _peer_certificate(self) -> bytes | None:
        certificate = self._quic.get_peercert()
        return None if certificate is None else bytes(certificate.public_bytes())
