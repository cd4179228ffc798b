// The analyst's face of PersoPilot: one candidate after another, how the classifier learns, offers and replies.

import { get, post } from "./api.js";
import { curve } from "./curve.js";
import { announce, counted, el, show } from "./dom.js";

export const STAGE = "ask_persopilot_decisions"; // a system that has this table has this face

let state = null; // what is on the page: place, system, task, overview, the candidate
let busy = false; // keys are ignored during a request: the next candidate is not on the page yet

export const leave = () => { state = null; };

export async function draw(main, { systems, named, go }) {
  const system = named?.system ?? systems[0];
  state = { main, system, go, systems, wanted: named?.task, skipping: [], row: null };
  main.focus(); // or Enter would follow the link that led here
  await guarded(() => next());
}

async function next(row = null) {
  const here = state;
  const overview = await get("/api/analyst", { system: here.system });
  const task = overview.tasks.find((one) => one.task === here.wanted) ?? overview.tasks.find((one) => one.asked > one.answered) ?? overview.tasks[0];
  const found = await post("/api/analyst/next", { system: here.system, task: task.task, skipping: here.skipping, row });
  if (here !== state) return; // the page has moved on
  Object.assign(state, { overview, task, wanted: task.task, row: found.row });
  page();
}

function page() {
  const { main, overview, task, row } = state;
  show(main,
    el("h2", {}, "PersoPilot ", el("small", { class: "quiet" }, `analyst's page of ${state.system}`)),
    state.systems.length > 1 ? el("div", { class: "bar" }, state.systems.map((one) => el("button", { "aria-pressed": String(one === state.system), onclick: () => state.go({ system: one }) }, one))) : [],
    el("div", { class: "bar tasks", role: "group", "aria-label": "Tasks" }, overview.tasks.map((one) =>
      el("button", { class: "option", "aria-pressed": String(one === task), onclick: () => choose(one) }, one.task, " ", el("small", {}, `${counted(one.asked - one.answered)} to decide`)))),
    overview.who ? [] : el("p", { class: "warning" }, "This page only reads. Start it with normloom view --label to answer."),
    el("div", { class: "labelling" }, candidate(row, task, overview), learning(task, overview)),
    offers(overview));
  announce(row ? `${row.username}, ${task.task}` : `No candidate of ${task.task} is left`);
}

// What Enter records: the side that the assistant's score names, else the one that the classifier predicts.
export const suggestion = (row) => ((row.score === null ? row.predicted : row.score >= 0.5) ? "accept" : "decline");

function candidate(row, task, overview) {
  const error = el("p", { class: "error", id: "refused", role: "alert" });
  const undoing = overview.who ? el("button", { id: "undo", onclick: undo }, "Undo (u)") : null;
  if (!row) {
    const later = state.skipping.length ? el("button", { onclick: () => { state.skipping = []; guarded(() => next()); } }, "Show skipped") : null;
    return el("div", {}, el("p", { id: "done" }, "No user is left to decide in this task. The next build uses the answers, and asks about others."), el("div", { class: "bar" }, later, undoing), error);
  }
  const suggested = suggestion(row);
  const cited = new Set(row.cited);
  const side = (value, key) => el("button", { class: "option", "data-side": value, "aria-pressed": String((row.answer ?? suggested) === value), onclick: () => answer(value), disabled: !overview.who },
    el("kbd", {}, key), ` ${task[value]}`, value === suggested ? " (suggested)" : "");
  return el("div", {},
    el("article", { class: "step", id: "candidate" },
      el("h3", {}, row.username, el("code", {}, `asked as ${row.strategy}`)),
      el("p", {}, el("strong", {}, "Assistant: "), row.score === null ? "no score could be read" : `${row.score.toFixed(2)} for “${task.accept}”`,
        row.reason ? el("span", { class: "prose" }, ` – ${row.reason}`) : null),
      el("p", {}, el("strong", {}, "Classifier: "), `${task[row.predicted ? "accept" : "decline"]}, confidence ${row.confidence.toFixed(2)}`,
        row.like ? `; nearest: ${row.like}` : null, row.because.length ? ` (${row.because.join(", ")})` : null),
      el("ul", { class: "facts" }, row.facts.map((fact) => (cited.has(fact)
        ? el("li", { class: "cited" }, el("mark", {}, fact), " ", el("span", { class: "tag kept" }, "cited"))
        : el("li", {}, fact))))),
    el("fieldset", { class: "question now" }, el("legend", {}, "Which side is this user on?"), side("accept", "1"), side("decline", "2")),
    el("div", { class: "bar" },
      overview.who ? el("button", { class: "primary", id: "save", onclick: () => answer(suggested) }, "Accept the suggestion (Enter)") : null,
      overview.who ? el("button", { onclick: skip }, "Skip (s)") : null, undoing),
    error,
    overview.guidelines ? el("details", { class: "guidelines" }, el("summary", {}, "Guidelines"), el("pre", {}, overview.guidelines)) : null);
}

