"use strict";
// Every value is set as text, never as HTML: names and messages are other people's data. A refresh changes the elements
// that are there and replaces none of them, so that the reader keeps the focus, the selection and the scroll position.
(() => {
const QUICK = 2, SLOW = 30; // seconds between two requests: while a run is active, and otherwise
const FEW = 10; // runs in the list until "Show all" is pressed
const KEY = "connector_service.token", CHOSEN = "connector_service.tenant";

const $ = id => document.getElementById(id);
let token = sessionStorage.getItem(KEY);
let scope, tenants = [], tenant; // what the token may read, and the tenant on display
let seen, timer, looking; // the last overview, the timer of the next request, the request in flight
let quick = 0; // quick requests that are left: metrics follow a moment after the end of a run
let ranks = new Map(), everyRun = false;

// Elements.

function el(tag, attributes, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) node.setAttribute(name, value);
  node.append(...children.filter(child => child != null && child !== ""));
  return node;
}

function svg(tag, attributes, ...children) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

/** Replaces the content of a node if the data behind it has changed. */
function fill(node, of, make) {
  const now = JSON.stringify(of);
  if (node.made === now) return;
  node.made = now;
  node.replaceChildren(...[make()].flat().filter(child => child != null && child !== ""));
}

const say = (node, text) => fill(node, text, () => text);

/** Keeps one element per item; an item with the same key keeps its element. `make` returns {node, update}. */
function keep(list, items, key, make) {
  const known = list.known || new Map(), now = new Map(), focused = document.activeElement;
  const keys = new Set(items.map(key));
  let lost = -1;
  for (const [k, row] of known) {
    if (keys.has(k)) continue;
    if (row.node.contains(focused)) lost = [...list.children].indexOf(row.node);
    row.node.remove();
  }
  let at = list.firstElementChild;
  for (const item of items) {
    const k = key(item), row = known.get(k) || make(item);
    now.set(k, row);
    row.update(item);
    if (row.node === at) at = at.nextElementSibling;
    else list.insertBefore(row.node, at);
  }
  list.known = now;
  if (lost >= 0) {
    // The element with the focus is gone: the focus moves to the next one in the list, or to the heading.
    const next = list.children[Math.min(lost, list.children.length - 1)];
    ((next && next.querySelector("button")) || list.closest("section").querySelector("h2")).focus();
  } else if (focused !== document.activeElement && list.contains(focused)) focused.focus({preventScroll: true});
}

const SHAPES = {
  check: "M2.5 8.5l3.5 3.5 7.5-8", cross: "M5.3 1.5h5.4l3.8 3.8v5.4l-3.8 3.8H5.3l-3.8-3.8V5.3zM5.7 5.7l4.6 4.6m0-4.6l-4.6 4.6",
  alert: "M8 1.8L15 14H1zM8 6v3.6m0 2v.1", clock: "M8 1.5a6.5 6.5 0 1 0 .01 0M8 4.5V8l2.6 1.8", turn: "M13.8 8A5.8 5.8 0 1 1 11 3.1M11.3.8v2.6H8.7",
  dots: "M2.5 8h.1M8 8h.1m5.4 0h.1", glass: "M3.5 1.5h9m-9 13h9M4.5 1.5c0 4 7 8.5 7 13m0-13c0 4-7 8.5-7 13", pause: "M5 3v10m6-10v10",
  ring: "M8 2.500a5.5 5.5 0 1 0 .01 0", info: "M8 1.5a6.5 6.5 0 1 0 .01 0M8 7.300v4M8 4.700v.1", dash: "M3 8h10",
};
const HEALTH = {
  ok: ["good", "check", "OK", "The last sync succeeded."], syncing: ["busy", "turn", "Syncing", "A sync is running."],
  queued: ["busy", "dots", "Queued", "The sync starts as soon as a worker is free."], waiting: ["busy", "glass", "Waiting", "The sync is waiting, for example for a rate limit to pass."],
  late: ["warn", "clock", "Late", "A sync is overdue, and none has been requested."], failing: ["warn", "alert", "Failing", "The last sync failed. It is retried automatically."],
  error: ["bad", "cross", "Error", "The last sync failed. Somebody has to fix the cause."], paused: ["calm", "pause", "Paused", "Syncs are paused."], new: ["calm", "ring", "New", "The connector has never been synced."],
};
const STATES = {
  queued: ["busy", "dots", "Queued"], running: ["busy", "turn", "Running"], succeeded: ["good", "check", "Succeeded"],
  failed: ["bad", "cross", "Failed"], cancelled: ["calm", "dash", "Cancelled"],
};
const SEVERITIES = {critical: ["bad", "cross", "Critical"], warning: ["warn", "alert", "Warning"], info: ["busy", "info", "Info"]};
const TROUBLE = ["error", "failing", "late"];

/** Shows a state as a word, a colour and a shape. */
function badge(known, word) {
  const [tone, shape, text, meaning] = known[word] || ["calm", "ring", String(word)];
  const node = el("span", {class: "badge", "data-tone": tone, "data-shape": shape},
    svg("svg", {viewBox: "0 0 16 16", "aria-hidden": "true"}, svg("path", {d: SHAPES[shape]})), text);
  if (meaning) node.title = meaning;
  return node;
}

// Words.

const number = new Intl.NumberFormat(), digit = new Intl.NumberFormat(undefined, {maximumFractionDigits: 1});
const count = (n, one, many = one + "s") => `${number.format(n)} ${n === 1 ? one : many}`;
const clock = new Intl.DateTimeFormat(undefined, {timeStyle: "medium"});
const calendar = new Intl.DateTimeFormat(undefined, {day: "numeric", month: "short", hour: "2-digit", minute: "2-digit"});
const ago = new Intl.RelativeTimeFormat("en", {numeric: "auto"});

function spoken(seconds) {
  const units = [["day", 86400], ["hour", 3600], ["minute", 60]];
  const [unit, length] = units.find(([, length]) => Math.abs(seconds) >= length) || ["second", 1];
  return ago.format(Math.trunc(seconds / length), unit);
}

/** Shows a time in the reader's format; its title is the exact time. */
function time(text) {
  const at = new Date(text);
  if (isNaN(at)) return el("span", {}, String(text));
  const isToday = at.toDateString() === new Date().toDateString();
  return el("time", {datetime: at.toISOString(), title: at.toISOString()}, (isToday ? clock : calendar).format(at));
}

function duration(seconds) {
  if (seconds < .1) return "< 0.1 s";
  if (seconds < 10) return digit.format(seconds) + " s";
  if (seconds < 60) return Math.floor(seconds) + " s";
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ${Math.floor(seconds % 60)} s`;
  return `${Math.floor(seconds / 3600)} h ${Math.floor(seconds % 3600 / 60)} min`;
}

const capital = text => text[0].toUpperCase() + text.slice(1);
const words = text => String(text).replaceAll("_", " ");

let silence;
/** Shows a message, and lets screen readers say it. */
function announce(text) {
  $("announcement").textContent = text;
  clearTimeout(silence);
  silence = setTimeout(() => $("announcement").textContent = "", 12000);
}

// The gateway.

/** Returns the text of a response. Throws if the status is no success. */
async function api(path, method = "GET", body, signal) {
  const headers = {Authorization: "Bearer " + token};
  if (body) headers["Content-Type"] = "application/json";
  const mine = token;
  let response, text;
  try {
    response = await fetch(path, {method, body, signal, headers, cache: "no-store", credentials: "omit"});
    text = await response.text();
  } catch (error) {
    throw error.name === "AbortError" ? error : Error("The gateway does not answer.");
  }
  if (mine !== token) throw new DOMException("signed out", "AbortError");
  if (response.ok) return text;
  let message;
  try { message = JSON.parse(text).error.message; } catch { /* the body is not the gateway's: a proxy answered, for example */ }
  throw Object.assign(Error(message ? capital(message) + "." : `The gateway answered with status ${response.status}.`), {status: response.status});
}

/** Returns whether the reader has to be told about an error. */
function failed(error) {
  if (error.name === "AbortError") return false;
  if (error.status !== 401) return true;
  signOut("This token is unknown, expired or deleted. Sign in with another one.");
  return false;
}

// In and out.

function signOut(why) {
  clearTimeout(timer);
  if (looking) looking.abort();
  token = seen = tenant = undefined;
  sessionStorage.removeItem(KEY);
  sessionStorage.removeItem(CHOSEN);
  $("board").hidden = $("session").hidden = true;
  // The next token must not see anything of this one.
  for (const id of ["connectors-list", "runs-list", "alerts-list", "quarantine-list", "tiles", "tenant", "only", "first", "total", "chart", "readout", "values", "announcement", "updated"]) {
    $(id).replaceChildren();
    $(id).known = $(id).made = undefined;
  }
  document.title = "Connectors";
  chart = undefined;
  $("figures").hidden = true;
  $("door").hidden = false;
  $("token").value = "";
  $("refused").textContent = why || "";
  $("token").setAttribute("aria-invalid", String(Boolean(why)));
  $("token").focus();
}

async function signIn() {
  try {
    // A token has no other characters, and a header must not.
    if (!/^[\x21-\x7e]+$/.test(token)) throw Object.assign(Error(), {status: 401});
    ({tenants, scope} = JSON.parse(await api("tenants")));
  } catch (error) {
    if (failed(error)) signOut(error.message);
    return;
  }
  sessionStorage.setItem(KEY, token);
  $("door").hidden = true;
  $("token").value = "";
  $("board").hidden = $("session").hidden = false;
  $("choice").hidden = tenants.length < 2;
  $("only").hidden = tenants.length !== 1;
  $("nobody").hidden = tenants.length > 0;
  $("all").hidden = !tenants.length;
  $("tenant").replaceChildren(...tenants.map(t => el("option", {value: t.tenant_id}, t.name || t.tenant_id)));
  $("main").focus({preventScroll: true});
  const last = sessionStorage.getItem(CHOSEN);
  choose((tenants.find(t => t.tenant_id === last) || tenants[0] || {}).tenant_id);
}

function choose(id) {
  tenant = tenants.find(t => t.tenant_id === id);
  if (!tenant) return;
  sessionStorage.setItem(CHOSEN, id);
  $("tenant").value = id;
  const before = document.querySelector("input[name=type]:checked"), type = before && before.value, types = ["revenue", "costs", "inventory", "staffing", ...tenant.measures.map(m => m.name)];
  $("types").querySelectorAll("label").forEach(label => label.remove());
  radios("types", "type", types.map(t => [t, capital(t)]), types.includes(type) ? type : types[0]);
  say($("only"), tenant.name || id);
  document.title = `Connectors · ${tenant.name || id}`;
  seen = chart = undefined;
  ranks = new Map();
  everyRun = false;
  $("filter").value = "";
  look();
}

// Looking.

async function look() {
  clearTimeout(timer);
  if (looking) looking.abort();
  const {signal} = looking = new AbortController();
  let wait = SLOW;
  try {
    const now = JSON.parse(await api(`tenants/${tenant.tenant_id}/overview`, "GET", undefined, signal));
    const going = now.runs.some(r => r.state === "queued" || r.state === "running") || now.connectors.some(c => c.active_run_id);
    quick = going ? 3 : Math.max(quick - 1, 0);
    if (going || quick) wait = QUICK;
    compare(seen, now);
    seen = now;
    show();
    $("trouble").hidden = true;
    fill($("updated"), [now.now, wait], () => ["Updated ", time(now.now), wait === QUICK ? ", live" : ""]);
    await measure(signal, !going);
  } catch (error) {
    if (signal.aborted || !failed(error)) return;
    wait = 5;
    say($("trouble"), `${error.message} This page may be out of date. It retries every ${wait} seconds.`);
    $("trouble").hidden = false;
  }
  // A hidden page sends no requests.
  if (!document.hidden) timer = setTimeout(look, wait * 1000);
}

const nameOf = id => (seen.connectors.find(c => c.connector_id === id) || {name: "a connector"}).name;

/** Announces the runs that ended and the alerts that are new. */
function compare(before, now) {
  if (!before) return;
  const going = new Set(before.runs.filter(r => !r.finished_at).map(r => r.run_id));
  const news = now.runs.filter(r => r.finished_at && going.has(r.run_id)).map(r => {
    const end = r.state === "failed" ? `failed: ${r.error_message}` : `${r.state}, ${count(r.received, "record")}`;
    return `${capital(r.kind)} of ${nameOf(r.connector_id)} ${end}.`;
  });
  const known = new Set(before.alerts.map(a => a.alert_id));
  const fresh = now.alerts.filter(a => !known.has(a.alert_id)).length;
  if (fresh && before.alerts.length < 100) news.push(count(fresh, "new alert") + ".");
  if (news.length) announce(news.slice(0, 3).join(" "));
}

function show() {
  const {connectors, runs, alerts, quarantine} = seen;
  const active = connectors.filter(c => c.active_run_id).length, queued = connectors.filter(c => c.health === "queued").length;
  const running = active - queued, trouble = connectors.filter(c => TROUBLE.includes(c.health));
  const critical = alerts.filter(a => a.severity === "critical").length;
  const kept = connectors.reduce((sum, c) => sum + c.quarantined, 0);
  const tone = trouble.some(c => c.health === "error") ? "bad" : "warn";
  keep($("tiles"), [
    ["connectors", connectors.length, 1000, connectors.length === 1 ? "connector" : "connectors", trouble.length ? [count(trouble.length, "needs", "need") + " attention", tone] : [connectors.length ? "all are well" : "none yet"]],
    ["runs", running, Infinity, running === 1 ? "sync running" : "syncs running", queued ? [`${number.format(queued)} queued`, "busy"] : running ? ["live", "busy"] : ["none queued"]],
    ["alerts", alerts.length, 100, alerts.length === 1 ? "open alert" : "open alerts", alerts.length ? [critical ? `${critical} critical` : "none critical", critical ? "bad" : "warn"] : ["none critical"]],
    ["quarantine", kept, Infinity, kept === 1 ? "record in quarantine" : "records in quarantine", kept ? ["cannot be used yet", "warn"] : ["none rejected"]],
  ], tile => tile[0], ([id]) => {
    const a = el("a", {href: "#" + id});
    return {node: el("li", {}, a), update: ([, n, most, what, [note, tone]]) => fill(a, [n, what, note, tone], () => {
      if (tone) a.dataset.tone = tone; else delete a.dataset.tone;
      return [el("b", {}, number.format(n) + (n >= most ? "+" : "")), " " + what, el("small", {}, note)];
    })};
  });
  // Connectors in trouble come first. The order stays while the page is open, so that no row moves under the reader.
  const rank = c => ranks.get(c.connector_id);
  for (const c of [...trouble, ...connectors]) if (!ranks.has(c.connector_id)) ranks.set(c.connector_id, ranks.size);
  list("connectors", [...connectors].sort((a, b) => rank(a) - rank(b)), c => c.connector_id, connectorRow);
  $("sift").hidden = connectors.length < 8;
  sift();
  fill($("first"), tenant.tenant_id, () => `INSERT INTO connectors (tenant_id, name, type, config, credentials)\nVALUES ('${tenant.tenant_id}', 'shop', 'shopify', '{…}', '{…}');\n\nSELECT * FROM connector_service_catalog();  -- lists the types and their keys`);
  list("runs", everyRun ? runs : runs.slice(0, FEW), r => r.run_id, runRow);
  $("more").hidden = runs.length <= FEW;
  $("more").setAttribute("aria-expanded", everyRun);
  say($("more"), everyRun ? "Show fewer" : `Show all ${runs.length} runs`);
  list("alerts", alerts, a => a.alert_id, alertItem);
  const groups = new Map();
  for (const q of quarantine) groups.set(q.connector_id, [...(groups.get(q.connector_id) || []), q]);
  list("quarantine", [...groups], g => g[0], quarantineGroup);
  document.querySelector("#quarantine .lead").hidden = !quarantine.length;
}

/** Fills a section's list, or shows the text for an empty one. */
function list(id, items, key, make) {
  const section = $(id), body = $(id + "-list");
  (section.querySelector("[role=table]") || body).hidden = !items.length;
  section.querySelector(".none").hidden = items.length > 0;
  keep(body, items, key, make);
}

/** Makes a table row; `cells` returns the data of each cell and a function that makes its content. */
function row(labels, cells) {
  const tds = labels.map(label => el("td", {role: "cell", "data-label": label}));
  return {node: el("tr", {role: "row"}, ...tds), tds, update: item => cells(item).forEach(([of, make], i) => {
    fill(tds[i], of, make);
    tds[i].classList.toggle("blank", !tds[i].hasChildNodes());
  })};
}

/** Makes a button that runs one action at a time. It is never disabled, because that would take the focus from it. */
function button(text, label, act) {
  const node = el("button", {type: "button", "aria-label": label}, text);
  node.addEventListener("click", async () => {
    if (node.getAttribute("aria-disabled") === "true") return;
    node.setAttribute("aria-disabled", "true");
    try { announce(await act()); } catch (error) { if (failed(error)) announce(error.message); }
    node.setAttribute("aria-disabled", "false");
    if (token) look();
  });
  return node;
}

/** What stands before the message of a failure that is retried. */
function retry(c) {
  if (c.health !== "failing" || !c.next_sync_at) return [];
  return isDue(c) ? ["retrying now: "] : ["retrying at ", time(c.next_sync_at), ": "];
}

const isDue = c => new Date(c.next_sync_at) <= new Date(seen.now);

function connectorRow({connector_id: id, name, type}) {
  const isGiven = ["csv", "excel", "webhook"].includes(type); // files and events are sent to us: there is nothing to request
  const parts = row(["Connector", "Health", "Last sync", "Next sync", "Open items"], c => [
    [[c.name, c.type, c.sync_frequency], () => [el("strong", {}, c.name), el("small", {}, `${c.type}, ${c.sync_frequency}`)]],
    [[c.health, c.error_message, c.waiting_for, c.active_pages, c.active_received, c.next_sync_at, isDue(c)], () => el("div", {}, badge(HEALTH, c.health), ...[
      c.waiting_for && el("small", {}, c.waiting_for),
      c.active_received > 0 && el("small", {}, `${count(c.active_received, "record")}, ${count(c.active_pages, "page")}`),
      c.error_message && TROUBLE.includes(c.health) && el("small", {class: "wrong"}, ...retry(c), c.error_message),
    ].filter(Boolean))],
    [[c.last_sync_at, c.last_sync_at && spoken(-c.lag_seconds)], () => c.last_sync_at ? el("div", {}, time(c.last_sync_at), el("small", {}, spoken(-c.lag_seconds))) : "never"],
    [[c.status, c.next_sync_at, c.sync_frequency, isDue(c)], () => {
      if (c.status === "paused") return "paused";
      if (isGiven) return type === "webhook" ? "when events arrive" : "when a file is uploaded";
      if (c.sync_frequency === "manual") return "only on request";
      if (!c.next_sync_at) return "not scheduled";
      return isDue(c) ? "now" : time(c.next_sync_at);
    }],
    [[c.quarantined, c.open_alerts, c.unprocessed, c.backfill_windows_left], () => {
      const waits = [c.open_alerts && count(c.open_alerts, "alert"), c.quarantined && `${number.format(c.quarantined)} in quarantine`,
        c.unprocessed && count(c.unprocessed, "record") + " not in metrics yet", c.backfill_windows_left && count(c.backfill_windows_left, "backfill window") + " left"].filter(Boolean);
      return waits.map(text => el("div", {}, text));
    }],
  ]);
  const act = el("td", {role: "cell", class: "act"});
  parts.node.append(act);
  if (scope !== "app" || isGiven) {
    act.classList.add("blank");
    return parts;
  }
  const sync = button("Sync", `Sync ${name}`, async () => {
    await api("internal/sync-connector", "POST", JSON.stringify({connector_id: id}));
    return `Sync of ${name} requested.`;
  });
  act.append(sync);
  return {node: parts.node, update: c => {
    parts.update(c);
    const run = seen.runs.find(r => r.run_id === c.active_run_id);
    const isGoing = c.active_run_id && (!run || run.kind === "sync");
    sync.setAttribute("aria-disabled", String(Boolean(isGoing || c.status === "paused")));
    sync.title = c.status === "paused" ? "The connector is paused." : isGoing ? "A sync is already queued or running." : "";
  }};
}

function runRow() {
  return row(["Connector", "State", "Started", "Duration", "Records", "Result"], r => {
    const name = nameOf(r.connector_id), isOver = Boolean(r.finished_at);
    const seconds = r.started_at && (new Date(r.finished_at || seen.now) - new Date(r.started_at)) / 1000;
    const rate = seconds >= 1 ? r.received / seconds : 0;
    return [
      [[name, r.kind, r.requested_by], () => el("div", {}, el("strong", {}, name), el("small", {}, `${r.kind}, requested by ${r.requested_by}`))],
      [r.state, () => badge(STATES, r.state)],
      [[r.started_at, r.requested_at], () => r.started_at ? time(r.started_at) : el("div", {}, time(r.requested_at), el("small", {}, "requested"))],
      [seconds, () => r.started_at ? duration(seconds) : ""],
      [[r.received, rate], () => r.received ? el("div", {}, number.format(r.received), rate ? el("small", {}, `${rate < 10 ? digit.format(rate) : number.format(Math.round(rate))}/s`) : "") : isOver ? "0" : ""],
      [r, () => {
        const parts = [["new", r.inserted], ["changed", r.updated], ["unchanged", r.unchanged], ["deleted", r.deleted], ["in quarantine", r.quarantined]];
        const text = parts.filter(([, n]) => n).map(([what, n]) => `${number.format(n)} ${what}`).join(", ");
        const made = el("div", {}, text || (r.state === "succeeded" ? "no new records" : ""));
        if (r.state === "running") made.append(el("div", {}, count(r.pages, "page")), el("div", {class: "going"}));
        if (r.error_message && (r.state !== "succeeded")) made.append(el("div", {class: "wrong"}, r.error_message));
        if (r.hint && r.state !== "succeeded") made.append(el("small", {}, r.hint));
        return made.hasChildNodes() ? made : "";
      }],
    ];
  });
}

function alertItem({alert_id: id, message}) {
  const text = el("div");
  const node = el("li", {}, text);
  if (scope === "app") node.append(button("Resolve", `Resolve: ${message || "alert"}`, async () => {
    await api(`alerts/${id}/resolve`, "POST");
    return "The alert is resolved.";
  }));
  return {node, update: a => fill(text, [a.message, a.severity, a.occurrences, a.last_seen_at, a.connector_id && nameOf(a.connector_id)], () => [
    badge(SEVERITIES, a.severity), " ", el("strong", {}, words(a.alert_type)), el("p", {}, a.message || ""),
    el("small", {}, ...[a.connector_id && nameOf(a.connector_id) + " · ", a.occurrences > 1 && `${number.format(a.occurrences)} times, last `].filter(Boolean), time(a.last_seen_at)),
  ])};
}

function quarantineGroup([id]) {
  const name = nameOf(id), title = el("h3"), reasons = el("ul"), head = el("div", {class: "head"}, title);
  if (scope === "app") head.append(button("Replay", `Replay ${name}`, async () => {
    const {replayed} = JSON.parse(await api(`connectors/${id}/replay`, "POST"));
    return replayed ? `${count(replayed, "record")} of ${name} left the quarantine.` : `No record of ${name} left the quarantine: the cause is still there.`;
  }));
  return {node: el("div", {class: "group"}, head, reasons), update: ([, groups]) => {
    say(title, nameOf(id));
    keep(reasons, groups, g => g.stream + "\n" + g.reason_code, () => {
      const li = el("li");
      return {node: li, update: g => fill(li, g, () => [
        el("strong", {}, count(g.records, "record")), ` of ${g.stream}: ${words(g.reason_code)}`, el("small", {}, g.reason + " · ", time(g.last_seen_at)),
      ])};
    });
  }};
}

function sift() {
  const wanted = $("filter").value.trim().toLowerCase();
  for (const c of seen.connectors) {
    const text = `${c.name} ${c.type} ${c.health} ${(HEALTH[c.health] || [])[2]}`.toLowerCase();
    $("connectors-list").known.get(c.connector_id).node.hidden = !$("sift").hidden && !text.includes(wanted);
  }
}

// Metrics.

let chart; // the chart on display: its request and response, its days, and the selected day
const picked = name => document.querySelector(`[name=${name}]:checked`).value;
const day = new Intl.DateTimeFormat(undefined, {day: "numeric", month: "short", year: "numeric", timeZone: "UTC"});
const shortDay = new Intl.DateTimeFormat(undefined, {day: "numeric", month: "short", timeZone: "UTC"});
const date = text => new Date(text + "T00:00:00Z");
const addDays = (text, n) => new Date(date(text).getTime() + n * 864e5).toISOString().slice(0, 10);

function today() {
  const of = timeZone => new Intl.DateTimeFormat("en-CA", {timeZone, year: "numeric", month: "2-digit", day: "2-digit"}).format(new Date(seen.now));
  try { return of(tenant.timezone); } catch { return of("UTC"); } // PostgreSQL knows zones that browsers do not
}

/** Adds decimal numbers exactly, as text. */
function total(texts) {
  const places = Math.max(0, ...texts.map(text => (text.split(".")[1] || "").length));
  const units = texts.reduce((sum, text) => {
    const [whole, rest = ""] = text.split(".");
    return sum + BigInt(whole + rest.padEnd(places, "0"));
  }, 0n).toString().padStart(places + 1, "0");
  return places ? units.slice(0, -places) + "." + units.slice(-places) : units;
}

async function measure(signal, isDue) {
  const type = picked("type"), days = Number(picked("period")), last = today(), first = addDays(last, 1 - days);
  const path = `metrics/${tenant.tenant_id}?start_date=${first}&end_date=${last}&metric_type=${encodeURIComponent(type)}&limit=10000`;
  if (!isDue && chart && chart.path === path) return;
  const text = await api(path, "GET", undefined, signal);
  if (chart && chart.path === path && chart.text === text) return;
  // A number can have more digits than a double, so it stays text. Quotes within a string are escaped, and do not match.
  const {metrics} = JSON.parse(text.replace(/"metric_value": ?(-?[\d.]+)/g, '"metric_value":"$1"'));
  const byDay = new Map(metrics.map(m => [m.metric_date, m]));
  const own = tenant.measures.find(m => m.name === type), label = capital(type);
  const unit = own ? own.unit : {inventory: "pieces", staffing: "hours"}[type] || "money";
  const isMoney = unit === "money", isSum = own ? own.aggregation === "sum" : type !== "inventory";
  const money = new Intl.NumberFormat(undefined, isMoney ? {style: "currency", currency: tenant.currency} : {});
  const show = value => /^-?[\d.]+$/.test(value) ? money.format(value) : value; // or Infinity
  chart = {path, text, last, show, at: chart && chart.at, days: Array.from({length: days}, (_, i) => addDays(first, i)).map(d => ({day: d, value: byDay.get(d)?.metric_value}))};

  $("figures").hidden = !metrics.length;
  document.querySelector("#metrics .none").hidden = metrics.length > 0;
  say($("empty"), `No ${type} in the last ${days} days.`);
  const exact = metrics.map(m => m.metric_value).filter(v => /^-?[\d.]+$/.test(v));
  say($("total"), isSum ? show(total(exact)) : exact.length ? show(exact[exact.length - 1]) : "");
  const units = isMoney ? "" : unit === "pieces" && Number(exact[exact.length - 1]) === 1 ? "piece " : `${unit} `;
  say($("basis"), isSum ? `total of ${count(metrics.length, "day")}` : `${units}on ${metrics.length ? day.format(date(metrics[metrics.length - 1].metric_date)) : ""}`);
  const left = metrics.filter(m => m.data && m.data.unconverted && Object.keys(m.data.unconverted).length).length;
  $("unconverted").hidden = !left;
  say($("unconverted"), `On ${count(left, "day")}, amounts in another currency are left out: their exchange rate is missing.`);
  say($("caption"), `${label} by day, ${shortDay.format(date(first))} to ${shortDay.format(date(last))}`);
  say($("unit"), isMoney ? `${label} (${tenant.currency})` : `${label} (${unit})`);
  keep($("values"), [...metrics].reverse(), m => m.metric_date, m => {
    const value = el("td", {class: "num"});
    return {node: el("tr", {}, el("td", {}, el("time", {datetime: m.metric_date, title: m.metric_date}, day.format(date(m.metric_date)))), value), update: m => say(value, m.metric_value)};
  });
  draw();
}

function draw() {
  const box = $("chart"), width = box.clientWidth, height = 220;
  if (!chart || !width) return;
  const {days, last, show} = chart, values = days.map(d => Number(d.value)).map(v => isFinite(v) ? v : 0);
  const most = Math.max(0, ...values), least = Math.min(0, ...values), span = most - least || 1, power = 10 ** Math.floor(Math.log10(span / 4));
  const step = power * ([1, 2, 2.5, 5, 10].find(n => n * power * 4 >= span * .999) || 10);
  const below = Math.ceil(-least / step * .999), above = Math.ceil(most / step * .999) || +!below, low = -below * step;
  const compact = new Intl.NumberFormat(undefined, {notation: "compact", maximumFractionDigits: 2});
  const ticks = Array.from({length: below + above + 1}, (_, i) => low + i * step), labels = ticks.map(t => compact.format(t));
  const left = Math.max(...labels.map(l => l.length)) * 7 + 10, bottom = height - 24, top = 10;
  const each = (width - left - 4) / days.length, bar = Math.max(each * (each > 4 ? .78 : 1), .8);
  const y = value => bottom - (value - low) / (step * (below + above)) * (bottom - top), x = i => left + i * each;
  const picture = svg("svg", {width, height, "aria-hidden": "true"});
  ticks.forEach((t, i) => picture.append(
    svg("line", {class: "rule", x1: left, x2: width, y1: y(t), y2: y(t)}),
    svg("text", {x: left - 8, y: y(t) + 4, "text-anchor": "end"}, labels[i])));
  const every = Math.ceil(days.length / Math.max(Math.floor((width - left) / 80), 1));
  for (let i = days.length - 1; i >= 0 && x(i) > left + 18; i -= every) picture.append(
    svg("text", {x: x(i) + each / 2 + 24 > width ? width : x(i) + each / 2, y: height - 6, "text-anchor": x(i) + each / 2 + 24 > width ? "end" : "middle"}, shortDay.format(date(days[i].day))));
  const mark = svg("line", {class: "at", y1: top, y2: bottom});
  picture.append(mark);
  const bars = days.map((d, i) => {
    if (d.value == null) return null;
    const zero = y(0), end = y(values[i]), tall = Math.max(Math.abs(zero - end), 1);
    // The bar of today is drawn as an outline, because the day is not over yet.
    return picture.appendChild(svg("rect", {class: d.day === last ? "bar open" : "bar", "data-day": d.day, x: x(i) + (each - bar) / 2, y: end > zero ? zero : zero - tall, width: bar, height: tall, rx: bar > 6 ? 2 : 0}));
  });
  box.replaceChildren(picture);
  box.setAttribute("aria-valuemin", 0);
  box.setAttribute("aria-valuemax", days.length - 1);
  chart.left = left;
  chart.each = each;
  chart.point = i => {
    i = Math.min(Math.max(i, 0), days.length - 1);
    const d = days[i], text = `${day.format(date(d.day))}: ${d.value == null ? "no value" : show(d.value)}${d.day === last ? ", so far" : ""}`;
    if (chart.on) chart.on.classList.remove("on");
    if (chart.on = bars[i]) bars[i].classList.add("on");
    for (const end of ["x1", "x2"]) mark.setAttribute(end, x(i) + each / 2);
    chart.at = d.day;
    box.setAttribute("aria-valuenow", i);
    box.setAttribute("aria-valuetext", text);
    say($("readout"), text);
  };
  const at = days.findIndex(d => d.day === chart.at);
  chart.point(at < 0 ? days.length - 1 : at);
}

function keys(event) {
  const i = chart ? chart.days.findIndex(d => d.day === chart.at) : -1;
  const to = {ArrowLeft: i - 1, ArrowDown: i - 1, ArrowRight: i + 1, ArrowUp: i + 1, PageDown: i - 7, PageUp: i + 7, Home: 0, End: 1e9}[event.key];
  if (i < 0 || to == null) return;
  event.preventDefault();
  chart.point(to);
}

function radios(id, name, options, checked = options[0][0]) {
  $(id).append(...options.map(([value, text]) => {
    const input = el("input", {type: "radio", name, value});
    input.checked = value === checked;
    input.addEventListener("change", () => look());
    return el("label", {}, input, text);
  }));
}

radios("periods", "period", [30, 90, 365].map(days => [String(days), `${days} days`]));
$("door").addEventListener("submit", event => {
  event.preventDefault();
  token = $("token").value.trim();
  $("refused").textContent = "";
  signIn();
});
$("out").addEventListener("click", () => signOut());
$("tenant").addEventListener("change", () => choose($("tenant").value));
$("filter").addEventListener("input", sift);
$("more").addEventListener("click", () => { everyRun = !everyRun; show(); });
$("chart").addEventListener("keydown", keys);
for (const what of ["pointermove", "pointerdown"]) $("chart").addEventListener(what, event => {
  if (chart) chart.point(Math.floor((event.clientX - $("chart").getBoundingClientRect().left - chart.left) / chart.each));
});
new ResizeObserver(draw).observe($("chart"));
document.addEventListener("visibilitychange", () => {
  if (document.hidden) clearTimeout(timer);
  else if (tenant) look();
});
if (token) signIn(); else signOut();
})();
