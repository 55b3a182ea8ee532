"""A valid record of every kind, and the pages of docs/records/ that show it.

    python -m tests.support.examples        # writes the examples into the pages anew

The records are those of a test cluster (`setting`), whose keys come from names: the same each time.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson

from statelog.canonical import encode
from statelog.records import KINDS_BY_NAME
from statelog.wording import headline
from tests.support.authority import Cluster, make_cluster, node_id

PAGES = Path(__file__).resolve().parents[2] / "docs" / "records"

Maker = Callable[[Cluster], dict[str, Any]]

MAKERS: dict[str, Maker] = {
    "authority.descriptor": lambda c: c.descriptor(),
    "authority.recovery_intent": lambda c: c.recovery_intent(c.descriptor()),
    "authority.veto": lambda c: c.veto(_under_way(c)),
    "authority.members": lambda c: c.members("route-authority", partition="eu-1", threshold=2),
    "log.term": lambda c: c.log_term(),
    "log.snapshot": lambda c: c.snapshot(),
    "node.approval": lambda c: c.approval("home-1"),
    "role.certificate": lambda c: c.certificate("home-1", "entry", scope={"services": ["a", "b"]}),
    "role.revocation": lambda c: c.revocation({"node_id": node_id("home-1")}),
    "registry.gossip_record": lambda c: c.registry(generation=3),
    "service.lease": lambda c: c.service_lease(),
    "route.lease": lambda c: c.lease(alternates=["route-b"]),
    "route.fence": lambda c: c.fence({"route_id": "route-a"}),
    "relay.assignment": lambda c: c.assignment(),
    "peer_directory.epoch": lambda c: c.directory(),
    "policy.epoch": lambda c: c.policy(document={"allow": ["10.0.0.0/8"], "depth": {"n": 1}}),
    "update.release": lambda c: c.release(),
    "storage.shard_manifest": lambda c: c.manifest(),
    "bootstrap.seed_set": lambda c: c.seeds(),
    "endpoint.candidates": lambda c: c.candidates(),
    "telemetry.observation": lambda c: c.observation(),
    "traffic.account": lambda c: c.account(),
}

_BLOCK = re.compile(r"<!-- example -->\n.*", re.DOTALL)
_JSON = re.compile(r"```json\n(.*?)```", re.DOTALL)


def setting() -> Cluster:
    """The cluster whose state every example is admitted by; a recovery is under way in it."""
    cluster = make_cluster()
    cluster.grant_roles()
    cluster.append(cluster.recovery_intent(cluster.descriptor()))
    return cluster


def _under_way(cluster: Cluster) -> str:
    """The record id of the intent under way; of no record without one."""
    return "ab" * 32 if cluster.state.recovery is None else cluster.state.recovery.record_id


def page(kind: str) -> Path:
    """The page of a kind."""
    return PAGES / f"{kind}.md"


def block(record: dict[str, Any]) -> str:
    """What stands on the page below the words ``Example``: the record's sentence, and the record."""
    shown = orjson.dumps(orjson.loads(encode(record)), option=orjson.OPT_INDENT_2).decode()
    return f"<!-- example -->\n> {headline(record)}\n\n```json\n{shown}\n```\n"


def example_on(text: str) -> dict[str, Any]:
    """The record in a page's example, as a reader would take it from there."""
    found = _JSON.search(text)
    assert found, "the page has no example"
    record: dict[str, Any] = orjson.loads(found[1])
    return record


def with_example(text: str, record: dict[str, Any]) -> str:
    """The page with this record for its example."""
    return _BLOCK.sub(lambda _: block(record), text)


def write_pages() -> None:
    """Put the examples into the pages."""
    cluster = setting()
    for kind in KINDS_BY_NAME:
        path = page(kind)
        path.write_text(with_example(path.read_text(), MAKERS[kind](cluster)))


if __name__ == "__main__":
    write_pages()
