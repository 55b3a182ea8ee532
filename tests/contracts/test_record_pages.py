"""docs/records/: a page for every kind, all its fields in a table, its example admitted as it stands."""

from __future__ import annotations

import re

import pytest

from statelog.records import KINDS_BY_NAME
from statelog.records.shapes import Fields
from statelog.wording import headline
from tests.support.authority import Cluster
from tests.support.examples import MAKERS, PAGES, example_on, page, setting, with_example
from tests.support.verdicts import ADMITTED, changed, judge, verdict

HEADER = {
    *("schema_version", "cluster_id", "epoch", "generation", "issued_at", "expires_at"),
    *("issuer_node_id", "issuer_role", "signatures"),
}
_FIELD = re.compile(r"^\| `(\w+)` \|", re.MULTILINE)


@pytest.fixture(scope="module")
def cluster() -> Cluster:
    """Nothing here applies a record, so one cluster serves all."""
    return setting()


def test_every_kind_has_a_page_and_stands_in_the_table() -> None:
    assert {path.stem for path in PAGES.glob("*.md")} - {"README"} == set(KINDS_BY_NAME)
    readme = (PAGES / "README.md").read_text()
    assert set(re.findall(r"\[`([\w.]+)`\]\(\1\.md\)", readme)) == set(KINDS_BY_NAME)


@pytest.mark.parametrize("kind", MAKERS)
def test_the_example_is_admitted_as_it_stands_there(cluster: Cluster, kind: str) -> None:
    text = page(kind).read_text()
    record = example_on(text)
    decide = verdict if KINDS_BY_NAME[kind].logged else judge
    assert decide(cluster, record) == ADMITTED
    assert decide(cluster, changed(record, "issuer_node_id", "somebody else")) == "SL-SIG"
    assert f"> {headline(record)}\n" in text


@pytest.mark.parametrize("kind", MAKERS)
def test_the_example_is_the_one_that_is_made(cluster: Cluster, kind: str) -> None:
    text = page(kind).read_text()
    assert with_example(text, MAKERS[kind](cluster)) == text, "run `python -m tests.support.examples`"


@pytest.mark.parametrize("kind", MAKERS)
def test_the_table_names_every_field(kind: str) -> None:
    form = KINDS_BY_NAME[kind].form.check
    assert isinstance(form, Fields)
    own = {*form.required, *form.optional} - HEADER
    assert set(_FIELD.findall(page(kind).read_text())) == own


@pytest.mark.parametrize("kind", MAKERS)
def test_the_page_says_how_long_at_most(kind: str) -> None:
    longest = KINDS_BY_NAME[kind].max_validity_s
    days, minutes = f"{longest // 86_400} days", f"{longest // 60} minutes"
    words = "24 hours" if longest == 86_400 else days if longest > 86_400 else minutes
    assert f"At most {words}" in page(kind).read_text()
