// Reads of the API, and small helpers to build a page. Everything is put in as text, never as markup.

let token = "";

const ANSWER_MS = 10000; // a replica that says nothing for so long is shown as one that does not answer

/** GET a path; parsed JSON. Asks once for the access token when the replica wants one. */
export async function get(path) {
  for (;;) {
    const headers = token ? { Authorization: `Bearer ${token}` } : {};
    const signal = AbortSignal.timeout(ANSWER_MS);
    const answer = await fetch(path, { headers, credentials: "omit", redirect: "error", signal });
    if (answer.status === 401) { await askForToken(); continue; }
    const body = await answer.json();
    if (!answer.ok) throw new Error(body.detail || `${path} answered ${answer.status}`);
    return body;
  }
}

let asked = null;

function askForToken() {
  asked ??= new Promise((resolve) => {
    const form = document.getElementById("token");
    form.hidden = false;
    form.elements[0].focus();
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      token = form.elements[0].value;
      form.reset();
      form.hidden = true;
      asked = null;
      resolve();
    }, { once: true });
  });
  return asked;
}

/** An element with attributes and children; strings become text. */
export function el(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children.flat().map((child) => (child instanceof Node ? child : String(child))));
  return made;
}

/** Shows a message, or hides it when empty. */
export function say(text) {
  const place = document.getElementById("message");
  if (place.textContent !== text) place.textContent = text;
  place.hidden = !text;
}
