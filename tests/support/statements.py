"""What is asked of a database, statement by statement, before it is asked."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa

from statelog.io.statements import Prepared


@contextmanager
def each_statement(target: object, tell: Callable[[str], None]) -> Iterator[None]:
    """Every statement of an engine (or of all: `sa.engine.Engine`), those included that go straight to the
    driver, of whatever engine. Where `tell` raises it is not run.
    """

    def asked(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        tell(statement)

    def given(
        self: Prepared, connection: sa.Connection, rows: Sequence[dict[str, Any]]
    ) -> tuple[str, Sequence[Any]]:
        text, made = unwatched(self, connection, rows)
        tell(text)
        return text, made

    unwatched = Prepared._given
    sa.event.listen(target, "before_cursor_execute", asked)
    Prepared._given = given  # type: ignore[method-assign]  # for the block alone
    try:
        yield
    finally:
        Prepared._given = unwatched  # type: ignore[method-assign]  # as it was
        sa.event.remove(target, "before_cursor_execute", asked)
