// Rows that wait for people: one after another, by keyboard. Each answer is stored at once.

import { get, post } from "./api.js";
import { announce, counted, el, show } from "./dom.js";
import { facts, medium } from "./row.js";

let current = null; // what is on the page: the queue, its row, the answers so far
let skipping = [];

export const active = () => current !== null;
export const leave = () => { current = null; };

export async function draw(main, { media, named, go }) {
  leave();
  try {
    const { who, queues } = await get("/api/queues");
    const queue = queues.find((one) => named && one.name === named.name && one.system === named.system) ?? (queues.length === 1 ? queues[0] : null);
    if (!queue) return show(main, el("h2", {}, "Labels"), list(queues, go));
    skipping = [];
    return await next(main, queue, who, media);
  } catch (error) {
    return show(main, el("p", { class: "error" }, error.message));
  }
}

function list(queues, go) {
  if (!queues.length) return el("p", { class: "quiet" }, "No queue waits for answers. A step that asks people publishes one.");
  return el("ul", {}, queues.map((one) => el("li", {}, el("button", { onclick: () => go({ name: one.name, system: one.system }) }, `${one.name} (${one.system})`), " ",
    `${counted(one.progress.answered)} of ${counted(one.progress.rows)} rows answered`)));
}

async function next(main, queue, who, media) {
  const found = await post("/api/queue/next", { name: queue.name, system: queue.system, skipping });
  page(main, found, who, media, found.row);
}

function page(main, queue, who, media, row) {
  current = row && who ? { main, queue, who, media, row, given: { ...row.answers }, at: 0 } : null;
  const names = Object.keys(queue.questions);
  const heading = [
    el("h2", {}, queue.name, " ", el("small", { class: "quiet" }, `asked by ${queue.system}`)),
    progress(queue, who),
    who ? [] : el("p", { class: "warning" }, "This page only reads. Start it with normloom view --label to answer."),
  ];
  const error = el("p", { class: "error", id: "refused", role: "alert" });
  const buttons = who ? el("div", { class: "bar" },
    row ? el("button", { class: "primary", id: "save", onclick: save }, "Save (Enter)") : null,
    row ? el("button", { onclick: skip }, "Skip (s)") : null,
    el("button", { onclick: undo, id: "undo" }, "Undo (u)")) : null;
  undoing = { main, queue, who, media };
  if (!row) {
    const done = skipping.length ? `${counted(skipping.length)} rows were skipped.` : "Nothing is left to answer. The next build continues with the answers.";
    const back = skipping.length ? el("button", { onclick: () => { skipping = []; next(main, queue, who, media); } }, "Show skipped rows") : null;
    announce(done);
    return show(main, heading, el("p", { id: "done" }, done), el("div", { class: "bar" }, back, buttons), error);
  }
  show(main, heading, el("div", { class: "labelling" },
    el("article", { class: "step" }, el("h3", {}, `${counted(row.place + 1)}. row`, el("code", {}, row.row)), row.shown.media_id ? medium(row.shown, media) : null, facts(row.shown),
      el("p", { class: "quiet same" }, row.chosen_by)),
    el("div", {}, names.map((name, at) => question(name, queue.questions[name], at)), buttons, error,
      queue.guidelines ? el("details", { open: true, class: "guidelines" }, el("summary", {}, "Guidelines"), el("pre", {}, queue.guidelines)) : null)));
  mark();
  announce(`Row ${row.place + 1} of ${queue.progress.rows}`);
}

function progress(queue, who) {
  const { rows, answered, waiting, by_person: people } = queue.progress;
  const mine = people[who] ?? 0;
  return el("div", { class: "bar" }, el("progress", { max: Math.max(rows, 1), value: answered, "aria-label": "Rows answered" }),
    el("span", { id: "progress" }, `${counted(answered)} of ${counted(rows)} rows answered, ${counted(waiting)} wait`),
    who ? el("span", { class: "quiet" }, `${counted(mine)} by ${who}`) : null);
}

