"""The log as static files: tiles and checkpoints."""

from __future__ import annotations

import httpx
import pytest

from statelog.audit import audit
from statelog.checkpoint import parse_signed_checkpoint
from statelog.finality import final_cosignatures
from statelog.io.database import write_transaction
from statelog.io.tables import log_entry
from statelog.merkle import CompactRange, leaf_hash
from statelog.tilelog import TileLog
from statelog.tiles import decode_bundle, decode_tile, encode_sizes, history_path, tile_path, tiles_between
from tests.control_api.replica import Replica, get, play, post
from tests.support.logs import WITNESSES, finalize
from tests.support.tiles import OTHERS, MemoryResources


class TestLog:
    def test_an_auditor_rebuilds_the_tree_from_checkpoint_and_tiles(self, replica: Replica) -> None:
        async def main() -> None:
            async with replica.api() as client:
                note = await get(client, "/log/authority/checkpoint")
                assert note.headers["content-type"] == "text/plain; charset=utf-8"
                assert note.headers["cache-control"] == "public, no-cache"
                checkpoint, parsed = parse_signed_checkpoint(note.content)
                assert final_cosignatures(parsed, replica.cluster.state.witnesses).met
                size = checkpoint.size
                bundle = await get(client, f"/log/authority/{tile_path('entries', 0, size)}")
                hashes = await get(client, f"/log/authority/{tile_path(0, 0, size)}")
                for answer in (bundle, hashes):
                    assert "immutable" in answer.headers["cache-control"]
                    assert answer.headers["content-type"] == "application/octet-stream"
                leaves = decode_bundle(bundle.content, size)
                assert decode_tile(hashes.content, size) == [leaf_hash(leaf) for leaf in leaves]
                tree = CompactRange()
                for leaf in leaves:
                    tree.append(leaf_hash(leaf))
                assert tree.root() == checkpoint.root
                again = await get(client, "/log/authority/checkpoint", if_none_match=note.headers["etag"])
                assert again.status_code == 304

        play(main)

    def test_what_is_not_final_is_shown_to_witnesses_and_kept_by_nobody(self, replica: Replica) -> None:
        async def main() -> None:
            async with replica.api() as client:
                final = await get(client, "/log/authority/checkpoint")
                await post(client, replica.cluster.registry())
                assert (await get(client, "/log/authority/checkpoint")).content == final.content
                head, _ = parse_signed_checkpoint((await get(client, "/log/authority/head")).content)
                assert head.size == parse_signed_checkpoint(final.content)[0].size + 1
                whole = await get(client, f"/log/authority/{tile_path('entries', 0, head.size)}")
                part = await get(client, f"/log/authority/{tile_path('entries', 0, head.size - 1)}")
                assert whole.headers["cache-control"] == "no-store"
                assert "immutable" in part.headers["cache-control"]
                beyond = await get(client, f"/log/authority/{tile_path('entries', 0, head.size + 1)}")
                assert (beyond.status_code, beyond.headers["cache-control"]) == (404, "no-store")

        play(main)

    @pytest.mark.parametrize(
        "path",
        [
            *("tile/0/0", "tile/0/000.p/0", "tile/0/000.p/256", "tile/0/000.p/01", "tile/00/000.p/1"),
            *("tile/0/x000/000.p/1", "tile/64/000.p/1", "tile/-1/000", "tile/entries/000.p/257"),
            *("tile/1/000.p/1", "tile/0/001.p/1", "tiles/0/000", "checkpoints"),
        ],
    )
    def test_only_the_one_spelling_of_a_tile_that_is_there(self, replica: Replica, path: str) -> None:
        async def main() -> None:
            async with replica.api() as client:
                assert (await get(client, f"/log/authority/{path}")).status_code == 404
                assert (await get(client, "/log/authority/tile/0/000.p/1")).status_code == 200
                assert (await get(client, "/log/routes-eu-1/tile/0/000.p/1")).status_code == 404

        play(main)

    def test_full_tiles_and_the_level_above(self, grown: Replica) -> None:
        async def main() -> None:
            async with grown.api() as client:
                low = await get(client, "/log/authority/tile/0/000")
                high = await get(client, "/log/authority/tile/1/000.p/1")
                bundle = await get(client, "/log/authority/tile/entries/000")
                tree = CompactRange()
                for hash_ in decode_tile(low.content, 256):
                    tree.append(hash_)
                assert decode_tile(high.content, 1) == [tree.root()]
                assert [leaf_hash(leaf) for leaf in decode_bundle(bundle.content, 256)] == decode_tile(
                    low.content, 256
                )

        play(main)


def test_entries_are_served_as_they_are_stored(replica: Replica) -> None:
    """A tampered entry is passed on and not hidden: the reader's own check of the tree finds it."""

    async def main() -> None:
        async with replica.api() as client:
            with write_transaction(replica.engine) as connection:
                connection.execute(log_entry.update().where(log_entry.c.log_index == 0).values(leaf=b"{}"))
            bundle = await get(client, "/log/authority/tile/entries/000.p/1")
            assert decode_bundle(bundle.content, 1) == [b"{}"]

    play(main)

    def test_an_auditor_follows_a_change_of_witnesses(self, replica: Replica) -> None:
        cluster = replica.cluster

        async def files(client: httpx.AsyncClient, *paths: str) -> dict[str, bytes]:
            found = {path: await get(client, f"/log/authority/{path}") for path in paths}
            return {path: answer.content for path, answer in found.items() if answer.status_code == 200}

        async def main() -> None:
            async with replica.api() as client:
                assert (await get(client, "/log/authority/history/sizes")).content == b""
                first = replica.store.head()
                assert first is not None
                replica.sequence(cluster.descriptor(witnesses=cluster.witness_set(*OTHERS)))
                finalize(replica.store, (*WITNESSES, *OTHERS[1:]))
                replica.sequence(cluster.policy("probe"))
                finalize(replica.store, OTHERS)
                sizes = (first.size, first.size + 1)
                listed = await get(client, "/log/authority/history/sizes")
                assert (listed.content, listed.headers["cache-control"]) == (
                    encode_sizes(sizes),
                    "public, no-cache",
                )
                paths = ["checkpoint", "history/sizes", *(history_path(size) for size in sizes)]
                paths += [tile.path for tile in tiles_between(0, first.size + 2)]
                report = audit(TileLog(MemoryResources(await files(client, *paths))), cluster.anchor)
                assert (report.findings, report.final_size) == ((), first.size + 2)
                for path in ("history/1", f"history/{first.size + 2}"):
                    assert (await get(client, f"/log/authority/{path}")).status_code == 404

        play(main)

    def test_an_empty_store_has_no_history(self, empty: Replica) -> None:
        async def main() -> None:
            async with empty.api(sequences=False) as client:
                assert (await get(client, "/log/authority/history/sizes")).status_code == 404

        play(main)
