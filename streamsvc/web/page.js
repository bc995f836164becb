/** The page: choose a source or a session; captions, scenes and answers of it; the state in plain words. */

import { Addresses, download } from "./addresses.js";
import { Answers } from "./answers.js";
import { CaptionView } from "./captions.js";
import { Session, bearer, place, randomId, request, sessionPlace } from "./client.js";
import { changeLanguage, fillLanguages, options } from "./options.js";
import { Scenes } from "./scenes.js";
import { Search } from "./search.js";
import { SessionList, deleteSession } from "./sessions.js";
import { SourceForm } from "./source.js";
import { screenWords, stateWords } from "./state.js";
import { Tabs } from "./tabs.js";
import { textSize } from "./text_size.js";
import { Transcript, drawFigures, sentence } from "./views.js";
import { Watches } from "./watches.js";
import { Publication } from "./whip.js";

const $ = (id) => document.getElementById(id);
const LAST_WORDS_MS = 20_000; // after Stop, the end of the session is waited for so long
const ALERT_MS = 15_000;
const HISTORY_MS = 1500; // after a connection, what comes is history first; alerts of then are not news

const captions = new CaptionView($("captions"));
const transcript = new Transcript($("transcript"), $("said"), $("transcript-live"));
const scenes = new Scenes($("scenes"), { load: pictureAddress, onPicture: showStill, button: $("scenes-live") });
const answers = new Answers($("answers"), { onEvidence: showPlace, onAsk: ask, onCancel: (id) => session?.cancel(id), leave: () => $("question").focus() });
const find = () => session;
const watches = new Watches(
  { form: $("watch"), input: $("watch-when"), problem: $("watch-problem"), chips: $("watches"), alerts: $("alerts") },
  { find, onEvidence: showPlace, onAlert: alerted },
);
const search = new Search({ find, onPlace: showPlace });
const addresses = new Addresses(find);
const tabs = new Tabs($("tabs"), (name) => name === "watches" && unseen(0));
const source = new SourceForm(() => begin(start));
const list = new SessionList(
  { card: $("sessions-card"), list: $("sessions"), more: $("sessions-more"), empty: $("sessions-empty"), filter: $("sessions-state") },
  { token, picture: pictureAddress, onOpen: (id) => begin(() => watch(id)), onDelete: remove },
);

let session = null; // the event socket
let publication = null; // WHIP, when this page is the publisher
let owned = false; // this page has made the session, so Stop ends it
let busy = false;
let phase = "idle"; // idle, starting, waiting, live, stalled, stopping, ended
let load = { level: 0, reason: "" }; // the last session.degraded
let trouble = ""; // why nothing comes or goes at the moment
let parting = ""; // what is told at the end of a session that is stopped here
let fresh = false; // what comes now happens now, and is no history

function token() {
  return $("token").value.trim();
}
const show = (element, visible) => (element.hidden = !visible);

// --- messages and state -----------------------------------------------------------------------------------------

function fail(message) {
  $("error-text").textContent = sentence(message);
  show($("error"), Boolean(message));
}

function hint(message) {
  const shown = $(session ? "hint" : "idle-hint");
  if (shown.textContent !== message) shown.textContent = message;
  show(shown, Boolean(message));
}

function set(next) {
  const over = phase === "ended" || phase === "stopping";
  if (over && !["idle", "starting", "ended"].includes(next)) return; // a stopped stream does not stall or go live any more
  phase = next;
  draw();
}

function draw() {
  const [state, text] = stateWords(phase, trouble, load);
  $("status").dataset.state = state;
  if ($("status-text").textContent !== text) $("status-text").textContent = text;
  $("stop").textContent = phase === "ended" ? "New session" : owned ? "Stop" : "Leave";
  $("stop").className = phase === "ended" ? "primary" : owned ? "danger" : "";
  $("empty").textContent = screenWords(phase);
  if (phase === "ended" || phase === "stopping") captions.clear();
}

