"""Which connection a datagram belongs to: by the connection ids its carrier issued and has not retired."""

from __future__ import annotations

from fabric.io.connection import Connection


class ConnectionTable:
    """The connections of one endpoint, and every id by which a peer may address them."""

    def __init__(self) -> None:
        self.by_cid: dict[bytes, Connection] = {}
        self._cids: dict[Connection, set[bytes]] = {}
        self._first: dict[Connection, bytes] = {}

    def __len__(self) -> int:
        return len(self._cids)

    def __contains__(self, connection: object) -> bool:
        return connection in self._cids

    def connections(self) -> list[Connection]:
        """All of them, oldest first."""
        return list(self._cids)

    def add(self, connection: Connection, first_cid: bytes | None = None) -> None:
        """`first_cid`: the id a client chose for us, which it goes on using until it has heard ours."""
        self._cids[connection] = set()
        if first_cid is not None:
            self._first[connection] = first_cid
            self.by_cid[first_cid] = connection
        self.refresh(connection)

    def refresh(self, connection: Connection) -> None:
        """Follow the ids that the connection's carrier issued or retired."""
        known = self._cids.get(connection)
        current = connection.carrier.connection_ids()
        if known is None or known == current:
            return
        for cid in known - current:
            del self.by_cid[cid]
        for cid in current - known:
            self.by_cid[cid] = connection
        self._cids[connection] = set(current)

    def remove(self, connection: Connection) -> None:
        """Datagrams for it belong to nobody from now on."""
        for cid in self._cids.pop(connection, ()):
            del self.by_cid[cid]
        first = self._first.pop(connection, None)
        if first is not None and self.by_cid.get(first) is connection:
            del self.by_cid[first]

    def clear(self) -> None:
        """Forget everything."""
        self.by_cid.clear()
        self._cids.clear()
        self._first.clear()
