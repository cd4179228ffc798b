// A user's talk with a model: messages with the facts that were learned from them, and what these lead to.

import { get, post } from "./api.js";
import { announce, counted, el, show } from "./dom.js";
import { confirmDelete, correct } from "./chat_dialogs.js";

const DRAFT = "normloom-draft";
const SEND = "Send (Enter)";
const SOON = 500;
const LATER = 2500;
let page = null; // what is on the page: its places, the state shown, the timer

export function leave() {
  if (page) clearTimeout(page.timer);
  page = null;
}

export async function draw(main, { history }) {
  leave();
  let state;
  try {
    state = await get("/api/chat");
  } catch (error) {
    return show(main, el("p", { class: "error" }, error.message));
  }
  if (!state.open) {
    const commands = state.systems.map((system) => el("code", {}, `normloom chat ${system}`));
    return show(main, el("h2", {}, "Chat"), el("p", { class: "warning" }, "No chat is open on this page. Start one with ", commands.length ? commands : "normloom chat SYSTEM", "."));
  }
  const places = Object.fromEntries(["turns", "known", "offers"].map((name) => [name, el(name === "turns" ? "ol" : "div", { id: name })]));
  places.model = el("p", { id: "model", class: "quiet" });
  places.refused = el("p", { id: "refused", class: "error", role: "alert" });
  page = { places, history, state: null, timer: 0, main };
  show(main, el("h2", {}, `Chat of ${state.who} `, el("small", { class: "quiet" }, `with ${state.system}`)), places.model,
    el("div", { class: "talk" },
      el("section", { "aria-label": "Conversation" }, places.turns, composer(state)),
      el("section", { "aria-label": "What is known and recommended" }, el("h3", {}, "What is known of you"), places.known, el("h3", {}, "Recommended"), places.offers)));
  update(state);
  document.getElementById("say").focus({ preventScroll: true });
  return poll();
}

function composer(state) {
  const kept = draft();
  const text = el("textarea", { id: "say", "aria-label": "Message", placeholder: "Say something about yourself", maxlength: "2000",
    oninput: () => keep({ text: text.value, task: task.value, key: draft()?.key ?? newKey() }),
    onkeydown: (event) => {
      if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
      event.preventDefault();
      send(text, task);
    } });
  const last = state.turns.at(-1)?.task;
  const task = el("select", { id: "task", "aria-label": "Task" }, Object.keys(state.tasks).map((name) => el("option", { value: name }, name)));
  task.value = kept?.task ?? last ?? Object.keys(state.tasks)[0];
  text.value = kept?.text ?? "";
  return el("form", { id: "composer", onsubmit: (event) => { event.preventDefault(); send(text, task); } }, text,
    el("div", { class: "bar" }, el("label", {}, "About ", task), el("button", { class: "primary", id: "send" }, SEND)), page.places.refused);
}

const newKey = () => Array.from(crypto.getRandomValues(new Uint8Array(16)), (one) => one.toString(16).padStart(2, "0")).join("");
const keep = (said) => sessionStorage.setItem(DRAFT, JSON.stringify(said));

function draft() {
  try {
    return JSON.parse(sessionStorage.getItem(DRAFT));
  } catch {
    return null;
  }
}

let sending = false; // a message that is under way is sent again under its own key, and is one message

async function send(text, task) {
  if (sending || !text.value.trim()) return;
  sending = true;
  const said = { text: text.value, task: task.value, key: draft()?.key ?? newKey() };
  keep(said);
  const sent = document.getElementById("send");
  sent.textContent = "Sending …";
  await done(async () => {
    const state = await post("/api/chat/say", said);
    sessionStorage.removeItem(DRAFT);
    if (text.value === said.text) text.value = "";
    else keep({ ...said, text: text.value, key: newKey() });
    return state;
  });
  sent.textContent = SEND;
  sending = false;
}

// Do something that changes the conversation and show what it is then; what fails is said, and nothing is lost.
async function done(work) {
  try {
    const state = await work();
    if (!page) return;
    page.places.refused.textContent = "";
    update(state);
    poll(SOON);
  } catch (error) {
    if (page) page.places.refused.textContent = error.message;
  }
}

