"""Every bound of the state log, with its reason.  Seconds, bytes and counts; the unit is in the name.

Grouped by the module that enforces them.  A record that passes every check here costs a verifier at most a
known amount of memory and time, whoever sent it.
"""

from __future__ import annotations

from typing import Final

DAY_S: Final = 86_400  # a unit, for the table below

# --- canonical bytes (docs/records/, "Canonical bytes") ---

MAX_RECORD_BYTES: Final = 60_000  # with its signatures it still fits a 65,535-byte leaf, with room to spare
MAX_LEAF_BYTES: Final = 65_535  # C2SP tlog-tiles entry bundles carry a 16-bit length
MAX_DEPTH: Final = 16  # nesting; deeper input only serves to exhaust a recursive reader
MAX_INTEGER: Final = 2**53 - 1  # RFC 8785: larger integers do not survive an IEEE 754 reader

# --- text and collections in a record ---

MAX_CLUSTER_ID_CHARS: Final = 63  # fits a DNS label, so an origin can become a host name
MAX_NAME_CHARS: Final = 128  # service, policy, organization, route and key names
MAX_PARTITION_CHARS: Final = 48  # with a cluster id it leaves an origin and a folder name room to spare
MAX_LOG_NAME_CHARS: Final = 7 + MAX_PARTITION_CHARS  # "routes-" and a partition: each of them may get a log
MAX_TEXT_CHARS: Final = 512  # reasons and display names, read by people
MAX_ADDRESS_CHARS: Final = 270  # "quic://" + a 253-character DNS name + ":65535", and a little
MAX_ENDPOINT_ID_CHARS: Final = 200  # "<node_id>/via/<relay_id>/<n>" is 134 characters and a counter
MAX_REMEMBERED_TEXTS: Final = 16_384  # accepted strings that a checker knows again: 3 MiB at most
MAX_REMEMBERED_QUORUMS: Final = 256  # of a key set: those who signed together, and were enough
MAX_LIST_ITEMS: Final = 256  # organizations, services, assertions: lists without a bound of their own

# --- keys and signatures ---

PUBLIC_KEY_BYTES: Final = 32  # RFC 8032, Ed25519
SIGNATURE_BYTES: Final = 64  # RFC 8032, Ed25519
HASH_BYTES: Final = 32  # SHA-256
MAX_SIGNATURES: Final = 16  # one verification is about 70 µs, so a hostile record costs a millisecond
MAX_KEYS_IN_SET: Final = 64  # more custodians than any role needs, and a descriptor still fits a record
MIN_PRODUCTION_THRESHOLD: Final = 2  # one stolen key must never be enough
MIN_PRODUCTION_FAULTY_WITNESSES: Final = 1  # one lying witness must never make a fork final

# --- time ---

MAX_CLOCK_SKEW_S: Final = 300  # the widest disagreement of honest clocks that a descriptor may allow
MAX_CHECKPOINT_AGE_S: Final = 30 * DAY_S  # past this "fresh" would mean nothing
MAX_RECOVERY_DELAY_S: Final = 365 * DAY_S  # a longer delay is a lost root

