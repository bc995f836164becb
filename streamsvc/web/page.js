/** The page: choose a source, see captions, scenes and figures, ask questions. */

import { CaptionView } from "./captions.js";
import { ROOT, Session, bearer, place, problem, randomId } from "./client.js";
import { INSECURE, LevelMeter, captureAllowed, closeFile, devices, openCamera, openFile, openScreen } from "./media.js";
import { Answers, Scenes, Transcript, drawFigures, make } from "./views.js";
import { Publication } from "./whip.js";

const $ = (id) => document.getElementById(id);
const QUIET_S = 10; // without sound for so long, the page says so
const TAIL_MS = 1500; // a file that has ended stays connected for so long, so that its last words arrive

const captions = new CaptionView($("captions"));
const transcript = new Transcript($("transcript"), $("said"));
const scenes = new Scenes($("scenes"), { load: pictureAddress, onPicture: showStill });
const answers = new Answers($("answers"), { onEvidence: showEvidence, onRepeat: ask });

let session = null; // the event socket
let publication = null; // WHIP, when this page is the publisher
let stream = null;
let meter = null;
let owned = false; // this page has made the session, so Stop ends it
let busy = false;

const token = () => $("token").value.trim();
const kind = () => document.querySelector('input[name="kind"]:checked').value;
const show = (element, visible) => (element.hidden = !visible);

// --- messages ---------------------------------------------------------------------------------------------------

function fail(message) {
  $("error-text").textContent = message;
  show($("error"), Boolean(message));
}

function hint(message) {
  if ($("hint").textContent !== message) $("hint").textContent = message;
  show($("hint"), Boolean(message));
}

/** state: idle, busy, live, warn, ended */
function status(state, text) {
  $("status").dataset.state = state;
  if ($("status-text").textContent !== text) $("status-text").textContent = text;
}

// --- source -----------------------------------------------------------------------------------------------------

function chooseKind() {
  const chosen = kind();
  for (const part of document.querySelectorAll("#source [data-for]")) show(part, part.dataset.for.split(" ").includes(chosen));
  const capture = chosen === "camera" || chosen === "screen";
  $("insecure").textContent = INSECURE;
  show($("insecure"), capture && !captureAllowed());
  $("start").disabled = busy || (capture && !captureAllowed());
  $("start").textContent = chosen === "watch" ? "Watch" : chosen === "obs" ? "Make a session" : "Start";
}

async function fillDevices() {
  const { cameras, microphones } = await devices();
  for (const [select, found, none] of [
    [$("camera"), cameras, "No camera"],
    [$("microphone"), microphones, "No microphone"],
  ]) {
    const before = select.value;
    const option = (value, text) => make("option", { value }, text);
    select.replaceChildren(option("", "Default"), ...found.map(({ id, label }) => option(id, label)), option("none", none));
    if ([...select.options].some((each) => each.value === before)) select.value = before;
  }
}

function chooseFile() {
  $("file-name").textContent = $("file").files[0]?.name ?? "Drop a video or sound file here, or choose one";
}

async function start() {
  fail("");
  hint("");
  busy = true;
  chooseKind();
  status("busy", "Starting…");
  try {
    if (kind() === "watch") await watch($("session").value.trim());
    else if (kind() === "address") await watchAddress($("address").value.trim());
    else if (kind() === "obs") await makeSession({});
    else await publish();
  } catch (error) {
    await stop();
    status("idle", "Not started");
    fail(error.message);
  } finally {
    busy = false;
    chooseKind();
  }
}

async function publish() {
  const video = $("preview");
  if (kind() === "file") {
    $("mute").checked = $("file-muted").checked;
    stream = await openFile($("file").files[0], video, $("mute").checked);
    video.onended = () => setTimeout(() => stop("The file has ended."), TAIL_MS);
  } else {
    const microphone = $("microphone").value;
    stream = await (kind() === "screen" ? openScreen(microphone) : openCamera($("camera").value, microphone));
    fillDevices(); // the browser reveals device names only after permission
    video.muted = true;
    video.srcObject = stream;
    video.play().catch(() => {});
    for (const track of stream.getTracks()) track.onended = () => stop("The source has ended.");
  }
  show(video, stream.getVideoTracks().length > 0);
  show($("mute-field"), kind() === "file");
  listenToLevel();
  publication = new Publication(stream, { token: token(), onState: publishing });
  const { session: id } = await publication.start();
  owned = true;
  await watch(id);
}

