"""From a proposal to the log: propose, sign, merge, status, submit."""

from __future__ import annotations

import shlex
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest

from statelog import canonical, ceremony
from statelog.ceremony import Request
from statelog.findings import Finding
from statelog.io.store import Store
from statelog.wording import digest_words
from tests.statelog.cli.conftest import Farm, Ran, Run

POLICY = ("propose", "policy.epoch", "--policy", "probe")


@pytest.fixture
def document(tmp_path: Path) -> Path:
    path = tmp_path / "probe.json"
    path.write_text('{ "allow": ["192.0.2.0/24"] }')
    return path


@pytest.fixture
def request_file(farm: Farm, document: Path, run: Run, tmp_path: Path) -> Path:
    path = tmp_path / "probe.sigreq"
    made = run(*POLICY, "--document", document, "--store", farm.path, "--root", farm.anchor, "--out", path)
    assert made.code == 0, made.err
    return path


def read(path: Path) -> Request:
    return ceremony.decode_request(path.read_bytes())


def signing(farm: Farm, path: Path, *names: str, more: tuple[Any, ...] = ()) -> tuple[Any, ...]:
    keys = [part for name in names for part in ("--key", f"env:KEY_{name}")]
    return ("sign", path, *keys, "--store", farm.path, "--root", farm.anchor, *more)


def said_next(said: Ran) -> list[str]:
    """The words of the command that comes next, as a shell reads them."""
    assert said.code == 0, said.err
    (line,) = [line for line in said.out.splitlines() if line.startswith("next ")]
    label, program, *words = shlex.split(line)
    assert (label, program) == ("next", "statelog")
    return words


@contextmanager
def meanwhile(action: Callable[[], object]) -> Iterator[None]:
    """Run `action` in a thread once a record has been queued, as the daemon would."""
    put = Store.outbox_put
    workers: list[threading.Thread] = []

    def put_and_start(*arguments: Any) -> Any:
        row = put(*arguments)
        workers.append(threading.Thread(target=action))
        workers[-1].start()
        return row

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Store, "outbox_put", put_and_start)
        yield
    for worker in workers:
        worker.join()


# -- the whole way --


def test_two_of_three_sign_and_it_is_final(farm: Farm, request_file: Path, run: Run) -> None:
    digest = read(request_file).record_id
    shown = run(*signing(farm, request_file, "CONTROL_1"), stdin="y\n")
    assert shown.code == 0, shown.err
    assert "Policy probe becomes epoch 1" in shown.out
    assert '+ document.allow[0]: "192.0.2.0/24"' in shown.out
    assert digest in shown.out
    assert " ".join(digest_words(bytes.fromhex(digest)).split("-")[:8]) in shown.out
    assert "control-authority: 1 of 3" not in shown.out
    assert "control-authority: 1 of 2; missing: 1 of" in shown.out

    half = run("submit", request_file, "--store", farm.path, "--root", farm.anchor)
    assert (half.code, half.err.count("\n")) == (1, 2)  # the headline and the refusal
    assert "refused: SL-QUORUM" in half.err

    assert run(*signing(farm, request_file, "CONTROL_3", more=("--digest", digest))).code == 0
    whole = run("status", request_file, "--store", farm.path, "--root", farm.anchor, "-o", "json").json
    assert (whole["schema"], whole["complete"]) == ("statelog.request.v1", True)
    assert whole["quorums"][0]["missing"] == 0

    with meanwhile(lambda: (farm.drain(), farm.finalize())):
        done = run("submit", request_file, "--store", farm.path, "--root", farm.anchor, "-o", "json")
    assert done.code == 0, done.err
    assert done.json == {
        "schema": "statelog.submit.v1",
        "record_id": digest,
        "final": True,
        "log": "authority",
        "log_index": farm.cluster.log.size,
        "duplicate": False,
    }
    again = run("submit", request_file, "--store", farm.path, "--root", farm.anchor)
    assert again.code == 0
    assert "which it was before" in again.out


