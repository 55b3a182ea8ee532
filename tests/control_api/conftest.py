"""One replica per test, copied from a template: signing a cluster once is enough."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from control_api.settings import Settings
from statelog.io.database import open_database
from tests.control_api.replica import Clock, Replica, make_replica
from tests.support.authority import make_cluster


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Replica:
    made = make_replica(tmp_path_factory.mktemp("replica"))
    made.engine.dispose()
    return made


@pytest.fixture
def replica(template: Replica, tmp_path: Path) -> Iterator[Replica]:
    """A replica with the cluster of `tests.support.authority`, all of it final."""
    for path in template.folder.glob("node.db*"):
        if path.is_file():
            shutil.copy(path, tmp_path)
    url = f"sqlite:///{tmp_path / 'node.db'}"
    made = Replica(
        tmp_path,
        template.cluster,
        open_database(url),
        Clock(template.clock.now),
        Settings(store=url, anchor=template.cluster.anchor, wait_s=0.0),
    )
    yield made
    made.engine.dispose()


@pytest.fixture
def development(tmp_path: Path) -> Iterator[Replica]:
    """A replica of a development cluster."""
    folder = tmp_path / "development"
    folder.mkdir()
    made = make_replica(folder, make_cluster("development"))
    yield made
    made.engine.dispose()


@pytest.fixture
def grown(replica: Replica) -> Replica:
    """The replica with more than 256 entries."""
    head = replica.store.head()
    assert head is not None
    replica.sequence(*(replica.cluster.registry(f"service-{n}") for n in range(260 - head.size)))
    replica.finalize()
    return replica


@pytest.fixture
def empty(tmp_path: Path, template: Replica) -> Iterator[Replica]:
    """A replica whose store has no log yet."""
    url = f"sqlite:///{tmp_path / 'node.db'}"
    settings = Settings(store=url, anchor=template.cluster.anchor, wait_s=0.0)
    made = Replica(
        tmp_path, template.cluster, open_database(url, create=True), Clock(template.clock.now), settings
    )
    yield made
    made.engine.dispose()
