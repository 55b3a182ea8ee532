"""Findings: what a check concluded, as data.

A finding has a stable code, a sentence, and where it applies the path inside the record, what was expected
and what was found, the log index and the record id.  The same codes are used by admission, witnesses,
auditors, the API and the command line, so a refusal reads the same everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final


@dataclass(frozen=True, slots=True)
class Finding:
    """One conclusion.  ``code`` is a key of `CODES`; ``path`` is dotted, with list positions in brackets."""

    code: str
    sentence: str
    path: str = ""
    expected: str = ""
    found: str = ""
    log_index: int | None = None
    record_id: str | None = None
    log: str | None = None

    def at(self, log_index: int | None = None, record_id: str | None = None) -> Finding:
        """The same finding, placed in a log and tied to a record; what is already known is kept."""
        return replace(
            self,
            log_index=self.log_index if log_index is None else log_index,
            record_id=self.record_id if record_id is None else record_id,
        )

    def of(self, log: str) -> Finding:
        """The same finding, of the log of that name."""
        return replace(self, log=log)

    def under(self, path: str) -> Finding:
        """The same finding, its path seen from the record that holds the checked part at ``path``."""
        return replace(self, path=f"{path}.{self.path}" if self.path else path)

    def __str__(self) -> str:
        where = f" at {self.path}" if self.path else ""
        return f"{self.code}{where}: {self.said}"

    @property
    def said(self) -> str:
        """The sentence, with what was expected and found: for where code and path stand beside it."""
        expected = f"; expected {self.expected}" if self.expected else ""
        found = f"; found {self.found}" if self.found else ""
        return f"{self.sentence}{expected}{found}"


# The order of the first block is the order in which admission checks (docs/records/, "Admission").
CODES: Final[dict[str, str]] = {
    # admission
    "SL-SIZE": "The bytes are longer than a record (or leaf) may be.",
    "SL-CANON": "The bytes are not canonical: RFC 8785 with ASCII keys and integers 0 … 2^53−1 only.",
    "SL-SCHEMA": "The kind of record is unknown here, or does not belong in this place.",
    "SL-UNLOGGED": "This kind of record has no effect before a log carries it.",
    "SL-SHAPE": "A field is missing, not allowed, of the wrong form or out of bounds.",
    "SL-CLUSTER": "The record was made for another cluster.",
    "SL-FUTURE": "The record was issued later than now, beyond the allowed clock skew.",
    "SL-EXPIRED": "The record, or the authority that it rests on, has expired.",
    "SL-VALIDITY": "The record would be valid for longer than its kind or its parent allows, or not at all.",
    "SL-SIG": "A signature is wrong, comes from an unknown key, or misstates its key's issuer or role.",
    "SL-ROLE": "The signers do not hold the role that this record needs, or the role cannot be had this way.",
    "SL-SCOPE": "The signers hold the role for another partition, or the record claims more than its parent.",
    "SL-QUORUM": "Too few distinct keys of distinct issuers signed.",
    "SL-RECOVERY": "No recovery under way allows the record, or its delay is not over, or is.",
    "SL-REVOKED": "A signing key was removed, or the record concerns a revoked node or certificate.",
    "SL-FENCED": "The record concerns a fenced route, node or partition and is not newer than the fence.",
    "SL-STALE": "The record's epoch is not greater than its subject's last.",
    "SL-EPOCH": "The record's epoch jumps too far, or is not exactly the next where it must be.",
    "SL-EQUIVOCATION": "Two different, validly signed records carry one subject and epoch.",
    "SL-KEY": "A key is unusable: bad point, wrong id, no proof of possession, or listed twice.",
    "SL-THRESHOLD": "A threshold cannot be met, or does not protect against the stated number of faults.",
    "SL-PRODUCTION": "A rule that holds in production mode is broken.",
    "SL-MODE": "The mode moves only from development to production.",
    "SL-TERM": "A term does not follow the previous one, or does not start where it says.",
    "SL-SNAPSHOT": "A snapshot does not say what the log that carries it gives.",
    "SL-AUTHORITY": "An entry of a partition's log rests on an authority head that it cannot rest on.",
    "SL-GENESIS": "The first entry of a log is not a first descriptor.",
    "SL-ANCHOR": "The log does not start at the pinned trust anchor.",
    "SL-NODE": "The record concerns a node without an approval, or a role it must hold, in force.",
    "SL-DELEGATION": "A delegated certificate does not descend from one in force that may delegate.",
    "SL-RELEASE": "A release goes back further than the one in force allows, or changes what is out.",
    "SL-SHARDS": "A shard manifest goes back in its recovery epoch, or changes bytes within one.",
    # the log
    "SL-LEAF": "A leaf is not the canonical form of a record, its time and its term.",
    "SL-ORDER": "A leaf's time lies before the one of the leaf before it.",
    "SL-DUPLICATE": "The log carries one record twice.",
    "SL-CHECKPOINT": "A checkpoint is malformed, of another log, or not signed by a sequencer of its term.",
    "SL-ROOT": "A checkpoint's root is not the root of the entries.",
    "SL-CONSISTENCY": "Two checkpoints do not belong to one history.",
    "SL-COSIGNATURE": "A witness cosignature is malformed, wrong, or not of a witness in force.",
    "SL-FINALITY": "A head is called final without enough witnesses.",
    "SL-NOTFINAL": "The newest checkpoint does not carry the cosignatures of enough witnesses yet.",
    "SL-STORED": "A stored index, hash, record id or tree node differs from the one that the entries give.",
    "SL-TILE": "A hash tile or entry bundle has the wrong length or content.",
    "SL-WITNESS": "A request to a witness, or its answer, is malformed.",
    "SL-TAIL": "Entries lie past the newest checkpoint.",
    "SL-NOTE": "Text is not a signed note.",
    "SL-PROJECTION": "A projection differs from a fresh fold of the log.",
    "SL-FOLD": "A snapshot does not say what a fresh fold of the log says.",
    "SL-EVIDENCE": "A kept piece of evidence does not prove what it claims.",
    "SL-SPLIT": "Two signed heads prove that the log has shown two histories.",
    "SL-ROLLBACK": "A replica that had shown a final head shows an older one.",
    "SL-FRESHNESS": "The final head is older than the descriptor allows: a freeze, or witnesses are missing.",
    "SL-PROOF": "A proof is malformed, or does not lead from what it proves to a head.",
    "SL-KEYFILE": "A key file is malformed, was edited, or asks for more than opening it may cost.",
    "SL-PASSPHRASE": "A key file or token does not open with this passphrase or PIN.",
    "SL-KEYSOURCE": "An agent or token does not sign: locked, removed, unwilling, or of another key type.",
    "SL-RISK": "A change takes a signer away whose loss nobody has accepted by its name.",
    "SL-REQUEST": "A signing request is malformed, or changed after it was shown.",
}
