// Unpacks what the page carries, and hands tables to DataTables and plots to plotly.
async function unpack(id) {
  const text = document.getElementById(id).textContent.trim();
  const bytes = Uint8Array.fromBase64?.(text) ?? Uint8Array.from(atob(text), (sign) => sign.charCodeAt(0));
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).json();
}

async function load(id) {
  return import(URL.createObjectURL(new Blob([await unpack(id)], { type: "text/javascript" })));
}

// plotly, which takes a second to read: once the page is there, or before, where a figure is touched.
let library;
function plotly() {
  library ??= load("plot-library").then(() => window.Plotly);
  return library;
}

function expand(value, shared) {
  if (Array.isArray(value)) return value.map((part) => expand(part, shared));
  if (value === null || typeof value !== "object") return value;
  const keys = Object.keys(value);
  if (keys.length === 1 && keys[0] === "=") return expand(shared[value["="]], shared);
  return Object.fromEntries(keys.map((key) => [key, expand(value[key], shared)]));
}

function add(parent, name, text = "") {
  const child = document.createElement(name);
  child.textContent = text;
  parent.append(child);
  return child;
}

// The losses of a run as a line, from its first step to its last.
function addCurve(section, data, run) {
  const [place, losses] = data.curves.losses[run] ?? [];
  if (!losses || losses.length < 2) return;
  const steps = data.curves.steps[place], low = Math.min(...losses), high = Math.max(...losses);
  const line = document.createElementNS("http://www.w3.org/2000/svg", "polyline");
  const across = (step) => 100 * (step - steps[0]) / (steps.at(-1) - steps[0] || 1);
  const points = losses.map((loss, number) => `${across(steps[number])},${29 - 28 * (loss - low) / (high - low || 1)}`);
  for (const [name, value] of Object.entries({ points: points.join(" "), fill: "none", stroke: "currentColor",
    "vector-effect": "non-scaling-stroke" })) line.setAttribute(name, value);
  const picture = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  for (const [name, value] of Object.entries({ viewBox: "0 0 100 30", preserveAspectRatio: "none", role: "img",
    "aria-label": `Training loss, step ${steps[0]} to ${steps.at(-1)}: from ${losses[0]} to ${losses.at(-1)}` }))
    picture.setAttribute(name, value);
  picture.append(line);
  add(section, "div", `training loss ${losses[0]} to ${losses.at(-1)}, lowest ${low}`).append(picture);
}

function addFacts(section, record) {
  const list = add(section, "dl");
  const scores = Object.entries(record.metrics ?? {}).flatMap(([split, values]) =>
    Object.entries(values).map(([name, score]) => [`${split} ${name}`, score.value ?? score.reason]));
  const settings = [["settings", (record.overrides ?? []).join(" ")], ["failure", record.failure?.message]];
  for (const [name, value] of [...scores, ...settings]) {
    if (value === undefined || value === null || value === "") continue;
    add(list, "dt", name);
    add(list, "dd", String(value));
  }
}

