// The search part. Whatever comes from passages, models or the server becomes text nodes only.
import { openRun } from "/walk.js";

export const byId = (id) => document.getElementById(id);

/** Make an element: attributes, then children that are elements or text. */
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

/** Ask the server; an error carries what the server said was wrong. */
export async function ask(path, body) {
  const options = body === undefined ? {} : {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
  };
  let reply;
  try {
    reply = await fetch(path, options);
  } catch {
    throw new Error("The server does not answer. Check that it still runs.");
  }
  const said = await reply.json().catch(() => null);
  if (!reply.ok) throw new Error(said?.error?.message ?? `The server answered ${reply.status}.`);
  return said;
}

export function complain(where, error) {
  const place = byId(where);
  place.hidden = !error;
  place.textContent = error ? error.message : "";
}

const SMALL = new Set(("a an and are as at by for from has in is it of on or that the this to was " +
  "were what when where which who whom whose with did does do how").split(" "));

/** The words of a text that are worth marking. */
export function wordsOf(text) {
  const found = text.toLowerCase().match(/[\p{L}\p{N}]+/gu) ?? [];
  return new Set(found.filter((word) => (word.length > 1 || /\p{N}/u.test(word)) && !SMALL.has(word)));
}

/** Split a text into plain text and marked words. */
export function marked(text, words) {
  return text.split(/([\p{L}\p{N}]+)/u).map((part) =>
    words.has(part.toLowerCase()) ? make("mark", {}, part) : part);
}

export function hit(found, rank, words, note) {
  return make("li", { class: "hit" },
    make("header", {},
      make("span", { class: "quiet" }, `${rank}.`),
      make("h4", {}, ...marked(found.title || found.id, words)),
      note ? make("span", { class: "badge only" }, note) : null,
      make("span", { class: "score quiet" }, Number(found.score).toFixed(3))),
    make("p", {}, ...marked(found.text, words)),
    make("p", { class: "id quiet" }, found.id));
}

function column(reply, words, other) {
  const known = other && new Set(other.hits.map((each) => each.id));
  const items = reply.hits.map((each, at) =>
    hit(each, at + 1, words, known && !known.has(each.id) ? "only here" : null));
  return make("section", { "aria-label": reply.retriever },
    make("h3", {}, reply.retriever),
    make("p", { class: "sent quiet" }, `sent: ${reply.sent}`),
    make("ol", { class: "hits" }, ...items));
}

async function search(event) {
  event.preventDefault();
  const body = { query: byId("query").value, topk: Number(byId("topk").value) };
  if (byId("question").value.trim()) body.question = byId("question").value.trim();
  const names = [byId("left").value, byId("right").value].filter(Boolean);
  const button = byId("form").querySelector("button");
  button.disabled = true;
  try {
    const replies = await Promise.all(
      names.map((retriever) => ask("/search", { ...body, retriever })));
    const words = wordsOf(`${body.query} ${body.question ?? ""}`);
    byId("columns").replaceChildren(
      ...replies.map((reply, at) => column(reply, words, replies[1 - at])));
    complain("problem", null);
  } catch (error) {
    complain("problem", error);
  } finally {
    button.disabled = false;
  }
}

function show() {
  const run = location.hash.startsWith("#run");
  byId("search-part").hidden = run;
  byId("run-part").hidden = !run;
  byId("to-search").toggleAttribute("aria-current", !run);
  byId("to-run").toggleAttribute("aria-current", run);
  if (run) openRun();
}

async function start() {
  byId("form").addEventListener("submit", search);
  window.addEventListener("hashchange", show);
  try {
    const info = await ask("/v1/info");
    const options = (names) => names.map((name) => make("option", { value: name }, name || "nothing"));
    const names = info.retrievers.map((each) => each.name);
    byId("left").replaceChildren(...options(names));
    byId("right").replaceChildren(...options(["", ...names]));
    byId("right").value = names[1] ?? "";
    const count = info.passages.toLocaleString("en");
    byId("about").textContent = `${count} passages · version ${info.version}`;
  } catch (error) {
    byId("about").textContent = "";
    complain("problem", error);
  }
  show();
}

start();
