"""Every bound of the fabric: name, value, reason. Units last in the name."""

# Long on purpose: all bounds of one package in one list, each with its reason.
from __future__ import annotations

# -- UDP and QUIC carriers (fabric.io.udp, fabric.io.engines, fabric.io.endpoint) --

CARRIER_DATAGRAM_BYTES = 1200
"""UDP payload we send: what every QUIC path must carry (RFC 9000 section 14)."""

CARRIER_PROBE_DATAGRAM_BYTES = 8952
"""Largest UDP payload that is searched for: a jumbo frame's 9,000 bytes less the headers of IPv6 and UDP. On
loopback it doubles what a CPU second moves and more; seven still go in one segmented send.
"""

PATH_MTU_SIZES = (1280, 1350, 1400, 1420, 1440, 1452)
"""Sizes tried on the way up: what the usual tunnels leave of Ethernet's 1,500 bytes, then all of them."""

PATH_MTU_TRIES = 3
"""Probes of one size before it counts as too large: RFC 8899 section 5.1.2."""

PATH_MTU_PROBE_S = 3.0
"""A probe of which nothing was heard this long is lost. At least a second (RFC 8899 section 5.1.1) and longer
than any round trip; on a busy connection the packets after it tell sooner.
"""

PATH_MTU_RAISE_S = 600.0
"""Pause before a finished search looks for more again: RFC 8899 section 5.1.1."""

PATH_MTU_LOSSES = 3
"""Losses of large packets in a row, none such acknowledged between them, from which on the path is taken to
swallow them. Fewer happen in any congestion."""

CARRIER_IDLE_TIMEOUT_S = 30.0
"""A silent connection is given up; NAT mappings rarely live longer and the session pings well within."""

CARRIER_INITIAL_RTT_S = 0.1
"""Assumed before the first measurement, so that a lost first packet is sent again after 0.3 s, not 1 s."""

CARRIER_PRE_AUTH_DATAGRAM_BYTES = 128 << 10
"""UDP payload taken before the dialer is proved: the session's 64 KiB, packet overhead, resends."""

CARRIER_CONNECTION_WINDOW_BYTES = 16 << 20
"""Flow-control window of a whole connection: 1 Gbit/s over 130 ms."""

CARRIER_LANE_WINDOW_BYTES = 8 << 20
"""Flow-control window of one lane: 600 Mbit/s over 100 ms; also what a sparse sender can make us hold."""

CARRIER_BURST_S = 0.002
"""What a paced carrier may send at once, as time at its rate: an event loop wakes up a millisecond late and
more under load. Below 96 Mbit/s the library's own burst of 16 packets is longer.
"""

CARRIER_KEY_PACKETS = 1 << 20
"""Packets sent under one key before it is updated: an eighth of what RFC 9001 section 6.6 allows AES-GCM."""

CARRIER_FIRST_BURST_PACKETS = 10
"""Packets sent at once before a rate is known: the initial window of RFC 9002 section 7.2."""

CARRIER_DATAGRAM_FRAME_BYTES = 65_535
"""Largest DATAGRAM frame we accept; the datagram size bounds it anyway."""

CARRIER_PENDING_DATAGRAM_FRAMES = 256
"""DATAGRAM frames waiting in a carrier; more are dropped, oldest first, as a full radio link would."""

UDP_SOCKET_BUFFER_BYTES = 8 << 20
"""Kernel socket buffers asked for, best effort: 20 ms at 3 Gbit/s."""

UDP_ERRORS_S = 0.05
"""The sockets' error queues are looked at this often while datagrams come without a pause."""

UDP_DATAGRAMS_PER_TURN = 128
"""Datagrams acted upon before answers, timers and other sockets get their turn: a millisecond."""

UDP_TURN_S = 0.002
"""Time after which a turn ends before its datagrams do: what every other peer waits at most for each."""

UDP_READ_DATAGRAMS = 2048
"""Datagrams taken from the kernel in one go. The kernel's queue is one for all, so it must never be long."""

INBOX_DATAGRAM_BYTES = 1500
"""A usual datagram: what Ethernet carries. A larger one counts as several, be it a jumbo frame's or one of
65,507 bytes in fragments: it holds as many frames, each with its own work, and as much memory.
"""

INBOX_DATAGRAMS_EACH = 4096
"""Datagrams of one connection that wait for their turn: 6 MB, two of the largest batches."""

