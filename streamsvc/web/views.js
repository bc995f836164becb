/** Parts of the page that show a session: rows, the transcript, figures. What comes from outside is set as text, never as markup. */

const MOST_LINES = 400; // rows kept on the page; the server keeps them all
const AT_END = 40; // pixels from the end that still count as its end

/** Build one element: make("p", { className: "x", title: "…" }, "text", child, …). */
export function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children.filter((child) => child !== null && child !== undefined && child !== ""));
  return element;
}

/** A message of the server as a sentence: "no room" -> "No room." */
export function sentence(message) {
  return message && message.charAt(0).toUpperCase() + message.slice(1) + (/[.!?…]$/.test(message) ? "" : ".");
}

/** Seconds -> "1:02" or "1:02:03". */
export function clockTime(seconds) {
  const whole = Math.max(0, Math.floor(seconds ?? 0));
  const [h, m, s] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  const tail = String(s).padStart(2, "0");
  return h ? `${h}:${String(m).padStart(2, "0")}:${tail}` : `${m}:${tail}`;
}

/** "1:02–1:10", or one time where the end is in the same second. */
export function span(start, end) {
  return Math.floor(end) > Math.floor(start) ? `${clockTime(start)}–${clockTime(end)}` : clockTime(start);
}

export function time(seconds, text = clockTime(seconds)) {
  return make("time", { className: "at", dateTime: `PT${Math.max(0, seconds).toFixed(1)}S` }, text);
}

/** "cup 0.97, couch 0.31" -> "cup": what a picture shows, without the scores of the detector, the doubtful ones left out. */
export function plainLabels(quote) {
  const found = [...quote.matchAll(/([^,]+?) ([01]\.\d+)(?:, |$)/g)].map(([, label, score]) => ({ label, score: Number(score) }));
  if (!found.length) return quote;
  const sure = found.filter(({ score }) => score >= SURE);
  return sure.length ? counted(sure.map(({ label }) => label)).join(", ") : `perhaps ${found[0].label}`;
}

/** Score from which a label is named. */
export const SURE = 0.5;

/** ["cup", "cup", "plate"] -> ["2 × cup", "plate"] */
export function counted(labels) {
  const counts = new Map();
  for (const label of labels) counts.set(label, (counts.get(label) ?? 0) + 1);
  return [...counts].map(([label, count]) => (count > 1 ? `${count} × ${label}` : label));
}

/**
 * Keeps a scrolled list at its newest row until the person scrolls away, however it grows (rows, translations, larger
 * text), and then offers a way back.
 */
export class Follower {
  /** box: what scrolls; button: "jump to live". newest: "end" or "start" of the list. */
  constructor(box, button, newest = "end") {
    Object.assign(this, { box, button, newest, following: true });
    this.top = 0;
    box.addEventListener("scroll", () => this._scrolled(), { passive: true });
    button.addEventListener("click", () => {
      this.jump();
      box.focus({ preventScroll: true });
    });
    new ResizeObserver(() => this.grown()).observe(box);
    new ResizeObserver(() => this.grown()).observe(box.firstElementChild);
  }

  /** The newest row again. */
  jump() {
    this._set(true);
    this.grown();
  }

  /** Something was added: stay where the newest is. */
  grown() {
    if (!this.following) return;
    this.box.scrollTop = this.newest === "end" ? this.box.scrollHeight : 0;
    this.top = this.box.scrollTop;
  }

  /** Show a row in the middle of the box, without moving the page; the list follows no more if that leaves its end. */
  show(row) {
    const [outer, inner] = [this.box.getBoundingClientRect(), row.getBoundingClientRect()];
    if (inner.top >= outer.top && inner.bottom <= outer.bottom) return;
    this._set(false);
    const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
    const top = this.box.scrollTop + inner.top - outer.top - (outer.height - inner.height) / 2;
    this.box.scrollTo({ top, behavior: calm ? "auto" : "smooth" });
  }

  _scrolled() {
    const away = this.newest === "end" ? this.box.scrollHeight - this.box.scrollTop - this.box.clientHeight : this.box.scrollTop;
    const moved = this.newest === "end" ? this.top - this.box.scrollTop : this.box.scrollTop - this.top;
    this.top = this.box.scrollTop;
    if (away < AT_END) this._set(true);
    else if (moved > 0) this._set(false); // content that grows does not scroll; a person does
  }

