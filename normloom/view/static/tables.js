// The rows of one table: search, filters, sorting and pages. Its state is in the address, so it can be kept and shared.

import { post } from "./api.js";
import { announce, counted, el, show } from "./dom.js";
import { grid } from "./grid.js";

const OPERATORS = ["is", "is not", "contains", "<", "<=", ">", ">=", "is empty", "is not empty"];
const LIMIT = 50;
let latest = 0;

export const fresh = (table) => ({ table, search: "", where: [], sort: null, descending: false, offset: 0 });

export async function draw(main, state, { listed, warning, change, onOpen }) {
  const turn = ++latest;
  const wanted = { ...state, limit: LIMIT };
  const place = el("div", {});
  const found = el("span", { class: "quiet", id: "found" }, "…");
  const search = el("input", { type: "search", placeholder: "Search all text columns", value: state.search, "aria-label": "Search all text columns", id: "search" });
  const turned = (by) => change({ ...state, offset: Math.max(0, state.offset + by) });
  const earlier = el("button", { onclick: () => turned(-LIMIT), disabled: state.offset === 0, id: "earlier" }, "‹ Earlier");
  const later = el("button", { onclick: () => turned(LIMIT), disabled: true, id: "later" }, "Later ›");
  const adding = el("span", {});
  show(main,
    el("h2", {}, state.table, " ", el("small", { class: "quiet" }, listed.created ? `made ${listed.created.slice(0, 16).replace("T", " ")}` : "not published")),
    warning ? el("p", { class: "warning" }, warning) : [],
    el("form", { class: "bar", role: "search", onsubmit: (event) => { event.preventDefault(); change({ ...state, search: search.value, offset: 0 }); } },
      search, el("button", { class: "primary" }, "Search")),
    el("div", { class: "bar" },
      state.where.map((one, at) => el("span", { class: "chip" }, `${one.column} ${one.operator} ${one.value}`,
        el("button", { "aria-label": `Remove the filter on ${one.column}`, onclick: () => change({ ...state, where: state.where.filter((_, place) => place !== at), offset: 0 }) }, "✕"))),
      adding, found, earlier, later),
    place);
  try {
    const page = await post("/api/rows", wanted);
    if (turn !== latest) return;
    show(adding, filterForm(page.columns, (one) => change({ ...state, where: [...state.where, one], offset: 0 })));
    later.disabled = !page.more;
    show(place, page.rows.length
      ? grid(page, { sort: state.sort, descending: state.descending, onOpen, onSort: (column) => change({ ...state, sort: column, descending: state.sort === column && !state.descending, offset: 0 }) })
      : el("p", { class: "quiet" }, "No row matches the filters."));
    const { rows } = await post("/api/count", wanted);
    if (turn !== latest) return;
    const last = Math.min(state.offset + page.rows.length, rows);
    found.textContent = rows ? `${counted(state.offset + 1)}–${counted(last)} of ${counted(rows)} rows` : "0 rows";
    announce(found.textContent);
  } catch (error) {
    if (turn === latest) show(place, el("p", { class: "error" }, error.message));
  }
}

function filterForm(columns, add) {
  const column = el("select", { "aria-label": "Column" }, columns.map((one) => el("option", {}, one.name)));
  const operator = el("select", { "aria-label": "Comparison" }, OPERATORS.map((one) => el("option", {}, one)));
  const value = el("input", { "aria-label": "Value", size: 14 });
  return el("form", { onsubmit: (event) => { event.preventDefault(); add({ column: column.value, operator: operator.value, value: value.value }); } },
    column, " ", operator, " ", value, " ", el("button", {}, "Filter"));
}
