"""What every exchange passes, below the application: security headers, HEAD, the optional access token, and
no NUL in what is asked for.

The token opens the door of this replica and nothing else: what a request may change is decided by the
signatures on the record in it.
"""

from __future__ import annotations

import hashlib
import hmac

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from control_api.problems import API_CODES, answer_of
from statelog.findings import Finding

_CLOSED = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
_CONSOLE = f"{_CLOSED}; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'"

SECURITY_HEADERS = {
    "Strict-Transport-Security": "max-age=31536000",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}

LIVENESS = "/healthz"


def is_page(path: str) -> bool:
    """Whether a path is one of the static pages, which hold no data and may run their own script."""
    return path in ("/", "/docs", "/console") or path.startswith("/console/")


class Shield:
    """ASGI middleware; `token` None asks for none."""

    def __init__(self, app: ASGIApp, token: str | None = None) -> None:
        self.app = app
        self._token = None if token is None else _digest(token)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        head = scope["method"] == "HEAD"
        if head:  # every GET answers HEAD alike (RFC 9110 section 9.3.2)
            scope = {**scope, "method": "GET"}

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in SECURITY_HEADERS.items():
                    headers[name] = value
                headers["Content-Security-Policy"] = _CONSOLE if is_page(scope["path"]) else _CLOSED
            elif head and message["type"] == "http.response.body":
                message = {**message, "body": b""}
            await send(message)

        if self._token is not None and not self._may_enter(scope):
            refusal = answer_of(Finding("API-TOKEN", API_CODES["API-TOKEN"]), {"WWW-Authenticate": "Bearer"})
            await refusal(scope, receive, sending)
            return
        if "\0" in scope["path"] or b"%00" in scope["query_string"] or b"\0" in scope["query_string"]:
            # No name that is asked for has one, and databases take it for the end of a text, or not at all.
            finding = Finding("API-PARAMETER", "a path or a parameter holds a NUL character")
            await answer_of(finding)(scope, receive, sending)
            return
        await self.app(scope, receive, sending)

    def _may_enter(self, scope: Scope) -> bool:
        if scope["path"] == LIVENESS or is_page(scope["path"]):
            return True
        scheme, _, given = Headers(scope=scope).get("authorization", "").partition(" ")
        return scheme.lower() == "bearer" and hmac.compare_digest(_digest(given.strip()), self._token or b"")


def _digest(token: str) -> bytes:
    """Equal lengths for a comparison whose time tells nothing."""
    return hashlib.sha256(token.encode()).digest()
