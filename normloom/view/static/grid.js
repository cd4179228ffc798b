// A table of rows: sortable headings, rows that open, media beside their ids.

import { el, isProse, shown } from "./dom.js";

const NUMBERS = /^(U?(TINY|SMALL|BIG|HUGE)?INT(EGER)?|FLOAT|DOUBLE|DECIMAL.*)$/;

export function grid(data, { sort, descending, onSort, onOpen } = {}) {
  const at = data.columns.findIndex((column) => column.name === "row_id");
  const isId = (column) => column.name === "parents" || column.name.endsWith("_id");
  const places = data.columns.map((_, place) => place);
  const order = [...places.filter((place) => !isId(data.columns[place])), ...places.filter((place) => isId(data.columns[place]))];
  const heads = order.map((place) => {
    const column = data.columns[place];
    const here = sort === column.name;
    const title = onSort
      ? el("button", { onclick: () => onSort(column.name), title: `Sort by ${column.name}` }, column.name + (here ? (descending ? " ↓" : " ↑") : ""))
      : column.name;
    return el("th", { scope: "col", "aria-sort": here ? (descending ? "descending" : "ascending") : null }, title,
      column.type ? el("small", {}, column.type.toLowerCase()) : null);
  });
  const rows = data.rows.map((values) => {
    const id = at >= 0 ? values[at] : null;
    const open = onOpen && id ? () => onOpen(id) : null;
    return el("tr", { "data-id": id, tabindex: open ? 0 : null, onclick: open, onkeydown: (event) => { if (event.key === "Enter" && open) open(); } },
      order.map((place) => {
        const value = values[place];
        const column = data.columns[place];
        const kind = NUMBERS.test(column.type) || typeof value === "number" ? "number" : isProse(column.name, value) ? "text" : null;
        return el("td", { class: kind }, el("div", {}, shown(value, { short: true })));
      }));
  });
  return el("div", { class: "scroll" }, el("table", {}, el("thead", {}, el("tr", {}, heads)), el("tbody", {}, rows)));
}

// Move the mark by `step` rows and return the row it is on.
export function moveMark(step) {
  const rows = [...document.querySelectorAll("main tbody tr[data-id]")];
  if (!rows.length) return null;
  const here = rows.findIndex((row) => row.classList.contains("here"));
  const next = rows[Math.min(Math.max(here < 0 ? 0 : here + step, 0), rows.length - 1)];
  rows.forEach((row) => row.classList.toggle("here", row === next));
  next.focus({ preventScroll: true });
  next.scrollIntoView({ block: "nearest" });
  return next;
}
