"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const COLOURS = ["#3b7dd8", "#e07b39", "#2ca58d", "#b455b6", "#c9a227", "#d1495b", "#6c8b3c", "#5f7186", "#8c6bb1", "#4bb3c8", "#a0522d", "#7f7f7f"];
  const SYMBOLS = ["circle", "square", "diamond", "triangle-up", "cross", "star", "hexagon", "pentagon"];
  const DASHES = ["solid", "dot", "dash", "dashdot"];
  const designs = Object.keys(data.designs);
  const colourOf = (name) => COLOURS[designs.indexOf(name) % COLOURS.length];
  const symbolOf = (name) => SYMBOLS[designs.indexOf(name) % SYMBOLS.length];
  const hidden = new Set();
  const byId = (id) => document.getElementById(id);
  // plot labels are read as markup
  const label = (text) => String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");

  const workloads = [...new Set(data.points.map((p) => p.workload))];
  const lengths = [...new Set(data.points.map((p) => p.length))];
  const fill = (id, values, named) => {
    byId(id).replaceChildren(...values.map((v) => new Option(named(v), v)));
    byId(id).closest("label").hidden = values.length < 2;
  };
  fill("workload", workloads, (w) => w || "own extents");
  fill("length", lengths, (n) => n + " tokens");
  byId("length").value = lengths[Math.floor(lengths.length / 2)];

  const section = () => data.sections[Number(byId("section").value) || 0];
  const shown = () => [...section().baselines, section().subject].filter((d) => !hidden.has(d));
  /** The points of the workload chosen, as indices. */
  const indices = () => data.points.map((p, i) => [p, i]).filter(([p]) => p.workload === byId("workload").value).map(([, i]) => i);
  const chosen = () => {
    const found = indices().find((i) => data.points[i].length === byId("length").value);
    return found === undefined ? indices()[0] : found;
  };
  const take = (values) => indices().map((i) => values[i]);
  const axis = () => indices().map((i) => data.points[i].length);

  const published = (design, index, quantity) => {
    const p = data.points[index];
    const found = data.published.find((x) => x.design === design && x.workload === p.workload && x.seq === p.seq && x.quantity === quantity);
    return found ? found.value : null;
  };

  function ratios(field, quotient) {
    const us = section().subject, traces = [];
    for (const b of section().baselines.filter((d) => !hidden.has(d))) {
      const value = (get) => indices().map((i) => {
        const a = get(us, i), c = get(b, i);
        return a && c ? quotient(a, c) : null;
      });
      traces.push({ type: "bar", name: label(b), x: axis(), y: value((d, i) => data.designs[d][field][i]), marker: { color: colourOf(b) }, offsetgroup: b, hovertemplate: "%{y:.3f}" });
      const known = value((d, i) => published(d, i, field));
      if (data.published.length) {  // with no figure too: crosses are grouped as the bars are
        traces.push({ type: "scatter", mode: "markers", name: label(b) + ", published", x: axis(), y: known, offsetgroup: b,
          marker: { symbol: "x-thin", size: 11, line: { width: 2.5, color: ink() } }, hovertemplate: "%{y:.3f}" });
      }
    }
    return traces;
  }

  function lines(get) {
    const traces = [];
    for (const d of shown()) {
      get(data.designs[d]).forEach(([what, values], k) => traces.push({
        type: "scatter", mode: "lines+markers", name: label(what ? d + ", " + what : d), x: axis(), y: take(values), hovertemplate: "%{y:.4s}",
        line: { color: colourOf(d), dash: DASHES[k % DASHES.length], width: d === section().subject ? 3 : 1.8 }, marker: { symbol: symbolOf(d), size: 8 },
      }));
    }
    return traces;
  }

  /** Stacked bars, one a row, of the parts that each row has. */
  function stacked(rows) {
    const parts = [...new Set(rows.flatMap(([, values]) => Object.keys(values)))];
    return parts.map((part, k) => ({
      type: "bar", orientation: "h", name: label(part), y: rows.map(([name]) => label(name)), x: rows.map(([, values]) => values[part] || 0),
      marker: { color: COLOURS[k % COLOURS.length], pattern: { shape: k < COLOURS.length ? "" : "/" } }, hovertemplate: label(part) + " %{x:.4~s}<extra>%{y}</extra>",
    }));
  }
  const at = (table) => Object.fromEntries(Object.entries(table).map(([k, values]) => [k, values[chosen()]]));

  function roofline() {
    const traces = [], used = new Set(shown().map((d) => data.designs[d].arch));
    const reach = shown().flatMap((d) => take(data.designs[d].intensity)).filter((v) => v);
    const archs = [...used].filter((a) => data.roofs[a].bandwidth);
    archs.forEach((arch, k) => {
      const { peak, bandwidth } = data.roofs[arch];
      const knee = peak / bandwidth, ends = [Math.min(knee, ...reach) / 3, knee, Math.max(knee, ...reach) * 3];
      traces.push({ type: "scatter", mode: "lines", name: label(arch), x: ends, y: ends.map((x) => Math.min(peak, x * bandwidth)), line: { color: ink(), width: 1.5, dash: DASHES[k % 4] }, hovertemplate: "%{y:.3s}" });
    });
    for (const d of shown()) {
      traces.push({ type: "scatter", mode: "markers", name: label(d), x: take(data.designs[d].intensity), y: take(data.designs[d].rate), text: axis().map((n) => n + " tokens"),
        marker: { color: colourOf(d), symbol: symbolOf(d), size: 10 }, hovertemplate: "%{text}<br>%{x:.4s} a byte, %{y:.4s} a second" });
    }
    return traces;
  }

  const style = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const ink = () => style("--ink");
  function layout(x, y, more) {
    const grid = { gridcolor: style("--line"), zerolinecolor: style("--line"), linecolor: style("--line"), automargin: true };
    return {
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: { color: ink(), size: 12 }, margin: { l: 10, r: 10, t: 10, b: 10 },
      hoverlabel: { namelength: -1 }, showlegend: false, ...more,
      xaxis: { ...grid, title: { text: x }, ...(more && more.xaxis) }, yaxis: { ...grid, title: { text: y }, ...(more && more.yaxis) },
    };
  }
  const CONFIG = { responsive: true, displaylogo: false, modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"] };
  const draw = (id, traces, shape) => Plotly.react(byId(id), traces, shape, CONFIG);

  function redraw() {
    const category = { xaxis: { type: "category" } }, below = { orientation: "h", y: -0.25 };
    const beside = { barmode: "group", ...category, hovermode: "x unified", scattermode: "group" };
    draw("speedup", ratios("latency_s", (a, b) => b / a), layout("tokens", "times as fast", beside));
    draw("energy", ratios("energy_j", (a, b) => a / b), layout("tokens", "part of the baseline's", beside));
    draw("utilization", lines((d) => Object.entries(d.utilization)), layout("tokens", "", { ...category, yaxis: { tickformat: ".0%", range: [0, 1.05] } }));
    draw("traffic", lines((d) => [["", d.dram_bytes]]), layout("tokens", "bytes", { ...category, yaxis: { type: "log", exponentformat: "power" }, hovermode: "x unified" }));
    const busy = shown().flatMap((d) => Object.entries(data.designs[d].active).map(([unit, parts]) => [d + ", " + unit, at(parts)])).reverse();
    draw("active", stacked(busy), layout("part of the latency", "", { barmode: "stack", showlegend: true, legend: below, xaxis: { tickformat: ".0%" } }));
    draw("components", stacked(shown().map((d) => [d, at(data.designs[d].energy)]).reverse()), layout("joules", "", { barmode: "stack", showlegend: true, legend: below }));
    draw("roofline", roofline(), layout("work per DRAM byte", "work a second", { xaxis: { type: "log" }, yaxis: { type: "log", exponentformat: "power" } }));
  }

  function legend() {
    const entries = [...section().baselines, section().subject].map((name) => {
      const entry = document.createElement("label"), box = document.createElement("input"), swatch = document.createElement("span");
      box.type = "checkbox";
      box.checked = !hidden.has(name);
      box.addEventListener("change", () => { box.checked ? hidden.delete(name) : hidden.add(name); redraw(); });
      swatch.className = "swatch";
      swatch.style.background = colourOf(name);
      entry.append(box, swatch, name);
      return entry;
    });
    byId("legend").replaceChildren(...entries);
  }

  for (const id of ["workload", "length"]) byId(id).addEventListener("change", redraw);
  byId("section").addEventListener("change", () => { legend(); redraw(); });
  byId("theme").addEventListener("click", () => {
    const dark = getComputedStyle(document.documentElement).colorScheme === "dark";
    document.documentElement.dataset.theme = dark ? "light" : "dark";
    redraw();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  document.querySelector(".controls").addEventListener("submit", (event) => event.preventDefault());
  legend();
  redraw();
})();
