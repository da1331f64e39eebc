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

  /** Utilisation, a panel a unit: beside each other, or on a narrow screen one above the other. */
  function utilisation() {
    const units = [...new Set(shown().flatMap((d) => Object.keys(data.designs[d].utilization)))];
    const tall = byId("utilization").clientWidth < 34 * units.length * 6, traces = [], more = { annotations: [] }, grid = axes();
    units.forEach((unit, k) => {
      const n = k ? k + 1 : "";
      for (const d of shown().filter((d) => unit in data.designs[d].utilization)) {
        traces.push({ type: "scatter", mode: "lines+markers", name: label(d), x: axis(), y: take(data.designs[d].utilization[unit]), xaxis: "x" + n, yaxis: "y" + n, hovertemplate: "%{y:.1%}",
          line: { color: colourOf(d), width: d === section().subject ? 3 : 1.8 }, marker: { symbol: symbolOf(d), size: 8 }, meta: unit });
      }
      more["xaxis" + n] = { ...grid, type: "category", title: { text: "tokens" } };
      more["yaxis" + n] = { ...grid, tickformat: ".0%", range: [0, 1.08], showticklabels: tall || !k };  // one scale for all panels
      more.annotations.push({ text: label(unit), showarrow: false, xref: "x" + n + " domain", yref: "y" + n + " domain", x: 0, y: 1, xanchor: "left", yanchor: "bottom", font: { color: ink(), size: 13 } });
    });
    const rows = tall ? units.length : 1;
    byId("utilization").style.height = (tall ? 15 * units.length : 20) + "rem";
    draw("utilization", traces, layout("tokens", "", { grid: { rows, columns: Math.ceil(units.length / rows), pattern: "independent", xgap: 0.08, ygap: 0.3 }, margin: { l: 10, r: 10, t: 24, b: 10 }, ...more }));
  }

  /** The colours, then lighter and darker ones. */
  function shade(k) {
    const turn = Math.floor(k / COLOURS.length) % 3, to = [0, 255, 0][turn];
    const mixed = channels(COLOURS[k % COLOURS.length]).map((c) => Math.round(turn ? c + 0.5 * (to - c) : c));
    return "#" + mixed.map((c) => c.toString(16).padStart(2, "0")).join("");
  }
  const channels = (colour) => [1, 3, 5].map((i) => parseInt(colour.slice(i, i + 2), 16));
  const readable = (colour) => (channels(colour).reduce((sum, c, i) => sum + c * [0.299, 0.587, 0.114][i], 0) > 130 ? "#14171b" : "#ffffff");

  /** Stacked bars, one a row, of the parts that each row has. */
  function stacked(rows, means = () => "") {
    const parts = [...new Set([...rows].reverse().flatMap(([, values]) => Object.keys(values)))];
    return parts.map((part, k) => ({
      type: "bar", orientation: "h", name: label(part), y: rows.map(([name]) => label(name)), x: rows.map(([, values]) => values[part] || 0),
      marker: { color: shade(k) }, text: label(part), textposition: "inside", insidetextanchor: "middle", textangle: 0, textfont: { color: readable(shade(k)) },
      customdata: rows.map(([name]) => label(means(name, part))), hovertemplate: label(part) + " %{x:.4~s}<br>%{customdata}<extra>%{y}</extra>",
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
  const axes = () => ({ gridcolor: style("--line"), zerolinecolor: style("--line"), linecolor: style("--line"), automargin: true });
  function layout(x, y, more) {
    const grid = axes();
    return {
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: { color: ink(), size: 12 }, margin: { l: 10, r: 10, t: 10, b: 10 },
      hoverlabel: { namelength: -1 }, showlegend: false, dragmode: touch ? false : "zoom", ...more,
      xaxis: { ...grid, title: { text: x }, ...(more && more.xaxis) }, yaxis: { ...grid, title: { text: y }, ...(more && more.yaxis) },
    };
  }
  // A finger scrolls the page and taps a point; buttons would lie over the plot. They are named, since one of Plotly's own uploads the data.
  const touch = matchMedia("(hover: none)").matches;
  /** A logarithmic axis: 1, 2, 5 labelled over few decades, tens or their powers over many. */
  function logarithmic(values) {
    const found = values.filter((v) => v), decades = Math.log10(Math.max(...found) / Math.min(...found));
    return { type: "log", tickformat: "~s", dtick: decades < 2 ? "D2" : Math.ceil(decades / 6) };
  }
  const CONFIG = { responsive: true, displaylogo: false, displayModeBar: touch ? false : "hover", plotlyServerURL: "",
    modeBarButtons: [["toImage"], ["zoom2d", "pan2d"], ["zoomIn2d", "zoomOut2d", "resetScale2d"]] };
  const draw = (id, traces, shape) => Plotly.react(byId(id), traces, shape, CONFIG);

  /** Stacked bars as high as their rows need, with the legend under them. */
  function bars(id, traces, rows, shape) {
    const across = Math.max(1, Math.floor((byId(id).clientWidth - 300) / 80)), listed = traces.length <= (across > 2 ? 60 : 20);  // else their names are in the bars, and said when pointed at
    const entries = listed ? 1.4 * Math.ceil(traces.length / across) : 0;
    byId(id).style.height = Math.max(14, 8 + 1.7 * rows + entries) + "rem";
    draw(id, traces, { ...shape, barmode: "stack", showlegend: listed, uniformtext: { mode: "hide", minsize: 9 }, yaxis: { ...shape.yaxis, dtick: 1 },
      legend: { orientation: "h", traceorder: "normal", yref: "container", y: 0, yanchor: "bottom" }, margin: { ...shape.margin, b: 20 } });
  }

  function redraw() {
    const category = { xaxis: { type: "category" } };
    const beside = { barmode: "group", ...category, hovermode: "x unified", scattermode: "group" };
    const speedups = ratios("latency_s", (a, b) => b / a), reached = speedups.flatMap((t) => t.y).filter((v) => v);
    const wide = Math.max(...reached) > 40 * Math.min(...reached);  // small ones would not be seen
    draw("speedup", speedups, layout("tokens", "times as fast", wide ? { ...beside, yaxis: logarithmic(reached) } : beside));
    const parts = ratios("energy_j", (a, b) => a / b);
    byId("energy").closest("figure").hidden = !parts.some((t) => t.y.some((v) => v));  // a machine whose file has no energies
    draw("energy", parts, layout("tokens", "part of the baseline's", beside));
    utilisation();
    draw("traffic", lines((d) => [["", d.dram_bytes]]), layout("tokens", "", { ...category, yaxis: { ...logarithmic(shown().flatMap((d) => take(data.designs[d].dram_bytes))), ticksuffix: "B" }, hovermode: "x unified" }));
    const busy = shown().flatMap((d) => Object.entries(data.designs[d].active).filter(([, parts]) => Object.keys(parts).length).map(([unit, parts]) => [d + ", " + unit, at(parts)])).reverse();
    const means = (row, part) => data.equations[data.designs[designs.filter((d) => row.startsWith(d + ", ")).pop()].cascade][part] || "";
    bars("active", stacked(busy, means), busy.length, layout("part of the latency", "", { xaxis: { tickformat: ".0%" } }));
    const spent = shown().map((d) => [d, at(data.designs[d].energy)]).reverse();
    bars("components", stacked(spent), spent.length, layout("", "", { xaxis: { tickformat: "~s", ticksuffix: "J" } }));
    draw("roofline", roofline(), layout("work per DRAM byte", "work a second", { xaxis: logarithmic(shown().flatMap((d) => take(data.designs[d].intensity))), yaxis: logarithmic(shown().flatMap((d) => take(data.designs[d].rate))) }));
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

  /** Arrow keys read a plot: along its points, and from one design or part to the next. */
  function read(id) {
    const plot = byId(id), said = byId(id + "-said");
    let trace = 0, point = -1;
    const value = (v) => (typeof v === "number" ? Number(v.toPrecision(4)).toLocaleString("en") : v);
    /** A number as the axis it is drawn along writes it: a percentage, with its unit, or with the axis's title. */
    const written = (v, axis) => {
      if ((axis.tickformat || "").endsWith("%")) return Number((100 * v).toPrecision(4)) + "%";
      const power = v ? Math.min(5, Math.max(-3, Math.floor(Math.log10(Math.abs(v)) / 3))) : 0;
      if (axis.ticksuffix) return Number((v / 1000 ** power).toPrecision(4)) + " " + ["n", "u", "m", "", "k", "M", "G", "T", "P"][power + 3] + axis.ticksuffix;
      return [value(v), axis.title && axis.title.text].filter(Boolean).join(" ");
    };
    const plain = (text) => String(text).replace(/&lt;/g, "<").replace(/&gt;/g, ">").replace(/&amp;/g, "&");
    plot.addEventListener("keydown", (event) => {
      const traces = plot.data || [], step = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0], Enter: [0, 0] }[event.key];
      if (!step || !traces.length) return;
      event.preventDefault();
      trace = (trace + step[0] + traces.length) % traces.length;
      const t = traces[trace], n = t.x.length;
      if (event.key === "Enter") Plotly.restyle(plot, { visible: t.visible === "legendonly" ? true : "legendonly" }, [trace]);
      point = point < 0 ? 0 : (Math.min(point, n - 1) + step[1] + n) % n;
      const [where, what] = t.orientation === "h" ? [t.y[point], t.x[point]] : [t.text ? t.text[point] + ", " + value(t.x[point]) : t.x[point], t.y[point]];
      const along = plot.layout[(t.orientation === "h" ? t.xaxis || "x" : t.yaxis || "y").replace(/^[xy]/, "$&axis")];
      const hiddenNow = plot.data[trace].visible === "legendonly" ? " (hidden)" : "";
      said.textContent = plain([t.meta, t.name].filter(Boolean).join(", ")) + hiddenNow + ", " + plain(value(where)) + ": " + (what === null ? "no figure" : written(what, along));
    });
  }
  for (const plot of document.querySelectorAll(".plot")) read(plot.id);

  // On paper: light, the plots as wide as the page, and the tables open.
  let before = null;
  addEventListener("beforeprint", () => {
    const closed = [...document.querySelectorAll("details.words:not([open]), details.numbers:not([open])")].filter((d) => d.querySelectorAll("thead th").length < 13);
    before = { theme: document.documentElement.dataset.theme, closed };
    document.documentElement.dataset.theme = "light";
    for (const d of closed) d.open = true;
    redraw();
    for (const plot of document.querySelectorAll(".plot")) Plotly.relayout(plot, { width: 660 });
  });
  addEventListener("afterprint", () => {
    if (before.theme) document.documentElement.dataset.theme = before.theme;
    else delete document.documentElement.dataset.theme;
    for (const d of before.closed) d.open = false;
    redraw();
    for (const plot of document.querySelectorAll(".plot")) Plotly.relayout(plot, { width: null, autosize: true });
  });

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