function publishing({ state, message }) {
  if (state === "live") status("live", "Live");
  else if (state === "reconnecting") status("warn", message);
  else if (state === "failed" && session) {
    stop();
    fail(message);
  }
}

function listenToLevel() {
  if (!stream.getAudioTracks().length) return hint("This source has no sound: only the picture will be described.");
  meter = new LevelMeter(stream, {
    onLevel: (level) => ($("level-bar").style.transform = `scaleX(${level.toFixed(3)})`),
    onQuiet: (seconds) => {
      const silent = seconds >= QUIET_S && !$("preview").paused;
      hint(silent ? `No sound for ${Math.floor(seconds / 10) * 10} seconds. Is the right microphone chosen, and is it switched on?` : "");
    },
  });
}

async function watchAddress(source) {
  if (!source) throw new Error("Type an address first.");
  await makeSession({ source });
}

async function makeSession(body) {
  const response = await fetch(place("v1/sessions"), {
    method: "POST",
    headers: { "Content-Type": "application/json", ...bearer(token()) },
    body: JSON.stringify(body),
  }).catch(() => null);
  if (!response) throw new Error("The server could not be reached.");
  if (!response.ok) throw new Error(await problem(response));
  const { id } = await response.json();
  owned = true;
  await watch(id);
}

// --- session ----------------------------------------------------------------------------------------------------

async function watch(id) {
  if (!id) throw new Error("Type the id of a session first.");
  session?.close();
  clearAll();
  const current = new Session(id, { token: token(), history: true });
  session = current;
  listen(current);
  current.open();
  history.replaceState(null, "", `#session=${encodeURIComponent(id)}`);
  $("overlay-url").value = `${ROOT}overlay/${encodeURIComponent(id)}?lines=2`;
  $("whip-url").value = `${ROOT}whip/${encodeURIComponent(id)}`;
  $("page-url").value = `${ROOT}#session=${encodeURIComponent(id)}`;
  $("session-name").textContent = `Session ${id}`;
  show($("token-note"), token() !== "");
  for (const part of [$("share"), $("dock"), $("downloads")]) show(part, true);
  show($("level"), meter !== null);
  show($("source"), false);
  $("stop").textContent = owned ? "Stop" : "Leave";
  status("busy", publication ? "Connecting…" : "Waiting for the stream…");
}

function listen(to) {
  const live = (text = "Live") => status("live", text);
  to.on("state", ({ state, message }) => {
    if (to !== session) return;
    if (state === "waiting") {
      status("warn", message);
    } else if (state === "refused") {
      stop();
      fail(message);
    } else if (state === "open" && $("status").dataset.state === "warn") live();
  });
  to.on("epoch", clearAll);
  to.on("gap", () => hint("Some events were lost on the way."));
  to.on("log.gap", () => hint("The oldest part of this session is no longer kept."));
  to.on("session.created", () => live(publication || !owned ? "Live" : "Waiting for the stream…"));
  to.on("session.updated", () => live());
  to.on("session.stalled", () => status("warn", "The stream has stalled"));
  to.on("session.resumed", () => live());
  to.on("session.degraded", ({ level, reason }) => (level ? status("warn", `Live, reduced (level ${level}: ${reason})`) : live()));
  to.on("session.going_away", () => hint("The server is about to restart; the session will end soon."));
  to.on("session.closed", (event) => ended(event));
  to.on("caption.partial", (event) => captions.partial(event));
  to.on("caption.final", (event) => {
    captions.final(event);
    transcript.final(event);
  });
  to.on("caption.translation", (event) => transcript.translation(event));
  to.on("caption.speaker", (event) => transcript.speaker(event));
  to.on("caption.gap", (event) => transcript.gap(event));
  to.on("keyframe.sampled", (event) => scenes.keyframe(event));
  to.on("sight.ready", (event) => scenes.sight(event));
  to.on("screen.text", (event) => scenes.screenText(event));
  to.on("scene.caption", (event) => scenes.caption(event));
  to.on("answer.delta", (event) => answers.delta(event));
  to.on("answer.done", answered);
  to.on("alert.fired", ({ text }) => hint(text));
  to.on("error", ({ error, question_id: id }) => (id ? answers.fail(id, error.message) : fail(error.message)));
  to.on("latency.report", (event) => {
    drawFigures($("figures"), event);
    const coverage = typeof event.coverage === "number" ? `${Math.round(event.coverage * 100)}% of the spoken time is captioned` : "";
    const backlog = event.backlog >= 1 ? `${event.backlog.toFixed(1)} s of sound are waiting` : "";
    $("figures-note").textContent = [coverage, backlog].filter(Boolean).join(" · ");
    show($("figures-table"), $("figures").childElementCount > 0);
  });
}

