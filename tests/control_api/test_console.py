"""What the console says of a large cluster, of leases that are over, and of a replica that falls silent.

Its scripts run in Node.js, where there is one, on a document that is nothing but the text put into it.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

import control_api

CONSOLE = Path(control_api.__file__).parent / "console"

HARNESS = """
import { readFileSync } from "node:fs";
const [api, page, rows] = process.argv.slice(2, 5).map((path) => readFileSync(path, "utf8"));
globalThis.Node = class {};
class Element extends Node {
  constructor() { super(); this.children = []; this.hidden = false; }
  setAttribute() {}
  append(...more) { this.children.push(...more); }
  replaceChildren(...made) { this.children = made; }
  set textContent(text) { this.children = [text]; }
  get textContent() { return this.children.map((one) => one.textContent ?? one).join(" "); }
}
const places = {};
globalThis.document = {
  hidden: false,
  createElement: () => new Element(),
  getElementById: (id) => (places[id] ??= new Element()),
  querySelector: (id) => (places[id.slice(1).split(" ")[0]] ??= new Element()),
  querySelectorAll: () => [],
};
const answers = JSON.parse(rows);
let silent = false;
globalThis.fetch = async (path, { signal }) => {
  if (silent) return new Promise((_, fail) => signal.addEventListener("abort", () => fail(signal.reason)));
  const url = new URL(path, "https://replica");
  const all = answers[url.pathname];
  if (!Array.isArray(all)) return { status: 200, ok: true, json: async () => all };
  const [from, limit] = [Number(url.searchParams.get("after")), Number(url.searchParams.get("limit"))];
  const next_after = from + limit < all.length ? String(from + limit) : null;
  const rows = all.slice(from, from + limit);
  return { status: 200, ok: true, json: async () => ({ size: 1, rows, next_after }) };
};
AbortSignal.timeout = () => {
  const made = new AbortController();
  setImmediate(() => made.abort(Error("silence")));
  return made.signal;
};
const pauses = [];
globalThis.setTimeout = (next) => pauses.push(next);
const until = async (holds) => { while (!holds()) await new Promise(setImmediate); };
const address = (text) => `data:text/javascript,${encodeURIComponent(text)}`;
await import(address(page.replace("/console/api.js", address(api))));
await until(() => pauses.length === 1);
silent = true;
pauses[0]();
await until(() => pauses.length === 2);
const texts = Object.entries(places).map(([id, one]) => [id, one.textContent]);
console.log(JSON.stringify(Object.fromEntries(texts)));
"""

STATUS = {
    "cluster": {"cluster_id": "farm", "mode": "production", "bootstrap": False, "max_checkpoint_age_s": 60},
    "log": {"anchor": "ab", "size": 9, "term": 1},
    "finality": {"size": 9, "threshold": 1, "cosigned": [{"witness": "w1"}], "age_s": 1, "stale": False},
    "waiting": {"outbox": 0, "unlogged": 0},
    "alarms": [],
    "now": 1_800_000_000,
}
LATER, BEFORE = "2027-06-01T00:00:00Z", "2026-06-01T00:00:00Z"


def shown(tmp_path: Path, **rows: object) -> dict[str, str]:
    """The text in each place of the page, after one answer and one silence."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("the console's script is run by Node.js, which is not here; .ci/run installs it")
    empty = {f"/v1/{name}": [] for name in ("registry", "nodes", "roles", "leases")}
    answers = {"/v1/status": STATUS, "/v1/records": {"records": [], "size": 9}, **empty}
    (tmp_path / "rows").write_text(json.dumps(answers | {f"/v1/{name}": made for name, made in rows.items()}))
    (tmp_path / "run.mjs").write_text(HARNESS)
    command = [node, tmp_path / "run.mjs", CONSOLE / "api.js", CONSOLE / "console.js", tmp_path / "rows"]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert ran.returncode == 0, ran.stderr
    found: dict[str, str] = json.loads(ran.stdout)
    return found


def node_row(number: int) -> dict[str, object]:
    name = {"display_name": f"node-{number}", "node_id": f"{number:064x}"}
    return {**name, "ended_by": "", "trust_tier": "standard", "expires_at": LATER}


def test_every_node_is_listed_with_its_roles_and_no_more_are_counted_than_there_are(tmp_path: Path) -> None:
    nodes = [node_row(number) for number in range(450)]
    roles = [
        {"node_id": one["node_id"], "role": role, "ended_by": "", "expires_at": LATER}
        for one in nodes
        for role in ("relay", "entry")
    ]
    page = shown(tmp_path, nodes=nodes, roles=roles)
    assert "450 nodes" in page["nodes"]
    assert page["nodes"].count("relay, entry") == 450

    page = shown(tmp_path, nodes=[node_row(number) for number in range(1_001)])
    assert "the first 1000 nodes" in page["nodes"]
    assert "node-999 " in page["nodes"]


def test_a_lease_that_is_over_is_not_shown_as_leased(tmp_path: Path) -> None:
    lease = {
        "route_id": "r",
        "ended_by": "",
        "service": "s",
        "hops": [],
        "next_hop_policy": "",
        "allowed_classes": [],
    }
    page = shown(tmp_path, leases=[lease | {"expires_at": BEFORE}])
    assert " over " in page["leases"]
    assert " leased " not in page["leases"]
    assert " leased " in shown(tmp_path, leases=[lease | {"expires_at": LATER}])["leases"]


def test_a_replica_that_falls_silent_is_shown_as_one(tmp_path: Path) -> None:
    message = shown(tmp_path)["message"]
    assert message.startswith("The replica does not answer: silence; what stands here is of ")
