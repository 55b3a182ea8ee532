"""The beginning of a cluster: its name, the entries of its first keys, its first descriptor and first term.

Pure: randomness comes in as bytes, time as Unix seconds, keys as signers. What these functions build is
judged by `statelog.admission` like any other record; nothing here relaxes a rule.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from statelog.admission import rehearse
from statelog.ceremony import Request, propose
from statelog.errors import UsageError
from statelog.leaf import frame_leaf
from statelog.limits import DESCRIPTOR_MAX_VALIDITY_S, MAX_CLUSTER_ID_CHARS
from statelog.records import DESCRIPTOR, KINDS_BY_NAME
from statelog.replay import Replay
from statelog.signing import (
    Signer,
    decode_base64,
    encode_base64,
    key_id_of,
    possession_bytes,
    verify,
)
from statelog.state import AUTHORITY_LOG, ROOT, Mode
from statelog.times import format_time, parse_time

KeyEntry = Mapping[str, Any]

_BASE32: Final = "abcdefghijklmnopqrstuvwxyz234567"
_SUFFIX_CHARS: Final = 26  # 130 random bits: nobody draws the same cluster twice
_NAME: Final = re.compile(r"[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?")


@dataclass(frozen=True, slots=True)
class Plan:
    """What the first descriptor says. Entries are KEY objects with proofs; see `key_entry`.

    A key may stand in both `root` and `control` in development mode. `recovery` holds the SHA-256 (hex) of
    keys that stay in their envelopes.
    """

    cluster_id: str
    mode: Mode
    root: tuple[KeyEntry, ...]
    root_threshold: int
    control: tuple[KeyEntry, ...]
    control_threshold: int
    witnesses: tuple[KeyEntry, ...]
    witness_threshold: int
    faulty: int
    recovery: tuple[str, ...] = ()
    recovery_threshold: int = 0
    recovery_delay_s: int = 0
    clock_skew_s: int = 60
    max_checkpoint_age_s: int = 86_400


def new_cluster_id(name: str, random_bytes: Callable[[int], bytes]) -> str:
    """`<name>.<26 random base32 characters>`. Raises `UsageError` for a name that does not fit."""
    longest = MAX_CLUSTER_ID_CHARS - _SUFFIX_CHARS - 1
    if not _NAME.fullmatch(name) or len(name) > longest:
        raise UsageError(f"a cluster name is 1 to {longest} characters from a-z 0-9 . -, not {name!r}")
    return f"{name}.{''.join(_BASE32[byte & 31] for byte in random_bytes(_SUFFIX_CHARS))}"


def key_entry(
    signer: Signer, cluster_id: str, issuer_id: str, custody: str, *, name: str | None = None
) -> dict[str, str]:
    """The KEY object of a signer's key, with its proof of possession; with `name` a witness's."""
    key_id = key_id_of(signer.public)
    entry = {
        "key_id": key_id,
        "alg": "ed25519",
        "public": encode_base64(signer.public),
        "issuer_id": issuer_id,
        "custody": custody,
        "proof": encode_base64(signer.sign(possession_bytes(cluster_id, issuer_id, key_id))),
    }
    return entry if name is None else {**entry, "name": name}


def sequencer_entry(signer: Signer, cluster_id: str, node_id: str) -> dict[str, str]:
    """The entry of a term for a sequencer key that node `node_id` holds."""
    key_id = key_id_of(signer.public)
    proof = signer.sign(possession_bytes(cluster_id, node_id, key_id))
    return {"public": encode_base64(signer.public), "node_id": node_id, "proof": encode_base64(proof)}


def proved(entry: KeyEntry, cluster_id: str) -> bool:
    """Whether an entry's proof of possession is of this cluster, issuer and key."""
    public, proof = decode_base64(str(entry.get("public"))), decode_base64(str(entry.get("proof")))
    if public is None or proof is None or entry.get("key_id") != key_id_of(public):
        return False
    return verify(public, proof, possession_bytes(cluster_id, str(entry.get("issuer_id")), key_id_of(public)))


def first_descriptor(
    plan: Plan, now: int, *, valid_s: int = DESCRIPTOR_MAX_VALIDITY_S // 2, issuer_node_id: str = "operator"
) -> Request:
    """The request for epoch 1 of the authority, to be signed by its own root quorum. Raises `Refused`."""
    keys = {entry["key_id"]: dict(entry) for entry in (*plan.root, *plan.control)}
    record = {
        "schema_version": DESCRIPTOR.schema,
        "cluster_id": plan.cluster_id,
        "epoch": 1,
        "issued_at": format_time(now),
        "expires_at": format_time(now + valid_s),
        "issuer_node_id": issuer_node_id,
        "issuer_role": ROOT,
        "mode": plan.mode,
        "clock_skew_s": plan.clock_skew_s,
        "max_checkpoint_age_s": plan.max_checkpoint_age_s,
        "keys": list(keys.values()),
        "root": {"threshold": plan.root_threshold, "key_ids": _ids(plan.root)},
        "control": {"threshold": plan.control_threshold, "key_ids": _ids(plan.control)},
        "witnesses": {
            "threshold": plan.witness_threshold,
            "faulty": plan.faulty,
            "keys": [dict(entry) for entry in plan.witnesses],
        },
        "recovery": {
            "threshold": plan.recovery_threshold,
            "key_sha256": list(plan.recovery),
            "delay_s": plan.recovery_delay_s,
        },
    }
    rehearse(None, record, now)
    return Request(record, (), f"Genesis of {plan.cluster_id}")


def genesis_replay(descriptor: Request) -> Replay:
    """The log of one entry that a wholly signed first descriptor begins. Raises `Refused`."""
    replay = Replay(descriptor.record_id)
    replay.append(frame_leaf(descriptor.signed_record(), parse_time(descriptor.record["issued_at"]), term=0))
    return replay


def first_term(
    genesis: Replay, sequencers: Iterable[Mapping[str, str]], now: int, *, issuer_node_id: str = "operator"
) -> Request:
    """The request for term 1, entry 1 of the log, to be signed by the control quorum. Raises `Refused`."""
    own = {
        "log": AUTHORITY_LOG,
        "term": 1,
        "start_size": genesis.size,
        "start_root": encode_base64(genesis.root()),
        "sequencers": [dict(entry) for entry in sequencers],
    }
    title = f"First term of {genesis.origin}"
    return propose(
        KINDS_BY_NAME["log.term"],
        own,
        genesis.state,
        now,
        log=genesis,
        issuer_node_id=issuer_node_id,
        title=title,
    )


def _ids(entries: Sequence[KeyEntry]) -> list[str]:
    return [entry["key_id"] for entry in entries]
