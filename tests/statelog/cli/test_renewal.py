"""`statelog needs-renewal`: exit 1 when something is due, and both forms of the list."""

from __future__ import annotations

import pytest

from tests.statelog.cli.conftest import Farm, Run


def where(farm: Farm) -> tuple[object, ...]:
    return ("--store", farm.path, "--root", farm.anchor)


def test_nothing_due_is_exit_0(farm: Farm, run: Run) -> None:
    ask = ("needs-renewal", *where(farm), "--within", "1s", "--kind", "authority.descriptor")
    said = run(*ask)
    assert (said.code, "nothing needs renewal within 1s" in said.out) == (0, True)
    program = run(
        "needs-renewal", *where(farm), "--within", "1s", "--kind", "authority.descriptor", "-o", "json"
    )
    assert (program.code, program.json["schema"], program.json["due"]) == (0, "statelog.renewal.v1", [])


def test_what_is_due_is_listed_and_exit_1(farm: Farm, run: Run) -> None:
    said = run("needs-renewal", *where(farm), "--within", "400d", "-o", "json")
    assert (said.code, said.json["within_s"]) == (1, 400 * 86_400)
    (descriptor,) = [one for one in said.json["due"] if one["kind"] == "authority.descriptor"]
    assert (descriptor["subject"], descriptor["why"]) == (["cluster"], "expires")
    assert descriptor["record_id"] == farm.anchor
    assert descriptor["due_at"] < descriptor["expires_at"]
    table = run("needs-renewal", *where(farm), "--within", "400d")
    assert table.code == 1
    for word in ("authority.descriptor", "cluster", farm.anchor[:8], "to renew"):
        assert word in table.out


@pytest.mark.parametrize("within", ["30", "0d", "-1d", "1w"])
def test_a_window_is_a_duration(farm: Farm, run: Run, within: str) -> None:
    said = run("needs-renewal", *where(farm), f"--within={within}")
    assert (said.code, "is not a duration" in said.err) == (2, True)