DESCRIPTOR_MAX_VALIDITY_S: Final = 400 * DAY_S  # a yearly ceremony with a month to spare
RECOVERY_MAX_VALIDITY_S: Final = 400 * DAY_S  # limits admission only; the delay counts from the log
MEMBERS_MAX_VALIDITY_S: Final = 400 * DAY_S  # rotates with the descriptor
TERM_MAX_VALIDITY_S: Final = 400 * DAY_S  # limits how long a prepared takeover may lie in a drawer
SNAPSHOT_MAX_VALIDITY_S: Final = 30 * DAY_S  # limits admission only: what a snapshot proves stays true
APPROVAL_MAX_VALIDITY_S: Final = 400 * DAY_S  # a node that nobody renews for a year is forgotten
CERTIFICATE_MAX_VALIDITY_S: Final = 90 * DAY_S  # roles are granted for a season
REVOCATION_MAX_VALIDITY_S: Final = 400 * DAY_S  # limits admission only: what is revoked stays revoked
REGISTRY_MAX_VALIDITY_S: Final = 30 * DAY_S  # a service that moved must not be sought for months
LEASE_MAX_VALIDITY_S: Final = DAY_S  # renewed at half, so a day without a quorum is survived
DIRECTORY_MAX_VALIDITY_S: Final = 30 * DAY_S  # peers come and go; an older list misleads
RELEASE_MAX_VALIDITY_S: Final = 400 * DAY_S  # a channel that nobody tends for a year is dead
MANIFEST_MAX_VALIDITY_S: Final = 400 * DAY_S  # shards are looked after once a year at least
SEED_SET_MAX_VALIDITY_S: Final = 400 * DAY_S  # an installer lies on a shelf that long
OBSERVATION_MAX_VALIDITY_S: Final = 15 * 60  # older measurements mislead
ACCOUNT_MAX_VALIDITY_S: Final = 30 * DAY_S  # long enough to settle a month
FENCE_MAX_VALIDITY_S: Final = 400 * DAY_S  # limits admission only: what is fenced stays fenced
POLICY_MAX_VALIDITY_S: Final = 400 * DAY_S  # rotates with the descriptor
CANDIDATES_MAX_VALIDITY_S: Final = 15 * 60  # addresses of a moving device

# --- order ---

MAX_EPOCH_JUMP: Final = 1_000  # a mistyped epoch must not burn the subject's numbers

# --- kinds ---

MAX_ENDPOINTS: Final = 16  # of one registry record: a client tries them all
MAX_CANDIDATES: Final = 32  # of one node: interfaces × providers, and relays
MIN_HOPS: Final = 2  # both ends are hops
MAX_HOPS: Final = 16  # a longer route is a loop or an attack
MAX_ALTERNATES: Final = 16  # alternates are warm, and warmth costs sessions
MAX_CHAIN: Final = 4  # certificates from the quorum-signed one down: a verifier walks them all
MAX_SNAPSHOT_PROJECTIONS: Final = 64  # read models of one log; a proof of one row names them all
MAX_SEQUENCERS: Final = 16  # replicas of one site that may write in a term
MAX_REPLICAS: Final = 64  # of one service: a client is told them all
MAX_RELAYS: Final = 64  # of one partition, and as many rendezvous: every node of it is told them all
MAX_MBIT_PER_S: Final = 1_000_000  # a terabit; more is a mistyped unit
MAX_ARTIFACTS: Final = 64  # of one release: platforms × packages
MAX_ROLLBACK_TARGETS: Final = 16  # older versions that are still safe
MAX_ROLLBACK_WINDOW_S: Final = 400 * DAY_S  # no longer than the release itself may be valid
MAX_ROLLOUT_STEPS: Final = 16  # cohorts
MAX_SESSION_VERSION: Final = 255  # of the session protocol: one octet of every frame
MAX_SESSION_VERSIONS: Final = 16  # that one release speaks
MAX_CODED_SHARDS: Final = 255  # k + m: erasure codes over GF(256) have no more
MAX_REPLICATION_FACTOR: Final = 16  # copies of one shard; past that, code wider
MAX_SHARD_COPIES: Final = 256  # shards × copies: the manifest still fits a record
MAX_OBSERVATIONS: Final = 128  # of one record: it still fits beside other gossip
MAX_ACCOUNT_LINES: Final = 256  # of one account: a busy relay writes several, over shorter periods
MAX_PRIORITY: Final = 65_535  # as in DNS SRV (RFC 2782)

# --- the log: merkle, note, checkpoint, tiles, witness ---

