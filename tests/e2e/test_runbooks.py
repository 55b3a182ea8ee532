"""The runbooks, run: every command of `ops/runbooks/`, on machines that share nothing but a stick."""

from __future__ import annotations

import re
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.drill import Drill, Ran, blocks_of, drill

RUNBOOKS = Path(__file__).resolve().parents[2] / "ops" / "runbooks"

MEMBERS = """
```sh alice bob carol
statelog key new $WHO-route.key --issuer $WHO --custody online
statelog key enroll file:$WHO-route.key --cluster-id CLUSTER --out $STICK/$WHO-route.json
```
```sh control
statelog propose authority.members --store node.db --role route-authority --threshold 2 --out first.sigreq \\
  --add $STICK/alice-route.json --add $STICK/bob-route.json --add $STICK/carol-route.json
cp first.sigreq $STICK/
statelog export --store node.db $STICK/tiles
```
```sh alice bob
cp $STICK/first.sigreq .
statelog sign first.sigreq --key file:$WHO-control.key --store $STICK/tiles
cp first.sigreq $STICK/
```
```sh control
statelog submit $STICK/first.sigreq --store node.db
```
"""

LAPTOP = """
```sh laptop
statelog key new node.key --issuer laptop --custody online
statelog key show node.key | awk '/^public/ {print $2}' > $STICK/laptop
```
```sh control
statelog propose node.approval --store node.db --public $(cat $STICK/laptop) --name "Laptop" --out one.sigreq
cp one.sigreq $STICK/
statelog export --store node.db $STICK/tiles
```
```sh alice bob
cp $STICK/one.sigreq .
statelog sign one.sigreq --key file:$WHO-control.key --store $STICK/tiles
cp one.sigreq $STICK/
```
```sh control
statelog submit $STICK/one.sigreq --store node.db
```
"""


@pytest.fixture
def farm(tmp_path: Path) -> Iterator[Drill]:
    with drill(tmp_path) as made:
        yield made


def text_of(name: str) -> str:
    return (RUNBOOKS / f"{name}.md").read_text()


def prepare(farm: Drill, script: str) -> None:
    """What the farm was like before the day: for its whole length in the same commands as a runbook."""
    assert list(farm.run(script.replace("CLUSTER", farm.cluster_id)))


def assert_clean(ran: Ran) -> None:
    assert "statelog verify" in ran.commands
    assert "clean" in ran.printed.splitlines(), ran.printed


def words_of(ran: Ran) -> list[tuple[str, ...]]:
    """The digests that were on a screen, in words."""
    lines = re.findall(r"^in words +(.+)\n +(.+)$", ran.printed, re.MULTILINE)
    return [tuple(f"{first} {second}".split()) for first, second in lines]


def test_rotation(farm: Drill) -> None:
    *_, last = farm.run(text_of("rotation"))
    assert "nothing needs renewal" in last.printed
    assert_clean(last)


def test_the_worst_day(farm: Drill) -> None:
    prepare(farm, MEMBERS)
    ran = list(farm.run(text_of("worst-day")))
    assert_clean(ran[-1])
    assert_clean(ran[-2])

    # Nobody saw another request than the one that was proposed.
    proposed = next(one for one in ran if "propose authority.descriptor" in one.commands)
    signed = [one for one in ran if "-root.key --store" in one.commands and "sign" in one.commands]
    assert [one.machine for one in signed] == ["alice", "dora", "bob"]
    assert {words for one in (proposed, *signed) for words in words_of(one)} == set(words_of(proposed))
    assert len(words_of(proposed)[0]) == 16
    status = next(one for one in ran if "statelog status whole.sigreq" in one.commands).printed
    assert "root-authority: 2 of 2; complete" in status
    assert "proposed root-authority: 2 of 2; complete" in status

    # Carol's key, found in a drawer, and Bob's, kept against the rules, open nothing.
    farm.command("control", "statelog propose authority.descriptor --store node.db --out late.sigreq")
    farm.command("control", "cp late.sigreq $STICK/; statelog export --store node.db $STICK/tiles")
    for who in ("bob", "carol"):
        late = f"statelog sign $STICK/late.sigreq --key file:{who}-root.key --store $STICK/tiles"
        assert "SL-ROLE" in farm.command(who, f"{late} && exit 9 || test $? = 1")


