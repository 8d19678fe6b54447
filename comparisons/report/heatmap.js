// The largest margin of each subject in each dtype, as a map whose cells choose rows.
"use strict";

const DECADES = [-4, 3]; // of margins, from the palest to the strongest colour

function shade(margin) {
  if (Number.isNaN(margin)) return "var(--high)";
  if (!(margin > 0)) return "transparent";
  const [low, high] = DECADES, at = Math.min(Math.max(Math.log10(margin), low), high);
  return at <= 0
    ? `color-mix(in srgb, var(--low) ${Math.round(8 + (47 * (at - low)) / -low)}%, transparent)`
    : `color-mix(in srgb, var(--high) ${Math.round(35 + (35 * at) / high)}%, transparent)`;
}

function heatmap(found) {
  const box = found.find(".heat"), { columns } = found;
  const subject = columns.find(c => c.subject && c.name in found.selects);
  const dtype = columns.find(c => c.name === "dtype");
  const margin = columns.find(c => c.name === "margin" || c.name === "lockstep_margin");
  if (!subject || !margin) return;
  const kinds = columns[0].values, dtypes = dtype ? [...new Set(dtype.values)].filter(Boolean).sort().reverse() : [""];
  const worst = new Map(); // of subject and dtype: the row with the largest margin, NaN counted as that
  const size = i => (margin.values[i] === null ? -1 : Number.isNaN(margin.values[i]) ? Infinity : margin.values[i]);
  for (let i = 0; i < found.rows; i++) {
    const key = JSON.stringify([subject.values[i], dtype ? dtype.values[i] : ""]);
    const known = worst.get(key);
    if (known === undefined || size(i) > size(known)) worst.set(key, i);
  }
  const largest = name => Math.max(...dtypes.map(d => { const i = worst.get(JSON.stringify([name, d])); return i === undefined ? -2 : size(i); }));
  const names = [...new Set(subject.values)].filter(Boolean).map(name => [name, largest(name)]).sort((a, b) => b[1] - a[1] || (a[0] < b[0] ? -1 : 1));

  box.hidden = false;
  box.open = found.rows > 50;
  const by = dtype && dtypes.length > 1 ? ` and dtype` : "";
  box.querySelector("summary").textContent = `largest margin of each ${subject.label}${by}, the largest first; a cell shows its rows`;
  box.querySelector(".scale").innerHTML = [1e-3, 0.1, 1, 3, 1e3].map(m => `<span><i style="background:${shade(m)}"></i> ${digits(m, 2)}</span>`).join("") + `<span>· up to 1 it is rounding${dtypes.length > 1 ? ` · from left to right: ${escaped(dtypes.join(", "))}` : ""}</span>`;
  const cells = box.querySelector(".cells");
  const buttons = [];
  for (const [name] of names) {
    const line = document.createElement("div");
    line.innerHTML = `<span title="${escaped(name)}">${escaped(name)}</span>`;
    for (const d of dtypes) {
      const i = worst.get(JSON.stringify([name, d])), button = document.createElement("button");
      button.type = "button";
      button.tabIndex = buttons.length ? -1 : 0;
      button.disabled = i === undefined;
      if (i !== undefined) {
        const value = margin.values[i], text = value === null ? "–" : digits(value, 2);
        button.textContent = text;
        button.style.background = value === null ? "transparent" : shade(value);
        button.setAttribute("aria-label", `${name} ${d}: margin ${text}, ${kinds[i]}`);
        button.title = `${name} ${d}: margin ${text}, ${kinds[i]}`;
        button.addEventListener("click", () => pressed(button, name, d));
        buttons.push(button);
      }
      line.append(button);
    }
    cells.append(line);
  }

  function pressed(button, name, d) {
    const on = button.getAttribute("aria-pressed") === "true";
    found.pick({ [subject.name]: on ? "" : name, ...("dtype" in found.selects ? { dtype: on ? "" : d } : {}) });
    if (on) return;
    button.setAttribute("aria-pressed", true);
    found.find(".rows").scrollIntoView({ block: "nearest" });
  }
  // Whoever chooses elsewhere takes the mark away.
  found.section.addEventListener("picked", () => buttons.forEach(b => b.removeAttribute("aria-pressed")));
  // One stop for the tabulator; arrows go from cell to cell.
  cells.addEventListener("keydown", e => {
    const below = dtypes.length * getComputedStyle(cells).gridTemplateColumns.split(" ").length;
    const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: below, ArrowUp: -below }[e.key];
    const at = buttons.indexOf(e.target);
    if (!step || at < 0 || !buttons[at + step]) return;
    e.preventDefault();
    e.target.tabIndex = -1;
    buttons[at + step].tabIndex = 0;
    buttons[at + step].focus();
  });
}
