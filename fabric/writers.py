"""Writers of one session that were told to wait: for room in their own queue, or in what all share.

Waking costs nothing per stream that still has to wait, and as many are woken as there is shared room for, in
the order in which they began to wait: a hundred writers are not all woken for the room of one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable


class Writers:
    """Who waits. `full` waits for its own queue, the others stand in line for shared room."""

    __slots__ = ("_full", "_line")

    def __init__(self) -> None:
        self._full: set[int] = set()
        self._line: dict[int, None] = {}

    def __bool__(self) -> bool:
        return bool(self._full or self._line)

    def wait(self, stream_id: int, *, full: bool) -> None:
        """This writer waits; one that waits already keeps its place."""
        if full:
            self._full.add(stream_id)
        elif stream_id not in self._full:
            self._line.setdefault(stream_id)

    def forget(self, stream_id: int) -> None:
        """The stream takes no more data."""
        self._full.discard(stream_id)
        self._line.pop(stream_id, None)

    def wake(
        self, drained: Iterable[int], own_room: Callable[[int], int], enough: int, shared_room: int | None
    ) -> list[int]:
        """Those who may go on now, each with more than `enough` room, in line.

        `drained`: whose queues became shorter. `own_room(stream_id)` is what a queue takes; None for
        `shared_room` is no bound.
        """
        for stream_id in drained:
            if stream_id in self._full and own_room(stream_id) > enough:
                self._full.remove(stream_id)
                self._line.setdefault(stream_id)
        woken = []
        for stream_id in self._line:
            if shared_room is not None:
                if shared_room <= enough:
                    break
                shared_room -= own_room(stream_id)
            woken.append(stream_id)
        for stream_id in woken:
            del self._line[stream_id]
        return woken
