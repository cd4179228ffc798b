const plots = JSON.parse(document.getElementById("plots").textContent);
const root = document.documentElement;
const main = document.querySelector("main");
const dark = matchMedia("(prefers-color-scheme: dark)");
const config = { displaylogo: false, responsive: true, modeBarButtons: [["toImage"]], toImageButtonOptions: { format: "svg" } };

/** The colours of the page, as the template that every plot takes what it does not say from. */
function template() {
  const style = getComputedStyle(root);
  const colour = (name) => style.getPropertyValue(`--${name}`).trim();
  const axis = { gridcolor: colour("line"), linecolor: colour("line"), zerolinecolor: colour("line"), automargin: true, exponentformat: "none" };
  const bounds = { color: colour("ink") };
  return {
    data: { bar: [{ error_x: bounds, error_y: bounds }] },
    layout: {
      font: { family: "system-ui, sans-serif", size: 12, color: colour("ink") },
      paper_bgcolor: colour("card"),
      plot_bgcolor: colour("card"),
      colorway: ["#3b82f6", "#e8793a", "#10a37f", "#a855f7", "#d4a106", "#ec4899", "#64748b"],
      colorscale: { sequential: [[0, colour("low")], [1, colour("high")]] },
      xaxis: axis,
      yaxis: axis,
      margin: { l: 50, r: 20, t: 30, b: 45 },
      legend: { traceorder: "normal", orientation: "h", x: 0, y: 1, yanchor: "bottom" },
      hoverlabel: { align: "left" },
    },
  };
}

let drawing = 0;

/** Draw all plots in the page's colours, from the top, letting the reader scroll meanwhile; a later call takes over. */
async function draw() {
  const mine = ++drawing;
  const shared = template();
  main.ariaBusy = "true";
  for (const [id, { data, layout }] of Object.entries(plots)) {
    if (mine !== drawing) return;
    Plotly.react(id, structuredClone(data), { ...structuredClone(layout), template: shared }, config);
    await new Promise((resolve) => setTimeout(resolve));
  }
  main.ariaBusy = "false";
}

function use(theme) {
  root.dataset.theme = theme;
  draw();
}

/** Print on white: what is folded is opened, and plots are as wide as the paper. */
let before = null;
function fit() {
  for (const id of Object.keys(plots)) {
    const plot = document.getElementById(id);
    const { data, layout } = plots[id];
    const fitted = { ...structuredClone(layout), width: plot.clientWidth, template: template() };
    Plotly.purge(id); // or margins stay those of the screen's legend
    Plotly.newPlot(id, structuredClone(data), fitted, config);
  }
}
addEventListener("beforeprint", () => {
  before = { theme: root.dataset.theme, folded: [...document.querySelectorAll("details:not([open])")] };
  for (const each of before.folded) each.open = true;
  root.dataset.theme = "light";
  root.dataset.printing = "";
  fit();
});
addEventListener("afterprint", () => {
  for (const each of before.folded) each.open = false;
  delete root.dataset.printing;
  use(before.theme);
});

dark.addEventListener("change", () => use(dark.matches ? "dark" : "light"));
document.getElementById("theme").addEventListener("click", () => use(root.dataset.theme === "dark" ? "light" : "dark"));
draw();