INBOX_DATAGRAMS = 16_384
"""Of all connections together, 24 MB; past it each may have only a part."""

INBOX_DATAGRAMS_PART = 16
"""Datagrams of one connection acted upon before another's, where others wait or nothing is known of their
cost: 19 KB, which full of the smallest frames cost three milliseconds. Dear ones come in smaller parts."""

INTERFACES_SETTLE_S = 0.1
"""Addresses come and go in bunches; one look after this long sees them all."""

INTERFACES_GRACE_S = 10.0
"""An address that is gone keeps its sessions this long while there is no other to take them: a change of
network takes seconds. A carrier's idle timeout is longer."""

INTERFACES_RETRY_S = 1.0
"""Pause before an address that could not be bound is tried again: IPv6 looks for duplicates first."""

INTERFACES_POLL_S = 5.0
"""How often addresses are looked at where the system does not tell of changes."""

INTERFACES_ANSWER_S = 1.0
"""The kernel answers at once, or something is wrong."""

INTERFACES_BOUND = 16
"""Addresses of one machine that are bound by themselves: what a candidate set holds."""

ENDPOINT_HALF_OPEN = 256
"""Inbound connections whose peer is not proved yet; past it, new ones are refused until some finish."""

ENDPOINT_HALF_OPEN_RETRY = 64
"""Half-open connections from which on a Retry makes strangers prove their address first."""

ENDPOINT_HALF_OPEN_PER_ADDRESS = 64
"""Half-open connections of one IPv4 address or IPv6 /64: no host can use up the whole allowance."""

ENDPOINT_CONNECTIONS = 4096
"""Connections of one endpoint, in both directions."""

ENDPOINT_SESSIONS_PER_NODE = 8
"""Sessions of one neighbour: every bound of a session counts that often. One is used; a node that restarts
every few seconds leaves a few behind, which fall silent."""

ENDPOINT_SESSIONS = 2048
"""Proved sessions of one endpoint. Past it idle ones make room; idle they hold some 200 MB in all. Less than
its connections, so that a handshake has a place while sessions are full.
"""

SESSION_IDLE_TTL_S = 300.0
"""A session without a stream that nobody wants ends after this: longer than people pause, and a new one costs
a round trip.
"""

SESSION_IDLE_LOOKS = 10
"""Idle sessions are looked for so many times within their time to live: a tenth late at most."""

ENDPOINT_RETRY_TOKEN_LIFETIME_S = 30.0
"""A client returns a Retry token at once (RFC 9000 section 8.1.4)."""

ENDPOINT_SEND_QUEUE_DATAGRAMS = 4096
"""Datagrams kept while the socket is full; carriers are not asked for more until it drains."""

FLIGHT_QUEUE_S = 0.002
"""What bulk may queue in the path beyond two round trips, as time at its rate: an event loop that wakes up
late must find work. Interactive frames wait behind at most this and one round trip.
"""

FLIGHT_BYTES_MIN = 96 << 10
"""Bulk under way that is always allowed: a full record and a half."""

FLIGHT_SAMPLE_S = 0.01
"""Delivery rates are measured over at least this: several turns of the peer's loop, which acknowledges once
in each.
"""

FLIGHT_MIN_RTT_S = 10.0
"""The shortest round trip is measured anew this often; BBR's figure."""

FLIGHT_PROBE_S = 0.05
"""For this long bulk is held down to half a round trip's worth to see the path empty: half a percent."""

LANE_UNSENT_BYTES = 2 * 65_600
"""Untransmitted bytes on one lane, two full records: more urgent frames wait behind at most this much."""

SESSION_UNSENT_BYTES = LANE_UNSENT_BYTES + (16 << 10)
"""Untransmitted bytes of one session over all lanes: one lane's, and a little that control and interactive
leave beside it. An engine sends its lanes by turns, so a frame on one waits for what all the others hold.
"""

WORKER_SWITCH_S = 0.0005
"""How long a thread that computes keeps the interpreter's lock from the event loop: Python's own 5 ms are
what a packet would wait for it at each hop. An echo beside a thread that judges records is a tenth faster so.
"""

# -- gossip, discovery, peering (fabric.gossip, fabric.discovery, fabric.peering) --

GOSSIP_FANOUT = 3
"""Peers told of a new record in each round; memberlist's figure."""

