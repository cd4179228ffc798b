// One SELECT over the tables.

import { post } from "./api.js";
import { counted, el, show } from "./dom.js";
import { grid } from "./grid.js";

let kept = "";

export function draw(main, tables, onOpen) {
  const text = el("textarea", { spellcheck: "false", "aria-label": "SQL", id: "sql" });
  text.value = kept || (tables.length ? `FROM ${tables[tables.length - 1].name} LIMIT 50` : "");
  const place = el("div", {});
  const run = async (event) => {
    event?.preventDefault();
    kept = text.value;
    show(place, el("p", { class: "quiet" }, "Running …"));
    try {
      const data = await post("/api/query", { sql: text.value });
      show(place, el("p", { class: "quiet" }, `${counted(data.rows.length)} rows${data.more ? ", the first of more" : ""}`), grid(data, { onOpen }));
    } catch (error) {
      show(place, el("p", { class: "error" }, error.message));
    }
  };
  text.addEventListener("keydown", (event) => { if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) run(event); });
  show(main, el("h2", {}, "SQL"), el("form", { onsubmit: run }, text, el("div", { class: "bar" }, el("button", { class: "primary" }, "Run"),
    el("span", { class: "quiet" }, "DuckDB, read-only. Ctrl+Enter runs the query."))), place);
}