/** The session has been shown to the end; what was said stays on the page. */
function ended({ error = null, message = parting || "The session has ended." } = {}) {
  if (phase === "ended") return;
  releaseSource();
  owned = false; // the server has nothing left to stop
  set("ended");
  if (error) fail(error.message);
  hint(`${message} You can still read, search, ask and download here.`);
}

// --- starting --------------------------------------------------------------------------------------------------

/** Start what `how` does; a failure leads back to the start, with its message. */
async function begin(how) {
  if (busy) return;
  fail("");
  hint("");
  busy = true;
  set("starting");
  try {
    await how();
  } catch (error) {
    await leave();
    fail(error.message);
  } finally {
    busy = false;
  }
}

async function start() {
  const chosen = source.kind;
  if (chosen === "watch") return watch($("session").value.trim());
  const wanted = options();
  if (chosen === "obs") return watch(await makeSession(wanted), { mine: true, tab: "session" });
  if (chosen !== "address") return publish(wanted);
  const address = $("address").value.trim();
  if (!address) throw new Error("Type an address first.");
  return watch(await makeSession({ source: address, ...wanted }), { mine: true });
}

async function makeSession(json) {
  const response = await request(place("v1/sessions"), { token: token(), method: "POST", json });
  return (await response.json()).id;
}

async function publish(wanted) {
  const stream = await source.open((message) => stop(message));
  const made = Object.keys(wanted).length ? await makeSession(wanted) : null; // options go with the session, then it is published to
  publication = new Publication(stream, { session: made, token: token(), onState: publishing });
  const { session: id } = await publication.start();
  watch(id, { mine: true });
  source.show(hint);
}

function publishing({ state, message }) {
  if (state === "reconnecting") trouble = message;
  else if (state === "live") trouble = "";
  else if (state === "failed" && session) {
    trouble = "";
    stop("The connection is lost.");
    fail(message);
  }
  draw();
}

// --- session ----------------------------------------------------------------------------------------------------

/** Show a session. mine: this page has made it. */
function watch(id, { mine = false, tab = "" } = {}) {
  if (!id) throw new Error("Type the id of a session first.");
  session?.close();
  clearAll();
  owned = mine;
  parting = "";
  const current = new Session(id, { token: token(), history: true });
  session = current;
  current.forever = Boolean(publication); // a publisher comes back under its name, also to a server that was restarted
  listen(current);
  current.open();
  set("waiting");
  list.show(false);
  show($("idle"), false);
  show($("work"), true);
  $("skip").href = "#question";
  history.replaceState(null, "", `#session=${encodeURIComponent(id)}`);
  addresses.clear();
  addresses.show();
  if (tab) tabs.choose(tab);
  $("session-name").textContent = id;
  $("session-name").focus();
  hint("");
}

/** What the server says of the session, beside what its log says: a log that was cut off has no end. */
async function describe(current) {
  const read = async () => (await request(sessionPlace(current.id), { token: current.token })).json();
  const described = await read().catch(() => null);
  if (!described || current !== session) return; // left or refused meanwhile
  const { id, name, state } = described;
  current.name = name;
  $("session-name").textContent = name || id;
  addresses.show();
  if (state !== "ended") return;
  current.id = id;
  current.end();
  ended();
}

