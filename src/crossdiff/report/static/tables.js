function sortTable(table, column, direction) {
  const body = table.tBodies[0];
  const value = (row) => {
    const cell = row.cells[column], given = cell.dataset.sort;
    return given === undefined ? cell.textContent : Number.isNaN(Number(given)) ? given : Number(given);
  };
  const known = (item) => item !== "" && item !== "–";
  const rows = [...body.rows].map((row) => [value(row), row]);
  rows.sort(([a], [b]) => {
    if (known(a) !== known(b)) return known(a) ? -1 : 1;
    const order = typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), "en", { numeric: true });
    return direction * order;
  });
  body.append(...rows.map(([, row]) => row));
}

document.addEventListener("click", (event) => {
  const heading = event.target.closest?.("table.sortable th");
  if (!heading) return;
  const ascending = heading.getAttribute("aria-sort") === "descending" || (!heading.hasAttribute("aria-sort") && !heading.classList.contains("num"));
  for (const other of heading.parentElement.cells) other.removeAttribute("aria-sort");
  heading.setAttribute("aria-sort", ascending ? "ascending" : "descending");
  sortTable(heading.closest("table"), heading.cellIndex, ascending ? 1 : -1);
});
