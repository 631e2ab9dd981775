// The part that walks through the trajectories of a run.
import { ask, byId, complain, hit, make, wordsOf } from "/page.js";

let opened = false;
let start = 0;

/** Load the stages the first time that the part is shown. */
export async function openRun() {
  if (opened) return;
  opened = true;
  byId("stage").addEventListener("change", () => list(0));
  byId("before").addEventListener("click", () => list(start, -1));
  byId("after").addEventListener("click", () => list(start, 1));
  await attempt(async () => {
    const { stages } = await ask("/run");
    if (!stages.length) throw new Error("This run has no trajectories yet.");
    byId("stage").replaceChildren(...stages.map((each) =>
      make("option", { value: each.stage }, `${each.stage} (${each.trajectories})`)));
    await list(0);
  });
}

async function attempt(work) {
  try {
    await work();
    complain("run-problem", null);
  } catch (error) {
    complain("run-problem", error);
  }
}

async function list(from, step = 0) {
  await attempt(async () => {
    const size = 50;
    const wanted = Math.max(0, from + step * size);
    const stage = byId("stage").value;
    const page = await ask(
      `/run/trajectories?stage=${encodeURIComponent(stage)}&start=${wanted}`);
    start = wanted;
    byId("rows").replaceChildren(...page.rows.map((row) => line(stage, row)));
    const last = start + page.rows.length;
    byId("where").textContent = page.total ? `${start + 1} to ${last} of ${page.total}` : "none";
    byId("before").disabled = start === 0;
    byId("after").disabled = last >= page.total;
  });
}

function verdict(correct, stop) {
  if (correct === true) return make("span", { class: "badge right" }, "right");
  if (correct === false) return make("span", { class: "badge wrong" }, stop === "answered" ? "wrong" : stop);
  return make("span", { class: "badge" }, stop ?? "unfinished");
}

function line(stage, row) {
  const button = make("button", { type: "button" }, row.question,
    make("small", {}, verdict(row.correct, row.stop),
      make("span", { class: "quiet" }, row.searches === 1 ? "1 search" : `${row.searches} searches`)));
  button.addEventListener("click", () => {
    for (const other of byId("rows").querySelectorAll("[aria-current]")) other.removeAttribute("aria-current");
    button.setAttribute("aria-current", "true");
    show(stage, row.row);
  });
  return make("li", {}, button);
}

async function show(stage, row) {
  await attempt(async () => {
    const found = await ask(
      `/run/trajectory?stage=${encodeURIComponent(stage)}&row=${row}`);
    const { question, turns, stop, error } = found.trajectory;
    byId("trajectory").replaceChildren(
      make("h3", {}, question.text, " ", verdict(found.correct, stop)),
      make("p", {}, `Answer: ${found.answer ?? "none"}`),
      make("p", { class: "quiet" }, `Counts as right: ${question.answers.join(" · ") || "not known"}`),
      error ? make("p", { class: "problem" }, error) : "",
      ...turns.map((turn, at) => turnPart(turn, at)));
    byId("trajectory").focus();
  });
}

function turnPart(turn, at) {
  const searches = turn.searches.map((search) => {
    const hits = search.hits.map((each, rank) => hit(
      { ...each.passage, score: each.score }, rank + 1, wordsOf(search.query), null));
    return make("div", {},
      make("p", { class: "sent quiet" }, `sent: ${search.sent}`),
      make("ol", { class: "hits" }, ...hits));
  });
  return make("section", { class: "turn", "aria-label": `Turn ${at + 1}` },
    make("h4", {}, `Turn ${at + 1}: ${turn.status}`),
    make("p", { class: "wrote" }, turn.text.trim()),
    ...searches,
    turn.observation ? make("details", {}, make("summary", {}, "What the agent was shown"),
      make("p", { class: "seen" }, turn.observation)) : null);
}