def test_a_witness_change(farm: Drill, monkeypatch: pytest.MonkeyPatch) -> None:
    # The new witness replays the whole log before it answers; K of the others do not wait for it for ever.
    monkeypatch.setattr("statelog.io.cosign.COSIGN_STRAGGLER_S", 60.0)
    ran = list(farm.run(text_of("witness-change")))
    assert_clean(ran[-1])
    farm.away.add("w4")  # it may go now
    farm.command("control", "statelog verify node.db --root anchor")
    with sqlite3.connect(farm.store("control")) as db:
        deadline = time.monotonic() + 60
        while cosigners(db) != {"w1", "w2", "w3", "w4", "w5"} and time.monotonic() < deadline:
            time.sleep(0.05)  # in the rows of another thread's store there is no event
        assert cosigners(db) == {"w1", "w2", "w3", "w4", "w5"}


def cosigners(db: sqlite3.Connection) -> set[str]:
    return {name for (name,) in db.execute("select distinct name from cosignature")}


def test_a_sequencer_failover(farm: Drill) -> None:
    prepare(farm, MEMBERS)
    farm.key("standby", "node", "standby", "online")
    farm.stop("control")
    farm.replicate("control", "standby")  # what the node of the standby did all along
    for ran in farm.run(text_of("sequencer-failover")):
        if "--wait 0" in ran.commands:
            farm.start("standby", "sequencer-2")
    assert "final: entry 3" in ran.printed
    assert_clean(ran)

    # The old host wakes up and goes on as if nothing had happened: nothing of it becomes final.
    farm.start("control")
    policy = "echo '{}' > d.json; statelog propose policy.epoch --policy p --document d.json --out p.sigreq"
    farm.command("control", f"{policy} --store node.db; cp p.sigreq $STICK/")
    for who in ("alice", "bob"):
        sign = f"statelog sign $STICK/p.sigreq --key file:{who}-control.key --offline"
        farm.command(who, sign)
    late = farm.command("control", "statelog submit $STICK/p.sigreq --store node.db --wait 2 || test $? = 1")
    assert "not final" in late


def test_a_lost_root(farm: Drill) -> None:
    for who in ("alice", "bob", "carol"):
        (farm.machine(who) / f"{who}-root.key").unlink()  # the fire
    before = time.monotonic()
    ran = []
    for one in farm.run(text_of("lost-root")):
        ran.append(one)
        if "submit $STICK/intent.sigreq" in one.commands:
            before = time.monotonic()
        if "cp coming.sigreq $STICK/" in one.commands:
            # The delay itself is waited for: a second, and one for the log counts whole ones.
            time.sleep(max(0.0, before + 2.0 - time.monotonic()))  # see above
    assert_clean(ran[-1])
    assert "descriptor epoch 2" in ran[-1].printed


def test_a_veto(tmp_path: Path) -> None:
    with drill(tmp_path, recovery_delay_s=3_600) as farm:
        for _ in farm.run(text_of("lost-root").partition("## 4.")[0]):
            continue
        first, *_, last = farm.run(text_of("veto"))
        assert re.search(r"^RECOVERY +begun with recovery keys of alice, bob", first.printed, re.MULTILINE)
        assert_clean(last)
        assert "RECOVERY" not in farm.command("control", "statelog status --store node.db")
        farm.command("control", "statelog export --store node.db $STICK/tiles")
        late = "statelog sign $STICK/coming.sigreq --key file:bob-recovery.key --store $STICK/tiles"
        refused = farm.command("bob", f"{late} && exit 9 || test $? = 1")
        assert "SL-ROLE" in refused


def test_a_lost_node(farm: Drill) -> None:
    prepare(farm, LAPTOP)
    ran = list(farm.run(text_of("node-loss")))
    assert_clean(ran[-1])
    lost = (farm.stick / "node-id").read_text().strip()
    grant = (
        f"statelog propose role.certificate --store node.db --node-id {lost} --role service-host"
        " --service web --partition eu-1 --action '*' --out again.sigreq"
    )
    refused = farm.command("control", f"{grant} && exit 9 || test $? = 1")
    assert "SL-REVOKED" in refused or "SL-NODE" in refused


def test_every_runbook_is_run_and_says_where() -> None:
    tested = {
        "rotation",
        "worst-day",
        "witness-change",
        "sequencer-failover",
        "lost-root",
        "veto",
        "node-loss",
    }
    assert {path.stem for path in RUNBOOKS.glob("*.md")} == tested | {"README"}
    index = text_of("README")
    for name in tested:
        assert f"]({name}.md)" in index
        fences = re.findall(r"^```(\S.*)$", text_of(name), re.MULTILINE)
        assert all(fence == "text" or fence.startswith("sh ") for fence in fences)
        assert len(blocks_of(text_of(name))) >= 4
