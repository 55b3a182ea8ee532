"""A queue that holds nothing while it is empty.

An empty `collections.deque` keeps room for 64 items, 600 bytes; an idle stream has half a dozen queues, and a
node ten thousand idle streams.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class Fifo(Generic[T]):
    """First in, first out; what stands at either end may be looked at, and the first be replaced."""

    __slots__ = ("_items",)

    def __init__(self, items: Iterable[T] = ()) -> None:
        self._items: deque[T] | None = deque(items) or None

    def __len__(self) -> int:
        return len(self._items) if self._items else 0

    def __bool__(self) -> bool:
        return self._items is not None

    def __iter__(self) -> Iterator[T]:
        return iter(self._items or ())

    @property
    def first(self) -> T:
        """The item that `popleft` gives; there must be one."""
        if self._items is None:
            raise IndexError("the queue is empty")
        return self._items[0]

    @first.setter
    def first(self, item: T) -> None:
        if self._items is None:
            raise IndexError("the queue is empty")
        self._items[0] = item

    @property
    def last(self) -> T:
        """The item that was appended last; there must be one."""
        if self._items is None:
            raise IndexError("the queue is empty")
        return self._items[-1]

    def append(self, item: T) -> None:
        """Put an item at the end."""
        if self._items is None:
            self._items = deque((item,))
        else:
            self._items.append(item)

    def popleft(self) -> T:
        """Take the first item; there must be one."""
        if self._items is None:
            raise IndexError("the queue is empty")
        item = self._items.popleft()
        if not self._items:
            self._items = None
        return item

    def clear(self) -> None:
        """Forget everything."""
        self._items = None
