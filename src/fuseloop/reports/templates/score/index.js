"use strict";
// Draws what depends on choices: plots, differences, worst and best frames. The numbers are in data.js; values that JSON
// lacks are "inf" and "-inf", and null where undefined.
const report = window.REPORT;
const { methods, metrics, frames } = report;
const shown = new Set(metrics.keys());

const find = (selector, root = document) => root.querySelector(selector);
const all = (selector, root = document) => [...root.querySelectorAll(selector)];
const colour = (method) => `--c:var(--m${method % 10})`;
const page = (frame) => `frames/${report.pages[frame]}.html`;
const thumbnail = (frame, slot) => `thumbnails/${report.pages[frame]}/${slot}.jpg`;

function make(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}
function draw(tag, attributes = {}, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}
function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}
function option(select, value, text) {
  select.append(make("option", { value }, text));
}

const number = (value) => (value === "inf" ? Infinity : value === "-inf" ? -Infinity : value ?? NaN);
function text(value, decimals, signed = false) {
  if (Number.isNaN(value)) return "undefined";
  const tiny = decimals > 2 && value !== 0 && Math.abs(value) < Math.min(1e-3, 10 ** (1 - decimals));
  const size = Math.abs(value) === Infinity ? "∞" : tiny ? Math.abs(value).toExponential(1) : Math.abs(value).toFixed(decimals);
  return (value < 0 && Number(size) !== 0 ? "−" : signed && Number(size) !== 0 ? "+" : "") + size;
}
const merit = (metric, value) =>
  metrics[metric].direction === "higher" ? value : metrics[metric].direction === "lower" ? -value : -Math.abs(value);
const label = (metric) => `${metrics[metric].name} ${metrics[metric].arrow}`;
const short = (name, length) => (name.length > length ? `${name.slice(0, length - 1)}…` : name);

// The table: sorting, what stands below the means, and which metrics are shown.

function sort(table, column, direction) {
  const heads = all("thead th", table);
  heads.forEach((head, index) => head.setAttribute("aria-sort", index === column ? direction : "none"));
  const value = (row) => {
    const raw = row.children[column].dataset.value;
    return raw === "" ? NaN : raw.endsWith("inf") ? number(raw) : Number(raw);
  };
  const sign = direction === "ascending" ? 1 : -1;
  const rows = all("tbody tr", table).sort((one, other) => {
    const [a, b] = [value(one), value(other)];
    if (Number.isNaN(a) || Number.isNaN(b)) return Number.isNaN(a) - Number.isNaN(b);
    return a === b ? 0 : sign * (a < b ? -1 : 1);
  });
  find("tbody", table).append(...rows);
}

const means = find("#means");
all("thead th", means).forEach((head, column) => {
  find("button", head).addEventListener("click", () => {
    // The first click puts the best on top.
    const metric = head.dataset.metric;
    const first = metric !== undefined && metrics[metric].direction === "higher" ? "descending" : "ascending";
    const second = first === "ascending" ? "descending" : "ascending";
    sort(means, column, head.getAttribute("aria-sort") === first ? second : first);
  });
});
find("#spread").addEventListener("change", (event) => {
  means.className = `first spread-${event.target.value}`;
});
find("#pick").addEventListener("change", pick);
for (const button of all("#pick button")) {
  button.addEventListener("click", () => {
    for (const box of all("#pick input")) box.checked = Boolean(button.dataset.all);
    pick();
  });
}
function pick() {
  shown.clear();
  for (const box of all("#pick input")) if (box.checked) shown.add(Number(box.value));
  find("#shown").textContent = shown.size === metrics.length ? `all ${shown.size}` : `${shown.size} of ${metrics.length}`;
  for (const cell of all("[data-metric]", means)) cell.hidden = !shown.has(Number(cell.dataset.metric));
  if (report.compared) {
    drawProfile();
    drawDifferences();
  }
}

// Ranks: a dot and an interval for each method.