def test_a_sequencer_key_writes_at_once(farm: Farm, request_file: Path, run: Run) -> None:
    digest = read(request_file).record_id
    sign = signing(farm, request_file, "CONTROL_1", "CONTROL_2", more=("--digest", digest))
    assert run(*sign).code == 0
    submit = ("submit", request_file, "--store", farm.path, "--root", farm.anchor)
    wrong = run(*submit, "--sequencer-key", "env:KEY_SEQUENCER_2", "--wait", 0)
    assert (wrong.code, "SL-TERM" in wrong.err) == (1, True)
    done = run(*submit, "--sequencer-key", "env:KEY_SEQUENCER_1", "--wait", 0)
    assert done.code == 0, done.err
    assert f"accepted, entry {farm.cluster.log.size}, not final" in done.out
    late = run(*submit, "--wait", 0.01)
    assert (late.code, "not final" in late.out) == (1, True)


def test_a_record_refused_in_the_outbox_is_said(farm: Farm, request_file: Path, run: Run) -> None:
    digest = read(request_file).record_id
    sign = signing(farm, request_file, "CONTROL_1", "CONTROL_2", more=("--digest", digest))
    assert run(*sign).code == 0
    submit = ("submit", request_file, "--store", farm.path, "--root", farm.anchor)
    queued = run(*submit, "--wait", 0)
    assert (queued.code, "not yet sequenced" in queued.out) == (0, True)
    with meanwhile(lambda: farm.refuse(digest, Finding("SL-STALE", "another was first"))):
        refused = run(*submit)
    assert (refused.code, "refused: SL-STALE: another was first" in refused.err) == (1, True)


# -- looking --


def test_diff_shows_what_sign_shows(farm: Farm, request_file: Path, run: Run) -> None:
    before = request_file.read_bytes()
    where = ("--store", farm.path, "--root", farm.anchor)
    shown = run("diff", request_file, *where)
    assert shown.code == 0, shown.err
    signed = run(*signing(farm, request_file, "CONTROL_1"), stdin="n\n")
    assert signed.out.startswith(shown.out)
    assert request_file.read_bytes() == before
    body = run("diff", request_file, *where, "-o", "json").json
    digest = read(request_file).record_id
    assert (body["schema"], body["record_id"], body["compared"]) == ("statelog.diff.v1", digest, True)
    assert body["in_words"] == digest_words(bytes.fromhex(digest))
    assert {"path": "document.allow[0]", "before": None, "after": '"192.0.2.0/24"'} in body["changes"]
    assert body["before_epoch"] is None


def test_diff_compares_with_the_epoch_in_force(
    farm: Farm, request_file: Path, run: Run, document: Path, tmp_path: Path
) -> None:
    where = ("--store", farm.path, "--root", farm.anchor)
    digest = read(request_file).record_id
    assert run(*signing(farm, request_file, "CONTROL_1", "CONTROL_2", more=("--digest", digest))).code == 0
    submit = ("submit", request_file, *where, "--sequencer-key", "env:KEY_SEQUENCER_1", "--wait", 0)
    assert run(*submit).code == 0
    document.write_text('{ "allow": ["198.51.100.0/24"] }')
    second = tmp_path / "second.sigreq"
    assert run(*POLICY, "--document", document, *where, "--out", second).code == 0
    body = run("diff", second, *where, "-o", "json").json
    assert (body["before_epoch"], body["compared"]) == (1, True)
    assert {"path": "document.allow[]", "before": '"192.0.2.0/24"', "after": None} in body["changes"]
    alone = run("diff", second, "--offline", "-o", "json").json
    assert (alone["before_epoch"], alone["compared"]) == (None, False)