function ended({ reason, error }) {
  releaseSource();
  captions.clear();
  status("ended", "Ended");
  if (error) fail(error.message);
  $("stop").textContent = "New session";
  $("stop").className = "primary";
  owned = false; // the server has nothing left to stop
  show($("level"), false);
  if (reason && !$("hint").textContent) hint("The session has ended. You can still read and download what was said.");
}

/** Stop sending; keep what was said on the page until something else is started. */
async function stop(message = "") {
  const [was, id, mine] = [publication, session?.id, owned];
  const over = $("status").dataset.state === "ended";
  releaseSource();
  if (was || (mine && id)) {
    status("busy", "Stopping…");
    if (was) await was.stop();
    else await fetch(place(`v1/sessions/${encodeURIComponent(id)}`), { method: "DELETE", headers: bearer(token()) }).catch(() => null);
    owned = false;
    if (session) {
      if (message) hint(message);
      if ($("status").dataset.state !== "ended") ended({});
      return;
    }
  }
  session?.close();
  session = null;
  show($("dock"), false);
  show($("still"), false);
  show($("empty"), true);
  show($("source"), true);
  show($("share"), false);
  show($("downloads"), false);
  $("stop").className = "danger";
  history.replaceState(null, "", location.pathname);
  hint(message);
  status("idle", "Not started");
  if (over) $("start").focus();
}

function releaseSource() {
  publication &&= null;
  meter?.close();
  meter = null;
  for (const track of stream?.getTracks() ?? []) {
    track.onended = null;
    track.stop();
  }
  stream = null;
  const video = $("preview");
  video.onended = null;
  video.srcObject = null;
  closeFile(video);
  show(video, false);
  show($("mute-field"), false);
}

function clearAll() {
  captions.clear();
  transcript.clear();
  scenes.clear();
  answers.clear();
  $("figures").replaceChildren();
  show($("figures-table"), false);
  show($("still"), false);
}

// --- pictures and evidence --------------------------------------------------------------------------------------

/** A picture's address that <img> can use: signed ones as they are, else fetched with the token. */
async function pictureAddress(url) {
  // Below our own root, whatever address the server gives itself: nothing leaves this origin.
  const address = place(url.slice(Math.max(0, url.lastIndexOf("/v1/sessions/"))).replace(/^\/+/, ""));
  if (address.origin !== location.origin) return null;
  if (!token() || address.search) return address.href;
  const response = await fetch(address, { headers: bearer(token()) }).catch(() => null);
  return response?.ok ? URL.createObjectURL(await response.blob()) : null;
}

function showStill(address) {
  if (!$("preview").hidden) return;
  $("still").src = address;
  show($("still"), true);
  show($("empty"), false);
}

function showEvidence(start, end) {
  const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
  for (const row of [transcript.mark(start, end)[0], scenes.mark(start, end)[0]]) {
    row?.scrollIntoView({ block: "nearest", behavior: calm ? "auto" : "smooth" });
  }
}

// --- questions --------------------------------------------------------------------------------------------------

function ask(text) {
  if (!text) return;
  if (!session) return fail("Start or watch a stream first; then ask about it.");
  const id = randomId();
  answers.asked(id, text);
  try {
    session.ask(text, { id });
    fail("");
  } catch {
    answers.fail(id, "Not connected. Ask again in a moment.");
  }
}

