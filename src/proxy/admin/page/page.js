"use strict";
// The live page of the admin listener. Every name on it is chosen by strangers: text goes into the
// document as text only, and the policy of the document forbids everything else.

const SPAN = 60;             // Events remembered, one a second: what "the last minute" is.
const RECENT = 5;            // Events that a rate is taken over.
const SILENCE = 8000;        // ms without an event after which the stream is taken for dead.
const BOUNDS = [5, 10, 25, 50, 75, 100, 250, 500, 750, 1000, 2500, 5000, 7500, 10000, Infinity];  // ms
const CLASSES = ["1xx", "2xx", "3xx", "4xx", "5xx"];
const FIELDS = CLASSES.length + BOUNDS.length;
const ERRORS = 4;            // Where 5xx are among the fields.
const DRAINS_SHOWN = 40;
const MEMBERS_SHOWN = 200;
const SHORT = 10;            // Characters of a version that has room beside a name.

const $ = (id) => document.getElementById(id);

// ---- Figures ----

/** A whole number. */
function count(n) {
  if (n >= 1e7) return (n / 1e6).toFixed(0) + "M";
  if (n >= 1e6) return (n / 1e6).toFixed(1) + "M";
  if (n >= 1e5) return (n / 1e3).toFixed(0) + "k";
  if (n >= 1e4) return (n / 1e3).toFixed(1) + "k";
  return n >= 1000 ? Math.floor(n / 1000) + "," + String(n % 1000).padStart(3, "0") : String(n);
}
/** Per second. */
function perSecond(n) {
  return n === 0 ? "0" : n < .1 ? "<0.1" : n < 9.95 ? n.toFixed(1) : count(Math.round(n));
}
/** A duration that a histogram tells, which is not exact. */
function latency(ms) {
  if (ms === null) return "–";
  if (ms === Infinity) return ">10 s";
  if (ms < 1) return "<1 ms";
  return ms < 999.5 ? Math.round(ms) + " ms" : (ms / 1000).toFixed(ms < 9950 ? 1 : 0) + " s";
}
/** How long something has lasted, in seconds. */
function age(s) {
  s = Math.max(0, s);
  if (s < 120) return Math.floor(s) + " s";
  if (s < 7200) return Math.floor(s / 60) + " min";
  return s < 172800 ? Math.floor(s / 3600) + " h" : Math.floor(s / 86400) + " d";
}
function waited(ms) {
  return ms < 1000 ? Math.round(ms) + " ms" : ms < 9950 ? (ms / 1000).toFixed(1) + " s" : age(ms / 1000);
}
function share(part, whole) {
  if (!whole || !part) return "0 %";
  const percent = 100 * part / whole;
  return percent < .1 ? "<0.1 %" : percent < 9.95 ? percent.toFixed(1) + " %" : Math.round(percent) + " %";
}
const plural = (n, one, many) => count(n) + " " + (n === 1 ? one : many ?? one + "s");

// ---- What has been, for rates, percentiles and sparklines ----

const clock = { tick: 0, lengths: new Float64Array(SPAN), at: null, started: null };

/** Counts of the last minute, one slot an event. Costs nothing while nothing changes. */
class History {
  constructor(width) {
    this.width = width;
    this.last = null;
    this.ring = null;
    this.sums = null;
    this.isLive = false;
  }
  /** Notes the counts at this event; without any they are those of the last one. */
  note(counts) {
    const { width } = this;
    let changed = false;
    if (counts) {
      if (!this.last) {
        this.last = Float64Array.from(counts);
        return;
      }
      for (let i = 0; i < width && !changed; i++) changed = counts[i] !== this.last[i];
    }
    if (!changed && !this.isLive) return;
    if (!this.ring) {
      this.ring = new Uint32Array(SPAN * width);
      this.sums = new Float64Array(width);
    }
    const base = clock.tick % SPAN * width;
    let live = false;
    for (let i = 0; i < width; i++) {
      const more = changed ? Math.max(0, counts[i] - this.last[i]) : 0;
      this.sums[i] += more - this.ring[base + i];
      this.ring[base + i] = more;
      if (changed) this.last[i] = counts[i];
      live ||= this.sums[i] > 0;
    }
    this.isLive = live;
  }
  sum(field) {
    return this.isLive ? this.sums[field] : 0;
  }
  /** Per second, over the last few events, of the fields from `from` up to `to`. */
  rate(from, to) {
    if (!this.isLive) return 0;
    let sum = 0, length = 0;
    for (let back = 0; back < RECENT && back < clock.tick; back++) {
      const slot = (clock.tick - back) % SPAN;
      for (let i = from; i < to; i++) sum += this.ring[slot * this.width + i];
      length += clock.lengths[slot];
    }
    return length ? sum / length : 0;
  }
  /** Per second at each event, oldest first. */
  rates(from, to) {
    const known = Math.min(clock.tick, SPAN);
    const rates = new Float64Array(known);
    if (!this.isLive) return rates;
    for (let n = 0; n < known; n++) {
      const slot = (clock.tick - known + 1 + n) % SPAN;
      let sum = 0;
      for (let i = from; i < to; i++) sum += this.ring[slot * this.width + i];
      rates[n] = sum / clock.lengths[slot];
    }
    return rates;
  }
}
const answered = (history) => { let all = 0; for (let i = 0; i < CLASSES.length; i++) all += history.sum(i); return all; };

/** The duration that a share of the responses stayed under, in ms; null without any. */
function percentile(counts, from, part) {
  let all = 0;
  for (let i = 0; i < BOUNDS.length; i++) all += counts[from + i];
  let left = all * part;
  for (let i = 0; i < BOUNDS.length && all; i++) {
    const n = counts[from + i];
    if (n && left <= n) {
      const low = i ? BOUNDS[i - 1] : 0;
      return BOUNDS[i] === Infinity ? Infinity : low + (BOUNDS[i] - low) * left / n;
    }
    left -= n;
  }
  return null;
}
const percentileOf = (history, part) => history.isLive ? percentile(history.sums, CLASSES.length, part) : null;

// ---- What the proxy has told ----

const state = { totals: null, hosts: new Map(), backends: new Map(), drained: [], mayAct: false };
const total = { history: new History(FIELDS), gauges: { waiting: [], p95: [] } };
const EMPTY = Object.freeze([]);

