// Draws the figures of a report; all numbers come from the JSON element beside it.
"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  // As many as a figure has series at most, so that no two look alike.
  const colours = [
    "#2a78b8", "#d1741a", "#3a9a62", "#8b4fa8", "#b23a48", "#6b7785", "#18a0a6", "#a98f00", "#d56aa5", "#7b5b3c", "#4d52c6",
  ];
  const style = getComputedStyle(document.documentElement);
  const ink = style.getPropertyValue("--soft").trim();
  const line = style.getPropertyValue("--line").trim();
  // From few to many: many stand out from the page.
  const shades = ["#dbe9f4", "#7fb3d5", "#2a78b8", "#123a5e"];
  const dark = matchMedia("(prefers-color-scheme: dark)").matches;
  const axis = (name, more) => ({
    name, nameLocation: "middle", nameGap: 30, axisLabel: { color: ink, hideOverlap: true }, nameTextStyle: { color: ink },
    axisLine: { lineStyle: { color: line } }, splitLine: { lineStyle: { color: line } }, ...more,
  });
  // Names of series stand in as many rows as they need; beyond three they are turned over.
  const ROW = 20, ACROSS = 430;
  const base = (name, named = []) => {
    const rows = Math.ceil(named.reduce((across, n) => across + 30 + 7 * n.length, 0) / ACROSS) || 1;
    return { ...plain(name), grid: { left: 74, right: 30, top: 14 + ROW * Math.min(rows, 3), bottom: 46 },
      legend: { type: rows > 3 ? "scroll" : "plain", icon: "roundRect", itemWidth: 14, itemHeight: 4, itemGap: 12, top: 0, left: 0, width: "88%",
        textStyle: { color: ink }, pageTextStyle: { color: ink }, pageIconColor: ink, pageIconInactiveColor: line } };
  };
  const widened = (option) => ({ ...option, grid: { ...option.grid, left: 90 } });  // room for numbers of many digits
  const plain = (name) => ({
    color: colours, animation: false,
    toolbox: { right: 0, top: -6, feature: { saveAsImage: { type: "svg", name, title: "Save as SVG" } } },
  });
  const ms = (value) => (value === null || value === undefined ? "–" : `${Number(value.toPrecision(4))} ms`);
  // Of an axis of cells only those get a label that are the first above a round number, and then that number.
  const rounded = (values, round) => {
    const rounds = values.map(round);
    const first = (i) => i > 0 && rounds[i] !== rounds[i - 1];
    return { interval: first, formatter: (_, i) => Number(rounds[i].toPrecision(6)).toLocaleString("en") };
  };
  const decade = (ms) => 10 ** Math.floor(Math.log10(ms) + 1e-9);
  const halfDecade = (ms) => (ms / decade(ms) < 3 ? 1 : 3) * decade(ms);
  const stepOf = (span) => [1, 2, 5, 10].map((n) => n * 10 ** Math.floor(Math.log10(span / 5))).find((step) => span / step <= 6);
  const trace = (name, points) => ({ name, type: "line", data: points, showSymbol: points.length < 2, lineStyle: { width: 1.6 } });

  const lines = (across, up, named, file, more) => ({
    ...base(file, named.map(([name]) => name)),
    tooltip: { trigger: "axis", valueFormatter: (v) => (v === undefined ? "–" : Number(v.toPrecision(4))) },
    xAxis: axis(across, { type: "value", min: "dataMin" }),
    yAxis: axis(up, { type: "value", min: 0, nameGap: 48, ...more }),
    series: named.map(([name, points]) => trace(name, points)),
  });

  const draw = {
    cdf(run) {
      const hops = Object.entries(run.cdf).filter(([, points]) => points.length);
      // A logarithmic axis has no room for what is not above zero: then the axis is linear and shows it.
      const log = hops.every(([, points]) => points[0][0] > 0);
      return {
        ...base("distribution", hops.map(([hop]) => data.titles[hop] ?? hop)),
        tooltip: {
          trigger: "axis",
          axisPointer: { type: "line" },
          formatter: (near) => near.map((p) => `${p.seriesName}: ${Number((p.value[1] * 100).toPrecision(6))} % within ${ms(p.value[0])}`).join("<br>"),
        },
        xAxis: axis("delay (ms)", { type: log ? "log" : "value" }),
        yAxis: axis("share of messages", { type: "value", min: 0, max: 1, nameGap: 48 }),
        series: hops.map(([hop, points]) => trace(data.titles[hop] ?? hop, points)),
      };
    },
    percentiles(run) {
      const { seconds, ...lines } = run.percentiles;
      if (!seconds) return null;
      const log = Object.values(lines).flat().every((value) => value === null || value > 0);
      return {
        ...base("percentiles", Object.keys(lines)),
        tooltip: { trigger: "axis", valueFormatter: ms },
        xAxis: axis("s since the first message", { type: "value" }),
        yAxis: axis("end to end (ms)", { type: log ? "log" : "value", nameGap: 48 }),
        series: Object.entries(lines).map(([name, values]) => trace(name, values.map((v, i) => [seconds[i], v]))),
      };
    },
    heat(run) {
      const heat = run.heat;
      if (!heat) return null;
      const step = stepOf(heat.seconds[heat.seconds.length - 1] || 1);
      const most = heat.cells.reduce((top, cell) => Math.max(top, cell[2]), 1);
      return {
        ...plain("heat-map"),
        grid: { left: 74, right: 30, top: 34, bottom: 46 },
        toolbox: { right: 0, top: -6, feature: { saveAsImage: { name: "heat-map", title: "Save as PNG", pixelRatio: 3 } } },
        tooltip: { formatter: (p) => `${heat.cells[p.dataIndex][2]} messages at ${heat.seconds[p.value[0]]} s, about ${ms(heat.ms[p.value[1]])}` },
        xAxis: axis("s since the first message", { type: "category", data: heat.seconds, axisLabel: { color: ink, ...rounded(heat.seconds, (s) => Math.floor(s / step) * step) } }),
        yAxis: axis("end to end (ms)", { type: "category", data: heat.ms, nameGap: 48, axisLabel: { color: ink, ...rounded(heat.ms, halfDecade) } }),
        visualMap: {
          min: 0, max: Math.log10(most) || 1, show: most > 1, dimension: 2, orient: "horizontal", top: 0, left: 74, itemWidth: 10, itemHeight: 110,
          text: [`${most.toLocaleString("en")} messages`, "1"], textStyle: { color: ink }, hoverLink: false,
          inRange: { color: most === 1 ? shades.slice(2, 3) : dark ? shades.toReversed() : shades },
        },
        series: [{ type: "heatmap", data: heat.cells.map(([x, y, n]) => [x, y, Math.log10(n)]), progressive: 0 }],
      };
    },
    drops(plot) {
      return {
        ...base(`drops-qos-${plot.qos}`, Object.keys(plot.places)),
        tooltip: { trigger: "axis", valueFormatter: (share) => `${Number((100 * share).toPrecision(4))} %` },
        xAxis: axis("", { type: "category", data: plot.names, axisLabel: { color: ink, interval: 0, width: 110, overflow: "break" } }),
        yAxis: axis("share of deliveries", { type: "value", min: 0, nameGap: 48 }),
        series: Object.entries(plot.places).map(([name, shares]) => ({ name, type: "bar", stack: "lost", barMaxWidth: 60, data: shares })),
      };
    },
    rates(run) {
      const { seconds, ...lines } = run.rates;
      if (!seconds) return null;
      return {
        ...widened(base("rates", Object.keys(lines).map((name) => name.replace("_", " ")))),
        tooltip: { trigger: "axis" },
        xAxis: axis("s since the first message", { type: "value" }),
        yAxis: axis("messages/s", { type: "value", min: 0, nameGap: 64 }),
        series: Object.entries(lines).map(([name, values]) => trace(name.replace("_", " "), values.map((v, i) => [seconds[i], v]))),
      };
    },
    validation(run, name) {
      return lines("ms", "share", Object.entries(run.model.validation[name]), "validation", { max: 1 });
    },
    transient(run) {
      const { at, places } = run.model.transient;
      const named = Object.entries(places).map(([place, values]) => [place, values.map((v, i) => [at[i], v])]);
      return lines("ms", "probability", named, "places-over-time", { max: 1 });
    },
    density(run, name) {
      const found = run.model.fits[name];
      return lines("ms", "density (1/ms)", [["measured", found.density], ...found.fits.map((f) => [f.family, f.density])], "density");
    },
    fitted(run, name) {
      const found = run.model.fits[name];
      return lines("ms", "share", [["measured", found.cdf], ...found.fits.map((f) => [f.family, f.cdf])], "fits", { max: 1 });
    },
    qq(run, name) {
      const found = run.model.fits[name];
      const ends = [found.cdf[0][0], found.cdf[found.cdf.length - 1][0]];
      const equal = ["equal", ends.map((v) => [v, v])];
      return lines("fitted (ms)", "measured (ms)", [equal, ...found.fits.map((f) => [f.family, f.qq])], "quantiles");
    },
  };

  const ofNodes = (run, figure, name, unit) => {
    const spent = run.resources;
    if (!spent || !spent.nodes) return null;
    return {
      ...base(figure, Object.keys(spent.nodes)),
      tooltip: { trigger: "axis" },
      xAxis: axis("s since the start", { type: "value" }),
      yAxis: axis(name, { type: "value", min: 0, nameGap: 48 }),
      series: Object.entries(spent.nodes).map(([node, figures]) =>
        trace(node, (figures[figure] || []).map((v, i) => [spent.seconds[i], v === null ? null : v / unit]))),
    };
  };
  draw.cpu = (run) => ofNodes(run, "cpu_cores", "busy cores", 1);
  draw.network = (run) => ofNodes(run, "sent_bytes_per_s", "Mbit/s", 125e3);

  const charts = [];
  const show = (element) => {
    const of = element.dataset.kind === "drops" ? data.drops : data.runs;
    const option = draw[element.dataset.kind](of[Number(element.dataset.run)], element.dataset.name);
    if (!option) {
      element.textContent = "nothing to show";
      element.style.height = "auto";
      return;
    }
    // Thousands of cells are too much for SVG.
    const chart = echarts.init(element, null, { renderer: element.dataset.kind === "heat" ? "canvas" : "svg" });
    chart.setOption(option);
    charts.push(chart);
  };
  // Reports of many runs draw what comes into view; paper has all in view.
  const waiting = new Set(document.querySelectorAll(".chart"));
  const reach = (element) => {
    watcher.unobserve(element);
    if (waiting.delete(element)) show(element);
  };
  const watcher = new IntersectionObserver((entries) => {
    for (const entry of entries.filter((e) => e.isIntersecting)) reach(entry.target);
  }, { rootMargin: "300px" });
  waiting.forEach((element) => watcher.observe(element));
  window.addEventListener("beforeprint", () => waiting.forEach(reach));
  window.addEventListener("resize", () => charts.forEach((chart) => chart.resize()));
  document.documentElement.dataset.ready = "yes";
})();
