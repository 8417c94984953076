// Draws the answer of a panel. Every text goes into the page as text (textContent, canvas), never as markup.
"use strict";
window.aitrail = (() => {
  const NONE = "(none)";
  const DAYS = ["", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];
  const LIGHT = ["#3b5bdb", "#0c8f6f", "#c96f00", "#a33bc2", "#0e87a0", "#d6336c", "#5f9a0a", "#7a8694"];
  const DARK = ["#8ea6ff", "#4fd1ab", "#f5b04a", "#d58bf0", "#57c7de", "#ff8db4", "#a6d84f", "#a3afbd"];
  // Words that mean the same everywhere have the same colour everywhere.
  const TONES = {
    success: "ok", ok: "ok", clean: "ok", allowed: "ok", refused: "ok",
    blocked: "warn", denied: "warn2", throttled: "warn3", suspicious: "warn", medium: "warn", flagged: "warn3", masked: "warn3",
    late: "warn", error: "bad", failed: "bad", failing: "bad", high: "bad", critical: "bad", answered: "bad", unknown: "none", other: "none",
  };
  const TONE_COLORS = {
    light: { ok: "#2b9a66", warn: "#d99a14", warn2: "#c96f00", warn3: "#8d7bd6", bad: "#d33c3c", none: "#8b97a6" },
    dark: { ok: "#58c98f", warn: "#e7b549", warn2: "#f0914a", warn3: "#a99bf0", bad: "#ff7a70", none: "#8794a5" },
  };
  const BADGES = {
    success: "ok", ok: "ok", clean: "ok", blocked: "warn", denied: "warn", throttled: "warn", suspicious: "warn", medium: "warn", late: "warn",
    error: "bad", failing: "bad", high: "bad", critical: "bad", prompt_injection: "bad", jailbreak: "bad", prompt_extraction: "bad",
    secret: "bad", financial: "bad", mixed: "bad", pii: "warn",
  };

  const dark = () => {
    const chosen = document.documentElement.dataset.theme;
    return chosen ? chosen === "dark" : window.matchMedia("(prefers-color-scheme: dark)").matches;
  };
  const css = (name) => window.getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const element = (name, attributes = {}, ...children) => {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) {
      if (value !== null && value !== undefined && value !== false) made.setAttribute(key, value === true ? "" : value);
    }
    made.append(...children.filter((child) => child !== null && child !== undefined));
    return made;
  };

  // --- values as people read them
  const short = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });
  const exact = new Intl.NumberFormat("en", { maximumFractionDigits: 2 });
  function number(value, unit, brief = false) {
    if (value === null || value === undefined || value === "") return "–";
    if (typeof value !== "number") return String(value);
    if (unit === "%") return `${exact.format(Math.round(value * 1000) / 10)} %`;
    if (unit === "USD") return value !== 0 && Math.abs(value) < 1 ? `$${brief ? Number(value.toPrecision(2)) : value.toFixed(4)}` : `$${brief && value >= 1e4 ? short.format(value) : exact.format(Math.round(value * 100) / 100)}`;
    if (unit === "s") return seconds(value);
    if (unit === "ms" && Math.abs(value) >= 10000) return `${exact.format(Math.round(value / 100) / 10)} s`;
    const text = brief && Math.abs(value) >= 1e4 ? short.format(value) : exact.format(unit === "ms" && Math.abs(value) >= 10 ? Math.round(value) : value);
    return unit === "ms" ? `${text} ms` : text;
  }
  function seconds(value) {
    for (const [size, name] of [[86400, "d"], [3600, "h"], [60, "min"]]) {
      if (Math.abs(value) >= size) return `${exact.format(Math.round((value / size) * 10) / 10)} ${name}`;
    }
    return `${exact.format(Math.round(value * 10) / 10)} s`;
  }
  const two = (value) => String(value).padStart(2, "0");
  function moment(milliseconds, bucket) {
    const at = new Date(milliseconds);
    const day = `${at.getUTCFullYear()}-${two(at.getUTCMonth() + 1)}-${two(at.getUTCDate())}`;
    return bucket && bucket % 86400000 === 0 ? day : `${day} ${two(at.getUTCHours())}:${two(at.getUTCMinutes())}`;
  }
  const iso = (milliseconds) => new Date(milliseconds).toISOString().replace(".000Z", "").replace("Z", "");
  function shownAs(column, value) {
    if (column.role === "value") return number(value, column.unit);
    if (column.role === "time") return moment(value);
    if (column.role === "hour") return `${two(value)}:00`;
    if (column.role === "day") return DAYS[value] || String(value);
    if (column.role === "dimension") return value === "" || value === null ? NONE : String(value);
    if (typeof value === "number") return number(value, column.unit);
    if (typeof value === "boolean") return value ? "yes" : "no";
    return value === null || value === undefined ? "" : String(value);
  }

  // --- where a mark leads
  function target(answer, row, options = {}) {
    if (row && answer.columns.length && answer.columns[0].role === "id") return answer.item + row[0];
    if (!answer.link) return "";
    const url = new URL(answer.link, window.location.origin);
    const lone = answer.link.startsWith("/board/");
    answer.columns.forEach((column, place) => {
      const value = row ? row[place] : null;
      if (value === null || value === undefined || lone) return;
      if (column.role === "time") range(url, answer, value);
      else if (column.role === "hour") url.searchParams.set("hour_of_day", value);
      else if (column.role === "day") url.searchParams.set("day_of_week", value);
      else if (column.role === "dimension" && answer.fields.includes(column.name) && !(options.skip || []).includes(column.name)) {
        url.searchParams.set(answer.carry[answer.fields.indexOf(column.name)], answer.raws[value] || value || NONE);
      }
    });
    if (options.time !== undefined) range(url, answer, options.time);
    if (options.value && answer.valued.includes(options.value)) url.searchParams.set("value", options.value);
    return url.pathname + url.search;
  }
  function range(url, answer, start) {
    url.searchParams.delete("range");
    url.searchParams.set("since", iso(answer.since === null ? start : Math.max(start, answer.since)));
    const end = start + answer.bucket;
    url.searchParams.set("until", iso(answer.until === null ? end : Math.min(end, answer.until)));
  }
  const follow = (url) => {
    if (url) window.location.assign(url);
  };

  // --- what the rows are
  const places = (answer, role) => answer.columns.map((column, place) => (column.role === role ? place : -1)).filter((place) => place >= 0);
  const placeOf = (answer, name) => answer.columns.findIndex((column) => column.name === name);
  const label = (answer, row, dims) => dims.map((place) => shownAs(answer.columns[place], row[place])).join(" · ");

  function colorOf(name, place) {
    const tone = TONES[name];
    const mode = dark() ? "dark" : "light";
    if (tone) return TONE_COLORS[mode][tone];
    const palette = dark() ? DARK : LIGHT;
    return palette[place % palette.length];
  }

  function buckets(answer, seen) {
    const width = answer.bucket;
    let first = answer.since === null ? Math.min(...seen) : Math.floor(answer.since / width) * width;
    const last = answer.until === null ? Math.max(...seen) : answer.until - 1;
    // A range that is mostly before the first event shows from a little before that.
    const begun = Math.min(...seen);
    if (begun - first > (last - begun) * 3) first = Math.max(first, begun - width * 3);
    const found = [];
    for (let at = first; at <= last && found.length < 500; at += width) found.push(at);
    return found;
  }

  function course(answer) {
    // Series over time: one per value of the dimension, or one per number when there is none.
    const time = places(answer, "time")[0];
    const dims = places(answer, "dimension");
    const values = places(answer, "value");
    const axis = buckets(answer, answer.rows.map((row) => row[time]));
    const at = new Map(axis.map((moment, place) => [moment, place]));
    const additive = answer.columns[values[0]].unit !== "ms";
    const series = new Map();
    const put = (key, row, value, unit, name) => {
      if (!series.has(key)) series.set(key, { key, name, unit, row, data: new Array(axis.length).fill(additive ? 0 : null), total: 0 });
      const one = series.get(key);
      const place = at.get(row[time]);
      if (place !== undefined) one.data[place] = value;
      one.total += value || 0;
    };
    const main = Math.max(placeOf(answer, answer.value), values[0]);
    for (const row of answer.rows) {
      if (dims.length) {
        const key = label(answer, row, dims);
        put(key, row, row[main], answer.columns[main].unit, key);
      } else {
        for (const place of values) put(answer.columns[place].name, row, row[place], answer.columns[place].unit, answer.columns[place].label);
      }
    }
    const found = [...series.values()];
    if (dims.length) found.sort((one, other) => other.total - one.total);
    return { axis, series: found, dims };
  }

  // --- charts
  function base() {
    const soft = css("--soft");
    return {
      animation: false,
      useUTC: true,
      textStyle: { fontFamily: window.getComputedStyle(document.body).fontFamily, color: soft },
      grid: { left: 6, right: 12, top: 12, bottom: 4, outerBoundsMode: "same", outerBoundsContain: "axisLabel" },
      tooltip: {
        // Drawn on the canvas: a tooltip of HTML would need inline styles, and would be markup.
        renderMode: "richText", confine: true, backgroundColor: css("--card"), borderColor: css("--strong-line"), borderWidth: 1,
        textStyle: { color: css("--ink"), fontSize: 12 }, padding: [8, 10],
      },
      aria: { enabled: false },
    };
  }
  const axisStyle = () => ({
    axisLine: { lineStyle: { color: css("--strong-line") } }, axisTick: { show: false },
    axisLabel: { color: css("--soft"), fontSize: 11, hideOverlap: true }, splitLine: { lineStyle: { color: css("--line") } },
  });
  const brief = (name) => plain(name.length > 30 ? `${name.slice(0, 29)}…` : name);
  const legend = (names) => ({
    type: "scroll", top: 0, left: 0, right: 0, itemWidth: 9, itemHeight: 9, icon: "roundRect", itemGap: 12, data: names,
    textStyle: { color: css("--soft"), fontSize: 11.5, lineHeight: 17 }, padding: [4, 0], formatter: brief,
    pageIconColor: css("--accent"), pageIconInactiveColor: css("--line"), pageTextStyle: { color: css("--soft") }, tooltip: { show: true },
  });
  function timeLabels(axis, bucket) {
    const days = axis.length ? (axis[axis.length - 1] - axis[0]) / 86400000 : 0;
    return axis.map((at) => {
      const text = moment(at, bucket);
      if (bucket % 86400000 === 0) return text.slice(5);
      return days > 1 ? text.slice(5) : text.slice(11);
    });
  }

  function timeChart(answer) {
    const { axis, series, dims } = course(answer);
    const option = base();
    const several = series.length > 1;
    const columns = answer.form === "column";
    if (several) {
      option.legend = legend(series.map((one) => one.name));
      option.grid.top = 34;
    }
    option.xAxis = { type: "category", data: timeLabels(axis, answer.bucket), boundaryGap: columns, ...axisStyle(), splitLine: { show: false } };
    option.yAxis = { type: "value", ...axisStyle(), axisLine: { show: false }, splitNumber: 4, minInterval: series[0].unit ? 0 : 1, axisLabel: { ...axisStyle().axisLabel, formatter: (value) => number(value, series[0].unit, true) } };
    option.tooltip.trigger = "axis";
    option.tooltip.axisPointer = { type: columns ? "shadow" : "line", lineStyle: { color: css("--strong-line") }, shadowStyle: { color: dark() ? "rgba(255,255,255,.06)" : "rgba(20,30,50,.06)" } };
    option.tooltip.formatter = (marks) => {
      const lines = marks.filter((mark) => mark.value).sort((one, other) => other.value - one.value).slice(0, 10);
      const head = `${moment(axis[marks[0].dataIndex], answer.bucket)} UTC`;
      return [head, ...lines.map((mark) => `${plain(mark.seriesName)}: ${number(mark.value, series[0].unit)}`)].join("\n");
    };
    option.series = series.map((one, place) => ({
      name: one.name, data: one.data, type: columns ? "bar" : "line", stack: answer.stacked ? "all" : undefined,
      color: colorOf(one.key, place), symbol: "circle", showSymbol: !columns && one.data.filter((value) => value !== null).length < 3, symbolSize: 6, connectNulls: true, lineStyle: { width: answer.form === "area" && answer.stacked ? 1 : 2 },
      areaStyle: answer.form === "area" ? { opacity: answer.stacked ? 0.55 : 0.18 } : undefined, barMaxWidth: 26, barCategoryGap: "18%", emphasis: { focus: "series" },
    }));
    const marks = { axis, pick: (index, seriesIndex) => {
      const one = seriesIndex === undefined ? null : series[seriesIndex];
      const row = one && dims.length ? one.row.map((value, place) => (answer.columns[place].role === "dimension" ? value : null)) : null;
      return target(answer, row, { time: axis[index], value: one && !dims.length ? one.key : "" });
    } };
    return { option, marks };
  }
  // Braces would start a style of rich text.
  const plain = (text) => String(text).replace(/[{}|]/g, (char) => ({ "{": "❴", "}": "❵", "|": "❘" })[char]);

  function barChart(answer) {
    const dims = places(answer, "dimension");
    const main = Math.max(placeOf(answer, answer.value), places(answer, "value")[0]);
    const rows = [...answer.rows].sort((one, other) => (one[main] || 0) - (other[main] || 0));
    const option = base();
    const unit = answer.columns[main].unit;
    option.grid.right = 48;
    option.xAxis = { type: "value", ...axisStyle(), axisLine: { show: false }, splitNumber: 3, minInterval: unit ? 0 : 1, axisLabel: { ...axisStyle().axisLabel, formatter: (value) => number(value, unit, true) } };
    option.yAxis = { type: "category", data: rows.map((row) => label(answer, row, dims)), ...axisStyle(), axisLabel: { ...axisStyle().axisLabel, color: css("--ink"), width: 150, overflow: "truncate", formatter: plain } };
    option.tooltip.trigger = "item";
    option.tooltip.formatter = (mark) => details(answer, rows[mark.dataIndex]);
    option.series = [{
      type: "bar", barMaxWidth: 20, data: rows.map((row) => ({ value: row[main], itemStyle: { color: TONES[row[dims[0]]] ? colorOf(row[dims[0]], 0) : colorOf("", 0), borderRadius: [0, 4, 4, 0] } })),
      label: { show: true, position: "right", color: css("--soft"), fontSize: 11, formatter: (mark) => number(mark.value, unit, true) },
    }];
    return { option, marks: { pick: (index) => target(answer, rows[index]) } };
  }
  function details(answer, row) {
    return answer.columns.map((column, place) => (column.role === "id" ? "" : `${plain(column.label)}: ${plain(shownAs(column, row[place]))}`)).filter(Boolean).join("\n");
  }

  function pieChart(answer) {
    const dims = places(answer, "dimension");
    const main = Math.max(placeOf(answer, answer.value), places(answer, "value")[0]);
    const option = base();
    const total = answer.rows.reduce((sum, row) => sum + (row[main] || 0), 0) || 1;
    const shares = new Map(answer.rows.map((row) => [label(answer, row, dims), (row[main] || 0) / total]));
    option.legend = {
      ...legend(), orient: "vertical", left: "56%", right: 0, top: "middle", itemGap: 10,
      formatter: (name) => `${plain(name)}  ${exact.format(Math.round(shares.get(name) * 1000) / 10)} %`, textStyle: { color: css("--ink"), fontSize: 12, width: 150, overflow: "truncate" },
    };
    option.tooltip.trigger = "item";
    option.tooltip.formatter = (mark) => details(answer, answer.rows[mark.dataIndex]);
    option.series = [{
      type: "pie", radius: ["46%", "70%"], center: ["28%", "50%"], itemStyle: { borderColor: css("--card"), borderWidth: 2 }, minAngle: 3, label: { show: false },
      data: answer.rows.map((row, place) => ({ name: label(answer, row, dims), value: row[main], itemStyle: { color: colorOf(row[dims[0]], place) } })),
    }];
    return { option, marks: { pick: (index) => target(answer, answer.rows[index]) } };
  }

  function heatChart(answer) {
    const [hour] = places(answer, "hour");
    const [day] = places(answer, "day");
    const dims = places(answer, "dimension");
    const main = Math.max(placeOf(answer, answer.value), places(answer, "value")[0]);
    const x = hour !== undefined ? hour : day !== undefined && dims.length ? day : dims[1];
    const y = hour !== undefined && day !== undefined ? day : dims[0];
    const keys = (place, fallback) => fallback || [...new Set(answer.rows.map((row) => row[place]))];
    const xs = keys(x, answer.columns[x].role === "hour" ? [...Array(24).keys()] : null);
    const ys = y === undefined ? [null] : keys(y, answer.columns[y].role === "day" ? [7, 6, 5, 4, 3, 2, 1] : null).reverse();
    const rows = answer.rows;
    const option = base();
    const most = Math.max(...rows.map((row) => row[main] || 0), 1);
    option.grid = { ...option.grid, right: 8, top: 6 };
    option.xAxis = { type: "category", data: xs.map((value) => (answer.columns[x].role === "hour" ? two(value) : shownAs(answer.columns[x], value))), ...axisStyle(), axisLine: { show: false }, splitArea: { show: false } };
    option.yAxis = { type: "category", data: ys.map((value) => (y === undefined ? "" : shownAs(answer.columns[y], value))), ...axisStyle(), axisLine: { show: false }, axisLabel: { ...axisStyle().axisLabel, color: css("--ink"), width: 130, overflow: "truncate", formatter: plain } };
    option.visualMap = { show: false, min: 0, max: most, inRange: { color: dark() ? ["#1b2740", "#2f4a8f", "#5f80e6", "#b3c4ff"] : ["#edf1fd", "#bccafa", "#6d87ea", "#2b46b8"] } };
    option.tooltip.trigger = "item";
    option.tooltip.formatter = (mark) => details(answer, rows[mark.dataIndex]);
    option.series = [{
      type: "heatmap", data: rows.map((row) => [xs.indexOf(row[x]), y === undefined ? 0 : ys.indexOf(row[y]), row[main]]),
      itemStyle: { borderColor: css("--card"), borderWidth: 2, borderRadius: 3 }, emphasis: { itemStyle: { borderColor: css("--accent") } },
    }];
    return { option, marks: { pick: (index) => target(answer, rows[index]) } };
  }

  function sankeyChart(answer) {
    const dims = places(answer, "dimension");
    const main = Math.max(placeOf(answer, answer.value), places(answer, "value")[0]);
    const option = base();
    const nodes = new Map();
    const node = (row, side) => {
      // The same word on both sides is two things.
      const name = `${side} ${shownAs(answer.columns[dims[side]], row[dims[side]])}`;
      if (!nodes.has(name)) nodes.set(name, { name, side, value: row[dims[side]], itemStyle: { color: colorOf(side ? "" : row[dims[0]], side ? 7 : nodes.size) } });
      return name;
    };
    const links = answer.rows.filter((row) => row[main] > 0).map((row) => ({ source: node(row, 0), target: node(row, 1), value: row[main], row }));
    option.tooltip.trigger = "item";
    option.tooltip.formatter = (mark) => (mark.dataType === "edge" ? details(answer, mark.data.row) : `${plain(mark.name.slice(2))}: ${number(mark.value, answer.columns[main].unit)}`);
    option.series = [{
      type: "sankey", left: 2, right: 150, top: 8, bottom: 8, nodeWidth: 12, nodeGap: 9, draggable: false, layoutIterations: 32, data: [...nodes.values()], links,
      label: { color: css("--ink"), fontSize: 11.5, width: 140, overflow: "truncate", formatter: (mark) => plain(mark.name.slice(2)) },
      lineStyle: { color: "source", opacity: dark() ? 0.35 : 0.28, curveness: 0.5 }, emphasis: { focus: "adjacency" },
    }];
    const marks = { pick: (index, series, event) => {
      if (event && event.dataType === "edge") return target(answer, event.data.row);
      const side = event ? event.data.side : 0;
      const row = answer.columns.map((column, place) => (place === dims[side] ? event.data.value : null));
      return target(answer, row);
    } };
    return { option, marks };
  }

  const CHARTS = { line: timeChart, area: timeChart, column: timeChart, bar: barChart, pie: pieChart, heatmap: heatChart, sankey: sankeyChart };

  function chart(answer, body, title) {
    const time = places(answer, "time").length > 0;
    const make = ["line", "area", "column"].includes(answer.form) && !time ? barChart : CHARTS[answer.form];
    const summary = `${title}. ${answer.rows.length} rows; the button above shows them as a table.`;
    const box = element("div", { class: "chart", role: "img", "aria-label": summary });
    body.replaceChildren(box);
    const drawn = window.echarts.init(box, null, { renderer: "canvas" });
    const { option, marks } = make(answer);
    drawn.setOption(option);
    let handled = false;
    drawn.on("click", (event) => {
      if (event.componentType !== "series") return;
      handled = true;
      follow(marks.pick(event.dataIndex, event.seriesIndex, event));
    });
    if (marks.axis) {
      // Anywhere in the plot: the time under the pointer.
      drawn.getZr().on("click", (event) => {
        window.queueMicrotask(() => {
          if (handled || !drawn.containPixel("grid", [event.offsetX, event.offsetY])) return;
          const index = Math.round(drawn.convertFromPixel({ xAxisIndex: 0 }, event.offsetX));
          if (index >= 0 && index < marks.axis.length) follow(marks.pick(index));
        });
      });
    }
    if (answer.link) box.classList.add("linked");
    return drawn;
  }

  // --- numbers, tables
  function single(answer, body) {
    const place = Math.max(placeOf(answer, answer.value), places(answer, "value")[0]);
    const unit = answer.columns[place].unit;
    const value = answer.rows.length ? answer.rows[0][place] : null;
    const link = target(answer, null, { value: answer.value });
    const figure = element(link ? "a" : "b", { href: link || null, class: judged(answer, value) }, number(value, unit, true));
    figure.title = number(value, unit);
    const line = element("p", { class: "number" }, figure, delta(answer, value, unit));
    const parts = [line];
    const spark = sparkline(answer);
    if (value === null || (!value && unit !== "%")) parts.push(element("p", { class: "state" }, answer.empty));
    else if (spark) parts.push(spark);
    body.replaceChildren(...parts);
  }
  function judged(answer, value) {
    if (value === null || !answer.thresholds.length) return null;
    const [warn, bad] = answer.thresholds;
    if (answer.tone === "good_high") return value < bad ? "bad" : value < warn ? "warn" : "ok";
    return bad !== undefined && value >= bad ? "bad" : value >= warn ? "warn" : "ok";
  }
  function delta(answer, value, unit) {
    const before = answer.before;
    if (answer.present || !before || value === null) return null;
    const change = value - before;
    if (!change) return element("span", { class: "delta" }, "as before");
    const better = (change < 0) === (answer.tone === "good_low");
    const arrow = change > 0 ? "▲" : "▼";
    const size = unit === "%" ? `${exact.format(Math.abs(Math.round(change * 1000) / 10))} points` : `${exact.format(Math.round(Math.abs(change / before) * 100))} %`;
    const made = element("span", { class: `delta ${answer.tone ? (better ? "ok" : "bad") : ""}` }, `${arrow} ${size}`);
    made.title = `${number(before, unit)} in the range before`;
    return made;
  }
  function sparkline(answer) {
    const columns = answer.trend.columns;
    const place = columns.indexOf(answer.value);
    const time = columns.indexOf("time");
    if (place < 0 || time < 0 || !answer.trend.rows.length || !answer.bucket) return null;
    const at = new Map(answer.trend.rows.map((row) => [row[time], row[place] || 0]));
    const points = buckets(answer, [...at.keys()]).map((moment) => at.get(moment) || 0);
    if (points.length < 2) return null;
    const most = Math.max(...points) || 1;
    const path = points.map((value, index) => `${((index / (points.length - 1)) * 100).toFixed(2)} ${(30 - (value / most) * 27).toFixed(2)}`).join(" L");
    const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    svg.setAttribute("viewBox", "0 0 100 31");
    svg.setAttribute("preserveAspectRatio", "none");
    svg.setAttribute("class", "spark");
    svg.setAttribute("aria-hidden", "true");
    for (const [name, shape] of [["fill", `M0 31 L${path} L100 31 Z`], ["course", `M${path}`]]) {
      const line = document.createElementNS("http://www.w3.org/2000/svg", "path");
      line.setAttribute("d", shape);
      line.setAttribute("class", name);
      svg.append(line);
    }
    return svg;
  }

  function cell(answer, column, value, main, most) {
    const numeric = column.role === "value" || (column.role === "field" && typeof value === "number");
    const text = shownAs(column, value);
    const still = column.kind === "time" || column.role === "time" || text.length <= 22;
    const made = element("td", { class: numeric ? "n" : still ? "t" : null });
    const tone = !numeric && BADGES[value];
    made.append(tone ? element("span", { class: `badge ${tone}` }, text) : element("bdi", { title: text.length > 60 ? text : null }, text));
    if (column.name === main && most > 0 && typeof value === "number") {
      made.classList.add("share");
      made.style.setProperty("--share", `${((value / most) * 100).toFixed(1)}%`);
    }
    return made;
  }
  function table(answer, body, title) {
    const columns = answer.columns.map((column, place) => ({ column, place })).filter((one) => one.column.role !== "id");
    const main = answer.form === "events" ? "" : answer.value;
    const sizes = answer.rows.map((row) => row[placeOf(answer, main)] || 0);
    // A bar in every cell says nothing when all are the same.
    const most = new Set(sizes).size > 1 ? Math.max(...sizes) : 0;
    const head = element("tr", {}, ...columns.map(({ column }) => element("th", { class: column.role === "value" ? "n" : null, scope: "col" }, column.label)));
    const rows = answer.rows.map((row) => {
      const link = target(answer, row);
      const cells = columns.map(({ column, place }) => cell(answer, column, row[place], main, most));
      if (link && cells.length) {
        const anchor = element("a", { href: link, class: "main" });
        anchor.append(...cells[0].childNodes);
        cells[0].append(anchor);
      }
      return element("tr", { class: link ? "go" : null }, ...cells);
    });
    const made = element("table", { class: "list" }, element("thead", {}, head), element("tbody", {}, ...rows));
    body.replaceChildren(element("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": title }, made));
  }
  function matrix(answer, body, title) {
    const dims = places(answer, "dimension");
    const main = Math.max(placeOf(answer, answer.value), places(answer, "value")[0]);
    if (dims.length < 2) {
      table(answer, body, title);
      return;
    }
    const sums = (place) => {
      const found = new Map();
      for (const row of answer.rows) found.set(row[place], (found.get(row[place]) || 0) + (row[main] || 0));
      return [...found.keys()].sort((one, other) => found.get(other) - found.get(one));
    };
    const [down, across] = [sums(dims[0]), sums(dims[1])];
    const at = new Map(answer.rows.map((row) => [JSON.stringify([row[dims[0]], row[dims[1]]]), row]));
    const most = Math.max(1, ...answer.rows.map((row) => row[main] || 0));
    const corner = element("th", { scope: "col" }, answer.columns[dims[0]].label);
    const head = element("tr", {}, corner, ...across.map((value) => element("th", { class: "n", scope: "col", title: shownAs(answer.columns[dims[1]], value) }, element("span", {}, shownAs(answer.columns[dims[1]], value)))));
    const rows = down.map((value) => element("tr", {}, element("th", { scope: "row" }, element("bdi", {}, shownAs(answer.columns[dims[0]], value))), ...across.map((other) => {
      const row = at.get(JSON.stringify([value, other]));
      if (!row) return element("td", { class: "n none" }, "·");
      const link = target(answer, row);
      const made = element("td", { class: "n cell" }, link ? element("a", { href: link }, number(row[main], answer.columns[main].unit, true)) : number(row[main], answer.columns[main].unit, true));
      made.style.setProperty("--share", `${Math.round(8 + 62 * Math.sqrt((row[main] || 0) / most))}%`);
      return made;
    })));
    const made = element("table", { class: "list matrix" }, element("thead", {}, head), element("tbody", {}, ...rows));
    body.replaceChildren(element("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": title }, made));
  }

  // --- a panel
  function draw(answer, body, title, asTable) {
    const values = places(answer, "value");
    if (answer.form === "single") {
      single(answer, body);
      return { state: "ready" };
    }
    const nothing = !answer.rows.length || (values.length > 0 && answer.form !== "table" && answer.rows.every((row) => values.every((place) => !row[place])));
    if (nothing) {
      body.replaceChildren(element("p", { class: "state" }, answer.empty));
      return { state: "empty" };
    }
    if (asTable || answer.form === "table" || answer.form === "events") table(answer, body, title);
    else if (answer.form === "matrix") matrix(answer, body, title);
    else return { state: "ready", chart: chart(answer, body, title) };
    return { state: "ready" };
  }
  return { draw, element };
})();
