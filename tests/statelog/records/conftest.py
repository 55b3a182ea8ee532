"""Fixtures of the record tests."""

from __future__ import annotations

import pytest

from tests.support.authority import Cluster, make_cluster


@pytest.fixture
def cluster() -> Cluster:
    """A production cluster after its ceremony, of its own for each test."""
    return make_cluster()


@pytest.fixture
def small() -> Cluster:
    """A development cluster: one root key, one control key."""
    return make_cluster("development")