function drawRanks() {
  const choice = find("#rank-metric").value;
  const ranks = choice === "all" ? report.meanRanks : report.ranks.map((row) => row[choice]);
  find("#rank-note").textContent =
    choice === "all"
      ? "Every metric counts the same here, also those that measure nearly the same or reward copying."
      : `By the mean of ${metrics[choice].name}.`;
  const canvas = find("#ranks .canvas");
  const width = Math.max(280, canvas.clientWidth);
  const [left, right, row] = [Math.min(170, width * 0.3), 112, 32];
  const height = methods.length * row + 26;
  const x = (rank) => left + ((rank - 1) / Math.max(1, methods.length - 1)) * (width - left - right - 16) + 8;
  const order = [...methods.keys()].sort((a, b) => (ranks[a][0] ?? Infinity) - (ranks[b][0] ?? Infinity));
  const said = order.map((method) => `${methods[method]} ${text(number(ranks[method][0]), 2)}`).join(", ");
  const plot = draw("svg", { viewBox: `0 0 ${width} ${height}`, height, role: "img", "aria-label": `Ranks: ${said}` });
  for (let rank = 1; rank <= methods.length; rank++) {
    plot.append(
      draw("line", { class: "rule", x1: x(rank), x2: x(rank), y1: 0, y2: height - 22 }),
      draw("text", { class: "soft", x: x(rank), y: height - 6, "text-anchor": "middle" }, `${rank}`),
    );
  }
  order.forEach((method, place) => {
    const [mean, low, high] = ranks[method].map(number);
    const y = place * row + row / 2;
    const group = draw("g", { class: "method", style: colour(method) });
    group.append(
      draw("title", {}, methods[method]),
      draw("text", { x: 0, y: y + 4 }, short(methods[method], Math.floor(left / 7.5))),
    );
    if (Number.isNaN(mean)) {
      group.append(draw("text", { class: "soft", x: x(1), y: y + 4 }, "undefined"));
    } else {
      const interval = Number.isNaN(low) || frames.length < 2 ? "" : ` (${text(low, 2)}–${text(high, 2)})`;
      if (interval) group.append(draw("line", { x1: x(low), x2: x(high), y1: y, y2: y }));
      group.append(
        draw("circle", { class: "mark", cx: x(mean), cy: y, r: 6 }),
        draw("text", { class: "soft", x: width, y: y + 4, "text-anchor": "end" }, text(mean, 2) + interval),
      );
    }
    plot.append(group);
  });
  canvas.replaceChildren(plot);
}

// The profile: parallel coordinates, the better end above.