const whole = (value) => Number.isFinite(value) && value > 0 ? Math.floor(value) : 0;
const given = (value) => value === null || value === undefined ? "" : String(value);
const strings = (value) => Array.isArray(value) ? value.map(given) : EMPTY;
const wholes = (value, length) => Array.from({ length }, (_, i) => whole(value?.[i]));
/** The error of a backend: a text, or a text and when it was, in Unix time. */
function lastError(value) {
  if (!value) return null;
  if (typeof value !== "object") return { text: given(value), at: null };
  return { text: given(value.text), at: Number.isFinite(value.at) ? value.at : null };
}
/** How each member is read. Rows have only those that have changed. */
const READ = {
  hosts: strings, prefix: given, predicates: strings, instance: given, address: given, parked: whole, withdrawn: whole, busy: whole, waiting: whole, oldest: whole,
  drained: Boolean, drained_by: (value) => wholes(value, Array.isArray(value) ? value.length : 0),
  answers: (value) => wholes(value, CLASSES.length), duration: (value) => wholes(value, BOUNDS.length),
  key: given, since: whole, served: whole, agent: given, last_error: lastError,
};
const NAMES = Object.keys(READ);
/** Sorts "t2" before "t10". */
const sortable = (text) => text.toLowerCase().replace(/\d+/g, (digits) => digits.padStart(12, "0"));

function fresh(kind) {
  const base = { kind, hosts: EMPTY, address: "", parked: 0, withdrawn: 0, busy: 0, drained: false, drained_by: EMPTY, key: "", seen: 0 };
  return kind === "hosts"
    ? { ...base, prefix: "", predicates: EMPTY, waiting: 0, oldest: 0, answers: null, duration: null, history: new History(FIELDS) }
    : { ...base, since: 0, served: 0, agent: "", instance: "", last_error: null, history: new History(1) };
}
function nameOf(item) {
  if (item.kind === "backends") return item.address && item.address !== item.id ? `${item.address} (${item.id})` : item.id;
  return item.hosts.join(", ") + pathOf(item);
}
/** Of `cloudbridge-agent/1.0.0` only the version has room; the name is at the side. */
function versionOf(item) {
  const version = (item.agent ?? "").split("/").at(-1);
  return version.length <= SHORT ? version : "";
}
/** The paths, and what else its bridges demand of a request. */
const pathOf = (item) => (item.prefix === "/" ? "" : item.prefix) + item.predicates.map((one) => ` [${one}]`).join("");

function takeRows(kind, rows, gone) {
  const table = state[kind];
  for (const id of gone ?? EMPTY) table.delete(id);
  for (const row of rows ?? EMPTY) {
    let item = table.get(row.id);
    if (!item) table.set(row.id, item = Object.assign(fresh(kind), { id: row.id }));
    for (const name of NAMES) if (name in row) item[name] = READ[name](row[name]);
    item.seen = clock.tick;
    if ("hosts" in row || "address" in row || "key" in row || "prefix" in row || "predicates" in row || !item.text) {
      item.order = sortable(kind === "hosts" ? nameOf(item) : item.address + " " + item.id);
      item.text = [...item.hosts, item.prefix, ...item.predicates ?? EMPTY, item.instance, item.address, item.key, item.id].join("\n").toLowerCase();
    }
  }
  for (const item of table.values()) {
    const isNew = item.seen === clock.tick;
    if (kind === "backends") {
      item.history.note(isNew ? [item.served] : null);
      item.rate = item.history.rate(0, 1);
      continue;
    }
    item.history.note(isNew ? [...item.answers ?? wholes(), ...item.duration ?? wholes()] : null);
    item.rate = item.history.rate(0, CLASSES.length);
    item.errors = item.history.sum(ERRORS);
    item.p50 = percentileOf(item.history, .5);
    item.p95 = percentileOf(item.history, .95);
  }
}
const connected = (item) => item.parked + item.withdrawn + item.busy;
/** Bridges whose backends have no place for a request: they are no slots. */
const withdrawn = (item) => item.withdrawn ? `, ${count(item.withdrawn)} withdrawn` : "";
function needsAttention(item) {
  if (item.drained) return true;
  if (item.kind === "backends") return item.last_error !== null && (item.last_error.at === null || clock.at - item.last_error.at < 600);
  return item.waiting > 0 || item.errors > 0 || connected(item) === 0;
}
/** Takes an event of the stream. */
function take(kind, data) {
  const { totals } = data;
  const started = totals.at - totals.uptime;
  if (clock.started !== null && Math.abs(started - clock.started) > 1) forget();
  clock.started = started;
  if (clock.at !== null) {
    clock.tick += 1;
    clock.lengths[clock.tick % SPAN] = Math.max(.1, totals.at - clock.at);
  }
  clock.at = totals.at;
  if (kind === "state") {
    for (const name of ["hosts", "backends"]) {
      const ids = new Set(data[name].map((row) => row.id));
      for (const id of [...state[name].keys()]) if (!ids.has(id)) state[name].delete(id);
    }
  }
  state.totals = totals;
  state.mayAct = totals.actions === true;
  if (Array.isArray(data.drained)) state.drained = data.drained;
  total.history.note([...wholes(totals.answers, CLASSES.length), ...wholes(totals.duration, BOUNDS.length)]);
  takeRows("hosts", data.hosts, data.hosts_gone);
  takeRows("backends", data.backends, data.backends_gone);
  const now = total.history.ring?.subarray(clock.tick % SPAN * FIELDS, (clock.tick % SPAN + 1) * FIELDS);
  const p95 = now ? percentile(now, CLASSES.length, .95) : null;
  for (const [name, value] of [["waiting", whole(totals.waiting)], ["p95", p95 === Infinity ? 10000 : p95 ?? 0]]) {
    total.gauges[name].push(value);
    if (total.gauges[name].length > SPAN) total.gauges[name].shift();
  }
  soon();
}
/** The proxy has been restarted: its counters have begun anew. */
function forget() {
  state.hosts.clear();
  state.backends.clear();
  state.drained = [];
  total.history = new History(FIELDS);
  total.gauges.waiting.length = total.gauges.p95.length = 0;
  clock.tick = 0;
  clock.at = null;
}