GOSSIP_ROUND_S = 0.2
"""Time between rounds: longer than most round trips, so that a round builds on the one before."""

GOSSIP_ROUNDS_FACTOR = 4
"""Rounds = factor x log10(population): past that, more rounds hardly reach anyone new."""

GOSSIP_REPAIR_S = 30.0
"""Digest comparison with one random peer: what rumours missed waits at most about this long."""

ROUTE_TOLD_S = 1.0
"""A neighbour's word that a route changed makes a node compare records with it this often at most."""

GOSSIP_WANT_TIMEOUT_S = 2.0
"""An asked-for record that has not come by then is asked of another peer."""

GOSSIP_MAX_IDS = 256
"""Ids in one HAVE or WANT: 8 KiB."""

GOSSIP_RECORD_BYTES = 65_535
"""One record with its signatures; docs/records/ allows 60,000."""

GOSSIP_MESSAGE_BYTES = 80 << 10
"""One gossip message: a record with its framing."""

GOSSIP_MAX_ITEMS = 20_000
"""Unlogged records and candidate sets held: two for each of 10,000 nodes."""

GOSSIP_MAX_BYTES = 64 << 20
"""Bytes of all held records."""

GOSSIP_MAX_OFFERED = 8_192
"""Ids that peers offered and this node still lacks."""

GOSSIP_MAX_OFFERED_PEER = 1_024
"""Of these, by one peer, so that one liar cannot crowd out the others."""

GOSSIP_MAX_WANTED_PEER = 32
"""Records asked of one peer at once: at most 2 MiB under way."""

GOSSIP_MAX_BAD_COPIES = 4_096
"""Hashes of refused copies remembered until the head moves."""

GOSSIP_MAX_SETTLED = 65_536
"""Ids remembered as final or refused."""

GOSSIP_OFFERS_PER_S = 2_000
"""Ids one peer may offer a second."""

GOSSIP_OFFERS_BURST = 20_000
"""Ids one peer may offer at once: the whole set after a partition."""

GOSSIP_DIGEST_COST = 256
"""What a digest costs of the same allowance: answering it may name every held id."""

GOSSIP_RECORDS_PER_S = 200
"""Records served to one peer a second."""

GOSSIP_RECORDS_BURST = 1_000
"""Records served to one peer at once."""

PROBE_SPREAD_S = 10.0
"""A probe not needed now waits a random part of this, so that a farm does not probe one node at once."""

PROBE_RETRY_FIRST_S = 2.0
"""Pause before a record none of whose endpoints answered is probed again; doubles."""

PROBE_RETRY_MAX_S = 60.0
"""Longest pause between probes of one record."""

PROBE_TIMEOUT_S = 5.0
"""One probe: handshake, OPEN, ACCEPTED."""

PROBE_CONCURRENT = 8
"""Probes under way at one node."""

PROBE_PER_S = 4
"""Probes begun a second at one node, after a burst of `PROBE_CONCURRENT`."""

PEERS_WANTED = 8
"""Sessions a node keeps up by dialing; enough that rumours and failover do not hang on one neighbour."""

PEERS_KNOWN = 4_096
"""Nodes whose addresses are remembered."""

PEER_ADDRESSES = 32
"""Addresses remembered of one node: the candidates of one record."""

PEER_REDIAL_FIRST_S = 0.5
"""Pause before a failed peer is dialed again; doubles."""

PEER_REDIAL_MAX_S = 30.0
"""Longest pause between dials of one peer: a healed partition is noticed within about this."""

DIAL_TIMEOUT_S = 4.0
"""From the first packet to a ready session, before the next address is tried."""

OPEN_TIMEOUT_S = 5.0
"""From OPEN to ACCEPTED over all hops, before the next route is tried."""

NEXT_HOP_RETRIES_S = (0.3, 0.6, 1.2)
"""Pauses before a route is tried again whose relay was without a session with the next hop."""

PEERS_KEPT = 256
"""Next hops of leases through this node whose sessions are held warm."""

PEERS_DIALING = 4
"""Dials under way at once."""

CANDIDATES_VALIDITY_S = 600
"""Life of a node's own candidate set; renewed at half. docs/records/ allows 15 min."""

# -- services (fabric.sync, fabric.services) --

SERVICE_MESSAGE_BYTES = 1 << 20
"""One message of a service: a batch of entries with its framing."""

