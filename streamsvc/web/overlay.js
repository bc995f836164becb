/**
 * The overlay for an OBS browser source: /overlay/SESSION?OPTION=VALUE&...#token=JWT
 *
 *   lines       how many lines at most (1 to 6); a line has at most 42 characters
 *   position    bottom, middle or top              align       left, center or right: where the lines stand; each begins
 *   width       of a line, percent of the picture              at the same edge, so that no word moves
 *   lang        only captions in this language, translated ones too;
 *               both: those that were said, and below them the translated ones
 *   delay       seconds to wait, to match a delayed picture
 *   clear       seconds of silence after which nothing is shown
 *   font, size (px), color, background, outline (px)   how it looks; colours as in CSS
 *   demo=1      sample text, for choosing the looks
 */

import { CaptionView } from "./captions.js";
import { Session } from "./client.js";

const query = new URLSearchParams(location.search);
const box = document.getElementById("captions");
const LOOK = { clearAfter: number("clear", 6, 1, 120), lines: Math.round(number("lines", 2, 1, 6)) };
const REFUSED = new Set([401, 403, 404]);

function number(name, fallback, low, high) {
  const value = Number.parseFloat(query.get(name) ?? "");
  return Number.isFinite(value) ? Math.min(high, Math.max(low, value)) : fallback;
}

function look() {
  const root = document.documentElement.style;
  root.setProperty("--lines", String(LOOK.lines));
  root.setProperty("--size", `${number("size", 44, 8, 300)}px`);
  root.setProperty("--outline", `${number("outline", 0, 0, 20)}px`);
  if (query.get("width")) root.setProperty("--width", `${number("width", 60, 10, 100)}vw`);
  for (const name of ["color", "background"]) {
    const asked = query.get(name) ?? "";
    const colour = [asked, `#${asked}`].find((value) => value && CSS.supports("color", value)); // "ffcc00" saves writing %23
    if (colour) root.setProperty(`--${name}`, colour);
  }
  const font = query.get("font");
  if (font && CSS.supports("font-family", font)) root.setProperty("--font", font);
  document.body.dataset.position = query.get("position") ?? "bottom";
  document.body.dataset.align = query.get("align") ?? "center";
}

/** A second box for captions, below the first. */
function below() {
  const second = document.createElement("section");
  second.className = "caption-box";
  second.id = "translations";
  second.setAttribute("aria-label", "Translated captions");
  box.after(second);
  return second;
}

/** Say why nothing can come; "": nothing is in the way. */
function notice(text) {
  const row = document.getElementById("notice");
  row.textContent = text;
  row.hidden = !text;
}

function listen(id) {
  const view = new CaptionView(box, LOOK);
  const token = new URLSearchParams(location.hash.slice(1)).get("token") ?? "";
  const language = query.get("lang") ?? "";
  const both = language === "both";
  const translated = both ? new CaptionView(below(), LOOK) : view;
  const delay = number("delay", 0, 0, 60) * 1000;
  const session = new Session(id, { token, types: "caption.*,session.closed", forever: true });
  const later = (fn) => (delay ? setTimeout(fn, delay) : fn());
  const meant = (event) => !language || both || !event.language || event.language.split("-")[0] === language.split("-")[0];
  session.on("caption.partial", (event) => meant(event) && later(() => view.partial(event)));
  session.on("caption.final", (event) => meant(event) && later(() => view.final(event)));
  session.on("caption.translation", (event) => language && meant(event) && later(() => translated.insert(event)));
  session.on("epoch", () => later(() => [view, translated].forEach((each) => each.clear())));
  session.on("state", ({ state, status, message }) => {
    if (state === "waiting") notice(REFUSED.has(status) ? message : "");
  });
  for (const type of ["caption.partial", "caption.final", "caption.translation", "session.closed"]) session.on(type, () => notice(""));
  session.open();
}

function demo() {
  const view = new CaptionView(box, { ...LOOK, clearAfter: 60 });
  const lines = ["This is how captions will look here.", "Settled words are solid,", "and the word that may still change is lighter."];
  let words = 0;
  let index = 0;
  setInterval(() => {
    const all = lines[index].split(" ");
    words += 1;
    if (words <= all.length) {
      view.partial({ text: all.slice(0, words).join(" "), stable: Math.max(0, words - 2) });
    } else {
      view.final({ text: lines[index] });
      index = (index + 1) % lines.length;
      words = 0;
    }
  }, 320);
}

look();
if (query.get("demo")) demo();
else listen(decodeURIComponent(location.pathname.split("/").filter(Boolean).pop() ?? ""));
