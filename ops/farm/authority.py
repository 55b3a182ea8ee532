"""The farm's operators: their keys, and the records that two of three of them sign.

Drafting, signing and submitting go through the same ceremony functions as the `statelog` commands. All keys
of this demonstration lie on one machine; in earnest every issuer keeps their own.
"""

from __future__ import annotations

import secrets
import time
from typing import Any

from ops.farm.farm import CONTROL, WITNESSES, Farm
from statelog import ceremony, genesis
from statelog.cli.opened import opened
from statelog.io.client import ControlClient, SubmitResult
from statelog.io.held import HeldKey, LocalKey
from statelog.io.keyfiles import COSTS, create_key_file
from statelog.io.signers import load_signer
from statelog.signing import key_id_of

ISSUERS = ("alice", "bob", "carol")
DAY_S = 86_400
RECOVERY_DELAY_S = 3 * DAY_S
CLOCK_SKEW_S = 120
MAX_CHECKPOINT_AGE_S = 3_600
SUBMIT_WAIT_S = 20.0


class Operators:
    """Everybody who signs for the farm."""

    def __init__(self, farm: Farm) -> None:
        self.farm = farm
        self._signers: dict[str, HeldKey] = {}

    def signer(self, name: str, issuer: str, custody: str = "online") -> HeldKey:
        """The key called `name`, made at its first use."""
        if name not in self._signers:
            path, passphrase = self.farm.key_path(name), self.farm.passphrase
            if path.exists():
                self._signers[name] = load_signer(f"file:{path}", passphrase)
            else:
                seed = secrets.token_bytes(32)
                cost = COSTS["interactive"]
                create_key_file(
                    path, passphrase, name=name, issuer_id=issuer, custody=custody, cost=cost, seed=seed
                )
                self._signers[name] = LocalKey(seed, name, issuer, custody)
        return self._signers[name]

    def three(self, role: str) -> list[HeldKey]:
        """The three keys of a role, one for each issuer. Root and recovery keys are kept offline."""
        custody = "offline" if role in ("root", "recovery") else "online"
        return [self.signer(f"{role}-{issuer}", issuer, custody) for issuer in ISSUERS]

    # -- genesis --

    def plan(self, cluster: str) -> genesis.Plan:
        """The first descriptor: 2 of 3 root, 2 of 3 control, 3 of 4 witnesses, f = 1, recovery by 2 of 3."""
        witnesses = [self.signer(f"witness-{member.name}", f"owner-of-{member.name}") for member in WITNESSES]
        return genesis.Plan(
            cluster_id=cluster,
            mode="production",
            root=tuple(_entry(one, cluster) for one in self.three("root")),
            root_threshold=2,
            control=tuple(_entry(one, cluster) for one in self.three("control")),
            control_threshold=2,
            witnesses=tuple(_entry(one, cluster, name=one.info.name) for one in witnesses),
            witness_threshold=3,
            faulty=1,
            recovery=tuple(key_id_of(one.public) for one in self.three("recovery")),
            recovery_threshold=2,
            recovery_delay_s=RECOVERY_DELAY_S,
            clock_skew_s=CLOCK_SKEW_S,
            max_checkpoint_age_s=MAX_CHECKPOINT_AGE_S,
        )

    def members(self, cluster: str, role: str) -> dict[str, Any]:
        """The own fields of a members record that installs three keys, two of which must sign."""
        keys = [_entry(one, cluster) for one in self.three(role)]
        return {"role": f"{role}-authority", "threshold": 2, "keys": keys}

    def sequencer(self, cluster: str) -> dict[str, str]:
        """The control host's sequencer key, as a term lists it."""
        node_id = self.farm.node_id(CONTROL)
        return genesis.sequencer_entry(self.signer("sequencer", node_id), cluster, node_id)

    # -- records --

    def draft(self, kind: str, own: dict[str, Any], *, valid_s: int | None = None) -> ceremony.Request:
        """A request for signatures, judged against the authority state at the control replica's head."""
        with opened(self.farm.store_url, self.farm.anchor) as log:
            replay = log.replay(verify_signatures=False)
        return ceremony.propose(
            ceremony.kind_named(kind), own, replay.state, int(time.time()), log=replay, valid_s=valid_s
        )

    def sign(self, request: ceremony.Request, role: str, signers: int = 2) -> ceremony.Request:
        """The request with the signatures of the first `signers` holders of `role`."""
        for one in self.three(role)[:signers]:
            request = ceremony.attach(request, one, one.info.issuer_id, f"{role}-authority")
        return request

    def submit(self, data: bytes) -> SubmitResult:
        """Hand a record to the control API over HTTPS and wait for its finality."""
        with ControlClient(self.farm.control_url, self.farm.tls_certificate) as client:
            return client.submit(data, SUBMIT_WAIT_S)

    def decide(
        self, kind: str, own: dict[str, Any], *, role: str = "control", valid_s: int | None = None
    ) -> SubmitResult:
        """Draft, sign by two of three, submit."""
        return self.submit(self.sign(self.draft(kind, own, valid_s=valid_s), role).signed_record())


def _entry(signer: HeldKey, cluster: str, *, name: str | None = None) -> dict[str, str]:
    return genesis.key_entry(signer, cluster, signer.info.issuer_id, signer.info.custody, name=name)