SYNC_BATCH_ENTRIES = 256
"""Entries sent and folded at once: catching up stays resumable and bounded."""

SYNC_BATCH_BYTES = 512 << 10
"""Leaf bytes of one batch message."""

SYNC_UNPROVEN_BYTES = 32 << 20
"""Leaf bytes taken from one source before a final head has covered them."""

SYNC_UNPROVEN_ENTRIES = 65_536
"""Entries likewise."""

SYNC_WATCHED = 8
"""Peers whose heads are watched beside the one that is followed; the news of a farm spreads along them."""

HEADS_COMPARE_S = 60.0
"""One neighbour is asked for its head this often, beside everyone on connect: a split that begins later is
met within minutes."""

HEADS_TIMEOUT_S = 10.0
"""For one exchange of heads: a few kilobytes each way."""

HEADS_SHOWN = 1024
"""Peers whose largest head is remembered, so that one which goes back is found out: a kilobyte each."""

HEADS_NEWER = 64
"""Heads beyond this node's own that are kept to be compared later, one a peer: 4 MiB at most."""

SYNC_STALL_S = 3.0
"""A source that is known to be behind a final head for this long is left for another."""

SUBMIT_RETRY_FIRST_S = 2.0
"""Pause before a record that is not final yet is submitted again; doubles."""

SUBMIT_RETRY_MAX_S = 60.0
"""Longest such pause."""

SUBMIT_PENDING = 4_096
"""Records waiting at one node to become final."""

SUBMIT_PENDING_PER_LOG = 256
"""Of these, records of one log that come out of the outbox: more than its sequencer takes of one peer at once
(`SUBMIT_BURST`), and few enough that a log whose writer is gone leaves the others their part.
"""

OUTBOX_PAGE = 1_024
"""Places of the outbox read at once: some 100 bytes each."""

OUTBOX_HOMES_S = 60.0
"""How long it is believed which log a waiting record belongs in, while that log has no room for it: a hint
that spares reading thousands of records at each look.
"""

SUBMIT_PER_S = 20
"""Records one peer may submit a second: each costs the sequencer a verification and a commit."""

SUBMIT_BURST = 100
"""Records one peer may submit at once."""

SUBMIT_SPREAD_S = 3.0
"""A record that gossip brought is forwarded after a random part of this: by then one node has done it for
all.
"""

WITNESS_TIMEOUT_S = 20.0
"""One add-checkpoint: a witness that catches up fetches and replays thousands of entries in it."""

WITNESS_STRANGER_TIMEOUT_S = 2.0
"""The same for an asker that is no sequencer of the term: it must not keep the others waiting."""

EXPIRY_CHECK_S = 5.0
"""How often a node looks for records that have expired; their queries leave them out at once."""

STORE_RECHECK_S = 15.0
"""How often a node looks at its store without having been rung: what a lost ring costs, and all that there
is on a database server.
"""

SEQUENCING_RETRY_FIRST_S = 0.2
"""Pause before witnesses that did not make a head final are asked again; doubles."""

SEQUENCING_RETRY_MAX_S = 5.0
"""Longest such pause; a session with a witness that comes up ends it at once."""

SEQUENCING_PATIENCE_S = 1.0
"""How long a collection of cosignatures that is not final yet is waited for when there is news."""

GOSSIP_QUEUE_BYTES = 1 << 20
"""Messages waiting for one slow neighbour; past it they are dropped and found by repair."""

SERVICE_STOP_S = 5.0
"""A service that was cancelled has this long to clean up before the endpoint closes without it."""

SERVICE_END_S = 600.0
"""A stream whose service has returned waits so long for a peer that acknowledges nothing: longer than most
people pause a download, and not for ever.
"""

UNREAD_KEPT_S = 600.0
"""What a stream that is over has left unread is counted, and forgotten when its reader takes none of it for
so long; as `SERVICE_END_S`.
"""

FORWARD_CONNECT_TIMEOUT_S = 5.0
"""To connect to the TCP address behind a service."""

FORWARD_CHUNK_BYTES = 64 << 10
"""Bytes moved at once between a TCP socket and a stream: one super-packet."""

ECHO_STREAMS = 64
"""Echo streams of one node at once."""

ECHO_BYTES = 256 << 20
"""Bytes of one echo stream: a smoke run on a fast machine, and no free ride."""

SMOKE_STEP_S = 30.0
"""One step of a smoke run."""