let lit = null;
function light(method) {
  const board = find("#profile .plot");
  board.classList.toggle("lit", method !== null);
  for (const group of all(".method", board)) group.classList.toggle("on", Number(group.dataset.method) === method);
}
function drawLegend() {
  const legend = find("#profile .legend");
  methods.forEach((name, method) => {
    const button = make("button", { type: "button", class: "button", "aria-pressed": "false", style: colour(method) });
    button.append(make("span", { class: "dot" }), make("span", {}, name));
    button.addEventListener("click", () => {
      lit = lit === method ? null : method;
      all("button", legend).forEach((one, index) => one.setAttribute("aria-pressed", index === lit));
      light(lit);
    });
    button.addEventListener("pointerenter", () => light(method));
    button.addEventListener("pointerleave", () => light(lit));
    legend.append(button);
  });
}
function drawProfile() {
  const axes = metrics.map((_, metric) => metric).filter((metric) => shown.has(metric));
  const canvas = find("#profile .canvas");
  const named = canvas.parentElement.clientWidth > 700;
  const [left, right, room] = [26, named ? 150 : 26, 212];
  const width = Math.max(canvas.parentElement.clientWidth, left + right + 34 * (axes.length - 1));
  const gap = (width - left - right) / Math.max(1, axes.length - 1);
  const slanted = gap < 58;
  const longest = Math.max(...axes.map((metric) => label(metric).length), 0);
  const top = slanted ? 28 + 6 * longest : 50;
  const bottom = top + room;
  const height = bottom + 26;
  const x = (place) => left + place * gap;
  const plot = draw("svg", {
    viewBox: `0 0 ${width} ${height}`, width, height, style: `width:${width}px`, role: "img",
    "aria-label": "Profile of the methods: one line for each over all metrics shown. The table has the same values.",
  });
  const scales = axes.map((metric) => {
    const ends = report.summaries.flatMap((row) => row[metric].slice(0, 4).filter((_, index) => index !== 1))
      .map((value) => merit(metric, number(value))).filter(Number.isFinite);
    const [worst, best] = [Math.min(...ends), Math.max(...ends)];
    const y = (value) => {
      const at = merit(metric, value);
      if (Number.isNaN(at)) return NaN;
      if (at === Infinity || at === -Infinity) return at > 0 ? top : bottom;
      return best > worst ? bottom - ((at - worst) / (best - worst)) * (bottom - top) : (top + bottom) / 2;
    };
    return { y, ends, worst, best };
  });
  axes.forEach((metric, place) => {
    const { decimals } = metrics[metric];
    const { ends, worst, best } = scales[place];
    const head = slanted
      ? { x: 0, y: 0, transform: `translate(${x(place) + 3} ${top - 10}) rotate(-55)` }
      : { x: x(place), y: 14, "text-anchor": "middle" };
    plot.append(
      draw("line", { class: "rule", x1: x(place), x2: x(place), y1: top, y2: bottom }),
      draw("text", head, label(metric)),
    );
    if (!slanted && ends.length) {
      const value = (at) => text(metrics[metric].direction === "higher" ? at : Math.abs(at), decimals);
      plot.append(
        draw("text", { class: "soft", x: x(place), y: top - 12, "text-anchor": "middle" }, value(best)),
        draw("text", { class: "soft", x: x(place), y: bottom + 18, "text-anchor": "middle" }, value(worst)),
      );
    }
  });
  const labels = [];
  methods.forEach((name, method) => {
    const group = draw("g", { class: "method", style: colour(method), "data-method": method });
    const points = axes.map((metric, place) => [x(place), scales[place].y(number(report.summaries[method][metric][0]))]);
    let path = "";
    let broken = true;
    for (const [across, down] of points) {
      if (!Number.isNaN(down)) path += `${broken ? "M" : "L"}${across.toFixed(1)} ${down.toFixed(1)}`;
      broken = Number.isNaN(down);
    }
    group.append(draw("path", { class: "catch", d: path || "M0 0" }), draw("path", { class: "line", d: path || "M0 0" }));
    axes.forEach((metric, place) => {
      const [mean, , low, high] = report.summaries[method][metric].map(number);
      if (Number.isNaN(mean)) return;
      const { y } = scales[place];
      if (Number.isFinite(low)) {
        group.append(draw("line", { class: "range", x1: x(place), x2: x(place), y1: y(low), y2: y(high) }));
      }
      const mark = draw("circle", { class: "mark", cx: x(place), cy: y(mean), r: slanted ? 3 : 4.5 });
      mark.append(draw("title", {}, `${name}, ${metrics[metric].name} ${text(mean, metrics[metric].decimals)}`));
      group.append(mark);
    });
    group.addEventListener("pointerenter", () => light(method));
    group.addEventListener("pointerleave", () => light(lit));
    plot.append(group);
    const end = points.filter(([, down]) => !Number.isNaN(down)).at(-1);
    if (named && end) labels.push({ group, name, x: points.at(-1)[0] + 14, y: end[1] });
  });
  // Names at the right ends, pushed apart where lines end together.
  labels.sort((a, b) => a.y - b.y);
  const pitch = Math.min(16, (bottom - top + 30) / Math.max(1, labels.length));
  labels.forEach((one, index) => { if (index) one.y = Math.max(one.y, labels[index - 1].y + pitch); });
  const over = labels.length ? labels.at(-1).y - (bottom + 8) : 0;
  if (over > 0) {
    labels.at(-1).y -= over;
    for (let index = labels.length - 2; index >= 0; index--) labels[index].y = Math.min(labels[index].y, labels[index + 1].y - pitch);
  }
  for (const one of labels) one.group.append(draw("text", { x: one.x, y: one.y + 4 }, short(one.name, 19)));
  canvas.replaceChildren(plot);
  light(lit);
}

