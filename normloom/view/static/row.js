// One row with its history, as a thread from what was ingested to the row itself.

import { blob, get } from "./api.js";
import { counted, el, isProse, show, shown } from "./dom.js";

const panel = document.getElementById("row");
let back = null;

export function close() {
  panel.hidden = true;
  back?.focus({ preventScroll: true });
}

export async function open(id, { system, media }) {
  back = document.activeElement;
  panel.hidden = false;
  show(panel, heading(id, null), el("p", { class: "quiet" }, "Loading …"));
  try {
    await draw(id, system, media, false);
  } catch (error) {
    show(panel, heading(id, null), el("p", { class: "error" }, error.message));
  }
  panel.focus();
}

async function draw(id, system, media, forward) {
  const trace = await get("/api/trace", { row_id: id, ...(system && { system }), forward });
  const other = el("button", { onclick: () => draw(id, system, media, !forward) }, forward ? "Where it came from" : "What was derived from it");
  const rows = forward ? trace.rows : [...trace.rows].reverse();
  const parts = rows.map((row) => step(row, trace, { asked: row.row_id === trace.row_id, media, again: (next) => draw(next, system, media, false) }));
  const lone = trace.ledger.filter((entry) => !trace.rows.some((row) => row.row_id === entry.row_id));
  show(panel, heading(trace.row_id, other),
    el("p", { class: "quiet" }, forward ? `Derived from this row: ${counted(trace.rows.length - 1)} rows.` : "From the source to this row."),
    parts,
    trace.rows.length ? [] : lone.map(departure),
    trace.models.map((model) => el("div", { class: "step" }, el("h3", {}, "trained model"), facts({ product: model.product, wrote: model.wrote?.join(", ") }))),
    trace.missing.length ? el("p", { class: "quiet" }, `No longer in the newest tables: ${trace.missing.join(", ")}`) : []);
}

function heading(id, button) {
  return el("div", { class: "top" }, el("h2", {}, "Row ", el("code", {}, id)), el("span", {}, button, " ", el("button", { onclick: close, "aria-label": "Close" }, "✕")));
}

function step(row, trace, { asked, media, again }) {
  const siblings = trace.siblings.filter((one) => one.stage === row.stage && one.beside.includes(row.row_id));
  const before = trace.forward ? [] : trace.rows.filter((one) => row.parents.includes(one.row_id)).map((one) => one.values);
  const lost = trace.ledger.filter((entry) => entry.row_id === row.row_id || entry.winner === row.row_id);
  return el("article", { class: asked ? "step asked" : "step" },
    el("h3", {}, row.stage, el("code", {}, row.row_id)),
    row.values.media_id ? medium(row.values, media) : null,
    facts(row.values, before),
    siblings.length
      ? el("details", { open: siblings.length < 9 }, el("summary", {}, siblings.length === 1 ? "1 other row of the same parent" : `${counted(siblings.length)} other rows of the same parent`),
          el("div", { class: "side" }, siblings.map((one) => candidate(one, again))))
      : null,
    lost.map((entry) => (entry.winner === row.row_id ? el("p", { class: "quiet" }, `${entry.row_id} lost to this row in ${entry.stage}: ${entry.reason}`) : departure(entry))));
}

function candidate(sibling, again) {
  const out = sibling.ledger[0];
  const tag = out ? `${out.kind} in ${out.stage}: ${out.rule ?? out.reason ?? ""}` : `kept, last found in ${sibling.reached.join(", ")}`;
  return el("div", { class: `candidate ${out ? "out" : "kept"}` }, el("div", { class: `tag ${out ? "out" : "kept"}` }, tag), facts(sibling.values),
    el("button", { onclick: () => again(sibling.row_id) }, "History"));
}

function departure(entry) {
  return el("div", { class: "candidate out" }, el("div", { class: "tag out" }, `${entry.kind} in ${entry.stage}`),
    facts({ rule: entry.rule, reason: entry.reason, winner: entry.winner, payload: typeof entry.payload === "object" && entry.payload ? JSON.stringify(entry.payload) : entry.payload }));
}

// What a row says; values that came unchanged from its parents are only named.
export function facts(values, before = []) {
  const said = Object.entries(values).filter(([, value]) => value !== null && value !== undefined && value !== "");
  const same = said.filter(([name, value]) => before.some((one) => one[name] === value)).map(([name]) => name);
  const kept = said.filter(([name]) => !same.includes(name));
  const list = el("dl", {}, kept.flatMap(([name, value]) => [el("dt", {}, name), el("dd", { class: isProse(name, value) ? "prose" : null }, shown(value))]));
  return same.length ? [list, el("p", { class: "quiet same" }, `unchanged: ${same.join(", ")}`)] : list;
}

export function medium(values, media) {
  if (!media.length) return null;
  const place = el("div", {});
  const id = values.media_id;
  if (values.kind === "sound" || values.kind === "video") {
    const player = el("button", { onclick: async () => {
      const name = values.kind === "sound" ? "audio" : "video";
      show(place, el(name, { controls: true, src: await blob("/api/media", { media_id: id }) }));
    } }, values.kind === "sound" ? "Load the sound" : "Load the video");
    show(place, player);
    return place;
  }
  blob("/api/media", { media_id: id }).then((url) => {
    const button = el("button", { class: "medium", "aria-pressed": "false", "aria-label": "Image, blurred: click to show", onclick: () => {
      const pressed = button.getAttribute("aria-pressed") === "true";
      button.setAttribute("aria-pressed", String(!pressed));
    } }, el("img", { src: url, alt: values.origin ?? "" }));
    show(place, button);
  }, (error) => show(place, el("p", { class: "quiet" }, error.message)));
  return place;
}
