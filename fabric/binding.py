"""What ties one end of a sealed stream to a hop stream: its seal, and the proofs by which it moves on.

The first OPEN and ACCEPTED make the keys. A later OPEN of the same uid carries `resume`: how far this end has
got, and an HMAC under a key of the stream. Both sign the seal again, for the route that the stream takes now,
with the X25519 keys and the suite of the beginning; records keep their keys, so that a resend is the
identical ciphertext.

    proof = HMAC-SHA256(resume key of the direction,
                        PAE(type, uid | attempt u32 | received_up_to u64 | limit u64 | SHA-256(signature)))

`signature` is the one of the seal in the same frame, so the proof is for one route and, since the attempt is
counted, good once. Source: docs/wire.md, "Resumption". docs/adr/0009-resumption.md says why.
"""

from __future__ import annotations

import struct
from dataclasses import replace
from hashlib import sha256
from typing import Final, Self

from fabric.errors import SealError, StreamError
from fabric.handshake import Identity
from fabric.seal import (
    KEY_BYTES,
    SealContext,
    StreamKeys,
    accept_answer,
    check_answer,
    check_offer,
    make_answer,
    make_offer,
    sign_answer,
    sign_offer,
)
from fabric.wire import SUITES, OpenStream, Resume, RouteRef, SealAnswer, SealOffer, StreamAccepted
from statelog.signing import pae

OPEN_TYPE: Final = "application/vnd.rap.fabric.stream.resume.open.v1"
ACCEPTED_TYPE: Final = "application/vnd.rap.fabric.stream.resume.accepted.v1"

_PROOF: Final = struct.Struct(">16sIQQ32s")