function showRuns(data) {
  const wanted = location.hash.match(/^#runs=([0-9a-f,]+)$/);
  const dialog = document.getElementById("record");
  if (!wanted) return dialog.open && dialog.close();
  const parts = wanted[1].split(",").filter((run) => run in data.records).map((run) => {
    const record = expand(data.records[run], data.shared);
    const section = document.createElement("details");
    section.open = !wanted[1].includes(",");
    add(section, "summary", `Run ${run}, seed ${record.seed}, ${record.status}`);
    addFacts(section, record);
    addCurve(section, data, run);
    const whole = add(section, "pre", JSON.stringify(record, null, 1));
    whole.tabIndex = 0;
    whole.setAttribute("aria-label", `Record of run ${run}`);
    return section;
  });
  document.getElementById("record-body").replaceChildren(...(parts.length ? parts : ["There is no such run here."]));
  if (!dialog.open) dialog.showModal();
}

function draw(Plotly, data, place) {
  const { data: traces, layout } = structuredClone(data.plots[Number(place.dataset.plot)]);
  const narrow = place.clientWidth < 600;
  const side = { orientation: "v", x: 1.02, y: 1 }, below = { orientation: "h", y: -0.22, maxheight: 0.3 };
  layout.legend = traces.length > 12 && !narrow ? side : below;
  layout.dragmode = matchMedia("(pointer: coarse)").matches ? false : "zoom";  // a finger scrolls the page
  if (narrow && layout.xaxis.type === "log") layout.xaxis.dtick ??= "D2";  // 1, 2, 5: more labels collide
  if (document.documentElement.matches(".dark")) shade(layout);
  place.querySelector("picture")?.remove();
  Plotly.newPlot(place, traces, layout, { responsive: true, displayModeBar: false });
}

function shade(layout) {
  Object.assign(layout, { paper_bgcolor: "#16181b", plot_bgcolor: "#16181b", font: { ...layout.font, color: "#e8e8e8" } });
  layout.xaxis.gridcolor = layout.yaxis.gridcolor = "#454b52";
}

// The axes of a figure: where a score is not known over a cost, the other axis moves to one that is there.
async function choose(data, form, changed) {
  const place = form.parentElement.querySelector(".plot"), choices = JSON.parse(form.dataset.choices);
  const [y, x] = ["y", "x"].map((axis) => form.querySelector(`[data-axis=${axis}]`));
  const own = ([of, over]) => (changed === y ? of === y.value : over === x.value);
  const choice = choices.find(([of, over]) => of === y.value && over === x.value) ?? choices.find(own);
  [y.value, x.value] = choice;
  place.dataset.plot = choice[2];
  place.setAttribute("aria-label", `${choice[0]} over ${choice[1]}`);
  form.parentElement.querySelector("figcaption").textContent = choice[3];
  draw(await plotly(), data, place);
}

function drawWhenSeen(Plotly, data) {
  const observer = new IntersectionObserver((entries) => {
    for (const { isIntersecting, target } of entries) {
      if (!isIntersecting) continue;
      observer.unobserve(target);
      if (!target.matches(".js-plotly-plot")) draw(Plotly, data, target);
    }
  }, { rootMargin: "300px" });
  document.querySelectorAll(".plot:empty").forEach((place) => observer.observe(place));
}

// The image of the first figure gives way to one with values on hover when it is pointed at.
async function revive(data, place) {
  const Plotly = await plotly();
  if (place.querySelector("picture")) draw(Plotly, data, place);
}

const COMPARED = /^(>=|<=|>|<|=)\s*(-?[\d.,]+)$/;
const HOLDS = { ">=": (a, b) => a >= b, "<=": (a, b) => a <= b, ">": (a, b) => a > b, "<": (a, b) => a < b, "=": (a, b) => a === b };

// A column's filter takes ">= 65" too; other words are DataTables' own.
function compareColumn(DataTable, api, input, column) {
  let bound = null;
  DataTable.ext.search.push((settings, _, row) => {
    if (bound === null || settings.nTable !== api.table().node()) return true;
    const shown = parseFloat(String(api.cell(row, column).render("sort")).replaceAll(",", ""));
    return HOLDS[bound.sign](shown, bound.number);
  });
  input.addEventListener("input", (event) => {
    const [, sign, number] = input.value.trim().match(COMPARED) ?? [];
    if (sign === undefined && bound === null) return;
    bound = sign === undefined ? null : { sign, number: parseFloat(number.replaceAll(",", "")) };
    if (bound !== null) event.stopImmediatePropagation();
    api.draw();
  }, { capture: true });
}

function hideTrials(DataTable, api) {
  const shown = document.getElementById("trials");
  if (!shown) return;
  DataTable.ext.search.push((settings, _, row, values) =>
    settings.nTable !== api.table().node() || shown.checked || values[1] !== "trial");
  shown.addEventListener("change", () => api.draw());
  api.draw();
}

function link(run) {
  return /^[0-9a-f]+$/.test(run) ? `<a href="#runs=${run}">${run}</a>` : "";
}

function tabulate(DataTable, data, tables) {
  const filters = [{ target: 0, content: [] }, { target: 1, content: ["search"] }];
  const common = { order: [], autoWidth: false, pageLength: 25, columnControl: filters, ordering: { handler: true } };
  tables.forEach((table) => {
    const options = { ...common, paging: table.rows.length > 60, language: { search: `Filter ${table.dataset.what}:` } };
    if (table.id === "all-runs") {
      const links = { targets: 0, createdCell: (cell) => cell.setAttribute("scope", "row"), cellType: "th",
        render: (run, kind) => (kind === "display" ? link(run) : run) };
      const words = { targets: "_all", render: DataTable.render.text() };  // a cell is markup otherwise
      Object.assign(options, { data: data.runs, deferRender: true, paging: true, columnDefs: [links, words] });
    }
    const api = new DataTable(table, options);
    made.push(api);
    if (table.id === "all-runs") hideTrials(DataTable, api);
    const pages = table.closest(".dt-container").querySelector("nav");
    pages?.setAttribute("aria-label", `Pages of ${table.getAttribute("id")}`);
    const names = [...table.tHead.rows[0].cells].map((cell) => cell.textContent);
    table.querySelectorAll(".dtcc-search").forEach((search, place) => {
      search.querySelector("input").setAttribute("aria-label", `Filter by ${names[place]}`);
      compareColumn(DataTable, api, search.querySelector("input"), place);
      search.querySelector("select")?.setAttribute("aria-label", `How to filter by ${names[place]}`);
    });
  });
}

const made = [], lengths = new Map();  // tables, and how many rows a page of them has
const dark = matchMedia("(prefers-color-scheme: dark)");
document.documentElement.classList.toggle("dark", dark.matches);
const [data, { default: DataTable }] = await Promise.all([unpack("data"), load("table-library")]);
const dialog = document.getElementById("record");
dialog.addEventListener("close", () => history.replaceState(null, "", location.pathname + location.search));
addEventListener("hashchange", () => showRuns(data));
const [first, ...others] = document.querySelectorAll("table.interactive");
tabulate(DataTable, data, [first]);
document.querySelectorAll(".plot picture").forEach(({ parentElement: place }) =>
  place.addEventListener("pointerenter", () => revive(data, place), { once: true }));
document.querySelectorAll(".axes").forEach((form) =>
  form.addEventListener("change", (event) => choose(data, form, event.target)));
performance.mark("first screen");
addEventListener("beforeprint", () => {  // all rows, all figures, dark on light
  const unseen = document.documentElement.matches(".dark") ? ".plot:not(:has(picture))" : ".plot:empty";
  document.documentElement.classList.remove("dark");
  document.querySelectorAll("main details").forEach((part) => { part.open = true; });
  made.filter((api) => api.page.info().pages > 1).forEach((api) => {
    lengths.set(api, api.page.len());
    api.page.len(-1).draw(false);
  });
  if (window.Plotly) document.querySelectorAll(unseen).forEach((place) => draw(window.Plotly, data, place));
});
addEventListener("afterprint", () => {
  lengths.forEach((length, api) => api.page.len(length).draw(false));
  lengths.clear();
  if (!dark.matches) return;
  document.documentElement.classList.add("dark");
  document.querySelectorAll(".js-plotly-plot").forEach((place) => draw(window.Plotly, data, place));
});
await new Promise((done) => setTimeout(done));  // it is shown before the rest is made
tabulate(DataTable, data, others);
showRuns(data);
performance.mark("ready");
document.documentElement.dataset.ready = "true";
await new Promise((done) => (window.requestIdleCallback ?? setTimeout)(done));
drawWhenSeen(await plotly(), data);
performance.mark("plots");
document.documentElement.dataset.plots = "true";
