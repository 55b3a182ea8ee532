"""`statelog export`, and the audit of what it wrote: no database, nothing trusted but the anchor."""

from __future__ import annotations

import random
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import orjson
import pytest

from statelog.dsse import envelope_of
from statelog.leaf import decode_leaf
from tests.statelog.cli.conftest import Farm, Run
from tests.support.tiles import read_folder
from tests.support.web import serving, serving_folder


@pytest.fixture
def folder(farm: Farm, run: Run, tmp_path: Path) -> Path:
    said = run("export", tmp_path / "tiles", "--store", farm.path, "--root", farm.anchor)
    assert (said.code, said.err) == (0, "")
    return tmp_path / "tiles"


def test_an_exported_log_is_audited_without_a_database(farm: Farm, run: Run, folder: Path) -> None:
    (folder.parent / "anchor").write_text(farm.anchor + "\n")
    farm.path.unlink()
    said = run("verify", folder, "--root", folder.parent / "anchor", "-o", "json")
    assert (said.code, said.err) == (0, "")
    size = farm.cluster.log.size
    assert (said.json["clean"], said.json["size"], said.json["final_size"]) == (True, size, size)
    assert said.json["checks"] == ["log", "snapshots"]


def test_every_sampled_byte_of_a_bundle_is_missed(farm: Farm, run: Run, folder: Path) -> None:
    (bundle,) = (folder / "tile/entries").rglob("000.p/*")
    data = bundle.read_bytes()
    for at in random.Random(20_260_103).sample(range(len(data)), 12):
        bundle.write_bytes(data[:at] + bytes([data[at] ^ 0x20]) + data[at + 1 :])
        said = run("verify", folder, "--root", farm.anchor, "-o", "json")
        assert said.code == 1
        assert "SL-TILE" in [one["code"] for one in said.json["findings"] if one["log_index"] is not None]
    bundle.write_bytes(data)
    assert run("verify", folder, "--root", farm.anchor).code == 0


def test_any_static_server_will_do(farm: Farm, run: Run, folder: Path) -> None:
    with serving_folder(folder.parent) as url:
        said = run("verify", f"{url}/tiles/", "--root", farm.anchor, "-o", "json")
        assert (said.code, said.json["clean"], said.json["source"]) == (0, True, f"{url}/tiles/")
        assert run("verify", f"{url}/other", "--root", farm.anchor).code == 3
        (folder / "tile/0" / f"000.p/{farm.cluster.log.size}").unlink()
        missing = run("verify", f"{url}/tiles", "--root", farm.anchor)
    assert (missing.code, missing.err.count("\n")) == (3, 1)
    assert "is not there" in missing.err


def test_a_mirror_of_an_address(farm: Farm, run: Run, folder: Path, tmp_path: Path) -> None:
    copy, root = tmp_path / "copy", ("--root", farm.anchor)
    with serving_folder(folder) as url:
        said = run("mirror", url, copy, *root, "-o", "json")
        assert (said.code, said.json["schema"], said.json["clean"]) == (0, "statelog.verify.v1", True)
        assert read_folder(copy) == read_folder(folder)
        assert run("mirror", url, copy, *root).code == 0
        (bundle,) = (folder / "tile/entries").rglob("000.p/*")
        bundle.write_bytes(bundle.read_bytes()[:-1])
        refused = run("mirror", url, tmp_path / "second", *root, "-o", "json")
    assert (refused.code, refused.json["complete"]) == (1, False)
    assert not (tmp_path / "second").exists()
    away = run("mirror", url, tmp_path / "third", *root)
    assert (away.code, away.err.count("\n"), (tmp_path / "third").exists()) == (3, 1, False)


def test_a_place_without_a_log_is_named(farm: Farm, run: Run, folder: Path, tmp_path: Path) -> None:
    (folder / "checkpoint").unlink()
    root = ("--root", farm.anchor)
    with serving_folder(folder.parent) as url:
        for source, place in ((folder, str(folder)), (f"{url}/tiles/", f"{url}/tiles")):
            for command in (("verify", source), ("mirror", source, tmp_path / "copy")):
                said = run(*command, *root)
                assert (said.code, said.err.count("\n")) == (3, 1)
                assert f"there is no checkpoint in {place}," in said.err


def test_hostile_servers_end_in_one_line(farm: Farm, run: Run) -> None:
    def page(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Type", "text/html")
        request.end_headers()

    with serving(page) as url:
        said = run("verify", url, "--root", farm.anchor)
    assert (said.code, said.err.count("\n"), "text/html" in said.err) == (3, 1, True)
    remote = run("verify", "http://logs.example/farm", "--root", farm.anchor)
    assert (remote.code, "not an https:// address" in remote.err) == (2, True)


def test_the_report_of_an_export(farm: Farm, run: Run, tmp_path: Path) -> None:
    target = tmp_path / "out"
    first = run("export", target, "--store", farm.path, "--root", farm.anchor, "-o", "json").json
    assert first["schema"] == "statelog.export.v1"
    (log,) = first["logs"]
    assert (log["size"], log["tiles_written"], log["history"]) == (farm.cluster.log.size, 2, [])
    files = read_folder(target)
    again = run("export", target, "--store", farm.path, "--root", farm.anchor, "-o", "json").json
    assert (again["logs"][0]["tiles_written"], read_folder(target)) == (0, files)
    other = run("export", farm.path, "--store", farm.path, "--root", farm.anchor)
    assert (other.code, other.err.count("\n")) == (2, 1)


def test_records_as_envelopes(farm: Farm, run: Run, tmp_path: Path) -> None:
    file, store = tmp_path / "records.jsonl", ("--store", farm.path, "--root", farm.anchor)
    said = run("export", file, "--dsse", *store, "-o", "json")
    size = farm.cluster.log.size
    assert (said.code, said.json["schema"], said.json["envelopes"]) == (0, "statelog.export-dsse.v1", size)
    lines = file.read_bytes().splitlines()
    records = [decode_leaf(leaf).record for leaf in farm.cluster.leaves()]
    assert [orjson.loads(line) for line in lines] == [envelope_of(record) for record in records]
    assert f"{size} envelopes" in run("export", file, "--dsse", *store).out
    assert run("export", tmp_path / "tiles", *store, "--log", "authority").code == 2
    assert run("export", tmp_path / "none" / "x", "--dsse", *store).code == 2
