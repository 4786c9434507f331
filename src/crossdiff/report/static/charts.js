// Charts are drawn when they come into view, the rest while the page idles; plotly is unpacked once, under its own hash.
const DARK_COLOURS = readJson("dark-colours") || {};
const NARROW = 560, PRINT_WIDTH = 680;
const CONFIG = { responsive: true, displaylogo: false, scrollZoom: false, modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"] };
const plots = [...document.querySelectorAll(".plot")];
const drawn = new Set();
let plotlyReady = null;

function loadPlotly() {
  plotlyReady ??= unpack(document.getElementById("plotly-source").textContent, "gzip").then((source) => {
    const script = document.createElement("script");
    script.textContent = source;
    document.head.append(script);
  });
  return plotlyReady;
}

function recolour(value) {
  if (typeof value === "string") return value.includes("#") ? value.replace(/#[0-9a-f]{6}/gi, (colour) => DARK_COLOURS[colour.toLowerCase()] || colour) : value;
  if (Array.isArray(value)) return typeof value[0] === "number" ? value : value.map(recolour);
  if (value && typeof value === "object") return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, recolour(item)]));
  return value;
}

function shorten(text, size) {
  const bold = text.startsWith("<b>"), bare = text.replace(/<\/?b>/g, "");
  const cut = bare.length > size ? `${bare.slice(0, size - 1)}…` : bare;
  return bold ? `<b>${cut}</b>` : cut;
}

function everySecond(axis) {
  if (!axis?.tickvals || axis.tickvals.length < 6) return;
  const middle = Math.max(0, axis.tickvals.indexOf(0));
  const keep = (_, index) => (index - middle) % 2 === 0;
  axis.ticktext = axis.ticktext.filter(keep);
  axis.tickvals = axis.tickvals.filter(keep);
}

// Small panels side by side become two columns; titles and axes move along.
function twoColumns(layout) {
  const titles = layout.annotations || [], all = Object.keys(layout).filter((key) => /^xaxis\d*$/.test(key));
  if (all.length < 3) return;
  const axes = all.slice(0, titles.length);
  for (const empty of all.slice(titles.length)) { delete layout[empty]; delete layout[empty.replace("x", "y")]; }
  const rows = Math.ceil(axes.length / 2), gap = 0.4 / rows;
  axes.forEach((axis, index) => {
    const left = index % 2, row = Math.floor(index / 2), top = 1 - row / rows;
    layout[axis].domain = left ? [0.58, 1] : [0, 0.42];
    layout[axis].nticks = 3;
    layout[axis.replace("x", "y")].domain = [top - 1 / rows + gap, top];
    const title = titles[index];
    const long = title.text.replace(/<[^>]*>/g, "").length > 32;
    [title.x, title.y, title.font.size] = [left ? 0.79 : 0.21, top, 9.5];
    if (long) title.text = title.text.replace(/ {2}<span.*/s, "");
  });
  layout.height = 60 + 165 * rows;
  layout.margin = { ...layout.margin, l: 40, r: 8, t: 44 };
  layout.font = { ...layout.font, size: 10.5 };
}

// Long row names and counts leave no room for bars on a phone.
function narrow({ data, layout }) {
  twoColumns(layout);
  if (!(layout.margin?.l > 150)) return;
  layout.height += layout.showlegend ? 100 : 0;
  layout.margin = { ...layout.margin, l: 122, r: Math.min(layout.margin.r, 62) };
  layout.font = { ...layout.font, size: 10.5 };
  for (const trace of data) if (trace.name === "counts") [trace.text, trace.textfont.size] = [trace.text.map((text) => text.split("  ")[0]), 10.5];
  if (layout.yaxis.ticktext) layout.yaxis.ticktext = layout.yaxis.ticktext.map((text) => shorten(text, 20));
  if (layout.xaxis.title?.text) layout.xaxis.title.text = shorten(layout.xaxis.title.text, 34);
  everySecond(layout.xaxis);
}

function drawNow(holder, { dark, width }) {
  let spec = readJson(`figure-${holder.dataset.figure}`);
  if (dark) spec = recolour(spec);
  if ((width || holder.clientWidth) < NARROW) narrow(spec);
  holder.style.height = `${spec.layout.height}px`;
  const size = width ? { width, autosize: false } : { autosize: true };
  const options = { ...CONFIG, toImageButtonOptions: { filename: holder.dataset.figure, scale: 2 } };
  globalThis.Plotly.react(holder, spec.data, { ...spec.layout, ...size }, options);
  if (drawn.has(holder)) return;
  drawn.add(holder);
  if (holder.dataset.pair) holder.on("plotly_click", (event) => openPoint(holder.dataset.pair, event.points[0]));
}

function openPoint(pair, point) {
  if (Number.isInteger(point?.customdata) && point.data.type === "scatter") location.hash = `#latent-${pair}-${point.customdata}`;
}

// One chart at a time, those in view first, and the page breathes in between: the first is there at once.
const waiting = [];
let working = false;

async function work() {
  if (working) return;
  working = true;
  await loadPlotly();
  for (let holder = next(); holder; holder = next()) {
    drawNow(holder, { dark: isDark() });
    await new Promise(waiting.length ? soon : idle);
  }
  working = false;
}

function next() {
  let holder = waiting.shift();
  while (holder && drawn.has(holder)) holder = waiting.shift();
  return holder || plots.find((plot) => !drawn.has(plot));
}

function soon(action) {
  requestAnimationFrame(() => setTimeout(action, 0));
}

function idle(action) {
  if (globalThis.requestIdleCallback) requestIdleCallback(action, { timeout: 2000 });
  else setTimeout(action, 200);
}

const watcher = new IntersectionObserver((entries) => {
  for (const entry of entries) if (entry.isIntersecting) { watcher.unobserve(entry.target); waiting.push(entry.target); }
  if (waiting.length) work();
}, { rootMargin: "100px" });

function startCharts() {
  for (const holder of plots) {
    holder.style.height = `${holder.dataset.height}px`;
    watcher.observe(holder);
  }
  if (plots.length) loadPlotly().then(() => idle(work));
}

themeListeners.push(() => { for (const holder of drawn) drawNow(holder, { dark: isDark() }); });
addEventListener("beforeprint", () => {
  document.documentElement.removeAttribute("data-dark");
  if (globalThis.Plotly) for (const holder of plots) drawNow(holder, { dark: false, width: PRINT_WIDTH });
});
addEventListener("afterprint", applyTheme);