// ---- The document ----

function put(element, text) {
  if (element.textContent !== text) element.textContent = text;
}
function attribute(element, name, value) {
  if (element.getAttribute(name) !== value) element.setAttribute(name, value);
}
/** An element with this class that holds texts and elements. */
function make(tag, className, ...content) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  made.append(...content);
  return made;
}
function button(className, content, onclick) {
  const made = make("button", className, content);
  made.type = "button";
  if (onclick) made.onclick = onclick;
  return made;
}
const brief = (text) => text.length > 600 ? text.slice(0, 600) + "…" : text;

function makeSpark() {
  const named = (name) => document.createElementNS("http://www.w3.org/2000/svg", name);
  const svg = named("svg");
  for (const part of ["area", "line"]) {
    const path = named("path");
    path.setAttribute("class", part);
    svg.append(path);
  }
  svg.setAttribute("class", "spark");
  svg.setAttribute("aria-hidden", "true");
  return svg;
}
function drawSpark(svg, values, height) {
  let top = 0, d = "";
  for (const value of values) if (value > top) top = value;
  const width = (SPAN - 1) * 4, from = SPAN - values.length;
  if (values.length > 1) {
    for (let i = 0; i < values.length; i++) {
      const y = top ? height - 1.5 - values[i] / top * (height - 4) : height - 1.5;
      d += (i ? "L" : "M") + (from + i) * 4 + " " + y.toFixed(1);
    }
  }
  attribute(svg, "viewBox", `0 0 ${width} ${height}`);
  attribute(svg, "preserveAspectRatio", "none");
  const [area, line] = svg.children;
  attribute(line, "d", d);
  attribute(area, "d", d && top ? `${d}L${width} ${height}L${from * 4} ${height}Z` : "");
  return top;
}
function drawBar(bar, free, busy) {
  bar.className = free + busy === 0 ? "bar none" : free === 0 ? "bar full" : "bar";
  bar.firstElementChild.style.width = free + busy ? 100 * busy / (free + busy) + "%" : "0";
}
/** A number with its unit set smaller. */
function drawValue(element, text) {
  const [number, ...unit] = text.split(" ");
  const wanted = number + (unit.length ? " " : "") + unit.join(" ");
  if (element.textContent === wanted) return;
  element.replaceChildren(number, ...unit.length ? [make("small", "", " " + unit.join(" "))] : []);
}

function drawTotals() {
  const t = state.totals, { history, gauges } = total;
  const [rate, errors] = [history.rate(0, CLASSES.length), history.rate(ERRORS, ERRORS + 1)];
  drawValue($("rate"), perSecond(rate));
  put($("rate-note"), "peak " + perSecond(drawSpark($("rate-spark"), history.rates(0, CLASSES.length), 38)) + " in the last minute");
  const [free, busy] = [whole(t.parked), whole(t.busy)];
  drawValue($("free"), free + busy ? `${count(free)} of ${count(free + busy)}` : "0");
  const kept = { parked: free, withdrawn: whole(t.withdrawn), busy };
  put($("free-note"), connected(kept) ? `${count(busy)} busy, ${share(busy, free + busy)}${withdrawn(kept)}` : "no bridge is connected");
  drawBar($("free-bar"), free, busy);
  const waiting = whole(t.waiting);
  drawValue($("waiting"), count(waiting));
  $("waiting").className = waiting ? "value warn" : "value";
  put($("waiting-note"), waiting ? `the oldest for ${waited(whole(t.oldest))}` : "no request waits");
  drawSpark($("waiting-spark"), gauges.waiting, 38);
  const [p50, p95, p99] = [.5, .95, .99].map((part) => percentileOf(history, part));
  drawValue($("latency"), latency(p50));
  put($("latency-note"), p50 === null ? "no request in the last minute" : `p95 ${latency(p95)}, p99 ${latency(p99)}`);
  drawSpark($("latency-spark"), gauges.p95, 38);
  drawValue($("errors"), perSecond(errors));
  $("errors").className = errors > 0 ? "value alarm" : "value";
  const failed = history.sum(ERRORS);
  put($("errors-note"), failed ? `${share(failed, answered(history))} in the last minute` : "none in the last minute");
  drawSpark($("errors-spark"), history.rates(ERRORS, ERRORS + 1), 38);
  put($("about"), `${given(t.version)} · ${plural(whole(t.workers), "worker")} · up ${age(t.uptime)} · ${plural(whole(t.connections), "connection")}`);
}
function drawDrained() {
  const list = state.drained;
  $("drained").hidden = list.length === 0;
  const key = JSON.stringify([list, state.mayAct]);
  if (drawDrained.key === key) return;
  drawDrained.key = key;
  const shown = list.slice(0, DRAINS_SHOWN).map((drain) => {
    const name = make("span", "given", brief(given(drain.name)));
    name.title = brief(given(drain.name));
    const made = make("li", "", make("small", "", given(drain.kind)), name);
    if (state.mayAct) {
      const undrain = button("quiet", "Undrain", () => act("undrain", { drain: drain.id }, `${given(drain.kind)} ${given(drain.name)}`));
      undrain.setAttribute("aria-label", `Undrain ${given(drain.kind)} ${given(drain.name)}`);
      made.append(undrain);
    }
    return made;
  });
  if (list.length > DRAINS_SHOWN) shown.push(make("li", "more", `and ${count(list.length - DRAINS_SHOWN)} more`));
  $("drained-list").replaceChildren(...shown);
}

// ---- The table ----

const view = { tab: "hosts", query: "", attention: false, sort: { hosts: { column: 0, up: true }, backends: { column: 0, up: true } }, shown: [] };

/** Name, what it is sorted by, class, whether its first order is ascending. */
const COLUMNS = {
  hosts: [
    ["Host", (item) => item.order, "", true],
    ["Free slots", (item) => item.parked, "", true],
    ["Waiting", (item) => item.waiting, "end", false],
    ["Requests/s", (item) => item.rate, "end", false],
    ["p50", (item) => item.p50 ?? -1, "end", false],
    ["p95", (item) => item.p95 ?? -1, "end wide", false],
    ["5xx/min", (item) => item.errors, "end", false],
  ],
  backends: [
    ["Backend", (item) => item.order, "", true],
    ["Hosts", (item) => item.hosts[0] ?? "", "", true],
    ["Free slots", (item) => item.parked, "", true],
    ["Req/s", (item) => item.rate, "end", false],
    ["Served", (item) => item.served, "end wide", false],
    ["Age", (item) => item.since, "end", true],
    ["Last error", (item) => item.last_error ? item.last_error.at ?? clock.at : -Infinity, "wide", false],
  ],
};

