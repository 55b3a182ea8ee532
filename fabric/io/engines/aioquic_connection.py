"""aioquic's `QuicConnection` with bounded receive windows, and a short way for the packets that carry bulk.

Nearly every packet of a transfer is one STREAM frame of a lane in a short-header packet. The library builds
and reads each through machinery that serves every kind of packet; `_write_lanes` and `_receive_lane_packet`
do the same for this one kind alone. Whatever is not exactly that kind (handshake, acknowledgements, limits,
key updates, new paths, ends of streams) they leave to the library, whose state they keep as it would.
Sources: RFC 9000 sections 17.3.1 and 19.8, RFC 9001 section 5; the library is pinned by the lock file.
"""

# ruff: noqa: SLF001 - a connection is made of its library's state; the contract suite guards it

from __future__ import annotations

import math
from functools import partial
from typing import Any, cast

from aioquic.quic.congestion.base import create_congestion_control
from aioquic.quic.connection import QuicConnection, QuicConnectionState
from aioquic.quic.events import StreamDataReceived
from aioquic.quic.packet import PACKET_FIXED_BIT, QuicPacketType, decode_packet_number, get_spin_bit
from aioquic.quic.packet_builder import PACKET_NUMBER_SEND_SIZE, QuicDeliveryState, QuicSentPacket
from aioquic.quic.recovery import MAX_ACK_RANGES, QuicPacketPacer
from aioquic.tls import Epoch
from cryptography.exceptions import InvalidTag

from fabric import limits
from fabric.io.engines import Address
from fabric.io.engines.aioquic_mtu import ANY_SIZE, Congestion, peer_limit, probe
from fabric.io.engines.packets import (
    CID_BYTES,
    datagram_frame_room,
    parse_stream_frame,
    stream_frame_head,
)

_PACKET_OVERHEAD = 1 + PACKET_NUMBER_SEND_SIZE + 2 + 16
"""Of a packet with one STREAM frame: first byte, packet number, length of the data, tag of the AEAD."""
_SAMPLE_AFTER, _SAMPLE_BYTES = 4, 16
"""RFC 9001 section 5.4.2: the sample is taken as if every packet number had four bytes."""
_SAMPLE = slice(
    _SAMPLE_AFTER - PACKET_NUMBER_SEND_SIZE, _SAMPLE_AFTER - PACKET_NUMBER_SEND_SIZE + _SAMPLE_BYTES
)
_TWO_BYTES = 0x4000  # of a variable-length integer, RFC 9000 section 16
_FORM_MASK, _SHORT = 0xC0, 0x40
_PHASE_AND_RESERVED = 0x1C
_PROTECTED = 0x1F