function question(name, asked, at) {
  const controls = asked.options.length
    ? asked.options.map((option, place) => el("button", { type: "button", class: "option", "data-option": option, "aria-pressed": "false", onclick: () => { move(at); choose(place); } },
        place < 9 ? el("kbd", {}, String(place + 1)) : null, " ", option))
    : el(asked.kind === "text" ? "textarea" : "input", { name, "aria-label": name, type: asked.kind === "number" ? "number" : null, min: asked.low, max: asked.high, step: "any",
        onfocus: () => move(at), oninput: (event) => { current.given[name] = event.target.value; } });
  return el("fieldset", { class: "question", "data-question": name }, el("legend", {}, name, asked.optional ? el("small", { class: "quiet" }, " (optional)") : null),
    asked.text ? el("p", {}, asked.text) : null, controls);
}

// Show what is chosen and which question the digits answer.
function mark() {
  if (!current) return;
  document.querySelectorAll(".question").forEach((box, at) => {
    box.classList.toggle("now", at === current.at);
    const value = current.given[box.dataset.question];
    box.querySelectorAll(".option").forEach((button) => button.setAttribute("aria-pressed", String(Array.isArray(value) ? value.includes(button.dataset.option) : value === button.dataset.option)));
    const field = box.querySelector("input, textarea");
    if (field && value !== undefined && field.value !== String(value)) field.value = value;
  });
}

function move(at) {
  current.at = Math.min(Math.max(at, 0), Object.keys(current.queue.questions).length - 1);
  mark();
}

function choose(place) {
  const names = Object.keys(current.queue.questions);
  const name = names[current.at];
  const asked = current.queue.questions[name];
  const option = asked.options[place];
  if (option === undefined) return undefined;
  if (asked.kind === "choices") {
    const chosen = current.given[name] ?? [];
    current.given[name] = chosen.includes(option) ? chosen.filter((one) => one !== option) : [...chosen, option];
    return mark();
  }
  current.given[name] = option;
  if (names.length === 1) return save();
  return move(current.at + 1);
}

let busy = false; // while a request is out nobody has seen the next row: keys are not for it

async function guarded(work) {
  if (busy) return;
  busy = true;
  try {
    await work();
  } catch (error) {
    document.getElementById("refused").textContent = error.message;
  }
  busy = false;
}

async function save() {
  if (!current || busy) return;
  const { main, queue, who, media, row, given } = current;
  const missing = Object.entries(queue.questions).filter(([name, asked]) => !asked.optional && (given[name] === undefined || given[name] === "")).map(([name]) => name);
  if (missing.length) {
    document.getElementById("refused").textContent = `Not answered yet: ${missing.join(", ")}`;
    return;
  }
  await guarded(async () => {
    const values = Object.fromEntries(Object.entries(given).filter(([, value]) => value !== ""));
    await post("/api/queue/answer", { name: queue.name, system: queue.system, row: row.row, digest: row.digest, values });
    await next(main, queue, who, media);
  });
}

const skip = () => {
  const { main, queue, who, media, row } = current;
  skipping = [...skipping, row.row];
  guarded(() => next(main, queue, who, media));
};

let undoing = null;

const undo = () => guarded(async () => {
  const { main, queue, who, media } = undoing;
  const found = await post("/api/queue/undo", { name: queue.name, system: queue.system });
  if (found.row) page(main, found, who, media, found.row);
  else document.getElementById("refused").textContent = "Nothing to undo.";
});

export function key(event) {
  if (busy) return undefined;
  if (event.key === "u" && undoing) return undo();
  if (!current) return undefined;
  if (event.key === "Enter" && !event.target.matches("button")) {
    event.preventDefault();
    return save();
  }
  if (event.key === "s") return skip();
  if (event.key === "ArrowDown" || event.key === "ArrowUp") {
    event.preventDefault();
    return move(current.at + (event.key === "ArrowDown" ? 1 : -1));
  }
  if (/^[1-9]$/.test(event.key)) return choose(Number(event.key) - 1);
  return undefined;
}
