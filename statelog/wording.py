"""Records in words, for the people who sign them: what one says, and its digest to read aloud.

Nothing here decides anything. Text from a record is shown with every unprintable character escaped, so that a
name cannot move a cursor, turn the direction of writing or hide a line on a signer's screen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from itertools import pairwise
from typing import Any, Final

from statelog.state import RECOVERY

_CONSONANTS: Final = "bdfghjklmnprstvz"
_VOWELS: Final = "aiou"


def digest_words(digest: bytes) -> str:
    """Bytes (an even number) as pronounceable five-letter words, two bytes each.

    The scheme is proquint (Wilkerson, "A Proposal for Proquints", 2009): sixteen bits, high to low, as
    consonant (4), vowel (2), consonant (4), vowel (2), consonant (4).
    """
    pairs = (int.from_bytes(digest[at : at + 2], "big") for at in range(0, len(digest), 2))
    return "-".join(_word(pair) for pair in pairs)


def _word(pair: int) -> str:
    return (
        _CONSONANTS[pair >> 12]
        + _VOWELS[pair >> 10 & 3]
        + _CONSONANTS[pair >> 6 & 15]
        + _VOWELS[pair >> 4 & 3]
        + _CONSONANTS[pair & 15]
    )


def plain(text: str) -> str:
    """`text` with everything unprintable escaped: control and format characters, odd spaces, surrogates."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape", "backslashreplace").decode()
        for char in text
    )


def short(identifier: str) -> str:
    """The first eight digits of a hex identifier, for sentences; the whole one is shown beside them."""
    return plain(identifier[:8])


def span(seconds: int) -> str:
    """A length of time in its two largest units: `12 d 3 h`, `45 s`."""
    units = (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1))
    for (unit, length), (smaller, part) in pairwise(units):
        if seconds >= length:
            rest = seconds % length // part
            return f"{seconds // length} {unit}" + (f" {rest} {smaller}" if rest else "")
    return f"{seconds} s"


def headline(record: Mapping[str, Any]) -> str:
    """One sentence saying what the record does. Works on any record that passed its kind's shape check."""
    schema = str(record.get("schema_version", "?"))
    say = _HEADLINES.get(schema)
    return plain(say(record)) if say is not None else f"A record of kind {plain(schema)}."


# -- one sentence per kind --


def _descriptor(record: Mapping[str, Any]) -> str:
    root, control, witnesses = record["root"], record["control"], record["witnesses"]
    issuers = {key["key_id"]: key["issuer_id"] for key in record["keys"]}

    def of(part: Mapping[str, Any]) -> str:
        names = sorted({issuers.get(key_id, short(key_id)) for key_id in part["key_ids"]})
        return f"{part['threshold']} of {len(names)} ({', '.join(names)})"

    return (
        f"Authority of {record['cluster_id']}, epoch {record['epoch']}, mode {record['mode']}: "
        f"root {of(root)}; control {of(control)}; "
        f"witnesses {witnesses['threshold']} of {len(witnesses['keys'])} "
        f"({', '.join(key['name'] for key in witnesses['keys'])}), of which {witnesses['faulty']} may lie."
        + (" Recovery keys sign it in place of the root." if record["issuer_role"] == RECOVERY else "")
    )


def _intent(record: Mapping[str, Any]) -> str:
    names = sorted({key["issuer_id"] for key in record["keys"]})
    nodes, witnesses = _nodes(one["node_id"] for one in record["sequencers"]), record["witnesses"]
    return (
        f"Recovery: unless the root vetoes it during the delay, descriptor {short(record['descriptor'])} "
        f"replaces the authority by the recovery keys of {', '.join(names)} alone; then only {nodes} may "
        f"append, and {witnesses['threshold']} of {len(witnesses['keys'])} witnesses make a head final."
    )


def _veto(record: Mapping[str, Any]) -> str:
    return f"Veto recovery {short(record['intent'])}, which ends with that: {record['reason']}"


def _members(record: Mapping[str, Any]) -> str:
    names = sorted({key["issuer_id"] for key in record["keys"]})
    where = f" of partition {record['partition']}" if "partition" in record else ""
    quorum = f"{record['threshold']} of {len(names)} ({', '.join(names)})"
    return f"{record['role']}{where}: {quorum} may sign for it."


def _term(record: Mapping[str, Any]) -> str:
    nodes = ", ".join(short(sequencer["node_id"]) for sequencer in record["sequencers"])
    term = f"term {record['term']} of log {record['log']}"
    return f"From size {record['start_size']} on, only {nodes} may append ({term})."


def _snapshot(record: Mapping[str, Any]) -> str:
    count, rows = len(record["projections"]), sum(one["rows"] for one in record["projections"])
    return f"Log {record['log']} at size {record['size']} means {rows} row(s) in {count} projection(s)."


def _approval(record: Mapping[str, Any]) -> str:
    name = f"“{record['display_name']}” ({short(record['node_id'])})"
    return f"Admit node {name} with trust {record['trust_tier']}."


def _certificate(record: Mapping[str, Any]) -> str:
    scope = "; ".join(
        f"{name} {', '.join(items) or 'none'}" for name, items in sorted(record["scope"].items())
    )
    return f"Node {short(record['node_id'])} may act as {record['role']}: {scope}."