PING_COUNT = 1_000
"""Pings of one command."""

INTERACTIVE_SHARDS = 2
"""Lanes of a node for interactive streams: a lost packet holds up half of them."""

BULK_SHARDS = 4
"""Lanes of a node for bulk streams."""

ADMIN_LINE_BYTES = 1 << 20
"""One request on the local admin socket."""

ADMIN_ANSWER_BYTES = 16 << 20
"""One answer there: a status with 500 of everything is 3 MiB, and a log may hold thousands of leases."""

STATUS_STREAMS = 500
"""Streams in a status, the busiest: 0.4 MiB. A node may carry a hundred thousand."""

STATUS_SESSIONS = 500
"""Sessions in a status, the busiest: 1.5 MiB."""

STATUS_RELAYED = 500
"""Relay accounts in a status, those that carried most: 0.1 MiB."""


# -- frames and lanes (fabric.wire, fabric.lanes) --

FRAME_BODY_BYTES = 66_560
"""Default body limit: one 64 KiB record with its tag and offset, and 1,016 bytes to spare."""

FRAME_BODY_BYTES_MIN = 8 + 65_536 + 16
"""The smallest body limit a peer may have: one full record with its offset and tag, which no hop splits."""

FRAME_BODY_BYTES_MAX = 1 << 20
"""The largest body limit a peer may negotiate: what one unfinished frame can make us hold per lane."""

MAP_BODY_BYTES = 8192
"""Body of a frame that carries a MessagePack map; the largest honest one is a HELLO of 3 KiB."""

LANE_SHARDS = 16
"""Shards of one class: more than cores a node would spread bulk over."""

SESSION_SHARDS = 8
"""Lanes that an end uses for interactive or for bulk: with those of the other classes 20 at most."""

SESSION_LANES = 32
"""Lanes of one direction of a session: every class, and shards for interactive and bulk."""

CAPABILITIES = 32
"""Entries of HELLO's capability list."""

CAPABILITY_CHARS = 96
"""A capability is a word, or a word and a 64-digit key id."""

SERVICE_NAME_CHARS = 128
"""Logical service names are paths of a few words."""

ROUTE_ALTERNATES = 8
"""Other routes named in one ROUTE_UPDATE."""

ROUTE_ID_CHARS = 128
"""Route ids are subjects of leases, which bound them alike."""

TOKEN_BYTES = 4096
"""A session token beside AUTH: a signed assertion with a few claims."""

REASON_CHARS = 64
"""Reason codes are identifiers."""

DETAIL_CHARS = 256
"""One sentence for a person."""

# -- sessions (fabric.session, fabric.scheduler, fabric.credit) --

PRE_AUTH_BYTES = 64 << 10
"""Bytes a listener buffers for a dialer that has not proved itself."""

PRE_READY_BYTES = 256 << 10
"""Bytes a dialer buffers on other lanes while the listener's SESSION_READY is on its way."""

SESSION_HANDSHAKE_TIMEOUT_S = 10.0
"""From the carrier to SESSION_READY: three round trips of a bad link with losses."""

SESSION_IDLE_TIMEOUT_S = 30.0
"""A peer that is silent this long is gone; three pings fit in."""

SESSION_SLOW_PEER_S = 30.0
"""A peer whose carrier takes no control frame this long does not drain its lanes."""

SESSION_KEEPALIVE_S = 10.0
"""A session with nothing to say pings this often, well within NAT lifetimes for UDP (RFC 4787: 2 minutes)."""

SESSION_DRAIN_S = 10.0
"""After GOAWAY, streams may finish this long."""

SESSION_STREAMS = 1024
"""Streams that a peer may have open at once in one session."""

SESSION_STREAM_ID_GAPS = 32_768
"""Ids above the lowest never opened; OPENs on different lanes pass each other, but not by this many. All that
a peer takes (`SESSION_OPENS_BURST`, `SESSION_OPENS_PER_S`) until an OPEN without an answer counts as arrived
(`SESSION_OPEN_ARRIVES_S`), so that one stream which waits for its far end stops no others. A bit each where
they come in, a quarter of a kilobyte where they were opened and not answered.
"""

SESSION_WINDOW_BYTES = 32 << 20
"""Unconsumed bytes of one session: 2.5 Gbit/s over 100 ms."""

SESSION_RESERVE_BYTES = 1 << 20
"""The end of the session's credit that only control, dns and interactive may use."""

