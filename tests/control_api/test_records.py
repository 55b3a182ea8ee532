"""Submitting records: finality, waiting, duplicates, refusals, and group commit."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import httpx
import pytest

from control_api import limits, schemas
from control_api.problems import STATUS_OF
from statelog.audit_store import StoredAhead
from statelog.canonical import encode
from statelog.findings import Finding
from statelog.io.doorbell import ring
from statelog.io.sequencer import Sequencer
from statelog.signing import record_id_of
from tests.control_api.replica import Replica, play, post
from tests.support.aio import until


def receipt(answer: httpx.Response) -> schemas.ReceiptModel:
    return schemas.ReceiptModel.model_validate(answer.json())


def refusal(answer: httpx.Response) -> schemas.ProblemDetails:
    assert answer.headers["content-type"] == "application/problem+json"
    body = schemas.ProblemDetails.model_validate(answer.json())
    assert body.status == answer.status_code == STATUS_OF[body.code]
    assert body.type == f"/v1/errors/{body.code}"
    return body


class TestFinality:
    def test_201_comes_when_the_witnesses_made_it_final(self, replica: Replica) -> None:
        async def main() -> None:
            record = replica.cluster.registry()
            async with replica.api() as client:
                asking = asyncio.create_task(post(client, record, prefer="wait=20"))
                await until(lambda: replica.unfinal)
                assert not asking.done(), "not acknowledged before it is final"
                await asyncio.to_thread(replica.finalize)
                answer = await asking
            assert answer.status_code == 201
            assert answer.headers["preference-applied"] == "wait=20"
            told = receipt(answer)
            assert (told.state, told.final, told.duplicate) == ("final", True, False)
            assert told.record_id == record_id_of(record)
            assert answer.headers["location"] == told.status_url == f"/v1/records/{told.record_id}"

        play(main)

    def test_202_after_the_wait_and_the_status_link_tells_the_rest(self, replica: Replica) -> None:
        async def main() -> None:
            async with replica.api() as client:
                answer = await post(client, replica.cluster.registry(), prefer="wait=0.05")
                assert answer.status_code == 202
                told = receipt(answer)
                assert (told.state, told.final) == ("pending", False)
                assert told.log_index is not None
                link = answer.headers["location"]
                found = schemas.RecordModel.model_validate((await client.get(link)).json())
                assert (found.state, found.log_index) == ("pending", told.log_index)
                await asyncio.to_thread(replica.finalize)
                found = schemas.RecordModel.model_validate((await client.get(link)).json())
                assert found.state == "final"
                assert (found.quorum.role, found.quorum.threshold, found.quorum.met) == (
                    "control-authority",
                    2,
                    True,
                )
                assert len(found.quorum.signers) == 2

        play(main)

    def test_a_lost_ring_of_the_doorbell_costs_a_moment_and_no_answer(
        self, replica: Replica, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("control_api.watch.RECHECK_S", 0.05)
        monkeypatch.setattr("tests.control_api.replica.ring", lambda url: 0)

        async def main() -> None:
            async with replica.api() as client:
                asking = asyncio.create_task(post(client, replica.cluster.registry(), prefer="wait=20"))
                await until(lambda: replica.unfinal)
                await asyncio.to_thread(replica.finalize)
                assert (await asking).status_code == 201

        play(main)

    @pytest.mark.parametrize("how", ["prefer", "query"])
    def test_respond_async_answers_as_soon_as_the_record_is_durable(self, replica: Replica, how: str) -> None:
        async def main() -> None:
            record = replica.cluster.registry()
            async with replica.api(wait_s=20.0) as client:
                if how == "prefer":
                    answer = await post(client, record, prefer="respond-async, wait=15")
                    assert answer.headers["preference-applied"] == "respond-async"
                else:
                    answer = await client.post(
                        "/v1/records?wait_s=0",
                        content=encode(record),
                        headers={"content-type": "application/json"},
                    )
            assert answer.status_code == 202
            told = receipt(answer)
            assert replica.store.find(told.record_id) == told.log_index

        play(main)


class TestDuplicates:
    def test_the_same_record_again_is_the_same_answer(self, replica: Replica) -> None:
        async def main() -> None:
            record = replica.cluster.registry()
            async with replica.api() as client:
                first = receipt(await post(client, record))
                again = await post(client, record)
                assert again.status_code == 202
                assert receipt(again).duplicate
                assert receipt(again).log_index == first.log_index
                await asyncio.to_thread(replica.finalize)
                final = await post(client, record)
                assert final.status_code == 200
                assert receipt(final).final
                assert receipt(final).duplicate
                head = await asyncio.to_thread(replica.store.head)
                assert head is not None
                assert head.size == first.log_index + 1  # type: ignore[operator]  # a sequenced record has an index

        play(main)

    def test_another_record_of_the_epoch_is_stale(self, replica: Replica) -> None:
        async def main() -> None:
            async with replica.api() as client:
                assert (await post(client, replica.cluster.registry())).status_code == 202
                other = replica.cluster.registry(generation=7)
                code = refusal(await post(client, other)).code
                assert code in ("SL-STALE", "SL-EQUIVOCATION")
                kept = await asyncio.to_thread(replica.store.evidence_counts)
                assert kept.equivocations == (code == "SL-EQUIVOCATION")

        play(main)


class TestRefusals:
    def test_a_body_over_64_kib_is_refused_while_it_is_read(self, replica: Replica) -> None:
        sent = 0

        async def endless() -> Any:
            nonlocal sent
            for _ in range(1000):
                sent += 8192
                yield b"x" * 8192

        async def main() -> None:
            async with replica.api() as client:
                answer = await client.post(
                    "/v1/records", content=endless(), headers={"content-type": "application/json"}
                )
                assert refusal(answer).code == "SL-SIZE"
                assert sent <= limits.MAX_BODY_BYTES + 2 * 8192, "the rest was not read"
                declared = await post(client, b" " * (limits.MAX_BODY_BYTES + 1))
                assert refusal(declared).code == "SL-SIZE"
                largest = await post(client, b" " * limits.MAX_BODY_BYTES)
                assert refusal(largest).code == "SL-SIZE", "admission's own bound is lower"
                assert "60000" in refusal(largest).expected

        play(main)

    def test_a_body_that_does_not_arrive_is_given_up(
        self, replica: Replica, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(limits, "BODY_TIMEOUT_S", 0.05)

        async def main() -> None:
            async with replica.api() as client:
                headers = {"content-type": "application/json"}
                # The transport gathers a body first, so the application is called directly.
                messages = iter([{"type": "http.request", "body": b"{", "more_body": True}])

                async def receive() -> dict[str, Any]:
                    for message in messages:
                        return message
                    await asyncio.Event().wait()
                    raise AssertionError

                answers: list[Any] = []

                async def send(message: Any) -> None:
                    answers.append(message)

                app = client._transport.app  # type: ignore[attr-defined]  # the ASGI transport of the fixture
                scope = {
                    "type": "http",
                    "asgi": {"version": "3.0"},
                    "http_version": "1.1",
                    "method": "POST",
                    "path": "/v1/records",
                    "raw_path": b"/v1/records",
                    "query_string": b"",
                    "headers": [(k.encode(), v.encode()) for k, v in headers.items()],
                    "scheme": "https",
                    "server": ("replica", 443),
                    "client": ("192.0.2.1", 1),
                    "root_path": "",
                }
                await app(scope, receive, send)
                assert answers[0]["status"] == 408

        play(main)

    def test_only_json_is_taken(self, replica: Replica) -> None:
        async def main() -> None:
            async with replica.api() as client:
                answer = await client.post("/v1/records", content=encode(replica.cluster.registry()))
                assert refusal(answer).code == "API-TYPE"
                good = await post(
                    client, replica.cluster.registry(), content_type="application/json; charset=utf-8"
                )
                assert good.status_code == 202

        play(main)

    def test_a_refusal_says_where_what_was_expected_and_what_was_found(self, replica: Replica) -> None:
        async def main() -> None:
            record = replica.cluster.registry()
            wrong = {**record, "endpoints": [{**record["endpoints"][0], "address": "https://192.0.2.1:443"}]}
            async with replica.api() as client:
                body = refusal(await post(client, wrong))
                assert body.code == "SL-SHAPE"
                assert body.path.startswith("endpoints[0].address")
                assert body.expected
                assert (await client.get(body.type)).json()["explanation"]
                pretty = refusal(await post(client, encode(record) + b"\n"))
                assert pretty.code == "SL-CANON"
                assert refusal(await post(client, b"[]")).code == "SL-CANON"
                assert refusal(await post(client, b"{}")).code in ("SL-SCHEMA", "SL-SHAPE")

        play(main)

    def test_a_waiting_time_out_of_bounds(self, replica: Replica) -> None:
        async def main() -> None:
            async with replica.api() as client:
                for value in ("-1", "31", "soon"):
                    body = refusal(await client.post(f"/v1/records?wait_s={value}", content=b"{}"))
                    assert (body.code, body.path) == ("API-PARAMETER", "wait_s")
                for value in ("soon", "-5"):
                    assert (
                        await post(client, replica.cluster.registry(), prefer=f"wait={value}")
                    ).status_code == 202

        play(main)


class TestGroupCommit:
    def test_records_that_wait_share_a_commit(
        self, replica: Replica, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        batches: list[int] = []
        held = threading.Event()
        submit_many = Sequencer.submit_many

        def counted(self: Sequencer, batch: Any, now: int, seen: Any) -> Any:
            if not batches:
                held.wait(10)
            batches.append(len(batch))
            return submit_many(self, batch, now, seen)

        monkeypatch.setattr(Sequencer, "submit_many", counted)

        async def main() -> None:
            records = [replica.cluster.registry(f"service-{n}") for n in range(20)]
            bad = {**records[0], "epoch": 2}
            async with replica.api() as client:
                asking = [asyncio.create_task(post(client, record)) for record in [*records, bad]]
                await asyncio.sleep(0.2)  # time for the thread to take what it should not
                held.set()
                answers = await asyncio.gather(*asking)
            assert [answer.status_code for answer in answers[:-1]] == [202] * 20
            assert refusal(answers[-1]).code == "SL-SIG", "one bad record keeps no other out"
            assert sum(batches) == 21
            assert len(batches) <= 3
            indexes = {receipt(answer).log_index for answer in answers[:-1]}
            head = replica.store.head()
            assert head is not None
            assert indexes == set(range(head.size - 20, head.size))

        play(main)

    def test_too_many_waiting_records_are_told_to_come_back(
        self, replica: Replica, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("control_api.desk.MAX_WAITING_RECORDS", 1)
        held, taken = threading.Event(), threading.Event()
        submit_many = Sequencer.submit_many

        def slow(self: Sequencer, batch: Any, now: int, seen: Any) -> Any:
            taken.set()
            held.wait(10)
            return submit_many(self, batch, now, seen)

        monkeypatch.setattr(Sequencer, "submit_many", slow)

        async def main() -> None:
            records = [replica.cluster.registry(f"service-{n}") for n in range(3)]
            async with replica.api() as client:
                first = asyncio.create_task(post(client, records[0]))
                await asyncio.to_thread(taken.wait, 10)
                second = asyncio.create_task(post(client, records[1]))
                await asyncio.sleep(0.05)  # time for the thread to take what it should not
                third = await post(client, records[2])
                assert refusal(third).code == "API-BUSY"
                assert third.headers["retry-after"] == "1"
                held.set()
                assert {(await first).status_code, (await second).status_code} == {202}

        play(main)


class TestOutbox:
    def test_without_a_sequencer_key_a_record_is_kept_for_the_daemon(self, replica: Replica) -> None:
        async def main() -> None:
            record = replica.cluster.registry()
            async with replica.api(sequences=False) as client:
                answer = await post(client, record)
                assert answer.status_code == 202
                told = receipt(answer)
                assert (told.log_index, told.duplicate) == (None, False)
                row = replica.store.outbox_row(told.record_id)
                assert row is not None
                assert row.data == encode(record)
                assert receipt(await post(client, record)).duplicate
                listed = (await client.get("/v1/records?state=pending")).json()
                (waiting,) = schemas.WaitingRecordsModel.model_validate(listed).records
                assert waiting.record_id == told.record_id
                assert waiting.quorum.met
                # The daemon sequences it, the witnesses cosign: the waiting caller hears of it.
                asking = asyncio.create_task(post(client, record, prefer="wait=20"))
                await asyncio.to_thread(replica.sequence, record)
                await asyncio.to_thread(replica.finalize)
                assert (await asking).status_code in (200, 201)

        play(main)

    def test_a_record_that_the_log_refused_later_is_a_refusal(self, replica: Replica) -> None:
        async def main() -> None:
            record = replica.cluster.registry()
            async with replica.api(sequences=False) as client:
                asking = asyncio.create_task(post(client, record, prefer="wait=20"))
                await until(lambda: replica.store.outbox_row(record_id_of(record)) is not None)
                replica.store.outbox_refused(
                    record_id_of(record), Finding("SL-STALE", "another one was first")
                )
                ring(replica.settings.store)
                body = refusal(await asking)
                assert (body.code, body.record_id) == ("SL-STALE", record_id_of(record))
                found = (await client.get(f"/v1/records/{record_id_of(record)}")).json()
                assert found["state"] == "refused"
                assert found["refusal"]["code"] == "SL-STALE"

        play(main)

    def test_it_judges_before_it_keeps(self, replica: Replica) -> None:
        async def main() -> None:
            async with replica.api(sequences=False) as client:
                one = replica.cluster.registry(by=["control-1"])
                assert refusal(await post(client, one)).code == "SL-QUORUM"
                assert replica.store.outbox_row(record_id_of(one)) is None
                known = replica.cluster.genesis
                assert (await post(client, known)).status_code == 200

        play(main)


class TestReading:
    def test_pages_of_the_log_newest_first(self, replica: Replica) -> None:
        async def main() -> None:
            head = replica.store.head()
            assert head is not None
            async with replica.api() as client:
                seen: list[int] = []
                before: int | None = None
                while True:
                    query = "?limit=4" if before is None else f"?limit=4&before={before}"
                    page = schemas.RecordsModel.model_validate(
                        (await client.get(f"/v1/records{query}")).json()
                    )
                    seen += [one.log_index for one in page.records if one.log_index is not None]
                    before = page.next_before
                    if before is None:
                        break
                assert seen == list(range(head.size - 1, -1, -1))
                only = (await client.get("/v1/records?kind=node.approval&limit=2")).json()
                assert {one["kind"] for one in only["records"]} == {"node.approval"}
                assert len(only["records"]) == 2

        play(main)

    def test_a_record_ahead_of_the_log_is_a_candidate(self, replica: Replica) -> None:
        record = replica.cluster.registry()
        ahead = StoredAhead(
            record_id_of(record), record["schema_version"], "x", 1, 2**40, replica.cluster.now, encode(record)
        )
        replica.store.ahead_put(ahead)

        async def main() -> None:
            async with replica.api() as client:
                found = await client.get(f"/v1/records/{record_id_of(record)}")
                assert schemas.RecordModel.model_validate(found.json()).state == "candidate"
                listed = (await client.get("/v1/records?state=candidate")).json()
                assert [one["record_id"] for one in listed["records"]] == [record_id_of(record)]
                (row,) = (await client.get("/v1/registry")).json()["rows"]
                assert (row["unlogged"], row["status"], row["log_index"]) == (True, "candidate", None)

        play(main)

    def test_an_unknown_record_and_a_malformed_id(self, replica: Replica) -> None:
        async def main() -> None:
            async with replica.api() as client:
                assert refusal(await client.get(f"/v1/records/{'0' * 64}")).code == "API-FOUND"
                assert refusal(await client.get("/v1/records/xyz")).code == "API-PARAMETER"
                assert refusal(await client.get("/v1/nothing")).code == "API-FOUND"
                assert refusal(await client.delete("/v1/records")).code == "API-METHOD"

        play(main)
