// One latent, opened: facts, votes and the documents that fire it.
const ROLES = { exclusive_tuned: "tuned-exclusive", exclusive_base: "base-exclusive", control_shared: "shared control", drifted: "shared, drifted" };
// The columns of the latent table to show: `COLUMNS` of explorer.py.
const COLUMNS = readJson("explorer-columns") || [];

function interval(figures, name) {
  const low = figures[`${name}_low`], high = figures[`${name}_high`];
  const value = figure(figures[name]);
  return low === null || low === undefined ? value : `${value} (${figure(low)} to ${figure(high)})`;
}

function factList(detail) {
  const list = element("dl", "facts");
  const add = (name, value) => {
    const item = element("div");
    item.append(element("dt", "", name), element("dd", "", value));
    list.append(item);
  };
  for (const column of COLUMNS) add(column.title, interval(detail.figures, column.name));
  return list;
}

function chips(entries) {
  const list = element("ul", "chips");
  for (const entry of entries) list.append(element("li", "", visible(entry)));
  return list;
}

function span(parent, text, tag, className) {
  const made = element(tag, className);
  addText(made, text);
  parent.append(made);
  return made;
}

function exampleText(example) {
  const holder = element("p", "text");
  holder.dir = "auto";
  const highest = Math.max(0, ...example.marks.map((mark) => mark[2]));
  const runs = [...example.marks.map((mark) => [...mark, "mark"]), ...example.template.map((run) => [...run, 0, "template"])];
  runs.sort((a, b) => a[0] - b[0]);
  let last = 0;
  for (const [start, length, level, kind] of runs) {
    if (start > last) addText(holder, example.text.slice(last, start));
    const text = example.text.slice(start, start + length);
    if (kind === "template") span(holder, text, "span", "template");
    else {
      const made = span(holder, text, "mark", level === highest ? "peak" : "");
      made.style.setProperty("--level", String(level / 255));
    }
    last = start + length;
  }
  if (last < example.text.length) addText(holder, example.text.slice(last));
  return holder;
}

function headOf(example) {
  const like = example.n_like ? [`and ${example.n_like} near-identical`] : [];
  return [`document ${visible(example.id)}`, `from token ${example.start}`, `code ${figure(example.code)}`, ...like, example.use];
}

function exampleCard(example, number) {
  const card = element("div", "example"), head = element("header");
  for (const text of [`${number}`, ...headOf(example)]) head.append(element("span", "", text));
  if (example.cut) head.append(element("span", "", `${example.cut} tokens not shown`));
  card.append(head, exampleText(example));
  return card;
}

function nearList(near) {
  const list = element("ul", "chips");
  for (const { pair, latent, cosine } of near) {
    const listed = byPlace.get(`${pair}-${latent}`), entry = element("li");
    const text = `${pair} ${latent}${listed?.label ? ` ${visible(listed.label)}` : ""}, cosine ${figure(cosine)}`;
    if (listed) {
      const link = element("a", "", text);
      link.href = `#latent-${pair}-${latent}`;
      entry.append(link);
    } else entry.textContent = text;
    list.append(entry);
  }
  return list;
}

// Spaces and line ends belong to a token, so they are shown.
function quoted(token) {
  const text = token.replaceAll(" ", "␣").replaceAll("\n", "⏎");
  return text.length > 40 ? `${text.slice(0, 40)}…` : text;
}

function logitRows(logits) {
  const rows = [];
  for (const model of ["tuned", "base"]) for (const end of ["top", "bottom"]) {
    const tokens = logits[model]?.[end];
    if (tokens?.length) rows.push(element("h4", "", `${readable(end)} logits, ${model} direction`), chips(tokens.map(([token, value]) => `${quoted(token)} ${figure(value)}`)));
  }
  return rows;
}

function histogramBars({ edges, counts }) {
  const holder = element("div", "histogram"), most = Math.max(1, ...counts);
  holder.setAttribute("role", "img");
  holder.setAttribute("aria-label", `Histogram of codes from ${figure(edges[0])} to ${figure(edges.at(-1))}: ${counts.join(", ")}`);
  counts.forEach((count, index) => {
    const bar = element("span");
    bar.style.height = `${100 * Math.log1p(count) / Math.log1p(most)}%`;
    bar.title = `${figure(edges[index])} to ${figure(edges[index + 1])}: ${figure(count)} tokens`;
    holder.append(bar);
  });
  return holder;
}

function answerList(row, detail) {
  const list = element("dl", "answer");
  const add = (name, values) => { if (values.length) list.append(element("dt", "", name), element("dd", "", "")); if (values.length) list.lastChild.append(chips(values)); };
  add("Category", [row.category, row.class].filter(Boolean).map(readable));
  add("Votes", Object.entries(detail.votes).map(([name, part]) => `${readable(name)} ${Math.round(100 * part)} %`));
  add("Votes without an answer", Object.entries(detail.failed_votes || {}).map(([state, count]) => `${readable(state)} ${count}`));
  add("Confidence", row.confidence ? [`${row.confidence} of 5`] : []);
  add("Scores", Object.entries(row.scores).filter(([, value]) => typeof value === "number").map(([name, value]) => `${readable(name)} ${figure(value)}`));
  add("Keywords", row.keywords);
  add("Annotator", [detail.annotator].filter(Boolean));
  return list;
}

function showLatent(holder, row, detail, actions) {
  const top = element("div", "detail-top"), buttons = element("div", "actions");
  buttons.append(...actions);
  top.append(element("span", "", `${row.pair} · latent ${row.latent} · ${ROLES[row.role] || row.role}`), buttons);
  const content = [top, element("h3", "", titleOf(row))];
  if (detail.description && detail.description !== row.label) content.push(element("p", "", visible(detail.description)));
  content.push(answerList(row, detail));
  content.push(element("h4", "", "Figures"), factList(detail));
  if (detail.histogram) content.push(element("h4", "", "Codes of all active tokens (log scale both ways)"), histogramBars(detail.histogram));
  content.push(...logitRows(detail.logits || {}));
  if (detail.near?.length) content.push(element("h4", "", "Nearest directions"), nearList(detail.near));
  for (const group of detail.groups) {
    content.push(element("h4", "", group.title), element("p", "hint", group.note));
    group.documents.forEach((example, index) => content.push(exampleCard(example, index + 1)));
  }
  if (!detail.groups.length) content.push(element("h4", "", "Documents"), element("p", "hint", "No document was collected for this latent."));
  holder.replaceChildren(...content);
  holder.scrollTop = 0;
}

function titleOf(row) {
  if (row.label) return visible(row.label);
  return row.state ? `No label (${row.state.replaceAll("_", " ")})` : "Not annotated";
}

function asText(row, detail) {
  const lines = [`${row.pair} latent ${row.latent} (${ROLES[row.role] || row.role})`, titleOf(row)];
  if (detail.description) lines.push(visible(detail.description));
  if (row.category) lines.push(`category: ${row.category}`);
  for (const [key, value] of Object.entries(detail.figures)) lines.push(`${key}: ${figure(value)}`);
  for (const group of detail.groups) {
    lines.push("", group.title);
    group.documents.forEach((example, index) => {
      let text = "", last = 0;
      for (const [start, length] of example.marks) {
        text += `${example.text.slice(last, start)}[[${example.text.slice(start, start + length)}]]`;
        last = start + length;
      }
      lines.push("", `${index + 1}. ${headOf(example).join(", ")}`, visible(text + example.text.slice(last)));
    });
  }
  return lines.join("\n");
}
