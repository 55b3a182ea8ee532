import { el, get, say } from "/console/api.js";

const REFRESH_MS = 5000;
const SHORT = 12;
const PAGE_ROWS = 200; // what one answer holds at most
const MAX_PAGES = 5; // of a read model that are shown; a table says when there is more

const short = (id) => el("span", { class: "mono", title: id }, id.slice(0, SHORT) || "–");
const mark = (text, look) => el("span", { class: `mark ${look}` }, text);

function ago(seconds) {
  if (seconds === null) return "never";
  if (seconds < 90) return `${seconds} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  return seconds < 172800 ? `${Math.round(seconds / 3600)} h` : `${Math.round(seconds / 86400)} d`;
}

function expiry(text, now) {
  const left = Math.round(Date.parse(text) / 1000 - now);
  return left <= 0 ? mark("expired", "bad") : el("time", { datetime: text, title: text }, `in ${ago(left)}`);
}

/** The rows of a read model, and whether there are more than are shown. */
async function rowsOf(path) {
  const rows = [];
  let after = "";
  for (let page = 0; page < MAX_PAGES && after !== null; page += 1) {
    const answer = await get(`${path}?limit=${PAGE_ROWS}&after=${encodeURIComponent(after)}`);
    rows.push(...answer.rows);
    after = answer.next_after;
  }
  return { rows, more: after !== null };
}

const counted = (page, what) => (page.more ? `the first ${page.rows.length} ${what}; the API has the rest` : `${page.rows.length} ${what}`);

function card(title, value, note = "", look = "") {
  return el("div", {}, el("dt", {}, title), el("dd", look ? { class: look } : {}, value, el("small", {}, note)));
}

function table(place, caption, heads, rows) {
  const body = rows.length ? rows : [[el("span", { class: "soft" }, "nothing yet")]];
  const made = el("table", {},
    el("caption", {}, caption),
    el("thead", {}, el("tr", {}, heads.map((head) => el("th", { scope: "col" }, head)))),
    el("tbody", {}, body.map((cells) => el("tr", {}, cells.map((cell, n) =>
      n === 0 && rows.length ? el("th", { scope: "row" }, cell) : el("td", rows.length ? {} : { colspan: heads.length }, cell))))));
  document.querySelector(`#${place} .scroll`).replaceChildren(made);
}

function showStatus(status) {
  const { cluster, log, finality, waiting, alarms } = status;
  const notice = document.getElementById("alarms");
  notice.replaceChildren(...alarms.map((one) => el("li", {}, el("strong", {}, one.code), ` ${one.sentence}`)));
  notice.hidden = alarms.length === 0;
  document.getElementById("cluster").textContent = cluster ? cluster.cluster_id : "no log yet";
  document.getElementById("anchor").textContent = log ? log.anchor : "–";
  const witnesses = finality.cosigned.map((one) => one.witness).join(", ") || "none";
  document.getElementById("status").replaceChildren(
    card("Mode", cluster ? cluster.mode : "–", cluster?.bootstrap ? "bootstrap: signers are not authoritative" : "M of N signatures", cluster?.bootstrap ? "warn" : ""),
    card("Final", finality.size, log ? `of ${log.size} entries, term ${log.term}` : "", log && finality.size === log.size ? "good" : "warn"),
    card("Freshness", ago(finality.age_s), finality.stale ? "stale: witnesses are missing" : `at most ${ago(cluster.max_checkpoint_age_s)} allowed`, finality.stale ? "bad" : "good"),
    card("Witnesses", `${finality.cosigned.length} of ${finality.threshold ?? "–"}`, witnesses),
    card("Waiting", waiting.outbox, `${waiting.unlogged} act ahead of the log`, waiting.outbox ? "warn" : ""),
  );
}