MAX_TREE_SIZE: Final = 2**63 - 1  # fits the signed 64-bit integers of SQL; no log comes near
MAX_NOTE_BYTES: Final = 65_536  # a checkpoint with all signature lines of long names stays under 48 KiB
MAX_NOTE_SIGNATURES: Final = 1 + 2 * MAX_KEYS_IN_SET  # a sequencer's, and two witness sets' at a change
MAX_KEY_NAME_BYTES: Final = 255  # later cosignature formats encode a name after one octet of length
MAX_PROOF_HASHES: Final = 63  # C2SP tlog-witness: no tree of at most 2^63 leaves needs more
MAX_TIMESTAMP_S: Final = 2**63 - 1  # C2SP tlog-cosignature
TILE_WIDTH: Final = 256  # C2SP tlog-tiles: a full tile is 256 hashes, eight levels of the tree
MAX_TILE_LEVEL: Final = 63  # C2SP tlog-tiles
MAX_PROOF_FILE_BYTES: Final = 4 << 20  # a hundred changes of the largest authority; one is under 20 KiB
MAX_LOGS: Final = 1_024  # partitions with a log of their own; whoever audits holds a head of 64 KiB of each
MAX_HISTORY_BYTES: Final = 1 << 20  # 50,000 kept sizes: a change of witnesses a day for a century
RESOURCE_TIMEOUT_S: Final = 60.0  # a full bundle of 16 MiB on a 3 Mbit/s line; not longer for one who drips
RESOURCE_STALL_S: Final = 10.0  # between two pieces of a body: a line that is alive is never silent so long

# --- ceremonies: key files, signing requests, the API's answers ---

MAX_REQUEST_BYTES: Final = MAX_RECORD_BYTES + 2_048  # a record with its signatures, and a title
MAX_ENVELOPE_BYTES: Final = 98_304  # the largest record in base64, sixteen signatures, and the names around
MAX_ENVELOPES_BYTES: Final = 64 << 20  # one file to look at: 50,000 usual records; more are exported in parts
MAX_TRAVELLING_BYTES: Final = 2 * MAX_REQUEST_BYTES  # a request as text for a mail, or as frames to scan
QR_FRAME_CHARS: Final = 560  # with its head a QR code of version 15: 85 columns and 43 lines of a terminal
MAX_QR_FRAMES: Final = 200  # the largest request, not compressible at all, and nobody scans more
MAX_TITLE_CHARS: Final = 200  # one line on a screen
KEY_FILE_MAX_BYTES: Final = 16_384  # ten times what a key file needs
KEY_NAME_MAX_CHARS: Final = 128  # a table column, not an essay
AGENT_TIMEOUT_S: Final = 120.0  # an agent may ask its owner before it signs
AGENT_MAX_ANSWER_BYTES: Final = 256 << 10  # OpenSSH's own bound on an agent message
KDF_MIN_MEMORY_BYTES: Final = 8 << 20  # below this a passphrase is guessed by the million
KDF_MAX_MEMORY_BYTES: Final = 1 << 30  # a hostile key file must not take the machine's memory
KDF_MAX_PASSES: Final = 16  # nor its processor: a minute at most, at the largest memory
VERIFY_POOL_MIN_ENTRIES: Final = 5_000  # below this, starting workers takes longer than they save
SUBMIT_RECHECK_S: Final = 2.0  # a lost ring of the doorbell costs at most this much
ANCHOR_FILE_MAX_BYTES: Final = 1_024  # 64 hex digits and a newline
API_ANSWER_MAX_BYTES: Final = 16 << 20  # a page of records; a server that sends more is not ours

# --- the store and the sequencer ---

STORE_BATCH_ENTRIES: Final = 256  # entries read or replayed at once: at most 16 MiB of leaves in memory
MAX_BATCH_RECORDS: Final = 256  # one group commit: about 40 ms of signatures while others wait for the lock
SAVED_FOLD_ENTRIES: Final = 8_192  # between two saved folds: less than a second of replay is ever repeated
SAVED_FOLD_MAX_BYTES: Final = 1 << 30  # a state of a million subjects; more is no saved fold
LOOKOUT_POOL_RECORDS: Final = 16  # a batch from which on processes verify it: below, asking them takes longer
LOOKOUT_GROUP_RECORDS: Final = 8  # whose signatures are answered for together
MAX_AUDITED_VALUE_BYTES: Final = 1 << 18  # of one column, or a row that SQLite builds: four leaves or notes
MAX_INTEGRITY_FAULTS: Final = 16  # one damaged page may yield hundreds of sentences about one cause
STORE_BUSY_TIMEOUT_S: Final = 30.0  # a writer holds the lock for milliseconds; only a broken disk this long
MAX_ROLLBACKS: Final = 64  # sources of one log whose newest rollback is kept
MAX_SHOWN_HEADS: Final = 1024  # sources of one log whose largest head is kept; the one seen longest ago goes
MAX_SPLIT_VIEWS: Final = 64  # of one log: one convicts, a few show when it began, and none fills a disk
MAX_EVIDENCE_PER_EPOCH: Final = 2  # two records prove equivocation; more would let the equivocator fill disks
# One delegate may sign two certificates of every epoch; what it floods is one kind, 8 MB at the very most.
MAX_EVIDENCE_EPOCHS: Final = 64  # of one kind: one convicts, a few show when it began

