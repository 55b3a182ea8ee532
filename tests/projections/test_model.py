"""The read models as values."""

from __future__ import annotations

import pytest

from projections.model import Endpoint, RegistryRecord
from tests.projections import facts
from tests.projections.facts import T0


@pytest.mark.parametrize(
    ("endpoint_id", "nodes"),
    [
        ("aa/1", ("aa",)),
        ("aa/via/bb/1", ("aa", "bb")),
        ("named-by-hand", ()),
        ("aa/over/bb/1", ()),
        ("a/b/c", ()),
    ],
)
def test_the_nodes_that_an_endpoint_id_names(endpoint_id: str, nodes: tuple[str, ...]) -> None:
    assert Endpoint.from_map(facts.endpoint(endpoint_id=endpoint_id)).node_ids == nodes


def test_a_record_ahead_of_the_log_is_unlogged() -> None:
    def made(log_index: int | None) -> RegistryRecord:
        return RegistryRecord("0" * 64, ("s", "cluster", ""), 1, T0, T0 + 1, 0, (), log_index)

    assert [made(None).unlogged, made(0).unlogged] == [True, False]