function makeRow(kind) {
  const row = make("div", "row"), c = {};
  row.setAttribute("role", "row");
  const cell = (name, className, label, ...content) => {
    const made = c[name] = make("div", className, ...content);
    made.setAttribute("role", "cell");
    if (label) made.dataset.label = label;
    row.append(made);
    return made;
  };
  c.dot = make("span", "dot");
  c.state = make("span", "unseen");
  c.open = button("name", "");
  c.open.dataset.act = "open";
  c.tag = make("span", "tag");
  cell("title", "title", "", c.dot, c.state, c.open, c.tag);
  const slots = () => {
    c.bar = make("div", "bar", make("i"));
    c.bar.setAttribute("aria-hidden", "true");
    c.free = make("span", "cell");
    cell("slots", "slots", "", c.bar, c.free);
  };
  if (kind === "hosts") {
    slots();
    cell("waiting", "cell end", "waiting");
    c.spark = makeSpark();
    c.rate = make("span", "cell end");
    cell("trend", "trend", "", c.spark, c.rate);
    cell("p50", "cell end p50");
    cell("p95", "cell end wide", "p95");
    cell("errors", "cell end", "5xx");
  } else {
    cell("hosts", "cell given soft hosts-of");
    slots();
    cell("rate", "cell end", "req/s");
    cell("served", "cell end wide");
    cell("since", "cell end", "age");
    cell("error", "cell given wide");
  }
  c.drain = button("", "Drain");
  c.drain.dataset.act = "drain";
  c.drop = button("danger", "Drop");
  c.drop.dataset.act = "drop";
  cell("acts", "acts", "", c.drain, c.drop);
  return { row, c, item: null };
}
function condition(item) {
  if (item.drained) return ["out", "drained"];
  if (connected(item) === 0) return ["bad", "no bridge is connected"];
  if (item.waiting > 0) return ["bad", "requests wait"];
  return item.parked === 0 ? ["full", "no free slot"] : ["good", "free slots"];
}
function fillRow({ row, c, item }, index) {
  attribute(row, "aria-rowindex", String(index + 2));
  const name = nameOf(item), [mark, told] = condition(item);
  c.dot.className = "dot " + mark;
  put(c.state, told + ": ");
  if (c.named !== name) {
    c.named = name;
    if (item.kind === "hosts") c.open.replaceChildren(brief(item.hosts.join(", ")), make("span", "path", brief(pathOf(item))));
    else c.open.replaceChildren(item.address || item.id, make("span", "id", item.address && item.address !== item.id ? item.id : ""));
    c.title.title = brief(name);
    c.drop.setAttribute("aria-label", "Drop " + brief(name));
  }
  const tag = item.drained ? "drained" : versionOf(item);
  c.tag.hidden = !tag;
  c.tag.className = item.drained ? "tag drained" : "tag given";
  put(c.tag, brief(tag));
  drawBar(c.bar, item.parked, item.busy);
  const slots = `${count(item.parked)} free/${count(item.parked + item.busy)}${withdrawn(item)}`;
  if (c.slotsSaid !== slots) {
    c.slotsSaid = slots;
    c.free.replaceChildren(count(item.parked) + " free ", make("small", "", "of " + count(item.parked + item.busy) + withdrawn(item)));
  }
  const verb = item.drained ? "Undrain" : "Drain";
  put(c.drain, verb);
  attribute(c.drain, "aria-label", verb + " " + brief(name));
  if (item.kind === "hosts") {
    put(c.waiting, count(item.waiting));
    c.waiting.className = "cell end " + (item.waiting ? connected(item) ? "warn" : "alarm" : "zero");
    c.waiting.title = item.waiting ? "the oldest for " + waited(item.oldest) : "";
    drawSpark(c.spark, item.history.rates(0, CLASSES.length), 24);
    put(c.rate, perSecond(item.rate));
    put(c.p50, latency(item.p50));
    put(c.p95, latency(item.p95));
    put(c.errors, count(item.errors));
    c.errors.className = "cell end " + (item.errors ? "alarm" : "zero");
    c.errors.title = item.errors ? share(item.errors, answered(item.history)) + " of the last minute’s responses" : "";
  } else {
    put(c.hosts, brief(item.hosts.join(", ")));
    c.hosts.title = brief(item.hosts.join(", ") + (item.key ? "\nkey: " + item.key : ""));
    put(c.rate, perSecond(item.rate));
    put(c.served, count(item.served));
    put(c.since, age(clock.at - item.since));
    put(c.error, item.last_error ? brief(item.last_error.text) : "–");
    c.error.className = "cell given wide " + (item.last_error ? needsAttention(item) ? "alarm" : "soft" : "zero");
    c.error.title = item.last_error ? brief(item.last_error.text) + (item.last_error.at === null ? "" : `, ${age(clock.at - item.last_error.at)} ago`) : "";
  }
}

const isWanted = (item) => (!view.query || item.text.includes(view.query)) && (!view.attention || needsAttention(item));
/** While somebody points at the rows or is in them, they keep their places: none is to be dropped in another's stead. */
const isHeld = () => $("body").matches(":hover") || $("body").contains(document.activeElement);

function order(anew) {
  const table = state[view.tab], sort = view.sort[view.tab];
  const list = [...table.values()].filter(isWanted);
  view.held = !anew && sort.column !== 0 && isHeld();
  if (view.held) {
    const wanted = new Set(list);
    const kept = view.shown.filter((item) => wanted.delete(item));
    view.shown = [...kept, ...wanted];
    return;
  }
  const by = COLUMNS[view.tab][sort.column][1], way = sort.up ? 1 : -1;
  const keyed = list.map((item) => [by(item), item]);
  keyed.sort(([a, one], [b, other]) => a < b ? -way : a > b ? way : one.order < other.order ? -1 : one.order > other.order ? 1 : 0);
  view.shown = keyed.map(([, item]) => item);
}

