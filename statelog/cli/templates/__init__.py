"""What each kind of record is drafted from: one function per kind, from its options to its own fields.

The signature of a template is its command line: `statelog.cli.propose` makes a command of each.
"""

from __future__ import annotations

from collections.abc import Callable

from statelog.cli.templates import authority, nodes, routes, stored
from statelog.cli.templates.common import Fields

Template = Callable[..., Fields]
TEMPLATES: dict[str, Template] = {
    "authority.descriptor": authority.descriptor,
    "authority.recovery_intent": authority.recovery_intent,
    "authority.veto": authority.veto,
    "authority.members": authority.members,
    "log.term": authority.term,
    "log.snapshot": authority.snapshot,
    "node.approval": nodes.node_approval,
    "role.certificate": nodes.role_certificate,
    "role.revocation": nodes.role_revocation,
    "registry.gossip_record": routes.registry_record,
    "route.lease": routes.route_lease,
    "route.fence": routes.route_fence,
    "policy.epoch": nodes.policy_epoch,
    "bootstrap.seed_set": nodes.seed_set,
    "service.lease": routes.service_lease,
    "relay.assignment": routes.relay_assignment,
    "peer_directory.epoch": routes.peer_directory,
    "update.release": stored.release,
    "storage.shard_manifest": stored.shard_manifest,
}
