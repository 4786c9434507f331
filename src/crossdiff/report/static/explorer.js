// The list of latents: search, filters, order, deep links and keys.
const rows = readJson("explorer-index") || [];
const byId = (id) => document.getElementById(id);
const isControl = (row) => !row.role.startsWith("exclusive");
const byColumn = ({ name, title, first }) => {
  const sign = first === "lowest" ? 1 : -1;
  return [name, [`${title}, ${first} first`, (row) => [sign * (row[name] ?? sign * Infinity), row.latent]]];
};
const SORTS = {
  category: ["Category", (row) => [row.category ?? "~", row.label ?? "~", row.latent]],
  ...Object.fromEntries(COLUMNS.filter((column) => column.first).map(byColumn)),
  score: ["Mean of detection and fuzz, highest first", (row) => [-(row.score ?? -Infinity), row.latent]],
  latent: ["Latent number", (row) => [row.pair, row.latent]],
};
const byPlace = new Map(rows.map((row) => [`${row.pair}-${row.latent}`, row]));
let shownRows = [], current = null, opening = null;

function compare(a, b) {
  for (let index = 0; index < a.length; index += 1) {
    if (a[index] !== b[index]) return a[index] < b[index] ? -1 : 1;
  }
  return 0;
}

function fill(id, title, values, name = readable) {
  const select = byId(id);
  select.append(new Option(title, ""));
  for (const value of values) select.append(new Option(name(value), value));
  select.closest("label").hidden = values.length < 2;
}

function distinct(key) {
  return [...new Set(rows.map((row) => row[key]).filter((value) => value !== null && value !== undefined))].sort();
}

function item(row) {
  const entry = element("li"), link = element("a");
  link.href = `#latent-${row.pair}-${row.latent}`;
  const words = [row.found ? `in ${row.found} crosscoders` : null, row.category ? readable(row.category) : null, row.keywords.join(", ")].filter(Boolean).join(" · ");
  const under = element("span", "under");
  under.append(element("span", `tag ${row.role}`, ROLES[row.role] || row.role), visible(words));
  link.append(
    element("span", "label", titleOf(row)),
    element("span", "where", `${row.pair} ${row.latent}`),
    under,
  );
  entry.append(link);
  row.link = link;
  row.entry = entry;
  row.words = [row.label, row.category, row.class, row.keywords.join(" "), row.latent, row.pair].join(" ").toLowerCase().replaceAll("_", " ");
}

function refresh() {
  const wanted = byId("search").value.toLowerCase().split(/\s+/).filter(Boolean);
  const chosen = { pair: byId("filter-pair").value, role: byId("filter-role").value, kind: byId("filter-kind").value, category: byId("filter-category").value, state: byId("filter-state").value };
  const least = Number(byId("filter-score").value || 0);
  const found = byId("filter-found").value;
  shownRows = rows.filter((row) =>
    (found !== "concepts" || row.lead)
    && Object.entries(chosen).every(([key, value]) => !value || String(row[key]) === value)
    && (!least || (row.score ?? -1) >= least)
    && wanted.every((word) => row.words.includes(word)));
  const order = SORTS[byId("sort").value][1];
  shownRows = shownRows.map((row) => [[isControl(row), ...order(row)], row]).sort((a, b) => compare(a[0], b[0])).map((pair) => pair[1]);
  const controls = shownRows.findIndex(isControl), entries = shownRows.map((row) => row.entry);
  if (controls >= 0) entries.splice(controls, 0, element("li", "heading", "Controls: held by both models, for comparison"));
  byId("list").replaceChildren(...entries);
  byId("shown").textContent = shownRows.length === rows.length ? `${rows.length} latents` : `${shownRows.length} of ${rows.length} latents`;
}

function button(text, action, className = "quiet") {
  const made = element("button", className, text);
  made.type = "button";
  made.addEventListener("click", action);
  return made;
}

async function copyText(target, text) {
  try {
    await navigator.clipboard.writeText(text);
    target.textContent = "Copied";
  } catch (error) {
    if (!(error instanceof DOMException) && !(error instanceof TypeError)) throw error;
    target.textContent = "Copying is not allowed here";
  }
}

async function open(row) {
  opening = row;
  const detail = await chunk(row.pair, row.latent);
  if (opening !== row) return;
  current?.link.removeAttribute("aria-current");
  current = row;
  row.link.setAttribute("aria-current", "true");
  const copy = button("Copy as text", () => copyText(copy, asText(row, detail)));
  const back = button("← All latents", close, "quiet back");
  showLatent(byId("detail"), row, detail, [back, copy]);
  byId("explorer").classList.add("reading");
}

function close() {
  byId("explorer").classList.remove("reading");
  if (current) history.replaceState(null, "", "#latents");
  current?.link.focus();
}

async function follow() {
  const row = rows.find((each) => each.link.hash === location.hash);
  if (!row) return;
  await open(row);
  byId("detail").focus({ preventScroll: true });
  byId("latents").scrollIntoView({ block: "start", behavior: "instant" });
  reveal(row);
}

// Scrolls the list alone, so that the page stays where the reader is.
function reveal(row) {
  const list = byId("list"), top = row.entry.offsetTop;
  if (top < list.scrollTop || top + row.entry.offsetHeight > list.scrollTop + list.clientHeight) list.scrollTop = top - list.clientHeight / 3;
}

function move(step) {
  if (!shownRows.length) return;
  const at = shownRows.indexOf(current);
  const next = shownRows[Math.min(shownRows.length - 1, Math.max(0, at + step))];
  history.replaceState(null, "", next.link.getAttribute("href"));
  open(next);
  reveal(next);
}

function onKey(event) {
  const typing = event.target.closest?.("input, select, textarea");
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "Escape") { if (typing) typing.blur(); else close(); return; }
  if (typing) return;
  if (event.key === "/") { event.preventDefault(); byId("search").focus(); }
  if (event.key === "j") move(1);
  if (event.key === "k") move(-1);
}

if (byId("explorer")) {
  rows.forEach(item);
  const several = rows.some((row) => row.lead);
  byId("filter-found").append(new Option("Recurring concepts, best example", "concepts"), new Option("Every latent of every one", ""));
  byId("filter-found").value = several ? "concepts" : "";
  byId("filter-found").closest("label").hidden = !several;
  fill("filter-pair", several ? "All" : "Both", distinct("pair"), visible);
  fill("filter-role", "All", distinct("role"), (role) => ROLES[role] || role);
  fill("filter-kind", "All", distinct("kind"));
  fill("filter-category", "All", distinct("category"));
  fill("filter-state", "All", distinct("state"));
  fill("filter-score", "Any", rows.some((row) => row.score !== null) ? ["0.6", "0.7", "0.8", "0.9"] : [], String);
  for (const [key, [name]] of Object.entries(SORTS)) byId("sort").append(new Option(name, key));
  byId("filters").addEventListener("input", refresh);
  byId("filters").addEventListener("submit", (event) => event.preventDefault());
  document.addEventListener("keydown", onKey);
  addEventListener("hashchange", follow);
  refresh();
  follow();
}
startCharts();