  _set(following) {
    this.following = following;
    this.button.hidden = following;
  }
}

/** Mark the rows of a list that lie within start..end; returns them. */
export function markWithin(list, start, end) {
  for (const row of list.children) row.classList.remove("marked");
  const within = ({ dataset }) => Number(dataset.start) <= end && (Number(dataset.end) > start || Number(dataset.start) >= start);
  const rows = [...list.children].filter(within);
  for (const row of rows) row.classList.add("marked");
  return rows;
}

const GAP_REASONS = {
  packet_loss: "sound was lost on the way",
  missing: "the source has no sound here",
  overload: "the server had too much to do",
  worker_restart: "the recogniser was restarted",
  unrecognised: "speech that could not be made out",
};

export class Transcript {
  /** live: a polite live region, for closed captions only, a few at a time. */
  constructor(list, live, button) {
    Object.assign(this, { list, live, waiting: [], timer: 0 });
    this.follower = new Follower(list.parentElement, button);
  }

  final(event) {
    const row = make("li", {}, time(event.start), make("span", { className: "words", lang: event.language ?? "" }, event.text.replaceAll("\n", " ")));
    this._add(row, event);
    this._say(event.text);
  }

  translation(event) {
    const of = this.list.querySelector(`[data-id="${CSS.escape(event.of)}"]`);
    of?.append(make("span", { className: "translation", lang: event.language ?? "" }, event.text));
  }

  gap(event) {
    const words = `Not captioned until ${clockTime(event.end)}: ${GAP_REASONS[event.reason] ?? event.reason.replaceAll("_", " ")}`;
    this._add(make("li", { className: "lost" }, time(event.start), make("span", { className: "words" }, words)), event);
  }

  clear() {
    this.list.replaceChildren();
    this.follower.jump();
  }

  /** Mark what lies within start..end and show it. */
  mark(start, end) {
    const rows = markWithin(this.list, start, end);
    if (rows.length) this.follower.show(rows[0]);
  }

  _add(row, event) {
    Object.assign(row.dataset, { id: event.id, start: event.start, end: event.end });
    this.list.append(row);
    while (this.list.childElementCount > MOST_LINES) this.list.firstElementChild.remove();
    this.follower.grown(); // also where one row went and one came, so that the height is the same
  }

  _say(text) {
    this.waiting = [...this.waiting, text.replaceAll("\n", " ")].slice(-3); // a screen reader needs the newest lines, not a backlog
    this.timer ||= setTimeout(() => {
      this.timer = 0;
      this.live.textContent = this.waiting.splice(0).join(" ");
    }, 2500);
  }
}

const FIGURES = { // kind -> [name, budget in seconds at the 95th percentile]
  partial: ["Words as they are spoken", 0.8],
  stable: ["Words that stay", 1.2],
  final: ["Whole captions", 1.6],
  sight: ["Pictures looked at", null],
  scene: ["Scenes described", 2.0],
  scene_model: ["Scenes, by the language model", null],
  screen: ["Text on screen", 4.0],
};

function aged(value) {
  return value >= 10_000 ? `${Math.round(value / 1000)} s` : `${(value / 1000).toFixed(1)} s`;
}

/** latency.report -> a table of ages, which come in milliseconds, and a sentence. */
export function drawFigures(table, note, event) {
  const known = Object.keys(FIGURES).filter((kind) => event.ages?.[kind]);
  const rows = known.map((kind) => {
    const { p50, p95 } = event.ages[kind];
    const [name, budget] = FIGURES[kind];
    const late = budget !== null && p95 > budget * 1000;
    const goal = budget === null ? "" : `${budget.toFixed(1)} s${late ? ", late" : ""}`;
    const cells = [aged(p50), aged(p95), goal].map((text) => make("td", {}, text));
    return make("tr", { className: late ? "late" : "" }, make("th", { scope: "row" }, name), ...cells);
  });
  table.tBodies[0].replaceChildren(...rows);
  table.hidden = !rows.length;
  const coverage = typeof event.coverage === "number" ? `${Math.round(event.coverage * 100)}% of the spoken time is captioned.` : "";
  const backlog = event.backlog >= 1 ? `${event.backlog.toFixed(1)} s of sound are waiting.` : "";
  note.textContent = [coverage, backlog].filter(Boolean).join(" ");
}
