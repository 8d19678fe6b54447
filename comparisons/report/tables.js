// The tables of a page: unpacked, drawn, sorted, searched, filtered, printed.
"use strict";

const PRINTED = 500; // rows at most on paper
const SHOWN = 50; // rows at a time

const escaped = text => String(text).replace(/[&<>"]/g, c => `&#${c.charCodeAt(0)};`);
const raised = n => String(n).replace(/./g, c => "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"["-0123456789".indexOf(c)]);

async function unpacked(element) {
  const bytes = Uint8Array.from(atob(element.textContent.trim()), c => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).json();
}

// A number with so many digits, as a person writes it.
function digits(x, n) {
  if (Number.isNaN(x)) return "NaN";
  if (!Number.isFinite(x)) return x > 0 ? "inf" : "-inf";
  if (x === 0) return Object.is(x, -0) ? "-0" : "0";
  const [mantissa, exponent] = x.toExponential(n - 1).split("e");
  if (exponent >= -4 && exponent < Math.max(n, 6)) return String(Number(x.toPrecision(n)));
  return `${mantissa.includes(".") ? mantissa.replace(/\.?0+$/, "") : mantissa}e${exponent.replace("+", "")}`;
}

// The first of two numbers, with as many digits as tell them apart.
function apart(x, y) {
  if (y === null || Object.is(x, y) || x === y) return digits(x, 4);
  for (let n = 4; n < 17; n++) if (digits(x, n) !== digits(y, n)) return digits(x, n);
  return digits(x, 17);
}

// A distance in ULPs: above a million as a power of ten.
function distance(n) {
  if (!(Math.abs(n) > 1e6)) return n.toLocaleString("en");
  const [mantissa, exponent] = n.toExponential(1).split("e+");
  return `${mantissa}·10${raised(exponent)}`;
}

function shown(column, value, other) {
  if (value === null) return '<span class="missing" title="nothing was measured here">–</span>';
  if (column.kind === "class")
    return `<span class="verdict ${KINDS.tones[value] ?? "none"}" title="${escaped(value)}">${KINDS.signs[value] ?? "–"} <span class="word">${escaped(value)}</span></span>`;
  if (typeof value !== "number") return escaped(value);
  if (column.kind === "ulp") return distance(value);
  const text = column.partner ? apart(value, other) : Number.isInteger(value) && Math.abs(value) < 1e6 ? String(value) : digits(value, 4);
  return /margin/.test(column.name) && !(value <= 1) ? `<span class="beyond">${text}</span>` : text;
}

// By what a value is sorted: NaN above all numbers, what is missing below.
function sorted(column, value) {
  if (column.kind === "class") return KINDS.ranks[value] ?? -1;
  if (column.kind === "text") return value ?? "";
  if (value === null) return -Number.MAX_VALUE;
  if (typeof value !== "number") return 0;
  return Number.isNaN(value) ? Number.MAX_VALUE : Math.max(-1.7e308, Math.min(1.7e308, value));
}

const NUMBERS = { NaN: NaN, Infinity: Infinity, "-Infinity": -Infinity };

class Found {
  constructor(section, columns) {
    this.section = section;
    this.rows = columns[0].values.length;
    for (const c of columns)
      if (c.kind !== "text" && c.kind !== "class") c.values = c.values.map(v => (v in NUMBERS ? NUMBERS[v] : v));
    const same = c => this.rows > 10 && c.kind !== "class" && !c.subject && c.values.every(v => v === c.values[0]);
    this.columns = columns.filter(c => !same(c));
    const told = columns.filter(same).filter(c => c.values[0] !== null && c.values[0] !== "");
    this.find(".same").textContent = told.length ? `the same in all rows: ${told.map(c => `${c.label} ${c.values[0]}`).join(", ")}` : "";
    this.at = name => this.columns.findIndex(c => c.name === name);
    this.kinds = new Set();
    this.draw();
    this.filters();
    this.paper();
    section.found = this;
  }

  find(selector) { return this.section.querySelector(selector); }

  draw() {
    const columns = this.columns;
    const data = Array.from({ length: this.rows }, (_, i) => columns.map(c => c.values[i]));
    const subject = columns.findIndex(c => c.subject);
    const margin = ["margin", "lockstep_margin", "margin_new", "max_ratio", "size"].map(this.at).find(i => i > 0);
    this.table = new DataTable(this.find("table"), {
      data,
      columns: columns.map((c, i) => {
        const other = this.at(c.partner), text = c.kind === "text" || c.kind === "class";
        return {
          title: `<span class="label"${c.about ? ` title="${escaped(c.about)}"` : ""}>${escaped(c.label)}</span>`,
          ariaTitle: c.label,
          data: i,
          type: c.kind === "text" ? "string" : "num",
          className: text ? (c.kind === "text" && !c.subject && c.values.some(v => v && v.length > 60) ? "long" : "") : "n",
          orderSequence: c.kind === "text" ? ["asc", "desc"] : ["desc", "asc"],
          render: (value, as, row) =>
            as === "display" ? shown(c, value, row[other] ?? null)
            : as === "filter" ? (text ? value ?? "" : value === null ? "" : shown(c, value, row[other] ?? null).replace(/<[^>]*>/g, ""))
            : sorted(c, value),
        };
      }),
      order: [[0, "desc"], ...(margin ? [[margin, "desc"]] : [])],
      pageLength: SHOWN,
      autoWidth: false,
      layout: { topStart: null, topEnd: null, bottomStart: null, bottomEnd: null },
      language: { emptyTable: "no rows", zeroRecords: "no row has all that is asked for" },
    });
    this.subject = subject;
    this.pages();
  }

  // Which rows are in sight, and the others by pages.
  pages() {
    const box = this.find(".pages");
    const info = document.createElement("span"), paging = document.createElement("div"), length = document.createElement("label");
    info.setAttribute("role", "status");
    length.innerHTML = 'rows at a time <select><option>25</option><option selected>50</option><option>200</option><option>1000</option></select>';
    const steps = [["first", "«"], ["previous", "‹"], ["next", "›"], ["last", "»"]].map(([name, sign]) => {
      const button = Object.assign(document.createElement("button"), { type: "button", textContent: sign });
      button.setAttribute("aria-label", `${name} page`);
      button.addEventListener("click", () => this.table.page(name).draw("page"));
      paging.append(button, " ");
      return button;
    });
    length.querySelector("select").addEventListener("change", e => this.table.page.len(Number(e.target.value)).draw());
    box.append(info, paging, length);
    const told = () => {
      const p = this.table.page.info();
      const n = x => x.toLocaleString("en");
      const of = p.recordsDisplay < p.recordsTotal ? ` (of ${n(p.recordsTotal)})` : "";
      info.textContent = p.recordsDisplay ? `rows ${n(p.start + 1)} to ${n(p.end)} of ${n(p.recordsDisplay)}${of}` : `no rows${of}`;
      const at = [p.page === 0, p.page === 0, p.page >= p.pages - 1, p.page >= p.pages - 1];
      steps.forEach((button, i) => { button.disabled = at[i]; });
    };
    this.table.on("draw", told);
    told();
  }

  filters() {
    const form = this.find(".filters"), search = form.querySelector("input");
    let waiting;
    search.addEventListener("input", () => { clearTimeout(waiting); waiting = setTimeout(() => this.table.search(search.value).draw(), 120); });
    form.addEventListener("submit", e => e.preventDefault());
    for (const chip of this.section.querySelectorAll(".chip")) chip.addEventListener("click", () => this.choose(chip));
    this.selects = {};
    this.columns.forEach((c, i) => {
      const words = c.chosen && c.kind === "text" ? [...new Set(c.values)].filter(Boolean) : [];
      if (words.length < 2 || words.length > 1000 || words.length > 0.7 * this.rows) return;
      const label = document.createElement("label"), select = document.createElement("select");
      select.append(new Option("all", ""), ...words.sort().map(word => new Option(word, word)));
      select.addEventListener("change", () => this.pick({ [c.name]: select.value }));
      label.append(`${c.label} `, select);
      form.querySelector(".choices").append(label);
      this.selects[c.name] = { select, i };
    });
    form.addEventListener("reset", () => setTimeout(() => {
      this.kinds.clear();
      this.section.querySelectorAll(".chip").forEach(chip => chip.setAttribute("aria-pressed", false));
      this.table.search("").column(0).search("");
      this.pick(Object.fromEntries(Object.keys(this.selects).map(name => [name, ""])));
    }));
  }

  // Shows rows of some classes only.
  choose(chip) {
    const on = chip.getAttribute("aria-pressed") !== "true", kind = chip.dataset.kind;
    chip.setAttribute("aria-pressed", on);
    if (on) this.kinds.add(kind); else this.kinds.delete(kind);
    this.table.column(0).search(this.kinds.size ? value => this.kinds.has(value) : "").draw();
  }

  // Shows rows with these words in these columns only; "" is any.
  pick(words) {
    for (const [name, word] of Object.entries(words)) {
      const { select, i } = this.selects[name];
      select.value = word;
      this.table.column(i).search(word ? value => value === word : "");
    }
    this.table.draw();
    this.section.dispatchEvent(new CustomEvent("picked"));
  }

  // On paper all rows stand, or as many as one would read.
  paper() {
    let length = SHOWN;
    window.addEventListener("beforeprint", () => {
      const { recordsDisplay: n } = this.table.page.info();
      length = this.table.page.len();
      const file = this.section.dataset.file;
      this.find(".printed").textContent = n > PRINTED ? `The first ${PRINTED} of ${n.toLocaleString("en")} rows.${file ? ` The others are in ${file}.` : ""}` : "";
      this.table.page.len(PRINTED).draw();
    });
    window.addEventListener("afterprint", () => this.table.page.len(length).draw());
  }
}

async function drawTables() {
  if (!("DecompressionStream" in window)) {
    const said = "This browser is too old to unpack the rows: it lacks DecompressionStream.";
    document.querySelectorAll(".found .rows").forEach(box => { box.textContent = said; });
    return;
  }
  for (const section of document.querySelectorAll("section.found")) {
    const { columns } = await unpacked(section.querySelector(".packed"));
    heatmap(new Found(section, columns));
  }
  document.querySelectorAll("figure button").forEach(button => button.addEventListener("click", () => {
    button.setAttribute("aria-expanded", button.closest("figure").classList.toggle("full"));
  }));
  document.documentElement.dataset.drawn = "";
}
document.addEventListener("DOMContentLoaded", drawTables);
