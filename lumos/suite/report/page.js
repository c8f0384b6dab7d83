"use strict";
// The view is kept in the address (#sort=fig9c_parameters:4:descending&filter=cfd), so it can be shared and reloaded.
const tables = Object.fromEntries([...document.querySelectorAll("table")].map(t => [t.dataset.name, t]));
const filter = document.getElementById("filter");
const view = { sort: {}, filter: "" };

function sortBy(table, column, direction) {
  const body = table.tBodies[0], sign = direction === "descending" ? -1 : 1;
  const key = row => {
    const text = row.cells[column].dataset.value, number = Number(text);
    return text === "" ? null : Number.isNaN(number) ? text : number;
  };
  const rows = [...body.rows].map((row, i) => [key(row), i, row]);
  rows.sort(([a, i], [b, j]) => {
    if (a === null || b === null) return a === b ? i - j : a === null ? 1 : -1;   // dashes stay last
    const order = typeof a === typeof b ? (a < b ? -1 : a > b ? 1 : 0) : typeof a === "number" ? -1 : 1;
    return sign * order || i - j;
  });
  body.append(...rows.map(r => r[2]));
  for (const th of table.tHead.rows[0].cells) th.removeAttribute("aria-sort");
  table.tHead.rows[0].cells[column].setAttribute("aria-sort", direction);
}
function filterBy(text) {
  const words = text.toLowerCase().split(/\s+/).filter(Boolean);
  for (const row of document.querySelectorAll("tbody tr, #records details")) {
    const content = row.dataset.words || row.textContent.toLowerCase();
    row.hidden = !words.every(w => content.includes(w));
  }
}
function remember() {
  const parts = Object.entries(view.sort).map(([name, [column, direction]]) => `sort=${name}:${column}:${direction}`);
  if (view.filter) parts.push("filter=" + encodeURIComponent(view.filter));
  history.replaceState(null, "", parts.length ? "#" + parts.join("&") : location.pathname);
}
function follow() {
  const hash = location.hash.slice(1);
  if (hash.startsWith("run-")) { const run = document.getElementById(hash); if (run) { run.hidden = false; run.open = true; run.scrollIntoView(); } return; }
  for (const part of hash.split("&")) {
    const [kind, value = ""] = part.split("=");
    if (kind === "filter") { view.filter = filter.value = decodeURIComponent(value); filterBy(view.filter); }
    if (kind === "sort") {
      const [name, column, direction] = value.split(":");
      if (tables[name]) { view.sort[name] = [Number(column), direction]; sortBy(tables[name], Number(column), direction); }
    }
  }
}
for (const [name, table] of Object.entries(tables))
  [...table.tHead.rows[0].cells].forEach((th, column) => {
    th.tabIndex = 0;
    const act = () => {
      const direction = th.getAttribute("aria-sort") === "descending" ? "ascending" : "descending";
      view.sort[name] = [column, direction]; sortBy(table, column, direction); remember();
    };
    th.addEventListener("click", act);
    th.addEventListener("keydown", e => { if (e.key === "Enter") act(); });
  });
filter.addEventListener("input", () => { view.filter = filter.value; filterBy(filter.value); remember(); });
window.addEventListener("hashchange", follow);
follow();

const zoom = document.getElementById("zoom"), big = zoom.querySelector("img");
let at = { x: 0, y: 0, k: 1 };
const place = () => { big.style.transform = `translate(${at.x}px, ${at.y}px) scale(${at.k})`; };
for (const image of document.querySelectorAll("figure img"))
  image.addEventListener("click", () => { big.src = image.src; big.alt = image.alt; at = { x: 0, y: 0, k: 1 }; place(); zoom.showModal(); });
zoom.querySelector("button").addEventListener("click", () => zoom.close());
zoom.addEventListener("click", e => { if (e.target === zoom) zoom.close(); });
zoom.addEventListener("wheel", e => {
  e.preventDefault();
  const box = zoom.getBoundingClientRect(), x = e.clientX - box.left, y = e.clientY - box.top;
  const k = Math.min(20, Math.max(1, at.k * Math.exp(-e.deltaY / 400)));
  at = { x: x - (x - at.x) * k / at.k, y: y - (y - at.y) * k / at.k, k };
  if (k === 1) at.x = at.y = 0;
  place();
}, { passive: false });
let drag = null;
big.addEventListener("pointerdown", e => { drag = [e.clientX - at.x, e.clientY - at.y]; big.setPointerCapture(e.pointerId); e.preventDefault(); });
big.addEventListener("pointermove", e => { if (drag) { at.x = e.clientX - drag[0]; at.y = e.clientY - drag[1]; place(); } });
big.addEventListener("pointerup", () => { drag = null; });
