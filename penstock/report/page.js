"use strict";
// Brings the page to life: choose a metric, average or window; hide a series; read values off the curves; sort.
// The page is complete without it. Axes come ready from Python; names go in as text, never as markup.
(() => {
  const SVG = "http://www.w3.org/2000/svg";

  function make(tag, attributes = {}, content = "") {
    const element = tag.startsWith("svg:") ? document.createElementNS(SVG, tag.slice(4)) : document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.append(content);
    return element;
  }

  // --- tables: a click on a column's head sorts it, best first, then the other way round
  const rawValue = (row, column) => {
    const raw = row.cells[column].dataset.value;
    return raw === undefined ? null : Number(raw);
  };
  for (const table of document.querySelectorAll("table.scores")) {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      if (column === 0) return;
      const button = make("button", { type: "button" });
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const best = head.dataset.higher === "1" ? "descending" : "ascending";
        const other = best === "ascending" ? "descending" : "ascending";
        const order = head.getAttribute("aria-sort") === best ? other : best;
        heads.forEach((each) => each.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", order);
        const sign = order === "ascending" ? 1 : -1;
        for (const body of table.tBodies) {
          const rows = [...body.rows].map((row) => [row, rawValue(row, column)]);
          rows.sort(([, a], [, b]) => (a === null) - (b === null) || sign * (a - b));
          body.append(...rows.map(([row]) => row));
        }
      });
    });
  }

  // --- the chart
  const data = JSON.parse(document.getElementById("data").textContent);
  const plot = document.getElementById("plot");
  if (!data || !plot) return;
  const frame = document.getElementById("race");
  const [top, height, last] = [plot.dataset.top, plot.dataset.height, plot.dataset.last].map(Number);
  const LABEL_GAP = 15;
  const KINDS = [["since start", "average"], ["recent", "window"]];
  const hidden = data.series.map(() => false);
  let metric = 0;
  let kind = data.kind;

  for (const series of data.series) {
    series.values = series.values.map((kinds) =>
      kinds.map(([exponent, values]) => values.map((value) => (value === null ? null : value / 10 ** exponent))));
  }
  const values = (series) => data.series[series].values[metric][kind];
  const axis = () => data.metrics[metric].axes[kind];
  const down = (value) => height * Math.min(2, Math.max(-1, 1 - (value - axis().low) / (axis().high - axis().low)));
  const of = (selector, series) => plot.querySelector(`${selector}[data-series="${series}"]`);

  function number(value) { // as charts.number writes it
    const size = Math.abs(value);
    if (value === 0) return "0";
    if (size < 1e-4 || size >= 1e15) return value.toExponential(3).replace("+", "");
    if (size >= 999.95) return Math.round(value).toLocaleString("en-US");
    return value.toPrecision(4);
  }

  function path(series) {
    let pen = false;
    let d = "";
    values(series).forEach((value, i) => {
      if (value === null || i >= data.events.length) { pen = false; return; }
      d += `${pen ? "L" : "M"}${((1000 * data.events[i]) / last).toFixed(1)} ${down(value).toFixed(1)}${pen ? "" : "h0"}`;
      pen = true;
    });
    return d;
  }

  function placeLabels() {
    const ends = data.series.map((_, i) => {
      const end = values(i).findLast((value) => value !== null);
      return { i, at: end === undefined ? height / 2 : Math.min(height, Math.max(0, down(end))) };
    });
    ends.sort((a, b) => a.at - b.at);
    let floor = -Infinity;
    for (const end of ends) floor = end.at = Math.max(end.at, floor + LABEL_GAP);
    let ceiling = height + LABEL_GAP;
    for (const end of ends.reverse()) {
      ceiling = end.at = Math.min(end.at, ceiling - LABEL_GAP);
      of(".end", end.i).setAttribute("y", (top + end.at + 4).toFixed(1));
    }
  }

  function draw() {
    const rows = axis().ticks.flatMap(([value, label]) => {
      const at = top + down(value);
      return [
        make("svg:line", { x1: "0", x2: "100%", y1: at.toFixed(1), y2: at.toFixed(1) }),
        make("svg:text", { x: "-8", y: (at + 4).toFixed(1) }, label),
      ];
    });
    document.getElementById("grid").replaceChildren(...rows);
    data.series.forEach((_, i) => {
      of(".line", i).setAttribute("d", path(i));
      of(".line", i).classList.toggle("hidden", hidden[i]);
      of(".end", i).classList.toggle("hidden", hidden[i] || axis().off.includes(i));
    });
    placeLabels();
    document.querySelectorAll("#legend small").forEach((note, i) => { note.hidden = !axis().off.includes(i); });
    document.getElementById("caption").textContent = data.metrics[metric].captions[kind];
    const label = data.metrics[metric].label;
    document.getElementById("plot-title").textContent = `${label}: ${data.series.map((series) => series.name).join(", ")}`;
    document.getElementById("plot-desc").textContent = data.metrics[metric].captions[kind];
    leave();
  }

  // --- the controls
  function choice(label, names, current, choose) {
    const group = make("div", { class: "choice", role: "group", "aria-label": label });
    const buttons = names.map((name, i) => {
      const button = make("button", { type: "button", "aria-pressed": String(i === current) }, name);
      button.addEventListener("click", () => {
        buttons.forEach((each, j) => each.setAttribute("aria-pressed", String(i === j)));
        choose(i);
        draw();
        history.replaceState(null, "", `#${encodeURIComponent(data.metrics[metric].key)}/${KINDS[kind][1]}`);
      });
      return button;
    });
    group.append(...buttons);
    return group;
  }

  const [wantedMetric, wantedKind] = location.hash.slice(1).split("/"); // a link to a view: #accuracy/average
  metric = Math.max(0, data.metrics.findIndex((each) => encodeURIComponent(each.key) === wantedMetric));
  kind = KINDS.findIndex(([, key]) => key === wantedKind);
  if (kind < 0) kind = data.kind;
  const controls = document.getElementById("controls");
  controls.append(
    choice("metric", data.metrics.map((each) => each.label), metric, (i) => { metric = i; }),
    choice("over", KINDS.map(([label]) => label), kind, (i) => { kind = i; }),
  );
  controls.hidden = false;

  document.querySelectorAll("#legend li").forEach((item, i) => {
    const button = make("button", { type: "button", "aria-pressed": "true", class: data.series[i].css });
    button.append(...item.childNodes);
    item.append(button);
    button.addEventListener("click", () => {
      hidden[i] = !hidden[i];
      button.setAttribute("aria-pressed", String(!hidden[i]));
      draw();
    });
  });

  // --- reading values off: pointer, or arrow keys once the chart has the focus
  const cross = make("svg:svg", { class: "cross" });
  cross.append(make("svg:line", { x1: "0", x2: "0", y1: String(top), y2: String(top + height) }));
  const dots = data.series.map((series) => {
    const dot = make("svg:circle", { r: "4", class: series.css });
    cross.append(dot);
    return dot;
  });
  plot.append(cross);
  const tip = make("div", { class: "tip", role: "status" });
  tip.hidden = true;
  frame.append(tip);
  let at = -1;

  function leave() {
    at = -1;
    cross.classList.remove("on");
    tip.hidden = true;
  }

  function point(i) {
    at = i;
    const share = data.events[i] / last;
    cross.setAttribute("x", `${100 * share}%`);
    cross.classList.add("on");
    const read = data.series.map((series, j) => ({ series, j, value: values(j)[i] ?? null }))
      .filter(({ j, value }) => !hidden[j] && value !== null);
    dots.forEach((dot) => dot.classList.add("hidden"));
    for (const { j, value } of read) {
      dots[j].setAttribute("cy", (top + Math.min(height, Math.max(0, down(value)))).toFixed(1));
      dots[j].classList.remove("hidden");
    }
    read.sort((a, b) => b.value - a.value); // as the lines lie, top first
    tip.replaceChildren(make("b", {}, `event ${data.events[i].toLocaleString("en-US")}`), ...read.map(({ series, value }) => {
      const row = make("div", { class: series.css });
      const swatch = make("svg:svg", { class: "swatch", width: "18", height: "8" });
      swatch.append(make("svg:path", { class: `line ${series.css}`, d: "M1 4h16" }));
      row.append(swatch, make("bdi", {}, series.name), make("span", {}, number(value)));
      return row;
    }));
    tip.hidden = false;
    const box = plot.getBoundingClientRect();
    const outer = frame.getBoundingClientRect();
    const x = box.left - outer.left + share * box.width;
    const left = share > 0.5 ? x - tip.offsetWidth - 14 : x + 14;
    tip.style.left = `${Math.max(0, Math.min(left, outer.width - tip.offsetWidth))}px`;
    tip.style.top = `${top + 10}px`;
  }

  function nearest(event) {
    let low = 0;
    let high = data.events.length - 1;
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if (data.events[middle] < event) low = middle; else high = middle;
    }
    return event - data.events[low] < data.events[high] - event ? low : high;
  }

  const follow = (event) => {
    const box = plot.getBoundingClientRect();
    point(nearest(((event.clientX - box.left) / box.width) * last));
  };
  plot.addEventListener("pointermove", follow);
  plot.addEventListener("pointerdown", follow);
  plot.addEventListener("pointerleave", leave);
  plot.addEventListener("blur", leave);
  plot.setAttribute("tabindex", "0");
  plot.addEventListener("keydown", (event) => {
    const steps = { ArrowLeft: -1, ArrowRight: 1, PageUp: -20, PageDown: 20 };
    if (event.key === "Escape") leave();
    if (!(event.key in steps)) return;
    event.preventDefault();
    const from = at < 0 ? data.events.length - 1 : at + steps[event.key];
    point(Math.min(data.events.length - 1, Math.max(0, from)));
  });

  draw();
})();
