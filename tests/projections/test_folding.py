"""All read models of a log, as snapshots see them."""

from __future__ import annotations

from projections.all import FOLD_VERSION, TABLES, fold_all
from projections.base import fact_of_leaf
from projections.folding import Folding
from tests.support.authority import make_cluster
from tests.support.partitions import Partition


def test_the_rows_of_a_log_are_those_of_its_folds() -> None:
    cluster, folding = make_cluster(), Folding()
    for index, leaf in enumerate(cluster.leaves()):
        folding.add("authority", index, leaf)
    fresh = fold_all(fact_of_leaf(index, leaf) for index, leaf in enumerate(cluster.leaves()))
    rows = {name: [row for _, row in found] for name, found in folding.rows("authority")}
    assert rows == {f"{table.name}.v{FOLD_VERSION}": list(fresh.rows(table.name)) for table in TABLES}
    assert len(rows[f"node.v{FOLD_VERSION}"]) == 6


def test_a_partitions_rows_are_its_own() -> None:
    cluster = make_cluster()
    cluster.append(cluster.lease("elsewhere"))
    eu, folding = Partition(cluster), Folding()
    eu.append(eu.lease("eu-1/a"))
    for index, leaf in enumerate(cluster.leaves()):
        folding.add("authority", index, leaf)
    for index, leaf in enumerate(eu.leaves):
        folding.add(eu.log, index, leaf)
    name = f"route_lease.v{FOLD_VERSION}"
    found = {log: dict(dict(folding.rows(log))[name]) for log in ("authority", eu.log)}
    assert {log: list(rows) for log, rows in found.items()} == {
        "authority": [("elsewhere",)],
        eu.log: [("eu-1/a",)],
    }
    assert f"node.v{FOLD_VERSION}" not in dict(folding.rows(eu.log))
