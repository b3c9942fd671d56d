// Unpacks what the page carries, and hands tables to DataTables and plots to plotly.
async function unpack(id) {
  const bytes = Uint8Array.from(atob(document.getElementById(id).textContent.trim()), (sign) => sign.charCodeAt(0));
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).json();
}

function load(source) {
  return URL.createObjectURL(new Blob([source], { type: "text/javascript" }));
}

function expand(value, shared) {
  if (Array.isArray(value)) return value.map((part) => expand(part, shared));
  if (value === null || typeof value !== "object") return value;
  const keys = Object.keys(value);
  if (keys.length === 1 && keys[0] === "=") return expand(shared[value["="]], shared);
  return Object.fromEntries(keys.map((key) => [key, expand(value[key], shared)]));
}

function showRuns(data) {
  const wanted = location.hash.match(/^#runs=([0-9a-f,]+)$/);
  const dialog = document.getElementById("record");
  if (!wanted) return dialog.open && dialog.close();
  const parts = wanted[1].split(",").filter((run) => run in data.records).map((run) => {
    const record = expand(data.records[run], data.shared);
    const section = document.createElement("details");
    section.open = !wanted[1].includes(",");
    section.innerHTML = '<summary></summary><pre tabindex="0"></pre>';
    section.firstChild.textContent = `Run ${run}, seed ${record.seed}, ${record.status}`;
    section.lastChild.textContent = JSON.stringify(record, null, 1);
    section.lastChild.setAttribute("aria-label", `Record of run ${run}`);
    return section;
  });
  document.getElementById("record-body").replaceChildren(...(parts.length ? parts : ["There is no such run here."]));
  if (!dialog.open) dialog.showModal();
}

function draw(Plotly, data, place) {
  const { data: traces, layout } = data.plots[Number(place.dataset.plot)];
  const narrow = place.clientWidth < 600;
  const side = { orientation: "v", x: 1.02, y: 1 }, below = { orientation: "h", y: -0.22, maxheight: 0.3 };
  layout.legend = traces.length > 12 && !narrow ? side : below;
  layout.dragmode = matchMedia("(pointer: coarse)").matches ? false : "zoom";  // a finger scrolls the page
  Plotly.newPlot(place, traces, layout, { responsive: true, displayModeBar: false });
}

function drawWhenSeen(Plotly, data) {
  const observer = new IntersectionObserver((entries) => {
    for (const { isIntersecting, target } of entries) {
      if (!isIntersecting) continue;
      observer.unobserve(target);
      draw(Plotly, data, target);
    }
  }, { rootMargin: "300px" });
  document.querySelectorAll(".plot").forEach((place) => observer.observe(place));
}

function link(run) {
  return /^[0-9a-f]+$/.test(run) ? `<a href="#runs=${run}">${run}</a>` : "";
}

function tabulate(DataTable, data) {
  const filters = [{ target: 0, content: [] }, { target: 1, content: ["search"] }];
  const common = { order: [], autoWidth: false, pageLength: 25, columnControl: filters, ordering: { handler: true } };
  document.querySelectorAll("table.interactive").forEach((table) => {
    const options = { ...common, paging: table.rows.length > 60, language: { search: `Filter ${table.dataset.what}:` } };
    if (table.id === "all-runs") {
      const links = { targets: 0, createdCell: (cell) => cell.setAttribute("scope", "row"), cellType: "th",
        render: (run, kind) => (kind === "display" ? link(run) : run) };
      const words = { targets: "_all", render: DataTable.render.text() };  // a cell is markup otherwise
      Object.assign(options, { data: data.runs, deferRender: true, paging: true, columnDefs: [links, words] });
    }
    new DataTable(table, options);
    const pages = table.closest(".dt-container").querySelector("nav");
    pages?.setAttribute("aria-label", `Pages of ${table.getAttribute("id")}`);
    const names = [...table.tHead.rows[0].cells].map((cell) => cell.textContent);
    table.querySelectorAll(".dtcc-search").forEach((search, place) => {
      search.querySelector("input").setAttribute("aria-label", `Filter by ${names[place]}`);
      search.querySelector("select")?.setAttribute("aria-label", `How to filter by ${names[place]}`);
    });
  });
}

const [libraries, data] = await Promise.all([unpack("libraries"), unpack("data")]);
const dialog = document.getElementById("record");
dialog.addEventListener("close", () => history.replaceState(null, "", location.pathname + location.search));
addEventListener("hashchange", () => showRuns(data));
const { default: DataTable } = await import(load(libraries.tables));
tabulate(DataTable, data);
showRuns(data);
await import(load(libraries.plots));
drawWhenSeen(window.Plotly, data);
document.documentElement.dataset.ready = "true";
