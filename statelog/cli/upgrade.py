"""`statelog upgrade`: bringing a store made by an older version up to this one's schema."""

from __future__ import annotations

from statelog.cli.common import Form, OutputOption, StoreOption, print_json, say, store_url
from statelog.io.database import upgrade as upgrade_schema

SCHEMA = "statelog.upgrade.v1"


def upgrade(store: StoreOption = None, output: OutputOption = Form.TABLE) -> None:
    """Bring a store's tables up to date, in one transaction. The log itself never changes.

    Example:

      statelog upgrade --store node.db
    """
    url = store_url(store)
    upgrade_schema(url)
    if output is Form.JSON:
        print_json({"schema": SCHEMA, "store": url})
        return
    say(f"{url} has the newest schema")