STREAM_WINDOW_BYTES = 2_621_440
"""Hop credit of a stream at OPEN: 100 Mbit/s over 200 ms."""

STREAM_WINDOW_BYTES_MAX = 8 << 20
"""Hop credit that a fast stream grows to: 600 Mbit/s over 100 ms; what one stream can hold at a relay."""

WINDOW_GROWTH_S = 0.4
"""A window consumed in less than this was too small: twice the bandwidth-delay product at 200 ms."""

SESSION_OPEN_ARRIVES_S = 60.0
"""An OPEN that left so long ago has arrived, or the session is over: both ends give up after 30 s of silence.
One that was taken back may never be answered."""

STREAM_QUEUE_BYTES = 256 << 10
"""Frames of one stream queued in the session before it stops being writable: a few records."""

STREAM_QUEUE_BYTES_MAX = (8 << 20) + (256 << 10)
"""Frames of one stream that the session takes at all: a relay's whole hop window."""

QUEUED_FRAME_BYTES = 280
"""What a frame that waits at a relay costs beside its bytes: objects and allocators. Measured with a byte of
payload each, the dearest there is: 187 to 200 bytes of objects, 315 resident, of which the frame is 41.
"""

SESSION_QUEUE_BYTES = 4 << 20
"""Frames of all streams queued before none of reliable, bulk and droppable is writable; those of streams that
wait for their own credit do not count, nor those that a relay passes on.
"""

PENDING_PONGS = 32
"""PINGs of a peer that wait for their PONG; a flood of them costs us no memory."""

STREAM_PROBES_PER_S = 100
"""PINGs and PONGs about one stream that a peer may send a second, each way of them: a watched route has five,
a person's `fabric ping` one at a time. More are dropped, so that no relay passes a flood on.
"""

STREAM_PROBES_BURST = 1_000
"""Of these at once: what one `fabric ping` may send."""

PENDING_PINGS = 16
"""Own PINGs without PONG that are remembered."""

PING_REPEAT_S = 1.0
"""A PING that somebody waits for is sent again after this: each is lost with its carrier, and where too many
wait at either end. An answer to any of them counts, so a longer round trip is no harm."""

PING_TIMEOUT_S = 45.0
"""Whoever waits for a PONG is told that there is none after this: a stream waits 30 s for another carrier."""

SESSION_PENDING_RESETS = 2048
"""RESETs that wait for the control lane: every stream of both ends, once. A peer that makes us owe it more,
by opening what is refused and not reading, is cut off."""

SESSION_NEWS_PER_S = 5_000
"""Frames that a peer may send a second about the session, or of unknown types: pings one after the other over
a round trip of 0.2 ms. No honest peer has more to tell; more would be work for nothing, and ends the session.
"""

SESSION_NEWS_BURST = 50_000
"""Of these at once: what a lane that was held up delivers in one piece; 0.2 s of work."""

SESSION_OPENS_PER_S = 500
"""Streams that a peer may open a second: each is a signature to check and one to make, a sixth of a core."""

SESSION_OPENS_BURST = 2048
"""Of these at once: twice all that may be open, so that a peer can resume every stream and open as many."""

SESSION_INPUT_BYTES = 32 << 10
"""Bytes of lanes acted upon in a turn beyond those that came in it. A hole that is filled at last delivers a
whole window at once, which full of the smallest frames is seconds of work."""

SESSION_FIRST_FLIGHT_BYTES = 32 << 10
"""OPENs that a dialer sends before it knows the listener's limits: half of what the listener buffers."""

CHUNK_JOIN_BYTES = 4096
"""Payloads up to this are joined with their neighbours for the carrier: cheaper than a call for each."""

SCHEDULER_STREAM_RATES = {  # bytes a second, and bytes at once, by class
    0: (4 << 20, 1 << 20),
    1: (1 << 20, 256 << 10),
    2: (4 << 20, 512 << 10),
}
"""What one control, dns or interactive stream may send ahead of others; the rest goes as reliable. A class is
only a claim; 4 MiB/s is a remote desktop at its busiest."""

SCHEDULER_NODE_RATES = {  # the same for all streams of a class towards one neighbour
    0: (16 << 20, 4 << 20),
    1: (4 << 20, 1 << 20),
    2: (32 << 20, 4 << 20),
}
"""What all streams of one express class may send ahead of others towards one neighbour."""