// Only the rows in sight exist: thousands cost no more than those.
const rows = new Map();
let pool = [], rowHeight = 44;
function drawRows() {
  const body = $("body"), { shown } = view, before = body.getBoundingClientRect().top;
  body.style.height = shown.length * rowHeight + "px";
  const first = Math.min(Math.max(0, Math.floor(-before / rowHeight) - 4), Math.max(0, shown.length - 1));
  const end = Math.min(shown.length, first + Math.ceil(innerHeight / rowHeight) + 9);
  const inSight = new Set(shown.slice(first, end));
  for (const [item, made] of rows) {
    if (inSight.has(item)) continue;
    rows.delete(item);
    pool.push(made);
  }
  let place = body.firstElementChild;
  for (let i = first; i < end; i++) {
    const item = shown[i];
    let made = rows.get(item);
    if (!made) {
      made = pool.pop() ?? makeRow(view.tab);
      made.item = item;
      rows.set(item, made);
    }
    if (made.row === place) place = place.nextElementSibling;
    else body.insertBefore(made.row, place);
    made.row.hidden = false;
    made.row.style.transform = `translateY(${i * rowHeight}px)`;
    fillRow(made, i);
  }
  for (const made of pool) made.row.hidden = true;
}
function drawHead() {
  const sort = view.sort[view.tab], columns = COLUMNS[view.tab];
  const cells = columns.map(([name, , className, up], column) => {
    const made = make("div", className, button("", name, () => sortBy(column, column === sort.column ? !sort.up : up)));
    made.setAttribute("role", "columnheader");
    if (column === sort.column) made.setAttribute("aria-sort", sort.up ? "ascending" : "descending");
    return made;
  });
  const acts = make("div", "acts", make("span", "unseen", "Actions"));
  acts.setAttribute("role", "columnheader");
  const focused = [...$("head").children].findIndex((cell) => cell.contains(document.activeElement));
  $("head").replaceChildren(...cells, acts);
  $("head").children[focused]?.firstElementChild.focus();
  $("sorter").replaceChildren(...columns.map(([name, , , up], column) => {
    const made = make("option", "", name);
    made.value = column;
    made.selected = column === sort.column;
    return made;
  }));
  attribute($("table"), "aria-colcount", String(columns.length + 1));
}
function sortBy(column, up) {
  view.sort[view.tab] = { column, up };
  drawHead();
  draw(true);
}
function draw(anew = false) {
  order(anew);
  const all = state[view.tab].size, { shown } = view;
  const filtered = shown.length === all ? "" : `${count(shown.length)} of ${count(all)}`;
  put($("count"), [filtered, view.held ? "order held" : ""].filter(Boolean).join(", "));
  for (const kind of ["hosts", "backends"]) {
    put($("tab-" + kind), (kind === "hosts" ? "Hosts " : "Backends ") + (state.totals ? count(state[kind].size) : ""));
  }
  let troubled = 0;
  for (const item of state[view.tab].values()) if (needsAttention(item)) troubled += 1;
  put($("attention"), "Needs attention " + (troubled ? count(troubled) : ""));
  attribute($("table"), "aria-rowcount", String(shown.length + 1));
  drawEmpty(all);
  drawRows();
}
function drawEmpty(all) {
  const kind = view.shown.length || !state.totals ? "" : all ? "none" : view.tab;
  $("empty").hidden = kind === "";
  $("head").hidden = kind !== "" && all === 0;
  const key = kind && JSON.stringify([kind, view.query, view.attention, state.totals?.bridges_at]);
  if (drawEmpty.key === key) return;
  drawEmpty.key = key;
  if (kind === "none") {
    const what = view.query ? `No ${view.tab.slice(0, -1)} matches “${brief(view.query)}”` : `No ${view.tab.slice(0, -1)}`;
    $("empty").replaceChildren(make("h2", "", what + (view.attention ? " and needs attention" : "")), button("", "Show all", showAll));
  } else if (kind) {
    $("empty").replaceChildren(...howTo());
  }
}
/** How a backend is connected, for those who see the page for the first time. */
function howTo() {
  const told = given(state.totals.bridges_at) || "*:8079";
  const here = location.hostname || "127.0.0.1";
  const at = told.startsWith("*:") ? here + told.slice(1) : told;
  const example = (about, command) => make("div", "", about, make("pre", "", make("code", "", command)));
  return [
    make("h2", "", "Waiting for the first backend"),
    "Backends dial the proxy and say which host names they serve. Each appears here within a second.",
    make("div", "how",
      example("An application that listens on port 3000:", `cloudbridge-agent --host app.example.com --to 127.0.0.1:3000 ${at}`),
      example("Or an echo, to try it out:", `cloudbridge-agent --echo --host app.example.com ${at}`),
      example("Then ask for the name:", `curl -i -H 'Host: app.example.com' http://${at}/`)),
  ];
}

let isDue = false;
/** Draws before the next frame, however often this is called until then. */
function soon() {
  if (isDue || document.hidden) return;
  isDue = true;
  requestAnimationFrame(() => {
    isDue = false;
    if (!state.totals) return;
    document.body.classList.toggle("readonly", !state.mayAct);
    $("table").hidden = false;
    drawStatus();
    drawTotals();
    drawDrained();
    draw();
    drawDetail();
    drawFooter();
  });
}
function drawFooter() {
  const key = state.mayAct;
  if (drawFooter.key === key) return;
  drawFooter.key = key;
  const link = (path) => Object.assign(make("a", "", path), { href: path });
  const parts = [make("span", "", "As text: ", link("/metrics"), ", ", link("/state.json"))];
  if (!state.mayAct) parts.push(make("span", "", "Read only: set admin-token to drain and drop here"));
  parts.push(make("span", "keys", "Keys: / search, ↑ ↓ rows, Enter details"));
  $("footer").replaceChildren(...parts);
}

// ---- One host or backend ----

