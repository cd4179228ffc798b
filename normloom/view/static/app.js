// The page: what is in the address is shown.

import { get, takeToken } from "./api.js";
import { counted, el, show } from "./dom.js";
import * as analyst from "./analyst.js";
import * as chat from "./chat.js";
import * as compare from "./compare.js";
import { moveMark } from "./grid.js";
import * as labels from "./labels.js";
import * as row from "./row.js";
import * as sql from "./sql.js";
import * as tables from "./tables.js";

const main = document.getElementById("main");
const side = document.getElementById("side");
const veil = document.getElementById("veil");
const menu = document.getElementById("menu");
let known = { tables: [], warnings: {}, media: [] };
let talk = {}; // the conversation that is open, if one is
let shownTexts = false;

const systems = () => [...new Set(known.tables.map((one) => one.system))];
const analysed = () => known.tables.filter((one) => one.stage === analyst.STAGE && one.kind === "rows").map((one) => one.system);
const addressOf = (state) => `#/table/${encodeURIComponent(JSON.stringify(state))}`;

function where() {
  const [, view = "table", rest] = location.hash.split("/", 3);
  if (!rest) return { view, state: null };
  try {
    return { view, state: JSON.parse(decodeURIComponent(rest)) };
  } catch {
    return { view, state: null };
  }
}

function released(system) {
  const own = known.tables.filter((one) => one.kind === "rows" && (!system || one.system === system));
  return own.find((one) => one.stage === "publish") ?? own[own.length - 1] ?? known.tables[0];
}

async function draw() {
  const { view, state } = where();
  document.querySelectorAll("nav a").forEach((link) => (link.dataset.view === view ? link.setAttribute("aria-current", "page") : link.removeAttribute("aria-current")));
  document.body.classList.remove("menu");
  menu.setAttribute("aria-expanded", "false");
  row.close();
  const opened = (id) => row.open(id, { system: null, media: known.media });
  labels.leave();
  analyst.leave();
  chat.leave();
  if (view === "analyst") {
    drawVeil(analysed());
    return analyst.draw(main, { systems: analysed(), named: state, go: (named) => { location.hash = `#/analyst/${encodeURIComponent(JSON.stringify(named))}`; } });
  }
  if (view === "chat") {
    drawVeil([talk.system]);
    return chat.draw(main, { history: (id) => row.open(id, { system: null, media: known.media }) });
  }
  if (view === "labels") {
    drawVeil(systems());
    return labels.draw(main, { media: known.media, named: state, go: (named) => { location.hash = `#/labels/${encodeURIComponent(JSON.stringify(named))}`; } });
  }
  if (view === "sql") return drawVeil(systems()), sql.draw(main, known.tables, opened);
  if (view === "compare") return drawVeil(systems()), compare.draw(main, systems());
  const wanted = state ?? tables.fresh(released()?.name);
  const listed = known.tables.find((one) => one.name === wanted.table);
  if (!listed) return show(main, el("p", { class: "error" }, `There is no table ${wanted.table}.`));
  drawSide(wanted.table);
  drawVeil([listed.system]);
  return tables.draw(main, wanted, {
    listed,
    warning: known.warnings[listed.system],
    change: (next) => { location.hash = addressOf(next); },
    onOpen: (id) => row.open(id, { system: listed.system, media: known.media }),
  });
}

function drawSide(here) {
  show(side, systems().flatMap((system) => [
    el("h2", {}, system),
    ...known.tables.filter((one) => one.system === system).map((one) =>
      el("a", { href: addressOf(tables.fresh(one.name)), class: one.kind === "rows" ? null : "ledger", "aria-current": one.name === here ? "page" : null },
        one.kind === "rows" ? one.stage : one.kind, el("span", {}, counted(one.rows)))),
  ]));
}

function drawVeil(of) {
  const needed = of.some((system) => known.warnings[system]);
  veil.hidden = !needed;
  document.body.classList.toggle("veiled", needed && !shownTexts);
  veil.textContent = shownTexts ? "Blur texts" : "Show texts";
  veil.setAttribute("aria-pressed", String(!shownTexts));
}

veil.addEventListener("click", () => {
  shownTexts = !shownTexts;
  veil.textContent = shownTexts ? "Blur texts" : "Show texts";
  veil.setAttribute("aria-pressed", String(!shownTexts));
  document.body.classList.toggle("veiled", !shownTexts);
});

menu.addEventListener("click", () => menu.setAttribute("aria-expanded", String(document.body.classList.toggle("menu"))));

document.addEventListener("keydown", (event) => {
  const typing = event.target.matches("input, textarea, select");
  if (event.key === "Escape") return typing ? event.target.blur() : row.close();
  if (typing || event.ctrlKey || event.metaKey || event.altKey) return undefined;
  if (where().view === "labels" && event.key !== "b") return labels.key(event);
  if (where().view === "analyst" && event.key !== "b") return analyst.key(event);
  if (event.key === "j" || event.key === "k") return moveMark(event.key === "j" ? 1 : -1);
  if (event.key === "b" && !veil.hidden) return veil.click();
  if (event.key === "/") {
    event.preventDefault();
    document.getElementById("search")?.focus();
  }
  return undefined;
});

async function start() {
  const { system, stage, view } = takeToken();
  try {
    known = await get("/api/tables");
    talk = await get("/api/chat");
    document.querySelector("[data-view=chat]").hidden = !talk.open && !talk.systems.length;
  } catch (error) {
    return show(main, el("p", { class: "error" }, error.message));
  }
  document.getElementById("store").textContent = known.store;
  document.querySelector("[data-view=analyst]").hidden = !analysed().length;
  drawSide(null);
  const wanted = system && (known.tables.find((one) => one.kind === "rows" && one.system === system && one.stage === stage) ?? released(system));
  if (wanted) history.replaceState(null, "", addressOf(tables.fresh(wanted.name)));
  if (view === "chat") history.replaceState(null, "", "#/chat");
  window.addEventListener("hashchange", draw);
  return draw();
}

start();