// Differences to a baseline.

const SIGNS = { better: "▲", worse: "▼", unclear: "○" };
function whisker(mean, low, high, reach, verdict, width) {
  const middle = width / 2;
  const x = (value) => middle + ((middle - 6) * Math.max(-reach, Math.min(reach, value))) / reach;
  const plot = draw("svg", { viewBox: `0 0 ${width} 18`, width, height: 18, "aria-hidden": "true" });
  plot.append(draw("line", { class: "zero", x1: middle, x2: middle, y1: 0, y2: 18 }));
  if (Number.isFinite(low)) plot.append(draw("line", { x1: x(low), x2: x(high), y1: 9, y2: 9, "stroke-width": 2 }));
  const at = x(mean);
  plot.append(
    verdict === "unclear"
      ? draw("circle", { class: "mark", cx: at, cy: 9, r: 4, "stroke-width": 1.5 })
      : draw("path", {
          class: "mark",
          d: verdict === "better" ? `M${at} 4l5 9h-10z` : `M${at} 14l5 -9h-10z`,
        }),
  );
  return plot;
}
function drawDifferences() {
  const baseline = Number(find("#baseline").value);
  const others = [...methods.keys()].filter((method) => method !== baseline);
  const table = find("#differences table");
  const width = others.length > 4 ? 84 : others.length > 2 ? 120 : 240;
  const head = make("tr", {}, make("th", { scope: "col" }, "metric"));
  for (const method of others) {
    head.append(make("th", { scope: "col", colspan: 2, title: methods[method] },
      make("span", { class: "dot", style: colour(method) }), short(methods[method], 24)));
  }
  find("thead", table).replaceChildren(head);
  const rows = [...metrics.keys()].filter((metric) => shown.has(metric)).map((metric) => {
    const row = make("tr", {}, make("th", { scope: "row" }, label(metric)));
    const cells = others.map((method) => report.differences[baseline][method][metric]);
    const reach = Math.max(...cells.flatMap((cell) => cell.slice(0, 3)).map((value) => Math.abs(number(value)))
      .filter(Number.isFinite), 0) || 1;
    // More decimals where a difference would look like none.
    let { decimals } = metrics[metric];
    const vanishes = ([mean]) => number(mean) !== 0 && Number(Math.abs(number(mean)).toFixed(decimals)) === 0;
    for (let more = 0; more < 3 && cells.some(vanishes); more++) decimals++;
    for (const cell of cells) {
      const [mean, low, high] = cell.slice(0, 3).map(number);
      const verdict = cell[3];
      if (Number.isNaN(mean)) {
        row.append(make("td", { class: "none", colspan: 2 }, "undefined"));
        continue;
      }
      const interval = Number.isNaN(low) || frames.length < 2 ? "" : `${text(low, decimals, true)} to ${text(high, decimals, true)}`;
      const sign = make("span", { "aria-hidden": "true" }, `${SIGNS[verdict]} `);
      row.append(
        make("td", { class: `whisker ${verdict}` }, whisker(mean, low, high, reach, verdict, width)),
        make("td", { class: `difference ${verdict}` }, make("b", {}, sign, text(mean, decimals, true)),
          make("span", { class: "sr" }, ` ${verdict}`), make("small", {}, interval)),
      );
    }
    return row;
  });
  find("tbody", table).replaceChildren(...rows);
}

// Worst and best frames.