let detail = null;
/** Shows a row at the side until it is closed. */
function openDetail(item) {
  detail = { item, made: null };
  drawDetail();
  $("detail").scrollTop = 0;
  if (!$("detail").open) $("detail").showModal();
  $("detail").querySelector("button").focus();
}
function figure(list, name) {
  const value = make("dd");
  list.append(make("div", "", make("dt", "", name), value));
  return value;
}
function makeDetail(item) {
  const m = { name: make("h2", "name", ""), figures: make("dl", "figures") };
  m.name.id = "detail-name";
  const close = button("quiet", "Close", () => $("detail").close());
  m.tag = make("span", "tag", "drained");
  const parts = [make("div", "top", m.name, m.tag, close), m.figures];
  const names = item.kind === "hosts"
    ? ["Free", "Busy", "Waiting", "Requests/s", "p50", "p95", "p99", "5xx/min"] : ["Free", "Busy", "Requests/s", "Served"];
  m.values = names.map((name) => figure(m.figures, name));
  m.spark = makeSpark();
  m.peak = make("span");
  parts.push(make("div", "part", make("h3", "", "Requests per second"), m.spark, make("div", "under", make("span", "", "a minute ago"), m.peak, make("span", "", "now"))));
  if (item.kind === "hosts") {
    m.classes = make("div", "classes");
    m.under = make("div", "under", "");
    m.membersTitle = make("h3", "", "");
    m.members = make("ul", "members");
    parts.push(make("div", "part", make("h3", "", "Latency, responses of the last minute"), m.classes, m.under), make("div", "part", m.membersTitle, m.members));
  } else {
    m.facts = make("dl", "facts");
    parts.push(m.facts);
  }
  if (state.mayAct) {
    m.drain = button("", "", () => actOn(item.drained ? "undrain" : "drain", item));
    parts.push(make("div", "buttons", m.drain, button("danger", "Drop…", () => actOn("drop", item))));
  }
  $("detail").replaceChildren(...parts);
  return m;
}
function drawDetail() {
  if (!detail) return;
  const { item } = detail, m = detail.made ??= makeDetail(item), { history } = item;
  const isGone = !state[item.kind].has(item.id);
  put(m.name, nameOf(item));
  put(m.tag, isGone ? "gone" : "drained");
  m.tag.hidden = !isGone && !item.drained;
  const peak = drawSpark(m.spark, history.rates(0, item.kind === "hosts" ? CLASSES.length : 1), 64);
  put(m.peak, `peak ${perSecond(peak)}`);
  if (m.drain) put(m.drain, item.drained ? "Undrain" : "Drain");
  if (item.kind === "hosts") {
    const values = [count(item.parked), count(item.busy), count(item.waiting), perSecond(item.rate), latency(item.p50), latency(item.p95), latency(percentileOf(history, .99)), count(item.errors)];
    values.forEach((value, i) => put(m.values[i], value));
    m.values[2].className = item.waiting ? "warn" : "";
    m.values[2].title = item.waiting ? `the oldest for ${waited(item.oldest)}` : "";
    m.values[7].className = item.errors ? "alarm" : "";
    drawClasses(m, history);
    drawMembers(m, item);
  } else {
    [count(item.parked), count(item.busy), perSecond(item.rate), count(item.served)].forEach((value, i) => put(m.values[i], value));
    drawFacts(m, item);
  }
}
function drawClasses(m, history) {
  const counts = BOUNDS.map((_, i) => history.sum(CLASSES.length + i)), all = answered(history);
  let [first, last] = [counts.findIndex((n) => n > 0), counts.findLastIndex((n) => n > 0)];
  const key = JSON.stringify(counts);
  if (m.classesKey === key) return;
  m.classesKey = key;
  const most = Math.max(...counts, 1), made = [];
  for (let i = first; i >= 0 && i <= last; i++) {
    const bar = make("div", "bar", make("i"));
    bar.firstChild.style.width = 100 * counts[i] / most + "%";
    bar.setAttribute("aria-hidden", "true");
    const bound = BOUNDS[i] === Infinity ? ">10 s" : "≤" + (BOUNDS[i] < 1000 ? BOUNDS[i] + " ms" : BOUNDS[i] / 1000 + " s");
    made.push(make("span", "soft", bound), bar, make("span", "end", count(counts[i])), make("span", "end zero", share(counts[i], all)));
  }
  m.classes.replaceChildren(...made.length ? made : [make("span", "zero", "none")]);
  m.classes.style.display = made.length ? "" : "block";
  put(m.under, CLASSES.map((name, i) => [name, history.sum(i)]).filter(([, n]) => n).map(([name, n]) => `${name} ${count(n)}`).join(" · "));
}
function drawMembers(m, item) {
  const names = new Set(item.hosts);
  const members = [...state.backends.values()].filter((backend) => backend.hosts.some((host) => names.has(host)));
  members.sort((a, b) => a.order < b.order ? -1 : 1);
  put(m.membersTitle, members.length ? plural(members.length, "backend") : "No backend");
  const key = JSON.stringify(members.slice(0, MEMBERS_SHOWN).map((b) => [b.id, b.address, b.parked, b.withdrawn, b.busy, age(clock.at - b.since), b.drained]));
  if (m.membersKey === key) return;
  m.membersKey = key;
  const focused = [...m.members.children].findIndex((made) => made.contains(document.activeElement));
  m.members.replaceChildren(...members.slice(0, MEMBERS_SHOWN).map((backend) => make("li", "",
    button("given", nameOf(backend) + (backend.drained ? ", drained" : ""), () => openDetail(backend)),
    make("span", "soft", `${count(backend.parked)} free of ${count(backend.parked + backend.busy)}${withdrawn(backend)}`),
    make("span", "zero", age(clock.at - backend.since)))));
  if (members.length > MEMBERS_SHOWN) m.members.append(make("li", "zero", `and ${count(members.length - MEMBERS_SHOWN)} more`));
  m.members.children[focused]?.querySelector("button")?.focus();
}
function drawFacts(m, item) {
  const facts = [
    ["Hosts", item.hosts.join(", ")], ["Address", item.address], ["ID", given(item.id)], ["Key", item.key || "none"], ["Program", item.agent], ["Instance", item.instance],
    ["Connected", `for ${age(clock.at - item.since)}, since ${new Date(item.since * 1000).toLocaleString()}`],
    ["Last error", item.last_error ? item.last_error.text + (item.last_error.at === null ? "" : `, ${age(clock.at - item.last_error.at)} ago`) : ""],
  ].filter(([, text]) => text);
  const key = JSON.stringify(facts);
  if (m.factsKey === key) return;
  m.factsKey = key;
  m.facts.replaceChildren(...facts.flatMap(([name, text]) => [make("dt", "", name), make("dd", "given", text)]));
}