SCHEDULER_WEIGHTS = {"excess": 4, "reliable": 8, "bulk": 4, "droppable": 1}
"""Shares of what express leaves. `excess`, express traffic over its rate, must not beat honest reliable."""

SCHEDULER_ROUND_BYTES = 16_384
"""What a weight of one may send in a round: four rounds are a full record of the smallest share."""

SCHEDULER_QUANTUM_BYTES = 65_600
"""A stream's and a tenant's turn: one full record's frame."""

SCHEDULER_BULK_PRESSURE_BYTES = 96 << 10
"""Room of a lane that bulk leaves unused while interactive traffic flows."""

SCHEDULER_PRESSURE_HOLD_S = 0.05
"""Interactive traffic counts as flowing this long after its last frame: three frames of a 60 Hz screen."""

# -- pressure (fabric.pressure) --

PRESSURE_PERIOD_S = 1.0
"""How often a node looks at itself: often enough for a person, rare enough to cost nothing."""

PRESSURE_HOLD_S = 3.0
"""A reason stands this long after it was last seen, so that bursts do not flap."""

PRESSURE_HISTORY = 32
"""Changes of the picture that are remembered: minutes of a bad time, days of a good one."""

PRESSURE_REPEAT_S = 5.0
"""A pressed node says so again this often."""

PEER_PRESSURE_S = 15.0
"""A neighbour's NODE_PRESSURE is in force this long: two repetitions may be late."""

PEER_PRESSED_PERCENT = 50
"""A neighbour with so much of anything in use is spared a quarter of bulk's window."""

PEER_PRESSED_HARD_PERCENT = 80
"""With so much, half of it."""

PRESSURE_PACKETS = 100
"""Packets between two looks from which on a share of losses means anything."""

PROCESS_MEMORY_BYTES = 1 << 30
"""Resident memory that a node means to stay under; 100 % of the memory it reports."""

# -- what is told (fabric.heartbeat, fabric.io.metrics) --

COUNTED_CODES = 128
"""Names in one table of counters that codes from peers may fill: several times what this version knows."""

HEARTBEAT_BYTES = 32 << 10
"""One heartbeat: a million nodes that send one a minute are 4 Gbit/s at most, and a tenth of it usually."""

HEARTBEAT_SESSIONS = 16
"""Sessions in a heartbeat, the busiest."""

HEARTBEAT_CHANGES = 8
"""Changes of pressure in a heartbeat, the newest."""

HEARTBEAT_COUNTERS = 16
"""Counters of one kind in a heartbeat, the largest."""

HEARTBEAT_FIELDS = 8
"""Fields of one class, and versions of software."""

HEARTBEAT_TEXT_CHARS = 96
"""One text of a heartbeat: a capability, a service, the name of a counter."""

LIST_ITEMS = 32
"""Entries of one list of a heartbeat."""

QLOG_EVENTS = 20_000
"""Events of one connection's qlog, the newest: some megabytes of JSON."""

QLOG_FILES = 256
"""qlog files of one process, the newest."""

METRICS_PEERS = 64
"""Neighbours that have metrics of their own; a label's values must be bounded."""

METRICS_CLIENTS = 8
"""HTTP requests for metrics under way."""

METRICS_REQUEST_BYTES = 8 << 10
"""The head of one such request."""

METRICS_TIMEOUT_S = 10.0
"""One such request, whole."""

# -- sealed streams (fabric.seal, fabric.stream) --

SEAL_SUITES = 8
"""Ciphers that an offer names; this version knows two."""

SEAL_SUITE_CHARS = 32
"""The name of a cipher, such as chacha20-poly1305."""

SEAL_READY = 256
"""Streams whose record keys are held ready for use, 5 KB each; another's cost 7 µs to make again."""

RECORD_BYTES = 65_536
"""Plaintext of one record: large enough that AES-GCM and Python cost little per byte."""

JOINED_BYTES = 16 << 10
"""Plaintext from which on a record is sealed although others of its stream still wait for their lane; less is
joined with what is written meanwhile. A quarter of a record: what one costs beside its bytes, at each hop and
at its end, is small by then.
"""

STREAM_BYTES_MAX = 1 << 48
"""Plaintext of one direction of one stream: far below what AES-GCM may seal under a key (NIST SP 800-38D)."""

