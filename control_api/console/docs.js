import { el, get, say } from "/console/api.js";

function shape(schema, all, depth = 0) {
  if (!schema) return "any";
  if (schema.$ref) return depth > 3 ? schema.$ref.split("/").pop() : shape(all[schema.$ref.split("/").pop()], all, depth);
  if (schema.anyOf) return schema.anyOf.map((one) => shape(one, all, depth)).join(" | ");
  if (schema.enum) return schema.enum.map((one) => JSON.stringify(one)).join(" | ");
  if (schema.const) return JSON.stringify(schema.const);
  if (schema.type === "array") return `[${shape(schema.items, all, depth)}]`;
  if (schema.properties) {
    const pad = "  ".repeat(depth + 1);
    const lines = Object.entries(schema.properties).map(([name, one]) => `${pad}${name}: ${shape(one, all, depth + 1)}`);
    return `{\n${lines.join("\n")}\n${"  ".repeat(depth)}}`;
  }
  return schema.type || "any";
}

/** A docstring as paragraphs: lines joined, `code` as code. */
function prose(text) {
  return text.split("\n\n").filter(Boolean).map((paragraph) => el("p", {},
    paragraph.replace(/\n/g, " ").split("`").map((part, n) => (n % 2 ? el("code", {}, part) : part))));
}

function operation(method, path, one, all) {
  const parameters = (one.parameters || []).map((p) => `${p.name} (${p.in}${p.required ? ", required" : ""}): ${shape(p.schema, all)}${p.description ? ` – ${p.description}` : ""}`);
  const answers = Object.entries(one.responses || {}).map(([status, answer]) => {
    const schema = Object.values(answer.content || {})[0]?.schema;
    return el("li", {}, el("strong", {}, status), ` ${answer.description || ""} `,
      schema ? el("details", {}, el("summary", {}, "body"), el("pre", {}, shape(schema, all))) : "");
  });
  return el("article", { class: "operation" },
    el("h3", {}, el("code", {}, `${method.toUpperCase()} ${path}`), ` ${one.summary || ""}`),
    ...prose(one.description || ""),
    parameters.length ? el("ul", {}, parameters.map((text) => el("li", { class: "mono" }, text))) : "",
    el("details", {}, el("summary", {}, "Answers"), el("ul", {}, answers)));
}

try {
  const api = await get("/openapi.json");
  document.getElementById("about").textContent = `${api.info.summary} Version ${api.info.version}.`;
  const groups = {};
  for (const [path, methods] of Object.entries(api.paths)) {
    for (const [method, one] of Object.entries(methods)) {
      (groups[one.tags?.[0] || "other"] ??= []).push(operation(method, path, one, api.components?.schemas || {}));
    }
  }
  document.getElementById("operations").replaceChildren(
    ...Object.entries(groups).flatMap(([name, list]) => [el("h2", {}, name), ...list]));
} catch (error) {
  say(`The document cannot be read: ${error.message}`);
}
