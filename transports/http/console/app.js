// The console's one page: executions with their progress, live, and the output of one of them.
// It builds everything with textContent; no text of a job is ever read as HTML.

import { Stream } from "./stream.js";

const OUTPUT_MAX = 1_000_000;  // characters of output kept in the page
const ENDED_MAX = 100;  // ended executions kept in the list
const FINAL = new Set(["Succeeded", "Failed", "Stopped", "TimedOut", "Cancelled", "Skipped", "Lost"]);
const ICONS = {
  Queued: "…", Starting: "◔", Running: "▶", Stopping: "◼", Unknown: "?", Succeeded: "✓",
  Failed: "✗", Stopped: "■", TimedOut: "⏱", Cancelled: "⊘", Skipped: "↷", Lost: "✗",
};
// Colours and cursor movements of terminals; what is left is plain text.
const ESCAPES = /\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-_])/g;

// Characters that are not visible: controls, marks of direction, fillers (bus/visible_text.py has the reasons).
const HIDDEN = /[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028\u2029\u2800\ufff9-\ufffb]|\p{Default_Ignorable_Code_Point}/gu;
const visible = (text) => text.replace(HIDDEN, (found, at) => belongs(found, text.slice(Math.max(0, at - 2), at)) ? found : "\ufffd");

/** What spells an emoji, or joins the letters of a script that joins them. */
function belongs(found, before) {
  if (/[\ufe0e\ufe0f]/u.test(found)) return /[\p{So}\p{Sm}0-9#*]$/u.test(before);
  if (/[\u200c\u200d]/u.test(found)) return /[\p{So}\p{Sk}\ufe0f\u0600-\u08ff\u0900-\u0dff\u1000-\u109f\u1780-\u18af\ufb50-\ufdff]$/u.test(before);
  return false;
}

const byId = (id) => document.getElementById(id);
const state = {
  executions: new Map(), rows: new Map(), gaveUp: new Map(), chosen: null, follow: true,
  size: 0,  // characters in the output
  open: new Map(),  // lines of it that may still change, by number
};
let events = null;
let outputs = null;
let drawing = false;
let looking = null;  // the timer until reasons are asked for

// ---- signing in and out

// The page never keeps a token: it is exchanged for a cookie that no script can read.

byId("sign-in").addEventListener("submit", (submit) => {
  submit.preventDefault();
  const token = byId("token").value.trim();
  byId("token").value = "";
  signIn({ token }, "This token is not valid.");
});

byId("leave").addEventListener("click", async () => {
  await ask("DELETE", "/api/v1/session").catch(() => null);
  showEntry("");
});

// A link with a code that is opened in a page that is already here only changes the fragment.
addEventListener("hashchange", () => { if (codeInAddress()) enter(); });

/** Goes on with the code of the link that was opened, or with the cookie of an earlier sign-in. */
async function enter() {
  const code = codeInAddress();
  if (code) {
    // Out of the address bar and the history before anything else happens.
    history.replaceState(null, "", location.pathname + location.search);
    return signIn({ code }, "This link was used or is too old; jobbus token link makes another.");
  }
  const response = await ask("GET", "/api/v1/session").catch(() => null);
  if (response?.ok) openEvents();
  else byId("token").focus();
}

function codeInAddress() {
  return new URLSearchParams(location.hash.slice(1)).get("code");
}

async function signIn(proof, whenRefused) {
  byId("refusal").textContent = "";
  try {
    const response = await ask("POST", "/api/v1/session", proof);
    if (response.ok) return openEvents();
    const problem = await response.json().catch(() => ({}));
    const refused = response.status === 401 || response.status === 422;
    showEntry(refused ? whenRefused : problem.detail ?? response.statusText);
  } catch {
    showEntry("The service cannot be reached.");
  }
}

function ask(method, path, body) {
  const json = body === undefined ? {} : {
    body: JSON.stringify(body), headers: { "Content-Type": "application/json" },
  };
  return fetch(path, { method, cache: "no-store", credentials: "same-origin", ...json });
}

/** The page as somebody sees it who is not signed in, with the reason if there is one. */
function showEntry(why) {
  events?.close();
  outputs?.close();
  Object.assign(state, { executions: new Map(), gaveUp: new Map(), chosen: null });
  for (const row of state.rows.values()) row.line.remove();
  state.rows.clear();
  clearOutput();
  byId("refusal").textContent = why;
  show(false);
  showLink("off", "signed out");
  byId("token").focus();
}

function show(working) {
  byId("entry").hidden = working;
  byId("work").hidden = !working;
  byId("leave").hidden = !working;
}

function showLink(name, words) {
  byId("link").dataset.state = name;
  byId("link").textContent = words;
}

// ---- all executions

function openEvents() {
  events?.close();
  let fresh = null;  // subjects of a snapshot that is still coming in
  events = new Stream("/api/v1/events?type=execution.*&type=job.*", {
    state(name, seconds) {
      if (name === "live") { show(true); showLink("live", "live"); }
      if (name === "connecting") showLink("wait", "connecting");
      if (name === "waiting") showLink("wait", `not connected; next try in ${seconds} s`);
    },
    refused(status, detail) { showEntry(status === 401 ? "You are signed out." : detail); },
    frame(kind, data) {
      if (kind === "hello") {
        fresh = null;  // a snapshot that was cut off comes again as a whole
      } else if (kind === "snapshot") {
        if (!fresh) { fresh = new Set(); state.gaveUp.clear(); }
        for (const record of data.items) {
          if (!record.executionId) keepJob(record);
          else { fresh.add(record.executionId); keep(record); }
        }
      } else if (kind === "snapshot_end") {
        for (const id of state.executions.keys()) if (!fresh?.has(id)) state.executions.delete(id);
        fresh = null;
      } else if (kind === "reset") {
        state.executions.clear();
        state.gaveUp.clear();
      } else if (kind === "change" && data.type === "execution.deleted") {
        state.executions.delete(data.data.executionId);
      } else if (kind === "change" && data.type.startsWith("job.")) {
        keepJob(data.data, data.type);
      } else if (kind === "change") {
        keep(data.data);
      } else if (kind === "end" && data.reason === "revoked") {
        showEntry("Your access was revoked.");
      }
      draw();
      lookForReasons();
    },
  });
}

/** What something waits for changes with others, not with its own record: it is asked for again, a
    moment after any change and every half minute, as long as something waits. */
function lookForReasons() {
  if (looking || document.hidden || ![...state.executions.values()].some(isQueued)) return;
  looking = setTimeout(async () => {
    const response = await ask("GET", "/api/v1/executions?status=Queued&limit=500").catch(() => null);
    const page = response?.ok ? await response.json().catch(() => null) : null;
    looking = null;
    for (const record of page?.items ?? []) {
      const held = state.executions.get(record.executionId);
      if (held?.version === record.version) held.waitingFor = record.waitingFor;
    }
    draw();
  }, 1000);
}

setInterval(lookForReasons, 30000);

/** A record counts only if it is newer than what is held: snapshots and changes may overlap. */
function keep(record) {
  const held = state.executions.get(record.executionId);
  if (!held || record.version > held.version) state.executions.set(record.executionId, record);
}

/** Of jobs the page shows those that are not restarted any more. */
function keepJob(job, type) {
  if (job.gaveUpAt && type !== "job.removed") state.gaveUp.set(job.jobId, job);
  else state.gaveUp.delete(job.jobId);
}

// ---- the list

function draw() {
  if (drawing) return;
  drawing = true;
  requestAnimationFrame(() => { drawing = false; drawNow(); });
}

function drawNow() {
  const all = [...state.executions.values()].sort(byLiveThenNewest);
  for (const old of all.filter(isFinal).slice(ENDED_MAX)) state.executions.delete(old.executionId);
  const shown = all.filter((record) => state.executions.has(record.executionId));
  for (const [id, row] of state.rows) {
    if (!state.executions.has(id)) { row.line.remove(); state.rows.delete(id); }
  }
  const body = byId("rows");
  shown.forEach((record, index) => {
    const row = rowOf(record);
    fill(row, record);
    if (body.children[index] !== row.line) body.insertBefore(row.line, body.children[index] ?? null);
  });
  byId("none").hidden = shown.length > 0;
  drawGaveUp();
  const live = shown.filter((record) => !isFinal(record)).length;
  document.title = live ? `(${live}) jobbus` : "jobbus";
  drawChosen();
}

function drawGaveUp() {
  const lines = [...state.gaveUp.values()].map((job) => {
    const line = document.createElement("li");
    line.textContent = `${job.jobId} gave up at ${clock(job.gaveUpAt)}: it was restarted too often. `
      + "It runs again when somebody starts it.";
    return line;
  });
  byId("gave-up").hidden = !lines.length;
  byId("gave-up").replaceChildren(...lines);
}

const isFinal = (record) => FINAL.has(record.status);
const isQueued = (record) => record.status === "Queued";

function byLiveThenNewest(a, b) {
  return isFinal(a) - isFinal(b) || b.queuedAt.localeCompare(a.queuedAt)
    || b.executionId.localeCompare(a.executionId);
}

function rowOf({ executionId: id, jobId }) {
  const known = state.rows.get(id);
  if (known) return known;
  const make = (tag, parent, kind) => {
    const element = document.createElement(tag);
    if (kind) element.className = kind;
    parent?.append(element);
    return element;
  };
  const line = make("tr");
  const first = make("th", line);
  first.scope = "row";
  const name = make("button", first, "choose");
  name.type = "button";
  const slash = jobId.indexOf("/") + 1;
  name.append(jobId.slice(0, slash), document.createElement("wbr"), jobId.slice(slash));
  const by = make("small", first);
  const status = make("td", line, "status");
  const cell = make("td", line, "progress");
  const meter = make("progress", cell);
  meter.max = 100;
  const words = make("span", cell);
  const time = make("td", line, "number");
  line.addEventListener("click", () => choose(id));
  const row = { line, by, status, meter, words, time };
  state.rows.set(id, row);
  return row;
}

function fill(row, record) {
  const percent = record.progress?.percent ?? null;
  const done = record.status === "Succeeded";
  row.line.dataset.status = record.status;
  row.line.ariaSelected = String(record.executionId === state.chosen);
  const again = record.attempt > 1 ? attempt(record) : "";
  row.by.textContent = [visible(record.userId), clock(record.startTime ?? record.queuedAt), again]
    .filter(Boolean).join(", ");
  row.status.textContent = `${ICONS[record.status] ?? ""} ${record.status}`;
  row.meter.ariaLabel = `Progress of ${record.jobId}`;
  row.meter.hidden = percent === null && (isFinal(record) ? !done : record.status === "Queued");
  if (percent !== null || done) row.meter.value = done ? 100 : percent;
  else row.meter.removeAttribute("value");
  const shown = percent === null ? "" : `${share(percent)} `;
  const reloads = record.progress?.reloading && !isFinal(record) ? "reloading " : "";
  const said = shown + reloads + (record.progress?.message ?? "");
  row.words.textContent = visible(why(record) || waiting(record) || unwell(record) || said || (record.progress?.note ?? ""));
  row.words.title = visible(record.progress?.note ?? "");  // what the program wrote that was not understood
  row.time.textContent = elapsed(record);
}

/** That a program is not well, and what its check said. */
function unwell(record) {
  if (record.status !== "Running" || record.health?.status !== "unhealthy") return "";
  return record.health.message ? `unhealthy: ${record.health.message}` : "unhealthy";
}

/** What an execution waits for: until its delay has passed that, then what the service says. */
function waiting(record) {
  const seconds = record.notBefore
    ? Math.max(0, Math.ceil((Date.parse(record.notBefore) - Date.now()) / 1000)) : 0;
  if (!record.notBefore || (!seconds && record.waitingFor)) return record.waitingFor ?? "";
  if (!record.cause.startsWith("policy:")) return `not before ${clock(record.notBefore)}`;
  return `${record.cause.split(":").pop()} in ${seconds} s, ${attempt(record)}`;
}

function attempt(record) {
  const of = record.attempts >= record.attempt ? ` of ${record.attempts}` : "";
  return `attempt ${record.attempt}${of}`;
}

/** How an execution ended that did not do what was asked. */
function why(record) {
  return isFinal(record) && record.status !== "Succeeded" ? record.ending : "";
}

/** As the command line says it too (`percent_word`): never rounded up. */
function share(percent) {
  if (percent <= 0 || percent >= 1) return `${Math.floor(percent)} %`;
  const tenths = Math.floor(percent * 10);
  return tenths ? `0.${tenths} %` : "< 0.1 %";
}

/** The time of day, with the day unless it is today. */
function clock(when) {
  const at = new Date(when);
  const day = at.toDateString() === new Date().toDateString() ? {} : { day: "numeric", month: "short" };
  return at.toLocaleString(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", ...day });
}

function elapsed(record) {
  if (!record.startTime) return "";
  const end = record.endTime ? Date.parse(record.endTime) : Date.now();
  const seconds = Math.max(0, Math.round((end - Date.parse(record.startTime)) / 1000));
  const minutes = Math.floor(seconds / 60);
  if (minutes < 1) return `${seconds} s`;
  if (minutes < 60) return `${minutes} min ${seconds % 60} s`;
  return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

setInterval(() => {
  for (const [id, row] of state.rows) {
    const record = state.executions.get(id);
    if (record && !isFinal(record)) row.time.textContent = elapsed(record);
    if (record?.notBefore) row.words.textContent = waiting(record);
  }
}, 1000);

// ---- the output of one

function choose(id) {
  if (state.chosen === id) return;
  outputs?.close();
  state.chosen = id;
  setFollow(true);
  clearOutput();
  outputs = new Stream(`/api/v1/executions/${id}/stream?tail=2000`, {
    state(name) { byId("output-state").dataset.state = name; drawChosen(); },
    refused(status, detail) { note(detail); },
    frame(kind, data) {
      if (kind === "output") appendLines(data.lines);
      if (kind === "gap") note(`bytes ${data.from} to ${data.to} were dropped`);
      if (kind === "reset" && data.outputFrom === 0) clearOutput();
    },
  });
  draw();
  byId("output").closest("section").scrollIntoView({ block: "nearest" });
}

/** The files that the execution left, as links that save them. */
async function drawFiles(record) {
  const list = byId("files");
  const of = record?.artifacts ? record.executionId : "";
  if (list.dataset.of === of) return;
  list.dataset.of = of;
  list.hidden = true;
  list.replaceChildren();
  if (!of) return;
  const path = `/api/v1/executions/${of}/artifacts`;
  const response = await ask("GET", path).catch(() => null);
  if (!response?.ok || list.dataset.of !== of) return;
  const { items } = await response.json();
  const all = { name: `all ${items.length} as a zip`, href: `${path}.zip`, size: record.artifactBytes };
  for (const file of items.length > 1 ? [...items, all] : items) {
    const link = document.createElement("a");
    link.href = file.href;
    link.download = "";
    link.textContent = visible(file.name);
    const line = document.createElement("li");
    line.append(link, ` ${file.size} bytes`);
    list.append(line);
  }
  list.hidden = false;
}

/** What stands beside the output: what set the execution going, what it left, what it set going. */
function about(record) {
  const caused = (record.caused ?? []).map((each) => each.errorCode
    ? `${each.jobId || "another job"} was not started: ${each.error ?? each.errorCode}`
    : `then started ${each.jobId || "another job"} (${each.executionId})`);
  return [
    record.causedBy ? `started after ${nameOf(record.causedBy)}` : "",
    record.artifactsNote,
    record.result ? `result ${JSON.stringify(record.result, null, 1)}` : record.resultNote,
    ...caused,
  ].filter(Boolean).join("\n");
}

function nameOf(executionId) {
  const known = state.executions.get(executionId);
  return known ? `${known.jobId} (${executionId})` : executionId;
}

function drawChosen() {
  const record = state.executions.get(state.chosen);
  byId("follow").hidden = !state.chosen;
  byId("stop").hidden = !record || isFinal(record);
  drawFiles(record);
  const facts = record ? about(record) : "";
  byId("about").hidden = !facts;
  byId("about").textContent = visible(facts);
  byId("output-title").textContent = record ? record.jobId : "Output";
  const link = byId("output-state").dataset.state === "waiting" ? ", reconnecting" : "";
  byId("output-state").textContent = record
    ? visible(record.ending || record.status) + link : "choose an execution";
}

/** Adds lines at the end; an open one is replaced when it comes again under its number. */
function appendLines(lines) {
  let kind = null;
  let text = "";
  const flush = () => { if (text) place(text, kind); text = ""; };
  for (const line of lines) {
    const shown = visible(line.text.replace(ESCAPES, "")) + (line.more ? "" : "\n");
    const before = state.open.get(line.number);
    if (before) { state.open.delete(line.number); remove(before); }
    const own = line.stream === "err" ? "err" : "";
    if (own !== kind || line.partial) flush();
    kind = own;
    if (line.partial) state.open.set(line.number, place(shown, kind, { last: true }));
    else text += shown;
  }
  flush();
  trim();
}

function note(words) {
  place(`[${visible(words)}]\n`, "note");
  trim();
}

/** A piece of output, before the lines that may still change; or one of these, the last. */
function place(text, kind, { last = false } = {}) {
  const part = document.createElement("span");
  if (kind) part.className = kind;
  part.textContent = text;
  const [firstOpen] = last ? [] : state.open.values();
  byId("output").insertBefore(part, firstOpen ?? null);
  state.size += text.length;
  return part;
}

function remove(part) {
  state.size -= part.textContent.length;
  part.remove();
}

/** What is beyond the limit is forgotten at the beginning; lines that may still change stay. */
function trim() {
  const pane = byId("output");
  const [firstOpen] = state.open.values();
  while (state.size > OUTPUT_MAX && pane.firstChild !== (firstOpen ?? pane.lastChild)) {
    remove(pane.firstChild);
  }
  if (state.follow) pane.scrollTop = pane.scrollHeight;
}

function clearOutput() {
  byId("output").replaceChildren();
  state.open.clear();
  state.size = 0;
}

function setFollow(on) {
  state.follow = on;
  byId("follow").ariaPressed = String(on);
  byId("follow").textContent = on ? "Following" : "Follow";
  if (on) byId("output").scrollTop = byId("output").scrollHeight;
}

byId("follow").addEventListener("click", () => setFollow(!state.follow));
byId("output").addEventListener("scroll", () => {
  const pane = byId("output");
  const atEnd = pane.scrollHeight - pane.scrollTop - pane.clientHeight < 4;
  if (atEnd !== state.follow) setFollow(atEnd);
});

new ResizeObserver(() => { if (state.follow) setFollow(true); }).observe(byId("output"));

byId("stop").addEventListener("click", async () => {
  const record = state.executions.get(state.chosen);
  if (!record || !confirm(`Stop ${record.jobId}?`)) return;
  const path = `/api/v1/executions/${record.executionId}/stop`;
  const response = await ask("POST", path, {}).catch(() => null);
  if (!response) return note("the service cannot be reached");
  const problem = response.ok ? null : await response.json().catch(() => ({}));
  if (problem) note(problem.detail ?? response.statusText);
});

enter();