class Binding:
    """One end's seal. Use `initiate` or `respond`."""

    # A stream that stands keeps of both frames no more than their X25519 keys: ten thousand may stand idle.
    __slots__ = (
        "_answer",
        "_attempt",
        "_ephemeral",
        "_identity",
        "_next",
        "_offer",
        "_publics",
        "context",
        "keys",
    )

    def __init__(self, context: SealContext, identity: Identity, offer: SealOffer) -> None:
        self.context = context
        self.keys: StreamKeys | None = None
        """The stream's keys, once both ends' X25519 keys are known."""
        self._identity = identity
        self._offer: SealOffer | None = offer  # until it is answered
        self._answer: SealAnswer | None = None  # until it is sent
        self._publics = offer.key  # both ends' X25519 keys, the initiator's first, once there are both
        self._ephemeral = b""
        self._attempt = 0
        self._next: tuple[SealContext, SealOffer] | None = None

    # -- the initiator ---------------------------------------------------------------------------------------

    @classmethod
    def initiate(
        cls, context: SealContext, identity: Identity, ephemeral: bytes, suites: tuple[str, ...] = SUITES
    ) -> Self:
        """The end that opens the stream. `ephemeral`: 32 fresh random bytes; `suites`: the best first."""
        self = cls(context, identity, make_offer(context, identity, ephemeral, suites))
        self._ephemeral = ephemeral
        return self

    def opening(self, limit: int, hold_s: int, resume: Resume | None = None) -> OpenStream:
        """The OPEN for the hop stream that is tried now."""
        context, offer = self._next or (self.context, self._offer)
        if offer is None:
            raise AssertionError("the stream was opened, and nothing is tried now")
        return OpenStream(
            uid=context.uid,
            service=context.service,
            class_=int(context.traffic_class),
            mode=int(context.mode),
            limit=limit,
            seal=offer,
            route=context.route,
            resume=resume,
            hold_s=hold_s,
        )

    def accepted(self, accepted: StreamAccepted) -> None:
        """Take the first ACCEPTED; makes the keys. Raises `SealError`."""
        if self._offer is None:
            raise AssertionError("the stream was accepted before")
        self.keys = accept_answer(self.context, self._offer, accepted.seal, self._ephemeral)
        self._offer, self._ephemeral = None, b""
        self._publics += accepted.seal.key

    def reopening(self, route: RouteRef | None, received_up_to: int, limit: int, hold_s: int) -> OpenStream:
        """The OPEN that goes on over `route`; each call is a new attempt."""
        context = replace(self.context, route=route)
        self._attempt += 1
        offer = sign_offer(context, self._identity, self._publics[:KEY_BYTES], (self._agreed.suite,))
        self._next = (context, offer)
        signature = offer.signature
        return self.opening(limit, hold_s, self._proof(OPEN_TYPE, received_up_to, limit, signature))

    @property
    def next_route(self) -> RouteRef | None:
        """The route of the attempt under way; of the stream, when there is none."""
        return (self.context if self._next is None else self._next[0]).route

    def reaccepted(self, accepted: StreamAccepted) -> Resume:
        """Take the ACCEPTED of the attempt under way; the stream is on its route then.

        Raises `StreamError` (`resume_invalid`) and changes nothing when the other end did not make it.
        """
        resume, answer = accepted.resume, accepted.seal
        if self._next is None or resume is None or answer.key != self._publics[KEY_BYTES:]:
            raise StreamError("resume_invalid", "the answer is not about this stream")
        if resume.attempt != self._attempt:
            raise StreamError("resume_stale", f"attempt {resume.attempt} answered, not {self._attempt}")
        context, offer = self._next
        try:
            check_answer(context, offer, answer)
        except SealError as error:
            raise StreamError("resume_invalid", str(error)) from error
        self._check(ACCEPTED_TYPE, resume, answer.signature)
        self.context, self._next = context, None
        return resume

    # -- the responder ---------------------------------------------------------------------------------------

    @classmethod
    def respond(
        cls,
        context: SealContext,
        identity: Identity,
        offer: SealOffer,
        ephemeral: bytes,
        suites: tuple[str, ...] = SUITES,
    ) -> Self:
        """The end that is opened to. Raises `SealError`. `ephemeral`: 32 fresh random bytes."""
        check_offer(context, offer)
        self = cls(context, identity, offer)
        self._answer, self.keys = make_answer(context, identity, offer, ephemeral, suites)
        self._offer = None
        self._publics += self._answer.key
        return self

    def acceptance(self, limit: int, resume: Resume | None = None) -> StreamAccepted:
        """The ACCEPTED for the hop stream that the stream is on, once for each."""
        answer, self._answer = self._answer, None
        if answer is None:
            raise AssertionError("there is nothing to accept")
        return StreamAccepted(limit=limit, seal=answer, resume=resume)

    def reopened(self, opening: OpenStream) -> Resume:
        """Take an OPEN that goes on; the stream is on its route then.

        Raises `StreamError` and changes nothing: `resume_stale` when this attempt or a newer one was here
        before, `resume_invalid` when the initiator did not make it.
        """
        resume, offer = opening.resume, opening.seal
        context = replace(self.context, route=opening.route)
        if resume is None or offer.key != self._publics[:KEY_BYTES]:
            raise StreamError("resume_invalid", "the request is not about this stream")
        same = (context.service, context.traffic_class, context.mode, (self._agreed.suite,))
        if same != (opening.service, opening.traffic_class, opening.stream_mode, offer.offered):
            raise StreamError("resume_invalid", "the request describes another stream")
        if resume.attempt <= self._attempt:
            raise StreamError("resume_stale", f"attempt {resume.attempt} after {self._attempt}")
        try:
            check_offer(context, offer)
        except SealError as error:
            raise StreamError("resume_invalid", str(error)) from error
        self._check(OPEN_TYPE, resume, offer.signature)
        self.context, self._offer, self._attempt = context, offer, resume.attempt
        return resume

    def reacceptance(self, received_up_to: int, limit: int) -> StreamAccepted:
        """The ACCEPTED that answers the OPEN taken last by `reopened`."""
        if self._offer is None:
            raise AssertionError("no OPEN was taken")
        key, suite = self._publics[KEY_BYTES:], self._agreed.suite
        self._answer = sign_answer(self.context, self._identity, self._offer, key, suite)
        self._offer = None
        proof = self._proof(ACCEPTED_TYPE, received_up_to, limit, self._answer.signature)
        return self.acceptance(limit, proof)

    # -- proofs ----------------------------------------------------------------------------------------------

    @property
    def _agreed(self) -> StreamKeys:
        if self.keys is None:
            raise AssertionError("a stream without keys cannot be resumed")
        return self.keys

    def _proof(self, kind: str, received_up_to: int, limit: int, signature: bytes) -> Resume:
        message = self._message(kind, self._attempt, received_up_to, limit, signature)
        mac = self._agreed.prove(message)
        return Resume(attempt=self._attempt, received_up_to=received_up_to, limit=limit, mac=mac)

    def _check(self, kind: str, resume: Resume, signature: bytes) -> None:
        message = self._message(kind, resume.attempt, resume.received_up_to, resume.limit, signature)
        if not self._agreed.proved(message, resume.mac):
            raise StreamError("resume_invalid", "the proof does not hold")

    def _message(self, kind: str, attempt: int, received_up_to: int, limit: int, signature: bytes) -> bytes:
        seal = sha256(signature).digest()
        return pae(kind, _PROOF.pack(self.context.uid, attempt, received_up_to, limit, seal))