function poll(wait) {
  clearTimeout(page.timer);
  page.timer = setTimeout(async () => {
    const here = page;
    try {
      const state = await get("/api/chat", { version: here.state.version });
      if (page !== here) return;
      here.places.model.classList.remove("error");
      if (state.turns) update(state);
      else progress(state.pending);
    } catch (error) {
      if (page !== here) return;
      here.places.model.textContent = `Not connected: ${error.message}`;
      here.places.model.classList.add("error");
      here.state.version = "";
    }
    poll();
  }, wait ?? (Object.keys(page.state.pending).length || page.state.model.state === "loading" ? SOON : LATER));
}

function progress(pending) {
  page.state.pending = pending;
  for (const [turn, share] of Object.entries(pending)) {
    const bar = document.querySelector(`[data-turn="${turn}"] progress`);
    if (bar && share !== null) bar.value = share;
  }
}

function update(state) {
  const before = page.state;
  page.state = state;
  const { places } = page;
  const { title, state: at, error } = state.model;
  places.model.className = at === "failed" ? "error" : "quiet";
  places.model.textContent = { loading: `${title} is loading …`, ready: `${title} replies`, failed: `${title} cannot reply: ${error}` }[at];
  const below = page.main.scrollHeight - page.main.scrollTop - page.main.clientHeight < 80;
  const focused = document.activeElement?.dataset?.at;
  const opened = [...document.querySelectorAll("details[open][data-opens]")].map((one) => one.dataset.opens);
  show(places.turns, state.turns.length ? state.turns.map(turn) : el("li", { class: "quiet" }, "Nothing has been said yet. Facts are extracted from what you say; you can correct and delete them."));
  show(places.known, state.facts.length ? el("ul", { class: "facts" }, state.facts.map(fact)) : el("p", { class: "quiet" }, "Nothing yet."));
  show(places.offers, state.recommendations.length ? el("ul", { class: "facts" }, state.recommendations.map(offer)) : el("p", { class: "quiet" }, "Nothing yet: recommendations begin with the first fact about a task."));
  document.querySelectorAll("details[data-opens]").forEach((one) => { one.open = opened.includes(one.dataset.opens); });
  if (focused) document.querySelector(`[data-at="${CSS.escape(focused)}"]`)?.focus({ preventScroll: true });
  if (before === null || (below && before.turns.length !== state.turns.length)) places.turns.lastElementChild?.scrollIntoView({ block: "nearest" });
  const answered = state.turns.at(-1)?.reply;
  if (before && answered && !before.turns.at(-1)?.reply) announce(answered.text ?? `No reply: ${answered.failure}`);
}

const plain = (one) => `${one.relation.replaceAll("_", " ")}: ${one.object}`;
const where = (one) => el("span", { class: "quiet" }, `${one.task} › ${one.topic}`);

function turn(said) {
  const learned = said.facts.length
    ? el("ul", { class: "learned", "aria-label": "Learned" }, said.facts.map(learnedFact))
    : el("p", { class: "quiet same" }, "Nothing was learned from this.");
  return el("li", { "data-turn": said.turn },
    el("article", { class: "message mine" },
      el("div", { class: "top" }, el("span", { class: "quiet" }, `You, about ${said.task}`), button("Delete", () => remove(said.turn), `delete-${said.turn}`, "Delete this message")),
      el("p", { class: "prose" }, marked(said.text, said.facts)), learned),
    reply(said));
}

// Places count characters as Python does, so that one outside the basic plane is one.
function marked(text, facts) {
  const characters = Array.from(text);
  const parts = [];
  let at = 0;
  for (const one of facts.filter((two) => two.now).sort((a, b) => a.start - b.start)) {
    if (one.start < at) continue;
    parts.push(characters.slice(at, one.start).join(""), el("mark", { title: plain(one.now) }, characters.slice(one.start, one.stop).join("")));
    at = one.stop;
  }
  return [...parts, characters.slice(at).join("")];
}

