"""`statelog upgrade`: bringing a store made by an older version up to this one's schema."""

from __future__ import annotations

from statelog.cli.common import StoreOption, say, store_url
from statelog.errors import UsageError
from statelog.io.database import database_path
from statelog.io.database import upgrade as upgrade_schema


def upgrade(store: StoreOption = None) -> None:
    """Bring a store's tables up to date, in one transaction. The log itself never changes.

    Example:

      statelog upgrade --store node.db
    """
    url = store_url(store)
    path = database_path(url)
    if path is not None and not path.is_file():
        raise UsageError(f"there is no store at {path}; `statelog init` makes one")
    upgrade_schema(url)
    say(f"{url} has the newest schema")