def test_a_signer_needs_no_database_but_the_log_in_tiles(
    farm: Farm, request_file: Path, run: Run, tmp_path: Path
) -> None:
    tiles = tmp_path / "tiles"
    assert run("export", "--store", farm.path, "--root", farm.anchor, tiles).code == 0
    there = run("diff", request_file, "--store", farm.path, "--root", farm.anchor)
    here = run("diff", request_file, "--store", tiles, "--root", farm.anchor)
    assert here.code == 0, here.err
    assert here.out == there.out
    sign = ("sign", request_file, "--key", "env:KEY_CONTROL_1", "--store", tiles, "--root", farm.anchor)
    assert run(*sign, stdin="y\n").code == 0
    assert len(read(request_file).signatures) == 1
    unpinned = run("diff", request_file, "--store", tiles)
    assert (unpinned.code, "give --root" in unpinned.err) == (2, True)
    other = run("diff", request_file, "--store", tiles, "--root", "ab" * 32)
    assert (other.code, "SL-ANCHOR" in other.err) == (1, True)


def test_damaged_tiles_show_nothing(farm: Farm, request_file: Path, run: Run, tmp_path: Path) -> None:
    tiles = tmp_path / "tiles"
    assert run("export", "--store", farm.path, "--root", farm.anchor, tiles).code == 0
    (bundle,) = (path for path in (tiles / "tile" / "entries").rglob("*") if path.is_file())
    data = bytearray(bundle.read_bytes())
    data[len(data) // 2] ^= 1
    bundle.write_bytes(data)
    said = run("diff", request_file, "--store", tiles, "--root", farm.anchor)
    assert (said.code, said.out) == (1, "")
    assert "refused: SL-" in said.err


# -- signing --


def test_saying_no_signs_nothing(farm: Farm, request_file: Path, run: Run) -> None:
    before = request_file.read_bytes()
    for answer in ("n\n", "\n", ""):
        said = run(*signing(farm, request_file, "CONTROL_1"), stdin=answer)
        assert said.code != 0
        assert request_file.read_bytes() == before


def test_another_digest_signs_nothing(farm: Farm, request_file: Path, run: Run) -> None:
    before = request_file.read_bytes()
    said = run(*signing(farm, request_file, "CONTROL_1", more=("--digest", "0" * 64)))
    assert (said.code, "SL-REQUEST" in said.err) == (1, True)
    assert request_file.read_bytes() == before


def test_a_request_that_changes_while_it_is_read_is_refused(
    farm: Farm, request_file: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = read(request_file)
    swapped = Request({**shown.record, "document": {"allow": ["0.0.0.0/0"]}}, (), shown.title)

    def swap(*_: Any, **__: Any) -> bool:
        request_file.write_bytes(ceremony.encode_request(swapped))
        return True

    monkeypatch.setattr("typer.confirm", swap)
    said = run(*signing(farm, request_file, "CONTROL_1"))
    assert said.code == 1
    assert "changed while you looked at it" in said.err
    assert read(request_file) == swapped  # as the swapper left it: no signature of ours is on it
    assert read(request_file).signatures == ()


def test_a_signature_that_came_meanwhile_is_kept(
    farm: Farm, request_file: Path, run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    digest = read(request_file).record_id
    other = tmp_path / "other.sigreq"
    assert run(*signing(farm, request_file, "CONTROL_2", more=("--digest", digest, "--out", other))).code == 0
    assert read(request_file).signatures == ()

    def arrive(*_: Any, **__: Any) -> bool:
        request_file.write_bytes(other.read_bytes())
        return True

    monkeypatch.setattr("typer.confirm", arrive)
    assert run(*signing(farm, request_file, "CONTROL_1")).code == 0
    assert len(read(request_file).signatures) == 2


@pytest.mark.parametrize("name", ["ROUTE_1", "STRANGER_1", "ROOT_1"])
def test_a_key_without_the_role_signs_nothing(farm: Farm, request_file: Path, run: Run, name: str) -> None:
    before = request_file.read_bytes()
    said = run(*signing(farm, request_file, name), stdin="y\n")
    assert (said.code, "SL-ROLE" in said.err) == (1, True)
    assert request_file.read_bytes() == before


def test_offline_a_signer_sees_the_whole_record(
    farm: Farm, request_file: Path, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = tmp_path / "c.key"
    monkeypatch.setenv("STATELOG_PASSPHRASE", "pass")
    assert run("key", "new", key, "--cost", "interactive").code == 0
    said = run("sign", request_file, "--key", f"file:{key}", "--offline", stdin="y\n")
    assert said.code == 0, said.err
    assert "no store was given" in said.out
    assert "+ document.allow" in said.out
    nobody = run("sign", request_file, "--key", "env:KEY_CONTROL_1", "--offline", stdin="y\n")
    assert (nobody.code, "names no issuer" in nobody.err) == (2, True)


def test_the_command_that_is_said_to_come_next_runs_as_it_stands(
    farm: Farm, document: Path, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, where = tmp_path / "a probe.sigreq", ("--store", farm.path, "--root", farm.anchor)
    sign = said_next(run(*POLICY, "--document", document, *where, "--out", path))
    assert sign == ["sign", str(path), "--key", "file:YOUR.key", *map(str, where)]
    for name in ("CONTROL_1", "CONTROL_2"):
        ready = [f"env:KEY_{name}" if word == "file:YOUR.key" else word for word in sign]
        assert run(*ready, stdin="y\n").code == 0
    handed_in = run(*said_next(run("status", path, *where)), "--wait", 0)
    assert (handed_in.code, "accepted, not yet sequenced" in handed_in.out) == (0, True)
    for name, value in (("STORE", farm.path), ("ROOT", farm.anchor)):
        monkeypatch.setenv(f"STATELOG_{name}", str(value))
    assert said_next(run("status", path)) == ["submit", str(path)]


def test_who_has_the_log_in_tiles_alone_submits_to_an_api(
    farm: Farm, request_file: Path, run: Run, tmp_path: Path
) -> None:
    tiles = tmp_path / "tiles"
    exported = run("export", tiles, "--store", farm.path, "--root", farm.anchor)
    assert run(*said_next(exported)).code == 0
    sign = signing(
        farm, request_file, "CONTROL_1", "CONTROL_2", more=("--digest", read(request_file).record_id)
    )
    assert run(*sign).code == 0
    submit = said_next(run("status", request_file, "--store", tiles, "--root", farm.anchor))
    assert submit == ["submit", str(request_file), "--api", "https://YOUR.control:8443"]


def test_a_stale_request_is_not_signed(farm: Farm, request_file: Path, run: Run) -> None:
    digest = read(request_file).record_id
    sign = signing(farm, request_file, "CONTROL_1", "CONTROL_2", more=("--digest", digest))
    assert run(*sign).code == 0
    submit = ("submit", request_file, "--store", farm.path, "--root", farm.anchor, "--wait", 0)
    assert run(*submit, "--sequencer-key", "env:KEY_SEQUENCER_1").code == 0
    said = run(*signing(farm, request_file, "CONTROL_3"), stdin="y\n")
    assert (said.code, "SL-DUPLICATE" in said.err) == (1, True)


# -- merging --


def test_signatures_from_two_sticks_are_merged(
    farm: Farm, request_file: Path, run: Run, tmp_path: Path
) -> None:
    digest = read(request_file).record_id
    sticks = [tmp_path / "a.sigreq", tmp_path / "b.sigreq"]
    for stick, name in zip(sticks, ("CONTROL_1", "CONTROL_2"), strict=True):
        assert run(*signing(farm, request_file, name, more=("--digest", digest, "--out", stick))).code == 0
    out = tmp_path / "whole.sigreq"
    merged = run("merge", *sticks, "--out", out, "--store", farm.path, "--root", farm.anchor)
    assert (merged.code, "2 of 2; complete" in merged.out) == (0, True)
    assert len(read(out).signatures) == 2
    twice = run("merge", *sticks, "--out", out)
    assert (twice.code, "exists already" in twice.err) == (2, True)
    loose = run("merge", *sticks, "--out", tmp_path / "loose.sigreq")
    assert (loose.code, "not checked" in loose.out) == (0, True)


def test_a_signature_that_does_not_count_is_left_out(
    farm: Farm, request_file: Path, run: Run, tmp_path: Path
) -> None:
    digest = read(request_file).record_id
    good, bad, out = tmp_path / "good.sigreq", tmp_path / "bad.sigreq", tmp_path / "out.sigreq"
    sign = signing(farm, request_file, "CONTROL_1", more=("--digest", digest, "--out", good))
    assert run(*sign).code == 0
    request = read(good)
    spoiled = Request(request.record, ({**request.signatures[0], "value": "A" * 86 + "=="},), request.title)
    bad.write_bytes(ceremony.encode_request(spoiled))
    merged = run("merge", good, bad, "--out", out, "--store", farm.path, "--root", farm.anchor)
    assert merged.code == 0, merged.err
    assert "does not count and is left out" in merged.err
    assert read(out).signatures == request.signatures
    status = run("status", bad, "--store", farm.path, "--root", farm.anchor)
    assert "wrong      the signature of" in status.out


# -- malformed, foreign, oversized input --


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{}",
        b"[1]",
        b"\x00\x01\x02",
        b'{"schema":"statelog.sigreq.v1"}',
        b"x" * 100_000,
        b"PK\x03\x04zip",
    ],
)
@pytest.mark.parametrize("command", ["sign", "merge", "submit", "status"])
def test_foreign_files_are_refused_and_nothing_is_written(
    farm: Farm, run: Run, tmp_path: Path, command: str, content: bytes
) -> None:
    path = tmp_path / "foreign"
    path.write_bytes(content)
    size = farm.cluster.log.size
    more = {"sign": ("--key", "env:KEY_CONTROL_1"), "merge": ("--out", tmp_path / "out")}.get(command, ())
    said = run(command, path, *more, "--store", farm.path, "--root", farm.anchor, stdin="y\n")
    assert said.code == 1
    assert said.err.startswith("statelog: refused: SL-")
    assert said.err.count("\n") == 1
    assert path.read_bytes() == content
    assert not (tmp_path / "out").exists()
    head = farm.store.head()
    assert head is not None
    assert head.size == size
    assert farm.store.outbox_pending(10) == []


@pytest.mark.parametrize("change", [{"schema_version": "\x1b[2J\x1b[31mEVIL"}, {"\x1b[2Jx": 1}])
@pytest.mark.parametrize("command", ["inspect", "diff", "merge"])
def test_what_a_hostile_request_says_moves_no_cursor(
    request_file: Path, run: Run, tmp_path: Path, command: str, change: dict[str, Any]
) -> None:
    request = read(request_file)
    path = tmp_path / "hostile.sigreq"
    path.write_bytes(
        canonical.encode(
            {
                "schema": "statelog.sigreq.v1",
                "title": request.title,
                "record": {**request.record, **change},
                "signatures": list(request.signatures),
            }
        )
    )
    more = ("--out", tmp_path / "out") if command == "merge" else ()
    said = run(command, path, *more)
    assert said.code in (1, 2)
    assert "\\x1b" in said.err
    assert "\x1b" not in said.err + said.out


def test_a_signed_record_is_submitted_as_it_is(farm: Farm, run: Run, tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    path.write_bytes(canonical.encode(farm.cluster.policy()) + b"\n")
    submit = ("submit", path, "--store", farm.path, "--root", farm.anchor, "--wait", 0)
    assert run(*submit, "--sequencer-key", "env:KEY_SEQUENCER_1").code == 0
    path.write_bytes(orjson.dumps(farm.cluster.policy("other"), option=orjson.OPT_INDENT_2))
    said = run(*submit)
    assert (said.code, "SL-CANON" in said.err) == (1, True)


def test_an_unsigned_request_is_not_submitted(farm: Farm, request_file: Path, run: Run) -> None:
    said = run("submit", request_file, "--store", farm.path, "--root", farm.anchor)
    assert (said.code, "nobody has signed" in said.err) == (2, True)
