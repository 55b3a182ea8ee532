"""The HTTP side of a witness: `POST /add-checkpoint` as C2SP tlog-witness v1.0.0 writes it.

Handlers only translate: the statuses and bodies are those of `statelog.witness`. Beside the specification
stand what HTTP itself needs (405, 408, 413) and `GET /healthz` for whoever keeps the process running.
"""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from statelog.io.serving import BodyTooLongError, BodyTooSlowError, read_body
from statelog.io.witnessing import WitnessHost
from statelog.limits import MAX_ADD_CHECKPOINT_BYTES, WITNESS_BODY_TIMEOUT_S
from statelog.witness import TEXT_CONTENT_TYPE

TIMEOUT, TOO_LARGE = 408, 413


def create_app(host: WitnessHost) -> Starlette:
    """The ASGI application of one witness."""

    async def add_checkpoint(request: Request) -> Response:
        try:
            body = await read_body(request, MAX_ADD_CHECKPOINT_BYTES, WITNESS_BODY_TIMEOUT_S)
        except BodyTooLongError:
            return _said(TOO_LARGE, f"a request has at most {MAX_ADD_CHECKPOINT_BYTES} bytes")
        except BodyTooSlowError:
            return _said(TIMEOUT, "the request did not come whole in time")
        reply = await host.answer(body)
        return Response(reply.body, reply.status, {"content-type": reply.content_type})

    async def healthz(request: Request) -> Response:
        del request
        return Response(f"{host.name}\n", headers={"content-type": TEXT_CONTENT_TYPE})

    return Starlette(
        routes=[
            Route("/add-checkpoint", add_checkpoint, methods=["POST"]),
            Route("/healthz", healthz, methods=["GET"]),
        ]
    )


def _said(status: int, sentence: str) -> Response:
    """A refusal of the exchange itself; the connection is of no more use, for its body was not read."""
    return Response(
        f"SL-WITNESS: {sentence}\n", status, {"content-type": TEXT_CONTENT_TYPE, "connection": "close"}
    )