function learning(task, overview) {
  const since = task.answered ? `Since the build: ${counted(task.answered)} decided, the classifier had predicted ${counted(task.agreed)} of them.` : "Nothing was decided since the build.";
  const curves = overview.curves[task.task] ?? [];
  return el("section", { "aria-label": "How the classifier learns" },
    el("p", { id: "known" }, `${counted(task.known)} of ${counted(task.users)} users are known, ${counted(task.accepted)} “${task.accept}”.`),
    el("p", { id: "since" }, since),
    curves.length ? [curve(curves, "accuracy", "Accuracy"), curve(curves, "coverage", "Coverage"), values(curves)]
      : el("p", { class: "quiet" }, "No curve yet: a replay needs labels of both sides."));
}

function values(curves) {
  const means = curves.map(({ strategy, points }) => ({ strategy, mean: (name) => points.reduce((sum, one) => sum + one[name], 0) / points.length }));
  return el("div", { class: "scroll" }, el("table", { class: "figures" }, el("thead", {}, el("tr", {}, ["order", "mean accuracy", "mean coverage"].map((name) => el("th", {}, name)))),
    el("tbody", {}, means.map(({ strategy, mean }) => el("tr", {}, el("td", {}, strategy), [mean("accuracy"), mean("coverage")].map((value) => el("td", { class: "number" }, value.toFixed(2))))))));
}

function offers(overview) {
  const status = (one) => {
    if (one.status !== "waiting") return el("span", { class: `tag ${one.status === "accepted" ? "kept" : "out"}` }, one.status);
    if (one.given) return el("span", {}, `${one.given}, with the next build`);
    if (!overview.who) return "waiting";
    return el("span", { class: "bar" }, ["accepted", "declined"].map((reply) => el("button", { "data-reply": reply, onclick: () => replied(one, reply) }, reply)));
  };
  const why = (one) => (one.basis === "analyst" ? "decided by an analyst" : [`confidence ${one.confidence.toFixed(2)}`, one.like ? `like ${one.like}` : null, one.because.join(", ")].filter(Boolean).join("; "));
  return el("section", { id: "offers", "aria-label": "Offers" }, el("h2", {}, "Offers"),
    overview.offers.length ? el("div", { class: "scroll" }, el("table", {}, el("thead", {}, el("tr", {}, ["user", "offer", "why", "reply"].map((name) => el("th", {}, name)))),
      el("tbody", {}, overview.offers.map((one) => el("tr", {}, el("td", {}, one.username), el("td", {}, `${one.classification_task}: ${one.offer}`), el("td", {}, why(one)), el("td", {}, status(one)))))))
      : el("p", { class: "quiet" }, "No offers yet: no user is predicted to accept with enough confidence, and no analyst has decided so."));
}

async function guarded(work) {
  if (busy) return;
  busy = true;
  try {
    await work();
  } catch (error) {
    const place = document.getElementById("refused");
    if (place) place.textContent = error.message;
    else if (state) show(state.main, el("p", { class: "error" }, error.message));
  }
  busy = false;
}

const choose = (task) => { state.wanted = task.task; state.skipping = []; return guarded(() => next()); };

const answer = (side) => guarded(async () => {
  const { system, overview, row } = state;
  if (!row || !overview.who) return;
  await post("/api/queue/answer", { name: overview.decisions, system, row: row.row, digest: row.digest, values: { side } });
  await next();
});

const replied = (offer, reply) => guarded(async () => {
  await post("/api/queue/answer", { name: state.overview.replies, system: state.system, row: offer.member, digest: offer.digest, values: { reply } });
  await next(state.row?.row ?? null);
});

const skip = () => { state.skipping.push(state.row.row); return guarded(() => next()); };

const undo = () => guarded(async () => {
  const taken = await post("/api/queue/undo", { name: state.overview.decisions, system: state.system });
  if (!taken.row) throw new Error("Nothing to undo.");
  state.skipping = state.skipping.filter((one) => one !== taken.row.row);
  state.wanted = taken.row.shown.classification_task;
  await next(taken.row.row);
});

export function key(event) {
  if (busy || !state?.overview) return undefined;
  const { row, overview, task } = state;
  if (event.key === "ArrowRight" || event.key === "ArrowLeft") {
    const tasks = overview.tasks;
    const at = tasks.findIndex((one) => one.task === task.task) + (event.key === "ArrowRight" ? 1 : -1);
    return choose(tasks[(at + tasks.length) % tasks.length]);
  }
  if (!overview.who) return undefined;
  if (event.key === "u") return undo();
  if (!row) return undefined;
  if (event.key === "Enter" && !event.target.matches("button, summary, a")) return answer(suggestion(row));
  if (event.key === "1" || event.key === "2") return answer(event.key === "1" ? "accept" : "decline");
  if (event.key === "s") return skip();
  return undefined;
}