E2E_WINDOW_BYTES = 2_621_440
"""End-to-end window at OPEN, what an unread stream holds at its end: 100 Mbit/s over 200 ms at once."""

E2E_WINDOW_BYTES_MAX = 8 << 20
"""End-to-end window of a fast stream, and the resend buffer of its sender."""

E2E_SEND_BUFFER_BYTES = 1 << 20
"""Plaintext a writer may leave in a stream before `write` takes no more."""

E2E_ACCEPT_TIMEOUT_S = 15.0
"""OPEN to ACCEPTED, over a full route."""

E2E_CONFIRM_TIMEOUT_S = 15.0
"""ACCEPTED to the first valid record, which a correct initiator sends at once."""

MEMORY_SESSION_BYTES = 128 << 20
"""What the streams of one session hold, unread or unacknowledged: a hundred paused downloads."""

MEMORY_PEER_BYTES = 192 << 20
"""The same of one peer, however many sessions it has."""

MEMORY_PROCESS_BYTES = 512 << 20
"""The same of all peers: half of what a node means to stay under."""

MEMORY_STREAM_BYTES = 64 << 10
"""What a stream may always hold for a peer that has not acknowledged it: a record. Where a session or a peer
holds half of its budget, or the process does and the peer more than its share, writers wait for the peer
beyond this: a thousand such streams fill the other half."""

DATAGRAM_REPLAY_WINDOW = 1024
"""Numbers behind the newest that are still taken: more than a path reorders in a second of video."""

DATAGRAM_QUEUE = 256
"""Datagrams of one stream that wait for its reader or for the carrier; the oldest go first."""

DATAGRAM_QUEUE_BYTES = 256 << 10
"""Bytes likewise: 20 ms at 100 Mbit/s, after which a voice is better cut than late."""

RESUME_TIMEOUT_S = 30
"""How long both ends keep a stream whose carrier is lost: a session is dialed anew well within, and an
application that waits longer is better told."""

RESUME_RETRY_FIRST_S = 0.1
"""Pause before a stream is tried on another carrier again; doubles."""

RESUME_RETRY_MAX_S = 2.0
"""Longest such pause; a session that comes up ends it at once."""

HELD_STREAMS = 8192
"""Streams of one endpoint that wait for another carrier; more fail at once. Some 10 KB each."""

HELD_STREAMS_PEER = 2048
"""Of these, with one node at the other end: what one session carries, `SESSION_STREAMS` of each end."""

HELD_BYTES = 64 << 20
"""Unread and unacknowledged bytes of all waiting streams."""

# -- failover (fabric.failover) --

ROUTE_URGENT_S = 10.0
"""After control, dns or interactive traffic a person may be waiting this long: watch the route closely."""

ROUTE_PING_URGENT_S = 0.2
"""Between pings of a route that is watched closely: half of what a person notices."""

ROUTE_PING_S = 5.0
"""Between pings of any other route that streams could leave: well within what NATs remember."""

ROUTE_SUSPECT_S = 0.3
"""What an answer may take at least before its route is suspected: a late event loop at either end."""

ROUTE_SWITCHED_S = 0.6
"""Within this, or 200 ms and four round trips, streams shall go on elsewhere."""

ROUTE_LAG_S = 0.1
"""A timer that is later than this tells of a process that was away, and of nothing else."""

ROUTE_RETRY_S = 1.0
"""A route that failed and has no other beside it is looked at again after this."""

ROUTE_LEASE_END_S = 10.0
"""Streams leave a lease this long before it runs out, if there is another way: a lease is renewed at half its
life, so one that is so near its end will not be."""

ROUTE_RECOVERY_BUCKETS_S = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Bounds of the histogram of recovery times, the last what a stream waits at most."""

# -- relays (fabric.relay) --

RELAY_SESSION_BYTES = 64 << 20
"""What a relay holds of streams that came over one session and wait for their next hop: two seconds of
250 Mbit/s, or some twenty streams whose way on is stuck."""

RELAY_TENANT_BYTES = 128 << 20
"""The same of one organization's streams."""

RELAY_BYTES = 256 << 20
"""The same of all: a quarter of what a node means to stay under. Past each the stream that holds most within
it is reset and may go on over another route."""

RELAY_ACCOUNTS = 4096
"""Accounting rows by class, route and organization. A new route takes the place of the oldest that carries
nothing now, which is added to one row a class, so that sums never go back.
"""