function learnedFact(one) {
  const said = one.now ? [el("b", {}, plain(one.now)), " ", where(one.now)] : [el("del", {}, plain(one.read)), " is no fact"];
  const tag = one.origin === "person" ? "corrected by you" : `read by the extractor, ${Math.round(one.confidence * 100)} %`;
  return el("li", {}, el("span", {}, said, " ", el("span", { class: "quiet" }, `(${tag})`)), actions(one.fact, one.now ?? one.read, "learned"));
}

function reply(said) {
  if (said.turn in page.state.pending) {
    const share = page.state.pending[said.turn];
    return el("article", { class: "message reply" }, el("p", { class: "quiet" }, page.state.model.state === "loading" ? "The model is loading …" : "Replying …"),
      el("progress", { max: "1", value: String(share ?? 0), "aria-label": "Progress of the reply" }));
  }
  const again = button("Ask again", () => done(() => post("/api/chat/again", { row: said.turn })), `again-${said.turn}`);
  if (!said.reply) {
    return el("article", { class: "message reply" }, el("p", { class: "quiet" }, said.reply_deleted ? "The reply was deleted because it used something that was deleted." : "No reply: it was interrupted."), again);
  }
  if (said.reply.text === null) {
    return el("article", { class: "message reply" }, el("p", { class: "error" }, `No reply: ${said.reply.failure}`), again);
  }
  const known = new Map(page.state.facts.map((one) => [one.fact, one]));
  const drew = said.reply.drew_on.filter((one) => known.has(one)).map((one) => plain(known.get(one)));
  return el("article", { class: "message reply" }, el("div", { class: "top" }, el("span", { class: "quiet" }, said.reply.model)),
    el("p", { class: "prose" }, said.reply.text),
    drew.length ? el("details", { class: "same", "data-opens": `drew-${said.turn}` }, el("summary", {}, `Knew ${counted(drew.length)} of your facts`), el("ul", {}, drew.map((one) => el("li", {}, one)))) : null);
}

function fact(one) {
  const origin = { source: "from the data", model: "learned in the chat", person: "corrected by you" }[one.origin];
  return el("li", {}, el("span", {}, el("b", {}, plain(one)), " ", where(one), " ", el("span", { class: "quiet" }, `(${origin})`),
    one.contradicts.length ? el("span", { class: "error" }, ` You also say the opposite: ${one.contradicts.map((two) => two.replaceAll("_", " ")).join(", ")}.`) : null), actions(one.fact, one, "known"));
}

function offer(one) {
  const known = new Map(page.state.facts.map((two) => [two.fact, two]));
  const own = one.own.filter((two) => known.has(two)).map((two) => plain(known.get(two)));
  return el("li", {}, el("span", {}, el("b", {}, plain(one)), " ", where(one)),
    el("details", { class: "same", "data-opens": `why-${plain(one)}-${one.task}-${one.topic}` }, el("summary", {}, `Why? ${counted(one.users)} ${one.users === 1 ? "other has" : "others have"} it`),
      el("p", { class: "quiet" }, `Most others have it under ${one.topic} and you do not. The topic is relevant because of your facts:`),
      el("ul", {}, own.map((two) => el("li", {}, two))),
      el("p", { class: "quiet" }, "It is based on these facts of others: ", one.facts.map((id) => [button(id.slice(0, 8), () => page.history(id), `cite-${one.rank}-${one.topic}-${id}`, `History of fact ${id.slice(0, 8)}`), " "]).flat())));
}

function actions(id, values, place) {
  return el("span", {}, button("Correct", () => correct(page.state, id, values, (given) => done(() => post("/api/chat/correct", { fact: id, ...given }))), `correct-${place}-${id}`, `Correct ${plain(values)}`), " ",
    button("Delete", () => remove(id), `delete-${place}-${id}`, `Delete ${plain(values)}`));
}

function button(label, onclick, at, name) {
  return el("button", { type: "button", class: "small", onclick, "data-at": at, "aria-label": name ?? null }, label);
}

const remove = (id) => confirmDelete(id, page.state.system, (work) => done(work));
