"""Every kind of record that this version knows, by ``schema_version``.

A schema that is not listed here is refused: an unknown kind could grant authority that nobody here checks.
"""

from __future__ import annotations

from typing import Final

from statelog.records.base import Kind
from statelog.records.candidates import EndpointCandidates
from statelog.records.descriptor import AuthorityDescriptor
from statelog.records.members import AuthorityMembers
from statelog.records.node_approval import NodeApproval
from statelog.records.observation import TelemetryObservation
from statelog.records.peer_directory import PeerDirectoryEpoch
from statelog.records.policy import PolicyEpoch
from statelog.records.recovery_intent import RecoveryIntent
from statelog.records.registry import RegistryRecord
from statelog.records.relay_assignment import RelayAssignment
from statelog.records.role_certificate import RoleCertificate
from statelog.records.role_revocation import RoleRevocation
from statelog.records.route_fence import RouteFence
from statelog.records.route_lease import RouteLease
from statelog.records.seed_set import SeedSet
from statelog.records.service_lease import ServiceLease
from statelog.records.shard_manifest import ShardManifest
from statelog.records.snapshot import LogSnapshot
from statelog.records.term import LogTerm
from statelog.records.traffic_account import TrafficAccount
from statelog.records.update_release import UpdateRelease
from statelog.records.veto import AuthorityVeto

DESCRIPTOR: Final = AuthorityDescriptor()

KINDS: Final[dict[str, Kind]] = {
    kind.schema: kind
    for kind in (
        DESCRIPTOR,
        RecoveryIntent(),
        AuthorityVeto(),
        AuthorityMembers(),
        LogTerm(),
        LogSnapshot(),
        SeedSet(),
        NodeApproval(),
        RoleCertificate(),
        RoleRevocation(),
        RegistryRecord(),
        ServiceLease(),
        RouteLease(),
        RouteFence(),
        RelayAssignment(),
        PeerDirectoryEpoch(),
        PolicyEpoch(),
        UpdateRelease(),
        ShardManifest(),
        EndpointCandidates(),
        TelemetryObservation(),
        TrafficAccount(),
    )
}

KINDS_BY_NAME: Final[dict[str, Kind]] = {kind.name: kind for kind in KINDS.values()}