function showRegistry(page, now) {
  const looks = { active: "good", candidate: "warn", fallback: "soft" };
  const rows = page.rows
    .sort((a, b) => a.service.localeCompare(b.service) || b.epoch - a.epoch)
    .map((row) => [
      row.organization_id ? `${row.service} (${row.organization_id})` : row.service,
      el("span", {}, mark(row.status, looks[row.status]), row.unlogged ? " unlogged" : ""),
      row.epoch,
      el("ul", {}, row.endpoints.map((one) => el("li", { class: "mono" }, one.address))),
      expiry(row.expires_at, now),
      short(row.record_id),
    ]);
  table("registry", counted(page, "records"), ["Service", "Status", "Epoch", "Endpoints", "Expires", "Record"], rows);
}

function showNodes(page, roles, now) {
  const held = {};
  for (const row of roles.rows) {
    if (!row.ended_by && Date.parse(row.expires_at) / 1000 > now) (held[row.node_id] ??= []).push(row.role);
  }
  const rows = page.rows.map((row) => [
    row.display_name,
    row.ended_by ? mark("revoked", "bad") : mark(row.trust_tier, row.trust_tier === "candidate" ? "warn" : "good"),
    (held[row.node_id] || [roles.more ? "…" : "–"]).join(", "),
    expiry(row.expires_at, now),
    short(row.node_id),
  ]);
  table("nodes", counted(page, "nodes"), ["Name", "Trust", "Roles", "Approval expires", "Node id"], rows);
}

function showLeases(page, names, now) {
  const rows = page.rows.map((row) => [
    row.route_id,
    row.ended_by ? mark("ended", "bad") : Date.parse(row.expires_at) / 1000 > now ? mark("leased", "good") : mark("over", "soft"),
    row.service,
    row.hops.map((hop) => names[hop] || hop.slice(0, SHORT)).join(" → ") || `policy ${row.next_hop_policy}`,
    row.allowed_classes.join(", "),
    expiry(row.expires_at, now),
  ]);
  table("leases", counted(page, "routes"), ["Route", "State", "Service", "Hops", "Classes", "Expires"], rows);
}

function showRecords(page) {
  const open = new Set([...document.querySelectorAll("#records details[open]")].map((one) => one.id));
  const rows = page.records.map((row) => {
    const id = `r-${row.record_id}`;
    const details = el("details", { id },
      el("summary", { class: "mono" }, row.record_id.slice(0, SHORT)),
      el("pre", {}, JSON.stringify(row.record, null, 2)));
    details.open = open.has(id);
    return [
      row.log_index,
      mark(row.state, row.state === "final" ? "good" : "warn"),
      row.kind,
      row.subject.filter(Boolean).map((part) => part.slice(0, 24)).join(" / ") || "–",
      row.issuer_role,
      el("time", { datetime: row.sequenced_at }, row.sequenced_at.replace("T", " ").replace("Z", "")),
      details,
    ];
  });
  table("records", `of ${page.size}`, ["Index", "State", "Kind", "Subject", "Signed for", "Sequenced (UTC)", "Record"], rows);
}

async function refresh() {
  const [status, registry, nodes, roles, leases, records] = await Promise.all([
    get("/v1/status"), rowsOf("/v1/registry"), rowsOf("/v1/nodes"), rowsOf("/v1/roles"), rowsOf("/v1/leases"),
    get("/v1/records?limit=20"),
  ]);
  showStatus(status);
  showRegistry(registry, status.now);
  showNodes(nodes, roles, status.now);
  showLeases(leases, Object.fromEntries(nodes.rows.map((row) => [row.node_id, row.display_name])), status.now);
  showRecords(records);
}

let shown = "";

async function loop() {
  if (!document.hidden) {
    try {
      await refresh();
      shown = `; what stands here is of ${new Date().toISOString().slice(11, 19)} UTC`;
      say("");
    } catch (error) { say(`The replica does not answer: ${error.message}${shown}`); }
  }
  setTimeout(loop, REFRESH_MS);
}

loop();