// ---- The stream ----

/** The token, kept for the tab. */
const token = {
  value: sessionStorage.getItem("admin-token"),
  set(value) {
    this.value = value;
    if (value) sessionStorage.setItem("admin-token", value);
    else sessionStorage.removeItem("admin-token");
  },
};
const headers = () => token.value ? { Authorization: "Bearer " + token.value } : {};

/** Reads the stream until it ends. Rejects if there is none; returns the status if it is refused. */
async function stream() {
  const abort = new AbortController();
  let watchdog;
  const heard = () => {
    clearTimeout(watchdog);
    watchdog = setTimeout(() => abort.abort(), SILENCE);
  };
  heard();
  try {
    const answer = await fetch("/events", { headers: headers(), cache: "no-store", signal: abort.signal });
    if (!answer.ok) return answer.status;
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    let text = "", looked = 0;
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return 0;
      heard();
      text += value;
      for (let end; (end = text.indexOf("\n\n", looked)) >= 0; looked = 0) {
        const event = text.slice(0, end);
        text = text.slice(end + 2);
        takeText(event);
      }
      looked = Math.max(0, text.length - 1);
    }
  } finally {
    clearTimeout(watchdog);
    abort.abort();
  }
}
function takeText(event) {
  let kind = "message", data = "";
  for (const line of event.split("\n")) {
    if (line.startsWith("event: ")) kind = line.slice(7);
    else if (line.startsWith("data: ")) data += line.slice(6);
  }
  if (kind !== "state" && kind !== "change") return;
  const read = JSON.parse(data);
  link.attempt = 0;
  setLink("live");
  take(kind, read);
}

const link = { state: "connecting", since: null, attempt: 0, retryAt: 0, go: null };
function setLink(now) {
  if (link.state === now) return;
  const wasLost = link.state === "lost";
  link.state = now;
  if (now === "lost") link.since = new Date();
  if (now === "live" && wasLost) say("Connected again");
  drawStatus();
}
function drawStatus() {
  const isDraining = link.state === "live" && state.totals?.draining;
  const status = $("status"), outage = $("outage");
  status.className = isDraining ? "draining" : link.state;
  put(status, isDraining ? "draining" : { live: "live", lost: "connection lost", locked: "locked", connecting: "connecting" }[link.state]);
  document.title = link.state === "lost" ? "connection lost – cloudbridge" : "cloudbridge";
  document.body.classList.toggle("stale", link.state === "lost" && state.totals !== null);
  outage.hidden = link.state !== "lost" && link.state !== "locked";
  if (link.state === "lost") {
    const left = Math.ceil((link.retryAt - Date.now()) / 1000);
    put($("outage-text"), `No connection to the proxy since ${link.since.toLocaleTimeString()}.${state.totals ? " What is shown is from then." : ""}`);
    put($("outage-button"), left > 0 ? `Try now (${left})` : "Trying…");
    $("outage-button").disabled = left <= 0;
  } else if (link.state === "locked") {
    put($("outage-text"), "The proxy shows its state only to those who have the admin token.");
    put($("outage-button"), "Enter the token");
    $("outage-button").disabled = false;
  }
}
/** Waits, or until somebody asks to go on. */
function pause(ms) {
  return new Promise((done) => {
    const timer = setTimeout(done, ms);
    link.go = () => { clearTimeout(timer); done(); };
  });
}
async function watch() {
  for (;;) {
    let status = 0;
    try { status = await stream(); } catch { /* No connection: what follows says so. */ }
    if (status === 401) {
      setLink("locked");
      if (!await askToken("The proxy shows its state only to those who have its admin token.")) await new Promise((done) => { link.go = done; });
      setLink("connecting");
      continue;
    }
    // A stream that was cut may be there again at once; one that stays away is asked for less often.
    const wait = Math.min(250 * 2 ** link.attempt, 8000) * (.8 + Math.random() * .4);
    link.attempt += 1;
    link.retryAt = Date.now() + wait;
    setLink("lost");
    const countdown = setInterval(drawStatus, 500);
    await pause(wait);
    clearInterval(countdown);
    link.retryAt = 0;
    drawStatus();
  }
}
$("outage-button").onclick = () => link.go?.();
addEventListener("online", () => link.go?.());

// ---- Questions and actions ----