function answered(event) {
  $("answer-said").textContent = answers.done(event);
}

// --- the rest of the page ---------------------------------------------------------------------------------------

async function copy(field) {
  field.select();
  const done = await navigator.clipboard?.writeText(field.value).then(
    () => true,
    () => false,
  );
  $("copied").textContent = done ? "Copied." : "Selected: press Ctrl+C to copy.";
}

async function download(format) {
  const response = await fetch(place(`v1/sessions/${encodeURIComponent(session.id)}/captions.${format}`), { headers: bearer(token()) }).catch(() => null);
  if (!response?.ok) return fail(response ? await problem(response) : "The server could not be reached.");
  const address = URL.createObjectURL(await response.blob());
  make("a", { href: address, download: `captions.${format}` }).click();
  setTimeout(() => URL.revokeObjectURL(address), 10_000);
}

const SIZES = [0.875, 1, 1.15, 1.35, 1.6, 2];

function textSize(step) {
  let index = SIZES.indexOf(Number(localStorage.getItem("text-size") ?? 1));
  index = Math.min(SIZES.length - 1, Math.max(0, (index < 0 ? 1 : index) + step));
  localStorage.setItem("text-size", String(SIZES[index]));
  document.documentElement.style.setProperty("--text", String(SIZES[index]));
  $("smaller").disabled = index === 0;
  $("larger").disabled = index === SIZES.length - 1;
}

function keys(event) {
  const typing = event.target.matches("input:not([type=radio], [type=checkbox]), textarea, select");
  if (event.key === "/" && !typing && !event.ctrlKey && !event.metaKey && !event.altKey) {
    event.preventDefault();
    $("question").focus();
  } else if (event.key === "Escape") {
    if (!$("error").hidden) fail("");
    if (typing) event.target.blur();
    transcript.mark(1, -1); // an empty stretch: nothing is marked
    scenes.mark(1, -1);
  }
}

function dropFiles() {
  const area = $("drop");
  for (const name of ["dragover", "drop"]) window.addEventListener(name, (event) => event.preventDefault());
  window.addEventListener("dragover", () => area.classList.add("over"));
  window.addEventListener("dragleave", (event) => event.relatedTarget || area.classList.remove("over"));
  window.addEventListener("drop", (event) => {
    area.classList.remove("over");
    if (!event.dataTransfer?.files.length || $("source").hidden) return;
    document.querySelector('input[value="file"]').checked = true;
    $("file").files = event.dataTransfer.files;
    chooseFile();
    chooseKind();
  });
}

function begin() {
  textSize(0);
  $("source").addEventListener("submit", (event) => {
    event.preventDefault();
    if (!busy) start();
  });
  $("source").addEventListener("change", chooseKind);
  $("file").addEventListener("change", chooseFile);
  $("stop").addEventListener("click", () => stop());
  $("mute").addEventListener("change", () => ($("preview").muted = $("mute").checked));
  $("ask").addEventListener("submit", (event) => {
    event.preventDefault();
    ask($("question").value.trim());
    $("question").value = "";
  });
  $("smaller").addEventListener("click", () => textSize(-1));
  $("larger").addEventListener("click", () => textSize(1));
  $("error-close").addEventListener("click", () => fail(""));
  for (const button of document.querySelectorAll("[data-copy]")) button.addEventListener("click", () => copy($(button.dataset.copy)));
  for (const button of document.querySelectorAll("[data-format]")) button.addEventListener("click", () => download(button.dataset.format));
  document.addEventListener("keydown", keys);
  navigator.mediaDevices?.addEventListener?.("devicechange", fillDevices);
  dropFiles();
  chooseKind();
  fillDevices();
  const given = new URLSearchParams(location.hash.slice(1));
  $("token").value = given.get("token") ?? "";
  if (given.get("session")) {
    document.querySelector('input[value="watch"]').checked = true;
    $("session").value = given.get("session");
    chooseKind();
    start();
  } else if (given.get("token")) history.replaceState(null, "", location.pathname); // a token must not stay in the address bar
}

begin();