function listen(to) {
  const on = (type, fn) => to.on(type, (event) => to === session && fn(event));
  on("state", ({ state, message, status }) => {
    trouble = state === "waiting" ? "The connection is lost; trying again" : "";
    if (state === "closed") ended();
    else if (state === "refused") refused(status, message);
    else draw();
    if (state !== "open") return void (fresh = false);
    describe(to);
    watches.load();
    setTimeout(() => (fresh = to === session), HISTORY_MS);
  });
  on("epoch", clearAll);
  on("gap", () => hint("Some of what was said or shown was lost on the way."));
  on("log.gap", () => hint("The oldest part of this session is no longer kept."));
  on("session.created", ({ tracks }) => set(tracks?.length ? "live" : "waiting"));
  on("session.updated", ({ tracks }) => set(tracks?.length ? "live" : "waiting"));
  on("session.stalled", () => set("stalled"));
  on("session.resumed", () => set("live"));
  on("session.degraded", (event) => {
    load = event;
    $("load-note").textContent = event.level ? (event.message ?? "") : ""; // in full: what is reduced, what still works
    draw();
  });
  on("session.going_away", () => hint("The server is about to restart; the session will end soon."));
  on("session.closed", (event) => {
    to.id = event.session; // its name leads to the next broadcast soon
    ended(event);
  });
  on("caption.partial", (event) => caption(event, "partial"));
  on("caption.final", (event) => {
    caption(event, "final");
    transcript.final(event);
  });
  on("caption.translation", (event) => transcript.translation(event));
  on("caption.gap", (event) => transcript.gap(event));
  on("keyframe.sampled", (event) => scenes.keyframe(event));
  on("sight.ready", (event) => scenes.sight(event));
  on("screen.text", (event) => scenes.screenText(event));
  on("scene.caption", (event) => scenes.caption(event));
  on("scene.delta", (event) => scenes.delta(event));
  on("answer.delta", (event) => answers.delta(event));
  on("answer.done", (event) => ($("answer-said").textContent = answers.done(event)));
  on("alert.fired", (event) => watches.alert(event, fresh));
  on("error", ({ error, question_id: about, id }) => answers.refused(about, id, error) || fail(error.message));
  on("latency.report", (event) => drawFigures($("figures-table"), $("figures-note"), event));
}

/** Words over the picture: not of a stream that has been stopped. */
function caption(event, part) {
  if (phase === "waiting") set("live"); // its log may have lost its beginning
  if (phase === "live" || phase === "stalled") captions[part](event);
}

/** The server will not show the session: at once, or no longer, where something has been shown already. */
async function refused(status, message) {
  const shown = $("transcript").childElementCount + $("scenes").childElementCount > 0;
  answers.failAll(message);
  if (!shown) {
    await leave();
    return fail(message);
  }
  publication?.stop();
  ended({ message: status === 404 ? "The server no longer has this session, perhaps because it was restarted." : message });
}

/** Stop sending and end the session; what was said stays on the page. */
async function stop(message = "Stopped.") {
  const [was, id] = [publication, session?.id];
  if (phase === "ended" || phase === "idle" || !owned) return leave();
  if (phase === "stopping") return;
  releaseSource();
  set("stopping");
  hint("");
  parting = message;
  await was?.stop();
  const told = await fetch(sessionPlace(id), { method: "DELETE", headers: bearer(token()) }).then((response) => response.ok, () => false);
  setTimeout(() => session?.id === id && ended(), told ? LAST_WORDS_MS : 0); // session.closed comes first, as a rule
}

/** Back to the start. */
async function leave() {
  const [was, focused] = [publication, !$("work").hidden];
  releaseSource();
  session?.close();
  session = null;
  owned = false;
  trouble = "";
  load = { level: 0, reason: "" };
  set("idle");
  show($("work"), false);
  show($("idle"), true);
  list.show(true);
  $("skip").href = "#source";
  history.replaceState(null, "", location.pathname);
  if (focused) $("start").focus();
  await was?.stop();
}

function releaseSource() {
  publication = null;
  if (session) session.forever = false;
  source.release();
  show($("still"), Boolean($("still").src));
}

function clearAll() {
  captions.clear();
  for (const part of [transcript, scenes, answers, watches]) part.clear();
  search.close();
  unseen(0);
  show($("figures-table"), false);
  $("load-note").textContent = "";
  $("still").removeAttribute("src");
  show($("still"), false);
  load = { level: 0, reason: "" };
}

async function remove(id, name) {
  const refusal = await deleteSession(id, name, token());
  if (refusal === null) return; // it is kept
  if (!refusal && session?.id === id) await leave();
  fail(refusal);
  if (!refusal) hint("The session is deleted.");
  list.refresh();
  if (!session) $("sessions-title").focus();
}

