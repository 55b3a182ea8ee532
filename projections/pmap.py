"""A mapping that is never changed, only followed by another that shares what did not change."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

_BUCKETS = (
    256  # 100,000 leases make buckets of about 400, copied in microseconds; an empty map costs one tuple
)


class PMap(Mapping[K, V], Generic[K, V]):
    """An immutable mapping in hash buckets; `update` copies only the buckets that it touches.

    Publishing a snapshot after every log entry must cost by the size of the change and not of the table,
    and readers on other threads must never see a half-made one.
    """

    __slots__ = ("_buckets", "_size")

    def __init__(self, items: Iterable[tuple[K, V]] = (), *, _buckets: tuple[dict[K, V], ...] = ()) -> None:
        if not _buckets:
            _buckets = tuple({} for _ in range(_BUCKETS))
            for key, value in items:
                _buckets[hash(key) % _BUCKETS][key] = value
        self._buckets = _buckets
        self._size = sum(map(len, _buckets))

    def update(self, changes: Iterable[tuple[K, V | None]]) -> PMap[K, V]:
        """A map with the changes made in order; None removes a key."""
        buckets = list(self._buckets)
        own: set[int] = set()
        for key, value in changes:
            number = hash(key) % _BUCKETS
            if number not in own:
                own.add(number)
                buckets[number] = dict(buckets[number])
            bucket = buckets[number]
            if value is None:
                bucket.pop(key, None)
            else:
                bucket[key] = value
        return PMap(_buckets=tuple(buckets)) if own else self

    def __getitem__(self, key: K) -> V:
        return self._buckets[hash(key) % _BUCKETS][key]

    def __iter__(self) -> Iterator[K]:
        for bucket in self._buckets:
            yield from bucket

    def __len__(self) -> int:
        return self._size

    def __repr__(self) -> str:
        return f"PMap({dict(self)!r})"
