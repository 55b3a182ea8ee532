"""Credit: running totals that say how much may be sent, and windows that grow for fast readers.

One arithmetic for hop streams, whole sessions and end-to-end windows. Source: docs/wire.md, "Credit".
"""

from __future__ import annotations

from typing import Final

from fabric import limits

_UPDATE_SHARE: Final = 4
"""Credit is given back in quarters of the window: late enough to be rare, early enough never to stall."""


class ReceiveWindow:
    """What we allow a sender: `limit` is the total it may send, `window` how far that is ahead of reading.

    A window that is consumed whole within `WINDOW_GROWTH_S` was the bottleneck and doubles, up to `maximum`.
    """

    __slots__ = ("_since", "_since_bytes", "consumed", "limit", "maximum", "received", "window")

    def __init__(self, window: int, maximum: int, now: float) -> None:
        self.window = window
        self.maximum = max(window, maximum)
        self.limit = window
        self.received = 0
        self.consumed = 0
        self._since = now
        self._since_bytes = 0

    @property
    def held(self) -> int:
        """Bytes received and not consumed yet."""
        return self.received - self.consumed

    def receive(self, count: int) -> bool:
        """Count arriving bytes; False when they are beyond the limit."""
        self.received += count
        return self.received <= self.limit

    def consume(self, now: float, count: int) -> bool:
        """Count bytes that are no longer held; True when `limit` moved and the sender should hear of it."""
        self.consumed += count
        if now - self._since > limits.WINDOW_GROWTH_S:
            self._since, self._since_bytes = now, 0
        self._since_bytes += count
        if self._since_bytes >= self.window:
            self.window = min(self.maximum, 2 * self.window)
            self._since, self._since_bytes = now, 0
        if (self.consumed + self.window - self.limit) * _UPDATE_SHARE < self.window:
            return False
        self.limit = self.consumed + self.window
        return True


class SendCredit:
    """What a receiver allows us, as running totals. Starts with nothing."""

    __slots__ = ("allowed", "sent", "window")

    def __init__(self, allowed: int = 0) -> None:
        self.allowed = allowed
        self.sent = 0
        self.window = allowed
        """The most that was ever allowed at once: the receiver's window, as far as it can be known here."""

    @property
    def left(self) -> int:
        """Bytes that may be sent now."""
        return self.allowed - self.sent

    def allow(self, allowed: int) -> bool:
        """Take a new total; an older, smaller one changes nothing. Returns whether there is more."""
        if allowed <= self.allowed:
            return False
        self.allowed = allowed
        self.window = max(self.window, self.left)
        return True