function card([frame, value, place], metric, method, versus) {
  const slot = report.slots[method];
  const link = make("a", { class: "frame", href: page(frame) });
  const what = `${methods[method]} on ${frames[frame]}`;
  link.append(make("img", { src: thumbnail(frame, slot), alt: what, loading: "lazy" }));
  const beside = versus === null ? ["visible", "infrared"] : [report.slots[versus], "visible"];
  const pair = make("span", { class: "pair" });
  for (const other of beside) pair.append(make("img", { src: thumbnail(frame, other), alt: "", loading: "lazy" }));
  const shownValue = text(number(value), metrics[metric].decimals, versus !== null);
  link.append(pair, make("span", { class: "value" },
    make("b", {}, `${metrics[metric].name} ${shownValue}`),
    make("span", { class: "name" }, place ? `${place} of ${report.summaries[method][metric][4]}` : "")),
  make("span", { class: "name", title: frames[frame] }, frames[frame]));
  return link;
}
function drawExtremes() {
  const metric = Number(find("#by-metric").value);
  const method = Number(find("#by-method").value);
  const select = find("#versus");
  if (select) for (const one of select.options) one.disabled = one.value === String(method);
  if (select && select.value === String(method)) select.value = "";
  const versus = select && select.value !== "" ? Number(select.value) : null;
  let { worst, best } = report.extremes[method][metric];
  if (versus !== null) {
    const swapped = versus > method;
    const gaps = report.gaps[swapped ? `${method},${versus}` : `${versus},${method}`][metric];
    // Stored as later − earlier method; the lists are by merit, so they change places with the sign.
    const signed = (list) => list.map(([frame, value]) => [frame, swapped ? -value : value, null]);
    worst = signed(swapped ? gaps.best : gaps.worst);
    best = signed(swapped ? gaps.worst : gaps.best);
  }
  find("#extremes-note").textContent =
    versus === null
      ? "Below each picture the visible and the infrared image. Every picture leads to its frame."
      : `${methods[method]} against ${methods[versus]}, whose image is below, beside the visible one.`;
  find("#worst-head").textContent = versus === null ? "Worst" : "Loses most";
  find("#best-head").textContent = versus === null ? "Best" : "Gains most";
  const none = () => make("p", {}, versus === null ? "No frame has a value." : "No frame.");
  find("#worst").replaceChildren(...(worst.length ? worst.map((one) => card(one, metric, method, versus)) : [none()]));
  find("#best").replaceChildren(...(best.length ? best.map((one) => card(one, metric, method, versus)) : [none()]));
}

find("#find").addEventListener("input", (event) => {
  const wanted = event.target.value.toLowerCase();
  let count = 0;
  all("#frames li").forEach((item, frame) => {
    item.hidden = !frames[frame].toLowerCase().includes(wanted);
    count += !item.hidden;
  });
  find("#found").textContent = wanted ? `${count} of ${frames.length}` : "";
});

if (find("#extremes")) {
  metrics.forEach((_, metric) => option(find("#by-metric"), metric, label(metric)));
  methods.forEach((name, method) => option(find("#by-method"), method, name));
  if (report.compared) {
    option(find("#versus"), "", "its value");
    methods.forEach((name, method) => option(find("#versus"), method, `difference to ${name}`));
  }
  for (const select of all("#extremes select")) select.addEventListener("change", drawExtremes);
  drawExtremes();
}
if (report.compared) {
  option(find("#rank-metric"), "all", `all ${metrics.length} metrics`);
  metrics.forEach((_, metric) => option(find("#rank-metric"), metric, label(metric)));
  methods.forEach((name, method) => option(find("#baseline"), method, name));
  find("#baseline").value = report.baseline;
  find("#rank-metric").addEventListener("change", drawRanks);
  find("#baseline").addEventListener("change", drawDifferences);
  drawLegend();
  drawRanks();
  let width = document.body.clientWidth;
  new ResizeObserver(() => {
    if (document.body.clientWidth === width) return;
    width = document.body.clientWidth;
    drawRanks();
    drawProfile();
  }).observe(document.body);
}
pick(); // a browser may have kept the choices of an earlier visit