class AioquicConnection(QuicConnection):
    """aioquic's connection, with its windows and its pace as `fabric.limits` wants them.

    Windows: the library doubles a limit whenever half of it was *reached*: a few one-byte frames with holes
    before them open hundreds of megabytes. Here a limit is what was delivered plus the window. The base class
    only doubles when the used share is over half, so it is shown none while it writes the frames.
    """

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._connection_window = self._local_max_data.value
        self._low_window = self._connection_window * 3 // 4
        self._lane_window = self._local_max_stream_data_uni
        self._path_host = ""
        self._probe: tuple[int, int] | None = None
        self.peer_datagram_bytes = ANY_SIZE
        self.probed: list[tuple[int, bool]] = []
        """Probes that were acknowledged or lost, by number, until somebody takes them."""
        self.packets_lost = 0
        self.packets_resent = 0
        self.probe_timeouts = 0
        self._count_losses()
        self._pacer = _Pacer(max_datagram_size=self._max_datagram_size)
        self._loss._pacer = self._pacer

    def _count_losses(self) -> None:
        """The library's recovery tells its congestion control what was lost, and nobody how much."""
        recovery: Any = self._loss
        lost, expired = recovery._on_packets_lost, recovery.on_loss_detection_timeout

        def count_lost(*, packets: Any, congestion_event: bool = True, **others: Any) -> None:
            gone = list(packets)
            self.packets_resent += len(gone)
            self.packets_lost += len(gone) if congestion_event else 0
            lost(packets=gone, congestion_event=congestion_event, **others)

        def count_timeout(**arguments: Any) -> None:
            before = recovery._pto_count
            expired(**arguments)
            self.probe_timeouts += recovery._pto_count > before

        recovery._on_packets_lost, recovery.on_loss_detection_timeout = count_lost, count_timeout

    # -- in --------------------------------------------------------------------------------------------

    def receive_datagrams(self, datagrams: list[bytes], addr: Address, now: float) -> None:
        """`receive_datagram` for each, and the short way for those that it suits."""
        settled = self._is_settled(addr)
        for data in datagrams:
            if not (settled and self._receive_lane_packet(data, now)):
                self.receive_datagram(data, addr, now)
                self._follow_path()
                settled = self._is_settled(addr)

    def _is_settled(self, addr: Address) -> bool:
        """Whether a packet from `addr` finds the connection past everything rare."""
        return (
            self._handshake_confirmed
            and self._state is QuicConnectionState.CONNECTED
            and not self._close_pending
            and self._network_paths[0].addr == addr
            and self._network_paths[0].is_validated
            and _masks_by_block(self._cryptos[Epoch.ONE_RTT].recv)
            and self._quic_logger is None
        )

    def _receive_lane_packet(self, data: bytes, now: float) -> bool:
        """Take a packet that has the next bytes of one lane; False, and nothing changed, for any other."""
        crypto: Any = self._cryptos[Epoch.ONE_RTT].recv
        cid = self.host_cid
        number_at = 1 + CID_BYTES
        sample = data[number_at + _SAMPLE_AFTER : number_at + _SAMPLE_AFTER + _SAMPLE_BYTES]
        if len(sample) < _SAMPLE_BYTES or data[0] & _FORM_MASK != _SHORT or data[1:number_at] != cid:
            return False
        mask = crypto.hp._encryptor.update(sample)
        first = data[0] ^ (mask[0] & _PROTECTED)
        if first & _PHASE_AND_RESERVED != crypto.key_phase << 2:
            return False
        payload_at = number_at + (first & 3) + 1
        number_bytes = payload_at - number_at
        truncated = int.from_bytes(data[number_at:payload_at]) ^ int.from_bytes(mask[1 : 1 + number_bytes])
        space = self._spaces[Epoch.ONE_RTT]
        number = decode_packet_number(truncated, 8 * number_bytes, space.expected_packet_number)
        aead, header = crypto.aead, bytes((first,)) + cid + truncated.to_bytes(number_bytes)
        try:
            payload = aead._aead.decrypt(aead._nonce(number), data[payload_at:], header)
        except InvalidTag:
            return False
        if number in space.received_packets or not self._take_lane_bytes(payload):
            return False
        if number >= space.expected_packet_number:
            space.expected_packet_number = number + 1
        if number > self._spin_highest_pn:
            self._spin_bit = get_spin_bit(first) != self._is_client
            self._spin_highest_pn = number
        if number > space.largest_received_packet:
            space.largest_received_packet, space.largest_received_time = number, now
        space.ack_queue.add(number)
        space.received_packets.add(number)
        if len(space.ack_queue) > MAX_ACK_RANGES:
            space.ack_queue.shift()
        if space.ack_at is None:
            space.ack_at = now + self._ack_delay
        self._close_at = now + self._idle_timeout()
        self._ack_eliciting_sent_since_receipt = False
        return True

    def _take_lane_bytes(self, payload: bytes) -> bool:
        """Deliver a payload that is one STREAM frame, expected next and within every limit."""
        frame = parse_stream_frame(payload)
        if frame is None or frame.fin:
            return False
        stream = self._streams.get(frame.stream_id)
        size = len(payload) - frame.data_at
        if stream is None or not size:
            return False
        receiver, end = stream.receiver, frame.offset + size
        if receiver.is_finished or receiver._final_size is not None or receiver._buffer:
            return False
        if frame.offset != receiver._buffer_start or end > stream.max_stream_data_local:
            return False
        newly = end - receiver.highest_offset
        if newly < 0 or self._local_max_data.used + newly > self._local_max_data.value:
            return False
        receiver._buffer_start = receiver.highest_offset = end
        self._local_max_data.used += newly
        self._events.append(
            StreamDataReceived(data=payload[frame.data_at :], end_stream=False, stream_id=frame.stream_id)
        )
        return True

    def _follow_path(self) -> None:
        """What was learned of one path says nothing about another: once a peer proved a new host address,
        congestion state and round trip start anew (RFC 9000 section 9.4). The library keeps the old ones.
        """
        if not self._network_paths or not self._network_paths[0].is_validated:
            return
        host, before = str(self._network_paths[0].addr[0]), self._path_host
        self._path_host = host
        if not before or host == before:
            return
        loss, size = self._loss, self._configuration.max_datagram_size
        fresh = create_congestion_control(
            self._configuration.congestion_control_algorithm, max_datagram_size=size
        )
        fresh.bytes_in_flight = loss._cc.bytes_in_flight
        loss._cc = fresh
        loss._pacer = self._pacer = _Pacer(max_datagram_size=size)
        loss._rtt_initialized, loss._rtt_latest, loss._rtt_min = False, 0.0, math.inf
        loss._rtt_smoothed = loss._rtt_variance = 0.0

    # -- out -------------------------------------------------------------------------------------------

    def datagrams_to_send(self, now: float) -> list[tuple[bytes, Address]]:
        datagrams: list[tuple[bytes, Address]] = super().datagrams_to_send(now)
        if self._probe is not None and self._may_probe():
            number, size = self._probe
            self._probe = None
            datagrams += probe(self, size, now, partial(self._on_probe_delivery, number))
        return datagrams

    def probe(self, number: int, size: int) -> None:
        """Send a padded packet with the next datagrams, as soon as the path is proved."""
        self._probe = number, size

    def _may_probe(self) -> bool:
        return (
            self._handshake_confirmed
            and self._state is QuicConnectionState.CONNECTED
            and not self._close_pending
            and self._network_paths[0].is_validated
        )

    def _on_probe_delivery(self, number: int, delivery: QuicDeliveryState) -> None:
        self.probed.append((number, delivery is QuicDeliveryState.ACKED))

    def losses_in_a_row(self) -> int:
        """How often packets over the first size were lost since one was last acknowledged."""
        return self._congestion().losses_in_a_row

    def _congestion(self) -> Congestion:
        return cast("Congestion", self._loss._cc)  # by our configuration

    def resize(self, size: int) -> None:
        """Send datagrams of at most `size` bytes. A waiting DATAGRAM frame that no longer fits is lost: it
        would hold up the queue.
        """
        self._max_datagram_size = self._pacer._max_datagram_size = size
        self._congestion().resize(size)
        kept = [data for data in self._datagrams_pending if len(data) <= datagram_frame_room(size)]
        self._datagrams_pending.clear()
        self._datagrams_pending.extend(kept)

    def _parse_transport_parameters(self, data: bytes, from_session_ticket: bool = False) -> None:
        super()._parse_transport_parameters(data, from_session_ticket)
        self.peer_datagram_bytes = peer_limit(data)

    def _write_application(self, builder: Any, network_path: Any, now: float) -> None:
        if (
            self._handshake_confirmed
            and network_path.is_validated
            and not self._probe_pending
            and not self._cryptos[Epoch.ONE_RTT]._update_key_requested
            and _masks_by_block(self._cryptos[Epoch.ONE_RTT].send)
            and self._quic_logger is None
        ):
            self._write_lanes(builder, now)
        super()._write_application(builder, network_path, now)

    def _write_lanes(self, builder: Any, now: float) -> None:
        """Packets full of one lane's bytes, as many as may go but one: the last is the library's, which has
        acknowledgements, limits and the ends of things to say in it.
        """
        allowed = min(builder.max_flight_bytes // self._max_datagram_size, self._pacer.allowance(now)) - 1
        waiting = [(stream, count) for stream in self._streams_queue if (count := self._full_frames(stream))]
        served = set()
        for index, (stream, count) in enumerate(waiting):
            if allowed <= 0:
                break
            share = min(count, -(-allowed // (len(waiting) - index)))
            self._write_lane(builder, stream, share)
            self._pacer.spend(share)
            allowed -= share
            served.add(stream)
        if served:
            # Like the library: who was served goes to the end.
            waiting_on = [stream for stream in self._streams_queue if stream not in served]
            self._streams_queue = waiting_on + [stream for stream, _ in waiting if stream in served]

    def _full_frames(self, stream: Any) -> int:
        """How many packets the lane can fill with bytes that may be sent, the last of a stream left out."""
        sender = stream.sender
        if sender.buffer_is_empty or stream.is_blocked or not len(sender._pending):
            return 0
        if sender._reset_error_code is not None or stream.receiver.stop_pending:
            return 0
        credit = self._remote_max_data - self._remote_max_data_used
        pending = sender._pending[0]
        stop = min(pending.stop, sender.highest_offset + credit, stream.max_stream_data_remote)
        if stop == sender._buffer_fin:
            stop -= 1
        head = len(stream_frame_head(stream.stream_id, max(stop, 0)))
        room = self._max_datagram_size - len(self._peer_cid.cid) - head - _PACKET_OVERHEAD
        return max(0, int(stop - pending.start) // room)

    def _write_lane(self, builder: Any, stream: Any, count: int) -> None:
        """`count` packets with the lane's next bytes; their headers are protected in one go."""
        pair: Any = self._cryptos[Epoch.ONE_RTT]
        cid, sender = self._peer_cid.cid, stream.sender
        aead, number, size = pair.send.aead, builder.packet_number, self._max_datagram_size
        first = PACKET_FIXED_BIT | self._spin_bit << 5 | pair.key_phase << 2 | PACKET_NUMBER_SEND_SIZE - 1
        prefix = bytes((first,)) + cid
        start = offset = sender._pending[0].start
        sealed = []
        with memoryview(sender._buffer) as buffer:
            for index in range(number, number + count):
                head = stream_frame_head(stream.stream_id, offset)
                end = offset + size - len(cid) - len(head) - _PACKET_OVERHEAD
                data = buffer[offset - sender._buffer_start : end - sender._buffer_start]
                payload = b"".join((head, (len(data) | _TWO_BYTES).to_bytes(2), data))
                header = prefix + (index & 0xFFFF).to_bytes(2)
                sealed.append(aead._aead.encrypt(aead._nonce(index), payload, header))
                builder._packets.append(
                    _sent_packet(index, size, (sender.on_data_delivery, (offset, end, False)))
                )
                offset = end
        masks = pair.send.hp._encryptor.update(b"".join([part[_SAMPLE] for part in sealed]))
        for index, part in enumerate(sealed):
            mask = masks[index * _SAMPLE_BYTES :][: 1 + PACKET_NUMBER_SEND_SIZE]
            hidden = (number + index & 0xFFFF) ^ int.from_bytes(mask[1:])
            header = bytes((first ^ mask[0] & _PROTECTED,)) + cid + hidden.to_bytes(2)
            builder._datagrams.append(header + part)
        builder._packet_number += count
        builder._flight_bytes += count * size
        builder._total_bytes += count * size
        sender._pending.subtract(start, offset)
        self._remote_max_data_used += max(0, offset - sender.highest_offset)
        sender.highest_offset = max(sender.highest_offset, offset)

    # -- windows ---------------------------------------------------------------------------------------

    def _write_connection_limits(self, builder: Any, space: Any) -> None:
        # Called for every packet that is built: nearly always there is nothing to say.
        limit = self._local_max_data
        used = limit.used
        low = limit.value - used < self._low_window
        if not (
            low
            or limit.value != limit.sent
            or self._local_max_streams_uni.value != self._local_max_streams_uni.sent
            or self._local_max_streams_bidi.value != self._local_max_streams_bidi.sent
        ):
            return
        if low:
            held = sum(
                stream.receiver.highest_offset - stream.receiver.starting_offset()
                for stream in self._streams.values()
                if not stream.receiver.is_finished
            )
            limit.value = max(limit.value, used - held + self._connection_window)
        limit.used = 0
        try:
            super()._write_connection_limits(builder=builder, space=space)
        finally:
            limit.used = used

    def _write_stream_limits(self, builder: Any, space: Any, stream: Any) -> None:
        current = stream.max_stream_data_local
        if not current:
            return
        receiver = stream.receiver
        wanted = receiver.starting_offset() + self._lane_window
        if wanted - current >= self._lane_window // 4:
            stream.max_stream_data_local = wanted
        elif stream.max_stream_data_local_sent == current:
            return
        highest = receiver.highest_offset
        receiver.highest_offset = 0
        try:
            super()._write_stream_limits(builder=builder, space=space, stream=stream)
        finally:
            receiver.highest_offset = highest


class _Pacer(QuicPacketPacer):
    """The library's pacer, with bursts that last as long as the event loop may oversleep.

    It lets 16 packets go at once; an event loop that wakes up a millisecond late would never catch up.
    """

    def update_rate(self, congestion_window: int, smoothed_rtt: float) -> None:
        saved = self.bucket_time
        super().update_rate(congestion_window, smoothed_rtt)
        self.bucket_max = max(self.bucket_max, limits.CARRIER_BURST_S)
        self.bucket_time = min(saved, self.bucket_max)

    def allowance(self, now: float) -> int:
        """How many packets may go now."""
        if self.packet_time is None:
            return limits.CARRIER_FIRST_BURST_PACKETS
        self.update_bucket(now)
        return math.ceil(self.bucket_time / self.packet_time)

    def spend(self, packets: int) -> None:
        """So many of them went."""
        if self.packet_time is not None:
            self.bucket_time = max(0.0, self.bucket_time - packets * self.packet_time)


def _sent_packet(number: int, size: int, delivery_handler: Any) -> QuicSentPacket:
    return QuicSentPacket(
        epoch=Epoch.ONE_RTT,
        in_flight=True,
        is_ack_eliciting=True,
        is_crypto_packet=False,
        packet_number=number,
        packet_type=QuicPacketType.ONE_RTT,
        sent_bytes=size,
        delivery_handlers=[delivery_handler],
    )


def _masks_by_block(crypto: Any) -> bool:
    """Whether headers are protected by AES, which turns many samples into masks in one call."""
    return not crypto.hp._is_chacha20