# --- replay ---

ROOT_WINDOW_ENTRIES: Final = 65_536  # a term may start this far back: hours of signing beside a busy log

# --- witness ---

MAX_ADD_CHECKPOINT_BYTES: Final = 69_632  # a note of MAX_NOTE_BYTES, 63 hashes of 45 bytes, and the size line
MAX_WITNESS_QUEUE: Final = 16  # requests that wait while one is replayed: each replica of a site asks once

WITNESS_ANSWER_BYTES: Final = 16_384  # a few signature lines, a size, or one sentence
HTTPS_CONNECT_S: Final = 5.0  # until a connection stands: longer is nobody there
HTTPS_IDLE_S: Final = 2.0  # servers hang up after five idle seconds or more; a request must not meet that
WITNESS_BODY_TIMEOUT_S: Final = 10.0  # 68 KiB arrive by then on any usable line; slower ones hold memory
WITNESS_ASK_TIMEOUT_S: Final = 15.0  # replaying a full batch takes one; longer is away

# --- HTTPS servers and readers ---

HTTPS_HEAD_BYTES: Final = 16 * 1024  # of one request's head, as common servers have it
HTTPS_HEAD_TIMEOUT_S: Final = 10.0  # a head fits a few packets; slower ones only hold a socket
HTTPS_CONNECTIONS: Final = 1_000  # sockets and tasks of one process; more wait in the kernel or are told 503
HTTPS_BACKLOG: Final = 512  # connections that wait in the kernel: a burst of clients after a restart
HTTPS_KEEP_ALIVE_S: Final = 15  # an idle connection costs a socket
HTTPS_DRAIN_S: Final = 30.0  # a reader that takes nothing of a full buffer in that time is gone, or holds it
HTTPS_WASTE_BYTES: Final = 65_536  # an answer's bytes beyond what was asked: packing, and one piece too many
HTTPS_SHUTDOWN_S: Final = 5  # waiting requests have been answered long before

# --- cosignatures ---

COSIGN_ROUNDS: Final = 3  # a first guess, the size that the witness named, and one race with another replica
COSIGN_STRAGGLER_S: Final = 0.25  # after K, a slow witness may still add its own; the next head waits no more
COSIGN_LEAD_S: Final = 10.0  # likewise, for one that refused and is asked again: it reads what it missed

# --- doorbell ---

MAX_BELLS: Final = 64  # processes on one host that share a store; a littered directory must not slow a commit
MAX_SOCKET_PATH_BYTES: Final = 100  # sun_path holds 108 bytes on Linux and 104 elsewhere

# --- audit
# ---------------------------------------------------------------------------------------------------

MAX_AUDIT_FINDINGS: Final = 1_000  # nobody reads more, and a log of another cluster would yield one an entry
AUDIT_PROGRESS_ENTRIES: Final = 256  # a progress bar that moves a few times a second
VERIFY_BATCH_SIGNATURES: Final = (
    256  # about 15 ms of work for a worker: far above the cost of handing it over
)
VERIFY_BATCHES_WAITING: Final = (
    4  # for each worker: keeps all busy, and at most a few MiB of messages in memory
)
VERIFY_PIPE_BYTES: Final = 1 << 20  # what Linux lets anybody ask for: four batches of usual records
