// The flow of the last hours, of all or of one queue or pool: drawn by uPlot, gone on with as buckets are written, told as a table too.
"use strict";

(() => {
  const section = document.getElementById("flow");
  if (!section) return;
  const EVERY_MS = 15000;
  const HEIGHT = 180;
  const TABLE_ROWS = 12;
  const WHOLE_STEPS = [0, 1, 2, 3, 4, 5, 6].flatMap((power) => [1, 2, 5].map((step) => step * 10 ** power));
  const STACKED = { starts: "phases", ends: "outcomes" };
  const names = (plot) => [...plot.closest("figure").querySelectorAll("[data-series]")].map((item) => item.dataset.series);
  const plots = [...section.querySelectorAll("[data-chart]")];
  const swatch = (name) => section.querySelector(`.series-${name}`);

  let flow = null;      // all points that are drawn, as /flow tells them
  let length = 0;
  const charts = new Map();

  // -- colours: the sheet knows both themes; what it makes of them now is read from the page
  const colours = new Map();
  function colour(element, property) {
    const key = `${element.className}/${property}`;
    if (!colours.has(key)) colours.set(key, getComputedStyle(element)[property]);
    return colours.get(key);
  }
  const ofSeries = (name) => () => colour(swatch(name), "backgroundColor");
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    colours.clear();
    charts.forEach((chart) => chart.redraw());
  });

  // -- numbers as people say them
  const whole = (value) => (value == null ? "–" : Math.round(value).toLocaleString());
  function seconds(value) {
    if (value == null) return "–";
    if (value < 1) return `${Math.round(value * 1000)} ms`;
    return value < 60 ? `${value.toFixed(1)} s` : `${(value / 60).toFixed(1)} min`;
  }
  const said = (chart) => (chart === "starts" ? seconds : whole);

  // -- data: lines as they are; bars stacked, the sum of all first, so that each one covers the one beneath
  const valuesOf = (chart) => flow[STACKED[chart] ?? "gauges"];
  function dataOf(plot) {
    const chart = plot.dataset.chart;
    const values = valuesOf(chart);
    if (!STACKED[chart]) return [flow.at, ...names(plot).map((name) => values[name])];
    const sums = [];
    let beneath = flow.at.map(() => null);
    for (const name of names(plot)) {
      beneath = values[name].map((value, i) => (value == null ? beneath[i] : value + (beneath[i] ?? 0)));
      sums.unshift(beneath);
    }
    return [flow.at, ...sums];
  }

  function series(plot) {
    const chart = plot.dataset.chart;
    if (!STACKED[chart]) {
      return names(plot).map((name) => ({ label: name, stroke: ofSeries(name), width: 2, points: { show: false } }));
    }
    const paths = uPlot.paths.bars({ size: [1, 24] });
    return names(plot).reverse().map((name) => ({ label: name, fill: ofSeries(name), width: 0, paths, points: { show: false } }));
  }

  function options(plot) {
    const text = () => colour(plot, "color");
    const grid = { stroke: () => colour(plot, "borderTopColor"), width: 1 };
    const axis = { stroke: text, grid, ticks: grid };
    const say = said(plot.dataset.chart);
    return {
      width: plot.clientWidth,
      height: HEIGHT,
      legend: { show: false },
      cursor: { y: false, drag: { x: false, y: false }, points: { show: !STACKED[plot.dataset.chart] } },
      scales: {
        x: { range: () => [flow.at[0], flow.at[flow.at.length - 1] + flow.step_s] },
        y: { range: (_, __, highest) => [0, highest > 0 ? highest * 1.1 : 1] },
      },
      axes: [
        { ...axis, space: 70 },
        { ...axis, size: 62, incrs: say === whole ? WHOLE_STEPS : undefined, values: (_, ticks) => ticks.map(say) },
      ],
      series: [{}, ...series(plot)],
      hooks: { setCursor: [(chart) => tell(plot, chart.cursor.idx)] },
    };
  }

  /** Beside each name: the value beneath the pointer, or the newest that there is. */
  function tell(plot, index) {
    const values = valuesOf(plot.dataset.chart);
    for (const item of plot.closest("figure").querySelectorAll("[data-series]")) {
      const own = values[item.dataset.series];
      const value = index != null ? own[index] : own.findLast((one) => one != null);
      item.querySelector(".value").textContent = said(plot.dataset.chart)(value);
    }
  }

  function draw() {
    for (const plot of plots) {
      const chart = charts.get(plot);
      if (chart) {
        chart.setData(dataOf(plot), true);
      } else {
        const made = new uPlot(options(plot), dataOf(plot), plot);
        charts.set(plot, made);
        new ResizeObserver(() => made.setSize({ width: plot.clientWidth, height: HEIGHT })).observe(plot);
      }
      tell(plot, charts.get(plot).cursor.idx);
    }
    fillTable();
  }

  // -- the same for who cannot see it: a dozen stretches of time
  const shown = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit" });
  const sum = (values) => values.reduce((total, value) => total + (value ?? 0), 0);

  function fillTable() {
    const body = section.querySelector("tbody");
    const size = Math.ceil(flow.at.length / TABLE_ROWS);
    const rows = [];
    for (let first = 0; first < flow.at.length; first += size) rows.push(tableRow(first, first + size));
    body.replaceChildren(...rows);
  }

  function tableRow(first, end) {
    const row = document.createElement("tr");
    const head = row.appendChild(document.createElement("th"));
    head.scope = "row";
    head.textContent = shown.format(new Date(flow.at[first] * 1000));
    const ends = flow.at.slice(first, end).map((_, i) => sum(Object.values(flow.outcomes).map((one) => one[first + i])));
    for (const plot of plots) {
      for (const name of names(plot)) {
        const values = valuesOf(plot.dataset.chart)[name].slice(first, end);
        const cell = row.appendChild(document.createElement("td"));
        cell.className = "number";
        cell.textContent = said(plot.dataset.chart)(together(plot.dataset.chart, values, ends));
      }
    }
    return row;
  }

  /** The highest of jobs; the mean of starts, weighed by how many ended; the number of ends. */
  function together(chart, values, ends) {
    if (chart === "ends") return sum(values);
    const known = values.filter((value) => value != null);
    if (!known.length) return null;
    if (chart === "jobs") return Math.max(...known);
    const weights = values.map((value, i) => (value == null ? 0 : ends[i]));
    return sum(values.map((value, i) => (value ?? 0) * weights[i])) / (sum(weights) || 1);
  }

  // -- going on
  function take(news) {
    length = length || news.at.length;
    if (!flow) {
      flow = news;
      return;
    }
    const kept = flow.at.filter((at) => at < news.at[0]).length;
    const join = (old, more) => [...old.slice(0, kept), ...more].slice(-length);
    for (const kind of ["gauges", "phases", "outcomes"]) {
      for (const name of Object.keys(flow[kind])) flow[kind][name] = join(flow[kind][name], news[kind][name]);
    }
    flow.at = join(flow.at, news.at);
    flow.is_empty = news.is_empty;
  }

  async function look() {
    const after = flow ? `&after=${flow.at[flow.at.length - 1]}` : "";
    const answer = await fetch(section.dataset.flow + after, { headers: { Accept: "application/json" } });
    if (!answer.ok) return;
    const news = await answer.json();
    if (news.at.length) take(news);
    section.hidden = flow.is_empty;  // nothing ever happened: no empty panel
    if (!section.hidden) draw();
  }

  async function goOn() {
    try {
      if (!document.hidden) await look();
    } catch (error) {
      if (!(error instanceof TypeError)) throw error;  // the service is away: the page says so, and we come back
    } finally {
      setTimeout(goOn, EVERY_MS);
    }
  }

  goOn();
})();
