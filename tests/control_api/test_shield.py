"""Pages, security headers, the access token."""

from __future__ import annotations

import re
from collections.abc import Mapping

from control_api.routes.pages import _PAGES
from tests.control_api.replica import Replica, get, play


class TestPages:
    def test_the_console_and_the_docs_use_no_other_host_and_no_inline_script(self, replica: Replica) -> None:
        for name, data in _PAGES.items():
            text = data.decode()
            assert not re.search(r"(?:https?:)?//[a-z0-9.-]+\.[a-z]", text), name
            if name.endswith(".html"):
                assert not re.search(r"<script(?![^>]*\bsrc=)|\son\w+=|<style|style=", text), name
                assert '<html lang="en">' in text

        async def main() -> None:
            async with replica.api() as client:
                for path in ("/console/", "/docs", "/console/console.js", "/console/console.css"):
                    answer = await get(client, path)
                    assert answer.status_code == 200
                    policy = answer.headers["content-security-policy"]
                    assert "default-src 'none'" in policy
                    assert "script-src 'self'" in policy
                    assert "unsafe" not in policy
                    tag = answer.headers["etag"]
                    assert (await get(client, path, if_none_match=tag)).status_code == 304
                assert (await get(client, "/console")).headers["location"] == "/console/"
                assert (await get(client, "/")).status_code == 307
                assert (await get(client, "/console/../settings.py")).status_code == 404

        play(main)

    def test_every_route_is_documented_with_what_it_answers(self, replica: Replica) -> None:
        async def main() -> None:
            async with replica.api() as client:
                document = (await get(client, "/openapi.json")).json()
            paths = document["paths"]
            assert {
                "/v1/status",
                "/v1/records",
                "/v1/records/{record_id}",
                "/v1/registry",
                "/healthz",
            } <= paths.keys()
            submit = paths["/v1/records"]["post"]
            assert {"200", "201", "202", "403", "409", "413", "422", "503"} <= submit["responses"].keys()
            assert all(one.get("summary") for path in paths.values() for one in path.values())

        play(main)


class TestShield:
    def test_every_answer_carries_the_security_headers_and_no_cookie(self, replica: Replica) -> None:
        async def main() -> None:
            async with replica.api() as client:
                for path in (
                    "/v1/status",
                    "/v1/none",
                    "/log/authority/checkpoint",
                    "/console/",
                    "/openapi.json",
                ):
                    headers: Mapping[str, str] = (await get(client, path)).headers
                    assert headers["x-content-type-options"] == "nosniff"
                    assert headers["strict-transport-security"].startswith("max-age=")
                    assert headers["referrer-policy"] == "no-referrer"
                    assert headers["x-frame-options"] == "DENY"
                    assert "default-src 'none'" in headers["content-security-policy"]
                    assert "set-cookie" not in headers
                assert (
                    "script-src" not in (await get(client, "/v1/status")).headers["content-security-policy"]
                )

        play(main)

    def test_head_is_get_without_a_body(self, replica: Replica) -> None:
        async def main() -> None:
            async with replica.api() as client:
                for path in ("/v1/nodes", "/log/authority/checkpoint", "/log/authority/tile/0/000.p/2"):
                    full, head = await client.get(path), await client.head(path)
                    assert (head.status_code, head.content) == (200, b"")
                    assert head.headers["content-length"] == str(len(full.content))

        play(main)

    def test_with_a_token_only_liveness_and_the_empty_pages_are_open(self, replica: Replica) -> None:
        token = replica.folder / "token"
        token.write_text("s3cret\n")

        async def main() -> None:
            async with replica.api(api_token_file=token) as client:
                for path in (
                    "/v1/status",
                    "/v1/nodes",
                    "/log/authority/checkpoint",
                    "/openapi.json",
                    "/healthzz",
                ):
                    answer = await get(client, path)
                    assert (answer.status_code, answer.json()["code"]) == (401, "API-TOKEN")
                    assert answer.headers["www-authenticate"] == "Bearer"
                    assert answer.headers["x-content-type-options"] == "nosniff"
                    for wrong in ("Bearer wrong", "Basic s3cret", "Bearer", ""):
                        assert (await get(client, path, authorization=wrong)).status_code == 401
                for path in ("/v1/status", "/v1/nodes", "/log/authority/checkpoint", "/openapi.json"):
                    assert (await get(client, path, authorization="bearer s3cret")).status_code == 200
                for path in ("/healthz", "/console/", "/docs"):
                    assert (await get(client, path)).status_code == 200

        play(main)

    def test_no_answer_holds_a_secret(self, replica: Replica) -> None:
        token = replica.folder / "token"
        token.write_text("hush-hush")

        async def main() -> None:
            async with replica.api(api_token_file=token, sequencer_key="env:SEQUENCER_SEED") as client:
                client.headers["authorization"] = "Bearer hush-hush"
                for path in (
                    "/v1/status",
                    "/v1/authority",
                    "/v1/records?limit=200",
                    "/v1/registry",
                    "/openapi.json",
                ):
                    text = (await get(client, path)).text
                    for secret in ("hush-hush", "SEQUENCER_SEED", str(replica.folder), "node.db"):
                        assert secret not in text

        play(main)

    def test_a_nul_in_what_is_asked_for_is_refused(self, replica: Replica) -> None:
        """Databases differ in what they make of it: one ends the text there, another fails."""

        async def main() -> None:
            async with replica.api() as client:
                for path in (
                    "/v1/nodes?after=a{}",
                    "/v1/leases?partition={}",
                    "/log/a{}/checkpoint",
                    "/v1/{}",
                ):
                    refused = await get(client, path.format("%00"))
                    assert (refused.status_code, refused.json()["code"]) == (400, "API-PARAMETER"), path
                    assert refused.headers["content-type"] == "application/problem+json"
                    assert refused.headers["x-content-type-options"] == "nosniff"
                    assert (await get(client, path.format("%2500"))).status_code in {200, 400, 404, 422}
                assert (await get(client, "/v1/nodes?after=a%2500")).status_code == 200
            token = replica.folder / "token"
            token.write_text("s3cret\n")
            async with replica.api(api_token_file=token) as client:
                assert (await get(client, "/v1/nodes?after=%00")).status_code == 401

        play(main)