// --- pictures and places ----------------------------------------------------------------------------------------

/** A picture's address that <img> can use: signed ones as they are, else fetched with the token. */
async function pictureAddress(url) {
  // Below our own root, whatever address the server gives itself: nothing leaves this origin.
  const address = place(String(url).replace(/^.*(?=v1\/sessions\/)/, ""));
  if (address.origin !== new URL(import.meta.url).origin) return null;
  if (!token() || address.search) return address.href;
  const response = await fetch(address, { headers: bearer(token()) }).catch(() => null);
  return response?.ok ? URL.createObjectURL(await response.blob()) : null;
}

function showStill(address) {
  $("still").src = address;
  show($("still"), $("preview").hidden);
}

/** Show a stretch of the stream in the transcript and among the scenes, and the nearest of the two if only one is to be seen. */
function showPlace(start, end) {
  transcript.mark(start, end);
  scenes.mark(start, end);
  const seen = (name) => tabs.shows(name) && $(name).querySelector(".marked");
  if (seen("transcript") || seen("scenes")) return;
  tabs.choose($("transcript").querySelector(".marked") ? "transcript" : "scenes");
  transcript.mark(start, end); // once more: a hidden list cannot scroll
  scenes.mark(start, end);
}

// --- questions and alerts ---------------------------------------------------------------------------------------

function ask(text) {
  if (!text) return;
  const id = randomId();
  answers.asked(id, text);
  try {
    session.ask(text, { id });
    fail("");
  } catch {
    answers.fail(id, "Not connected. Ask again in a moment.");
  }
}

function alerted(text) {
  hint(text);
  setTimeout(() => $("hint").textContent === text && hint(""), ALERT_MS); // it stays among the alerts
  if (!tabs.shows("watches")) unseen(Number($("alert-count").textContent || 0) + 1);
}

function unseen(count) {
  $("alert-count").textContent = count ? String(count) : "";
}

// --- the rest of the page ---------------------------------------------------------------------------------------

function keys(event) {
  const typing = event.target.matches("input:not([type=radio], [type=checkbox]), textarea, select");
  if (event.key === "/" && session && !typing && !event.ctrlKey && !event.metaKey && !event.altKey) {
    event.preventDefault();
    tabs.choose("ask");
    $("question").focus();
  } else if (event.key === "Escape" && !$("sure").open) {
    if (!$("error").hidden) fail("");
    for (const part of [transcript, scenes]) {
      part.mark(1, -1); // an empty stretch: nothing is marked
      part.follower.jump();
    }
  }
}

function submits(form, fn) {
  $(form).addEventListener("submit", (event) => {
    event.preventDefault();
    fn();
  });
}

function setUp() {
  textSize();
  fillLanguages($("live-language"));
  submits("ask", () => {
    ask($("question").value.trim());
    $("question").value = "";
  });
  $("token").addEventListener("change", () => list.refresh());
  $("stop").addEventListener("click", () => stop());
  $("live-language").addEventListener("change", () => changeLanguage(session).then(hint, (error) => fail(error.message)));
  $("delete").addEventListener("click", () => remove(session.id, $("session-name").textContent));
  $("error-close").addEventListener("click", () => {
    fail("");
    $(session ? "session-name" : "start").focus();
  });
  for (const button of document.querySelectorAll("[data-file]")) {
    button.addEventListener("click", () => download(session, button.dataset.file).catch((error) => fail(error.message)));
  }
  document.addEventListener("keydown", keys);
  const given = new URLSearchParams(location.hash.slice(1));
  $("token").value = given.get("token") ?? "";
  if (given.get("session")) begin(() => watch(given.get("session")));
  else {
    list.show(true);
    if (given.get("token")) history.replaceState(null, "", location.pathname); // a token must not stay in the address bar
  }
}

setUp();
