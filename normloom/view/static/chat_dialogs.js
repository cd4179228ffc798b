// Dialogs of the chat: correct a fact; see what a deletion reaches, and delete.

import { post } from "./api.js";
import { announce, counted, el, show } from "./dom.js";

function dialog(title, ...content) {
  const box = el("dialog", { "aria-label": title, onclose: () => box.remove() }, el("h2", {}, title), ...content);
  document.body.append(box);
  box.showModal();
  return box;
}

const cancel = (box) => el("button", { type: "button", onclick: () => box().close() }, "Cancel (Esc)");

export function correct(state, id, values, save) {
  const relation = el("input", { value: values.relation, required: true, maxlength: "200", list: "relations" });
  const object = el("input", { value: values.object, required: true, maxlength: "200" });
  const topics = Object.entries(state.tasks).flatMap(([task, listed]) => [...listed, "unknown"].map((topic) => ({ task, topic })));
  const topic = el("select", {}, topics.map((one, at) => el("option", { value: String(at), selected: one.task === values.task && one.topic === values.topic }, `${one.task} › ${one.topic}`)));
  const finish = (given) => { box.close(); save(given); };
  const box = dialog("Correct a fact",
    el("form", { onsubmit: (event) => { event.preventDefault(); finish({ relation: relation.value, object: object.value, ...topics[Number(topic.value)] }); } },
      el("label", {}, "Relation", relation), el("datalist", { id: "relations" }, state.relations.map((one) => el("option", { value: one }))),
      el("label", {}, "Object", object), el("label", {}, "Topic", topic),
      el("div", { class: "bar" }, el("button", { class: "primary" }, "Save (Enter)"), el("button", { type: "button", onclick: () => finish({ none: true }) }, "Not a fact"), cancel(() => box))));
  object.focus();
}

export async function confirmDelete(id, system, work) {
  const content = el("div", {}, el("p", { class: "quiet" }, "Looking for everything derived from it …"));
  const box = dialog("Delete", content);
  let found;
  try {
    found = await post("/api/chat/reach", { row: id });
  } catch (error) {
    return show(content, el("p", { class: "error" }, error.message), cancel(() => box));
  }
  const go = el("button", { type: "button", class: "danger", onclick: async () => {
    go.disabled = true;
    await work(async () => {
      try {
        const state = await post("/api/chat/delete", { row: id });
        show(content, el("p", { id: "deleted" }, "Deleted. It no longer counts."), reached(state.deleted, true),
          el("p", {}, "The next ", el("code", {}, `normloom build ${system}`), " makes its tables without it; ", el("code", {}, "normloom forget --purge"), " then removes it from every file."),
          el("button", { type: "button", class: "primary", onclick: () => box.close() }, "Close"));
        announce("Deleted");
        return state;
      } catch (error) {
        show(content, el("p", { class: "error" }, error.message), cancel(() => box));
        throw error;
      }
    });
    content.querySelector("button")?.focus();
  } }, "Delete all of it");
  show(content, el("p", {}, "This permanently deletes:"), reached(found, false), beyond(found), el("div", { class: "bar" }, go, cancel(() => box)));
  return go.focus();
}

function reached(found, past) {
  const newest = found.tables.filter((one) => one.newest);
  const rows = newest.filter((one) => one.rows).map((one) => `${counted(one.rows)} of ${one.table}`);
  const learned = newest.filter((one) => one.learned).map((one) => one.table);
  return el("ul", {},
    found.messages.map((one) => el("li", {}, "the message ", el("q", { class: "prose" }, one.text))),
    el("li", {}, many(found.facts.length, "fact")),
    el("li", {}, many(found.replies, "reply", "replies"), " of the model"),
    el("li", {}, rows.length ? `rows of tables${past ? ", in the next build" : ""}: ${rows.join(", ")}` : "no rows of tables: no build has read it yet"),
    learned.length ? el("li", {}, `what was trained on it: ${learned.join(", ")}`) : null);
}

const many = (count, one, several = `${one}s`) => `${counted(count)} ${count === 1 ? one : several}`;

const beyond = (found) => el("details", {}, el("summary", {}, "Out of reach"), el("ul", {}, found.beyond.map((one) => el("li", {}, one))));
