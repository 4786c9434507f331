// Charts are drawn when they come into view; plotly itself is unpacked once, under its own hash.
const DARK_COLOURS = readJson("dark-colours") || {};
const drawn = new Set();
let plotlyReady = null;

function loadPlotly() {
  plotlyReady ??= unpack(document.getElementById("plotly-source").textContent, "gzip").then((source) => {
    const script = document.createElement("script");
    script.textContent = source;
    document.head.append(script);
    return globalThis.Plotly;
  });
  return plotlyReady;
}

function recolour(value) {
  if (typeof value === "string") {
    if (value[0] === "#") return DARK_COLOURS[value.toLowerCase()] || value;
    return value.replace(/#[0-9a-f]{6}/gi, (colour) => DARK_COLOURS[colour.toLowerCase()] || colour);
  }
  if (Array.isArray(value)) return value.length > 2000 ? value : value.map(recolour);
  if (value && typeof value === "object") return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, recolour(item)]));
  return value;
}

function fitted(spec, width) {
  const layout = spec.layout;
  if (width < 560 && layout.margin && layout.margin.l > 150) {
    layout.margin = { ...layout.margin, l: 128, r: 62 };
    layout.font = { ...layout.font, size: 10 };
    layout.annotations = (layout.annotations || []).map((note) => note.name === "counts" ? { ...note, text: note.text.split("  ")[0], font: { size: 10 } } : note);
    if (layout.yaxis && layout.yaxis.ticktext) layout.yaxis.ticktext = layout.yaxis.ticktext.map((text) => shorten(text, 20));
  }
  return spec;
}

function shorten(text, size) {
  const bold = text.startsWith("<b>"), bare = text.replace(/<\/?b>/g, "");
  const cut = bare.length > size ? `${bare.slice(0, size - 1)}…` : bare;
  return bold ? `<b>${cut}</b>` : cut;
}

async function draw(holder) {
  const Plotly = await loadPlotly();
  let spec = readJson(`figure-${holder.dataset.figure}`);
  if (isDark()) spec = recolour(spec);
  fitted(spec, holder.clientWidth);
  delete spec.layout.width;
  await Plotly.react(holder, spec.data, { ...spec.layout, autosize: true }, {
    responsive: true, displaylogo: false, scrollZoom: false,
    modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"],
    toImageButtonOptions: { filename: holder.dataset.figure, scale: 2 },
  });
  if (drawn.has(holder)) return;
  drawn.add(holder);
  const pair = holder.dataset.pair;
  holder.on("plotly_click", (event) => {
    const latent = event.points[0]?.customdata;
    if (pair && Number.isInteger(latent) && event.points[0].data.type === "scatter") location.hash = `#latent-${pair}-${latent}`;
  });
}

const plots = [...document.querySelectorAll(".plot")];
for (const holder of plots) holder.style.height = `${holder.dataset.height}px`;
const watcher = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    if (!entry.isIntersecting) continue;
    watcher.unobserve(entry.target);
    draw(entry.target);
  }
}, { rootMargin: "300px" });

function startCharts() {
  for (const holder of plots) watcher.observe(holder);
}

themeListeners.push(() => { for (const holder of drawn) draw(holder); });
addEventListener("beforeprint", () => { for (const holder of plots) draw(holder); });