let lastAnswer = Promise.resolve();
/** Asks something, after what is being asked already. Returns false, or true, or the token. */
function ask(question) {
  lastAnswer = lastAnswer.then(() => askNow(question));
  return lastAnswer;
}
function askNow({ title, text, yes, isDanger, wantsToken, wrong }) {
  put($("ask-title"), title);
  put($("ask-text"), text);
  put($("ask-yes"), yes);
  $("ask-yes").className = isDanger ? "danger" : "main";
  $("ask-field").hidden = !wantsToken;
  $("ask-token").value = "";
  $("ask-token").required = Boolean(wantsToken);
  $("ask-wrong").hidden = !wrong;
  put($("ask-wrong"), wrong ?? "");
  const dialog = $("ask");
  dialog.returnValue = "";
  dialog.showModal();
  $(wantsToken ? "ask-token" : "ask-no").focus();
  return new Promise((done) => dialog.addEventListener("close", () => {
    const entered = $("ask-token").value;
    $("ask-token").value = "";
    done(dialog.returnValue === "yes" && (!wantsToken || entered));
  }, { once: true }));
}
$("ask-no").onclick = () => $("ask").close();
let asking = null;
/** Asks for the token, once for all who need it. True if one was entered. */
function askToken(text) {
  const wrong = token.value ? "The proxy does not accept this token." : "";
  token.set(null);
  asking ??= ask({ title: "Admin token", text, yes: "Continue", wantsToken: true, wrong }).then((entered) => {
    asking = null;
    if (entered) token.set(entered.trim());
    return Boolean(entered);
  });
  return asking;
}
function say(text, hasFailed = false) {
  const toast = $("toast"), line = make("p", hasFailed ? "failed" : "", text);
  put($("said"), text);
  // Above a dialog that is open.
  if (toast.matches(":popover-open")) toast.hidePopover();
  toast.append(line);
  toast.showPopover();
  setTimeout(() => {
    line.remove();
    if (!toast.children.length) toast.hidePopover();
  }, hasFailed ? 10000 : 5000);
}
/** Sends an action, with the token if one is needed. */
async function act(verb, body, name) {
  for (;;) {
    let answer, text;
    try {
      answer = await fetch("/" + verb, { method: "POST", headers: { ...headers(), "Content-Type": "application/json" }, body: JSON.stringify(body) });
      text = (await answer.text()).trim().split("\n")[0];
    } catch {
      return say(`${brief(name)}: the proxy does not answer`, true);
    }
    if (answer.status !== 401) return say(`${brief(name)}: ${text}`, !answer.ok);
    if (!await askToken("Draining and dropping need the admin token of the proxy.")) return;
  }
}
async function actOn(verb, item) {
  const name = nameOf(item), isHost = item.kind === "hosts";
  const target = isHost ? { route: item.id } : { backend: item.id };
  if (verb === "undrain") {
    for (const id of item.drained_by) {
      const drain = state.drained.find((drain) => drain.id === id);
      await act(verb, { drain: id }, drain ? `${given(drain.kind)} ${given(drain.name)}` : name);
    }
    return;
  }
  if (verb === "drop") {
    const bridges = connected(item);
    const text = `${bridges === 1 ? "Its bridge is" : `Its ${count(bridges)} bridges are`} closed at once`
      + (item.busy ? `, with ${plural(item.busy, "request")} in progress. Those that may be sent again go to other backends; the others get 502. ` : ". ")
      + (isHost ? "Backends" : "A backend") + " that dial" + (isHost ? "" : "s") + " again " + (isHost ? "are" : "is") + " back; drain first to keep " + (isHost ? "them" : "it") + " away.";
    if (!await ask({ title: `Drop ${brief(name)}?`, text, yes: "Drop", isDanger: true })) return;
  }
  await act(verb, target, name);
}

// ---- What people do ----

$("body").onclick = (event) => {
  const pressed = event.target.closest("button"), row = event.target.closest(".row");
  if (!pressed || !row) return;
  for (const made of rows.values()) {
    if (made.row !== row) continue;
    const kind = pressed.dataset.act;
    if (kind === "open") openDetail(made.item);
    else actOn(kind === "drain" && made.item.drained ? "undrain" : kind, made.item);
    return;
  }
};
/** Up and down go from row to row, in the same column. */
$("body").onkeydown = (event) => {
  const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  const row = event.target.closest(".row");
  if (!step || !row) return;
  event.preventDefault();
  const at = [...rows.values()].find((made) => made.row === row);
  const next = view.shown[view.shown.indexOf(at?.item) + step], kind = event.target.dataset.act;
  if (!next) return;
  rows.get(next)?.row.querySelector(`[data-act="${kind}"]`)?.focus();
  document.activeElement.scrollIntoView({ block: "nearest" });
};
function search(query) {
  view.query = query.trim().toLowerCase();
  draw(true);
}
function setAttention(wanted) {
  view.attention = wanted;
  attribute($("attention"), "aria-pressed", String(wanted));
  draw(true);
}
function showAll() {
  $("search").value = "";
  view.query = "";
  setAttention(false);
  $("search").focus();
}
$("search").oninput = () => search($("search").value);
$("search").onkeydown = (event) => { if (event.key === "Escape") { $("search").value = ""; search(""); } };
$("attention").onclick = () => setAttention(!view.attention);
$("sorter").onchange = () => {
  const column = Number($("sorter").value);
  sortBy(column, COLUMNS[view.tab][column][3]);
};
const TABS = ["hosts", "backends"];
function show(tab) {
  view.tab = tab;
  for (const other of TABS) {
    attribute($("tab-" + other), "aria-selected", String(other === tab));
    $("tab-" + other).tabIndex = other === tab ? 0 : -1;
  }
  $("table").className = "table " + tab;
  attribute($("table"), "aria-label", tab === "hosts" ? "Hosts" : "Backends");
  rows.clear();
  pool = [];
  $("body").replaceChildren();
  drawHead();
  draw(true);
}
for (const tab of TABS) {
  $("tab-" + tab).onclick = () => show(tab);
  $("tab-" + tab).onkeydown = (event) => {
    if (event.key !== "ArrowLeft" && event.key !== "ArrowRight") return;
    const other = TABS[1 - TABS.indexOf(tab)];
    show(other);
    $("tab-" + other).focus();
  };
}
addEventListener("keydown", (event) => {
  if (event.key !== "/" || event.ctrlKey || event.metaKey || event.altKey || event.target.closest?.("input, select, dialog")) return;
  event.preventDefault();
  $("search").focus();
  $("search").select();
});
// The event comes later, when another may be open already.
$("detail").onclose = () => { if (!$("detail").open) detail = null; };
// A click beside the drawer closes it.
$("detail").onclick = (event) => { if (event.target === $("detail")) $("detail").close(); };

const THEMES = ["auto", "light", "dark"];
function setTheme(theme) {
  if (theme === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  put($("theme"), { auto: "◐ Auto", light: "◐ Light", dark: "◐ Dark" }[theme]);
  $("theme").setAttribute("aria-label", `Colours: ${theme}`);
  $("theme").onclick = () => {
    const next = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length];
    localStorage.setItem("theme", next);
    setTheme(next);
  };
}

function measure() {
  rowHeight = parseFloat(getComputedStyle(document.documentElement).getPropertyValue("--row"));
  soon();
}
let isScrolling = false;
addEventListener("scroll", () => {
  if (isScrolling) return;
  isScrolling = true;
  requestAnimationFrame(() => { isScrolling = false; drawRows(); });
}, { passive: true });
addEventListener("resize", measure);
document.addEventListener("visibilitychange", soon);
setTheme(THEMES.includes(localStorage.getItem("theme")) ? localStorage.getItem("theme") : "auto");
measure();
drawHead();
watch();
