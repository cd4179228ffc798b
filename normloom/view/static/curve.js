// Learning curves as a small picture: how a figure changes as labels become known, one line for each order.

import { el, show } from "./dom.js";

const SVG = "http://www.w3.org/2000/svg";
const WIDTH = 320, HEIGHT = 130, LEFT = 30, BOTTOM = 20, TOP = 8;

function svg(name, attributes, ...children) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

export function curve(curves, figure, title) {
  const known = curves.flatMap(({ points }) => points.map((one) => one.labelled));
  const low = Math.min(...known), wide = Math.max(Math.max(...known) - low, 1);
  const x = (labelled) => LEFT + ((labelled - low) / wide) * (WIDTH - LEFT - 8);
  const y = (share) => TOP + (1 - share) * (HEIGHT - TOP - BOTTOM);
  const grid = [0, 0.5, 1].flatMap((share) => [
    svg("line", { class: "grid", x1: LEFT, x2: WIDTH - 8, y1: y(share), y2: y(share) }),
    svg("text", { x: LEFT - 4, y: y(share) + 4, "text-anchor": "end" }, String(share)),
  ]);
  const ends = [low, low + wide].map((labelled, at) => svg("text", { x: x(labelled), y: HEIGHT - 5, "text-anchor": at ? "end" : "start" }, `${labelled} labels`));
  const lines = curves.map(({ strategy, points }) => svg("g", { class: `curve ${strategy}` },
    svg("polyline", { points: points.map((one) => `${x(one.labelled)},${y(one[figure])}`).join(" ") }),
    ...points.map((one) => svg("circle", { cx: x(one.labelled), cy: y(one[figure]), r: 2 }, svg("title", {}, `${strategy}: ${one[figure].toFixed(2)} of ${one.of} with ${one.labelled} labels`)))));
  const picture = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": `${title} by labels known, of ${curves.map((one) => one.strategy).join(", ")}` }, ...grid, ...ends, ...lines);
  const made = el("figure", { class: "learning" });
  show(made, el("figcaption", {}, title, " ", curves.map(({ strategy }) => el("span", { class: `key ${strategy}` }, strategy))), picture);
  return made;
}
