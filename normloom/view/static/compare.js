// Two builds of a system: which stages differ, and their rows one by one.

import { get } from "./api.js";
import { counted, el, isProse, show, shown } from "./dom.js";

const SAID = { same: "same table", reproduced: "rebuilt, same rows", changed: "other rows", added: "only in the later", removed: "only in the earlier" };

export async function draw(main, systems) {
  const system = el("select", { "aria-label": "System" }, systems.map((name) => el("option", {}, name)));
  const before = el("select", { "aria-label": "Earlier build" });
  const after = el("select", { "aria-label": "Later build" });
  const place = el("div", {});
  const compare = async () => {
    show(place, el("p", { class: "quiet" }, "Loading …"));
    await guarded(place, async () => show(place, overview(await get("/api/compare", chosen()), (stage) => rows(stage))));
  };
  const chosen = () => ({ system: system.value, before: before.value, after: after.value });
  const rows = async (stage) => {
    const below = document.getElementById("differing");
    await guarded(below, async () => page(below, chosen(), stage, 0));
  };
  const list = async () => guarded(place, async () => {
    const builds = await get("/api/builds", { system: system.value });
    const options = () => builds.map((one) => el("option", { value: one.build }, one.build + (one.profile ? ` (${one.profile})` : "")));
    show(before, options());
    show(after, options());
    before.selectedIndex = Math.min(1, builds.length - 1);
    if (builds.length > 1) await compare();
    else show(place, el("p", { class: "quiet" }, "There is only one build, so there is nothing to compare."));
  });
  system.addEventListener("change", list);
  show(main, el("h2", {}, "Compare builds"), el("form", { class: "bar", onsubmit: (event) => { event.preventDefault(); compare(); } },
    system, before, "→", after, el("button", { class: "primary" }, "Compare")), place);
  await list();
}

async function guarded(place, work) {
  try {
    await work();
  } catch (error) {
    show(place, el("p", { class: "error" }, error.message));
  }
}

function overview(stages, onStage) {
  const both = (stage, name) => {
    const sides = [stage.before, stage.after].filter(Boolean).map((side) => counted(side[name]));
    return new Set(sides).size === 1 ? sides[0] : sides.join(" → ");
  };
  const rows = stages.map((stage) => el("tr", {},
    el("td", {}, stage.state === "changed" && !stage.gone.length ? el("button", { onclick: () => onStage(stage.stage) }, stage.stage) : stage.stage),
    el("td", {}, SAID[stage.state]), ["rows", "dropped", "quarantined"].map((name) => el("td", { class: "number" }, both(stage, name))),
    el("td", {}, stage.because.slice(0, 6).join(", "))));
  return [el("div", { class: "scroll" }, el("table", {}, el("thead", {}, el("tr", {}, ["stage", "", "rows", "dropped", "quarantined", "because of"].map((name) => el("th", { scope: "col" }, name)))), el("tbody", {}, rows))),
    el("div", { id: "differing" })];
}

async function page(place, chosen, stage, offset) {
  const data = await get("/api/compare/rows", { ...chosen, stage, offset });
  const turn = (by) => guarded(place, () => page(place, chosen, stage, offset + by));
  show(place, el("div", { class: "bar" }, el("h2", {}, `${stage}: rows that differ`), el("button", { onclick: () => turn(-50), disabled: !offset }, "‹ Earlier"),
    el("button", { onclick: () => turn(50), disabled: !data.more }, "Later ›")),
    data.rows.length ? data.rows.map(differing) : el("p", { class: "quiet" }, "No row differs in a column that both tables have."));
}

function differing(row) {
  const value = (name, one, tag) => (one === null ? el(tag, {}, "—") : el(tag, { class: isProse(name, one) ? "prose" : null }, shown(one)));
  return el("article", { class: "step" }, el("h3", {}, row.state, el("code", {}, row.row_id)), el("dl", {},
    Object.entries(row.values).flatMap(([name, [was, now]]) => [el("dt", {}, name), el("dd", {},
      row.state === "added" ? value(name, now, "ins") : row.state === "removed" ? value(name, was, "del") : [value(name, was, "del"), " → ", value(name, now, "ins")])])));
}