def _target(target: Mapping[str, Any]) -> str:
    return ", ".join(f"{name.replace('_id', '')} {value}" for name, value in target.items())


def _revocation(record: Mapping[str, Any]) -> str:
    return f"Revoke {_target(record['target'])} for ever: {record['reason']}"


def _registry(record: Mapping[str, Any]) -> str:
    scope = f"organization {record['organization_id']}" if "organization_id" in record else record["scope"]
    addresses = ", ".join(endpoint["address"] for endpoint in record["endpoints"])
    return f"Service {record['service']} ({scope}) is found at {addresses or 'no address at all'}."


def _lease(record: Mapping[str, Any]) -> str:
    hops = " → ".join(short(hop) for hop in record.get("hops", [])) or "the next hop that policy picks"
    route = f"Route {record['route_id']} of partition {record['partition']}"
    return f"{route} carries {record['service']} over {hops}."


def _fence(record: Mapping[str, Any]) -> str:
    return f"Fence {_target(record['target'])}, killing every lease before it: {record['reason']}"


def _policy(record: Mapping[str, Any]) -> str:
    count = len(record["assertions"])
    return f"Policy {record['policy']} becomes epoch {record['epoch']}, with {count} assertion(s) to hold it."


def _nodes(node_ids: Iterable[str]) -> str:
    return ", ".join(short(node_id) for node_id in node_ids) or "nobody"


def _service(record: Mapping[str, Any]) -> str:
    leader = f", led by {short(record['leader'])}" if "leader" in record else ""
    return (
        f"Service {record['service']} is served by {_nodes(record['replicas'])} ({record['mode']}{leader})."
    )


def _relays(record: Mapping[str, Any]) -> str:
    relays = ", ".join(
        f"{short(relay['node_id'])} ({' '.join(relay['classes'])}, {relay['max_mbit_per_s']} Mbit/s)"
        for relay in record["relays"]
    )
    meeting = _nodes(record["rendezvous"])
    return f"In partition {record['partition']} relay {relays or 'nobody'}; nodes meet at {meeting}."


def _directory(record: Mapping[str, Any]) -> str:
    return f"The peer directory of partition {record['partition']} lists {record['node_count']} node(s)."


def _release(record: Mapping[str, Any]) -> str:
    steps = ", ".join(f"{step['cohort_percent']} % from {step['not_before']}" for step in record["rollout"])
    what = f"{record['product']} {record['version']} on channel {record['channel']}"
    return f"Release {what}: {len(record['artifacts'])} artifact(s), for {steps}."


def _shards(record: Mapping[str, Any]) -> str:
    code, nodes = record["code"], {shard["node_id"] for shard in record["shards"]}
    return (
        f"Shard set {record['shard_set_id']} lies on {len(nodes)} node(s): any {code['k']} of "
        f"{code['k'] + code['m']} shards, {record['replication_factor']} copies each, restore it; "
        f"kept until {record['retention_until']}."
    )


def _seeds(record: Mapping[str, Any]) -> str:
    addresses = ", ".join(endpoint["address"] for endpoint in record["endpoints"])
    return f"New {record['platform']} nodes at site {record['site']} start from {addresses}."


def _candidates(record: Mapping[str, Any]) -> str:
    addresses = ", ".join(one["address"] for one in record["candidates"]) or "no address at all"
    return f"Node {short(record['node_id'])} may be tried at {addresses}."


def _observation(record: Mapping[str, Any]) -> str:
    metrics = ", ".join(sorted({one["metric"] for one in record["observed"]})) or "nothing"
    return f"Node {short(record['node_id'])} measured {metrics}."


def _account(record: Mapping[str, Any]) -> str:
    carried = sum(one["bytes"] for one in record["carried"])
    routes = len({one["route_id"] for one in record["carried"]})
    period = f"from {record['since']} to {record['until']}"
    return f"Node {short(record['node_id'])} carried {carried} bytes on {routes} route(s) {period}."


_HEADLINES: Final[dict[str, Callable[[Mapping[str, Any]], str]]] = {
    "rap.fabric.authority.descriptor.v1": _descriptor,
    "rap.fabric.authority.recovery_intent.v1": _intent,
    "rap.fabric.authority.veto.v1": _veto,
    "rap.fabric.authority.members.v1": _members,
    "rap.fabric.log.term.v1": _term,
    "rap.fabric.log.snapshot.v1": _snapshot,
    "rap.fabric.node.approval.v1": _approval,
    "rap.fabric.role.certificate.v1": _certificate,
    "rap.fabric.role.revocation.v1": _revocation,
    "rap.fabric.registry.gossip_record.v1": _registry,
    "rap.fabric.route.lease.v1": _lease,
    "rap.fabric.route.fence.v1": _fence,
    "rap.fabric.policy.epoch.v1": _policy,
    "rap.fabric.service.lease.v1": _service,
    "rap.fabric.relay.assignment.v1": _relays,
    "rap.fabric.peer_directory.epoch.v1": _directory,
    "rap.fabric.update.release.v1": _release,
    "rap.fabric.storage.shard_manifest.v1": _shards,
    "rap.fabric.bootstrap.seed_set.v1": _seeds,
    "rap.fabric.endpoint.candidates.v1": _candidates,
    "rap.fabric.telemetry.observation.v1": _observation,
    "rap.fabric.traffic.account.v1": _account,
}
