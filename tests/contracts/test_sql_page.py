"""docs/sql-schema.md names every table and every column that the migrations make, and no others."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import sqlalchemy as sa

from statelog.io.database import open_database

PAGE = Path(__file__).resolve().parents[2] / "docs" / "sql-schema.md"
ROW = re.compile(r"^\| `(\w+)` \|(.*)$", re.MULTILINE)


def described(page: str) -> dict[str, set[str]]:
    """Table -> the names that its row shows; what is no column is a value or a word of a format."""
    return {name: set(re.findall(r"`(\w+)`", rest)) for name, rest in ROW.findall(page)}


def migrated(folder: Path) -> dict[str, set[str]]:
    """Table -> its columns, after all migrations."""
    engine = open_database(f"sqlite:///{folder / 'node.db'}", create=True)
    try:
        found = sa.inspect(engine)
        return {table: {one["name"] for one in found.get_columns(table)} for table in found.get_table_names()}
    finally:
        engine.dispose()


def test_the_page_is_whole(tmp_path: Path) -> None:
    page, schema = described(PAGE.read_text()), migrated(tmp_path)
    assert page.keys() == schema.keys() - {"alembic_version"}
    assert {table: schema[table] - names for table, names in page.items() if schema[table] - names} == {}


@pytest.mark.parametrize("old", ["| `log_entry` |", "`leaf_hash`"])
def test_a_missing_word_is_seen(tmp_path: Path, old: str) -> None:
    page, schema = described(PAGE.read_text().replace(old, "")), migrated(tmp_path)
    assert page.keys() != schema.keys() - {"alembic_version"} or "leaf_hash" not in page["log_entry"]
