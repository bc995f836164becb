/** What the page shows of a session: transcript, scenes, answers, figures. Text from outside is set as text, never as markup. */

const MOST_LINES = 400; // rows kept on the page; the server keeps them all
const MOST_SCENES = 150;
const ANSWER_MS = 20_000; // after this without a word, an answer is given up

/** Build one element: make("p", { className: "x", title: "…" }, "text", child, …). */
export function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children.filter((child) => child !== null && child !== undefined && child !== ""));
  return element;
}

/** Seconds -> "1:02" or "1:02:03". */
export function clockTime(seconds) {
  const whole = Math.max(0, Math.floor(seconds ?? 0));
  const [h, m, s] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  const tail = String(s).padStart(2, "0");
  return h ? `${h}:${String(m).padStart(2, "0")}:${tail}` : `${m}:${tail}`;
}

function time(seconds) {
  return make("time", { className: "at", dateTime: `PT${Math.max(0, seconds).toFixed(1)}S` }, clockTime(seconds));
}

/** Add a row, keep the list bounded, and stay at the end unless the person has scrolled back. */
function addRow(list, row, most) {
  const box = list.parentElement;
  const atEnd = box.scrollHeight - box.scrollTop - box.clientHeight < 48;
  list.append(row);
  while (list.childElementCount > most) list.firstElementChild.remove();
  if (atEnd) box.scrollTop = box.scrollHeight;
}

const GAP_REASONS = { packet_loss: "sound lost on the way", overload: "the server had too much to do", worker_restart: "the recogniser was restarted",
  unrecognised: "speech that could not be made out" };

export class Transcript {
  constructor(list, live) {
    this.list = list;
    this.live = live; // a polite live region: closed captions only, a few at a time
    this.waiting = [];
    this.timer = 0;
  }

  final(event) {
    const row = make("li", {}, time(event.start), make("span", { className: "words", lang: event.language ?? "" }, event.text.replaceAll("\n", " ")));
    this._add(row, event);
    this._say(event.text);
  }

  translation(event) {
    const of = this.list.querySelector(`[data-id="${CSS.escape(event.of)}"] .words`);
    of?.after(make("span", { className: "translation", lang: event.language ?? "" }, event.text));
  }

  speaker(event) {
    const of = this.list.querySelector(`[data-id="${CSS.escape(event.of)}"] .words`);
    of?.before(make("b", { className: "speaker" }, `${event.label}: `));
  }

  gap(event) {
    const words = `Not captioned until ${clockTime(event.end)}: ${GAP_REASONS[event.reason] ?? event.reason}`;
    this._add(make("li", { className: "lost" }, time(event.start), make("span", { className: "words" }, words)), event);
  }

  clear() {
    this.list.replaceChildren();
  }

  /** Mark the rows that lie within start..end. */
  mark(start, end) {
    return markWithin(this.list, start, end);
  }

  _add(row, event) {
    Object.assign(row.dataset, { id: event.id, start: event.start, end: event.end });
    addRow(this.list, row, MOST_LINES);
  }

  _say(text) {
    this.waiting = [...this.waiting, text.replaceAll("\n", " ")].slice(-3); // a screen reader needs the newest lines, not a backlog
    this.timer ||= setTimeout(() => {
      this.timer = 0;
      this.live.textContent = this.waiting.splice(0).join(" ");
    }, 2500);
  }
}

function markWithin(list, start, end) {
  for (const row of list.children) row.classList.remove("marked");
  const within = ({ dataset }) => Number(dataset.start) <= end && (Number(dataset.end) > start || Number(dataset.start) >= start);
  const rows = [...list.children].filter(within);
  for (const row of rows) row.classList.add("marked");
  return rows;
}

const REASONS = { first: "first picture", scene: "new scene", text: "new text", interval: "", question: "looked at for a question" };

export class Scenes {
  /** load(url) -> Promise of an address for <img>; onPicture(url): the newest picture. */
  constructor(list, { load, onPicture }) {
    this.list = list;
    this.load = load;
    this.onPicture = onPicture;
  }

  keyframe(event) {
    const picture = make("img", { alt: "", width: 160, height: 90, decoding: "async", hidden: true });
    const body = make("div", { className: "scene-body" });
    body.append(
      make("p", { className: "scene-head" }, time(event.at), make("span", { className: "why" }, REASONS[event.reason] ?? event.reason)),
      make("p", { className: "scene-text" }),
      make("p", { className: "scene-title" }),
      make("ul", { className: "tags" }),
    );
    const row = make("li", {}, make("div", { className: "thumb" }, picture), body);
    Object.assign(row.dataset, { id: event.id, start: event.at, end: event.at, reason: event.reason });
    const newer = this.list.firstElementChild;
    if (newer && Number(newer.dataset.end) < event.at) newer.dataset.end = event.at; // the scene before lasts until this one
    this.list.prepend(row);
    while (this.list.childElementCount > MOST_SCENES) this.list.lastElementChild.remove();
    picture.onload = () => (picture.hidden = false);
    this.load(event.url).then((address) => {
      if (!address) return;
      picture.src = address;
      this.onPicture(address);
    });
  }

  sight(event) {
    const row = this._row(event.of, event.at);
    if (!row) return;
    const labels = new Map();
    for (const box of event.boxes ?? []) labels.set(box.label, (labels.get(box.label) ?? 0) + 1);
    for (const tag of event.tags ?? []) if (!labels.has(tag.label)) labels.set(tag.label, 1);
    const tags = [...labels].slice(0, 6).map(([label, count]) => make("li", {}, count > 1 ? `${count} × ${label}` : label));
    row.querySelector(".tags").replaceChildren(...tags);
  }

  screenText(event) {
    const row = this._row(event.of, event.at);
    const title = event.title || event.lines?.[0]?.text || "";
    if (!row || !title) return;
    const place = row.querySelector(".scene-title");
    place.textContent = title;
    place.title = event.lines.map((line) => line.text).join("\n");
  }

  caption(event) {
    const row = this._row(null, event.start);
    if (!row) return;
    const mark = event.by === "model" ? [make("span", { className: "why", title: "Nothing here can check it" }, " by the model")] : [];
    row.querySelector(".scene-text").replaceChildren(event.text, ...mark);
    row.querySelector("img").alt = event.text;
    row.classList.add("told");
  }

  clear() {
    this.list.replaceChildren();
  }

  mark(start, end) {
    const rows = markWithin(this.list, start, end);
    const told = rows.filter((row) => row.classList.contains("told") || row.querySelector(".scene-title").textContent);
    for (const row of rows) row.classList.toggle("marked", !told.length || told.includes(row));
    return told.length ? told : rows;
  }

  _row(id, at) {
    const known = id && this.list.querySelector(`[data-id="${CSS.escape(id)}"]`);
    return known || [...this.list.children].find((row) => Number(row.dataset.start) <= at + 0.25) || null; // newest first
  }
}

const DECLINED = {
  nothing_yet: "Nothing has been said or shown yet",
  cannot_tell: "Not a thing that the models here can tell",
  not_found: "Neither said nor shown so far",
  busy: "The server has too much to do now",
  late: "The time was up before there was an answer",
  cancelled: "Cancelled",
};
const KINDS = { speech: "heard", screen: "read on screen", sight: "seen", timeline: "from the timeline", image: "in your picture" };

/** Why an answer is no supported one. */
function verdict(event, declined) {
  if (event.outcome === "closest") return "No answer found: this is the nearest that was said or shown";
  if (event.outcome === "answer") return event.by === "model" ? "The model's own word: nothing here can check it" : "Nothing in the stream supports this";
  return declined || "Declined";
}

export class Answers {
  /** onEvidence(start, end): show that stretch. onRepeat(text): ask again. */
  constructor(list, { onEvidence, onRepeat }) {
    Object.assign(this, { list, onEvidence, onRepeat });
    this.open = new Map(); // question id -> { row, timer }
  }

  asked(id, text) {
    const cancel = make("button", { type: "button", className: "quiet small" }, "Cancel");
    const row = make(
      "li",
      { className: "answer pending" },
      make("p", { className: "question" }, text),
      make("p", { className: "reply" }, make("span", { className: "waiting" }, "Looking through the stream…")),
      make("div", { className: "answer-foot" }, cancel),
    );
    Object.assign(row.dataset, { id, text });
    cancel.onclick = () => this.fail(id, "Cancelled.");
    this.list.prepend(row);
    while (this.list.childElementCount > 30) this.list.lastElementChild.remove();
    this.open.set(id, { row, timer: this._patience(id), text: "" });
  }

  delta(event) {
    const pending = this.open.get(event.question_id);
    if (!pending) return;
    clearTimeout(pending.timer);
    pending.timer = this._patience(event.question_id);
    pending.text += event.text;
    pending.row.querySelector(".reply").textContent = pending.text;
  }

  /** Show a whole answer. Returns what is shown, for a screen reader. */
  done(event) {
    const evidence = event.evidence ?? [];
    const declined = event.outcome === "declined" ? (DECLINED[event.reason] ?? "") : "";
    if (event.error) {
      this.fail(event.question_id, declined ? `${declined}.` : event.error.message);
      return "";
    }
    const nearest = event.outcome === "closest" && evidence.length > 0;
    const shown = nearest ? `Nearest: ${evidence[0].quote}` : event.text || `${declined}.`;
    const row = this._finish(event.question_id) ?? this._foreign(event);
    row.classList.add(event.supported ? "supported" : "unsupported", event.outcome);
    row.querySelector(".reply").textContent = shown;
    const foot = row.querySelector(".answer-foot");
    if (!event.supported) foot.append(make("p", { className: "verdict" }, verdict(event, declined)));
    foot.append(...evidence.map((each) => this._chip(each)));
    return shown;
  }

  fail(id, message) {
    const row = this._finish(id);
    if (!row) return;
    row.classList.add("failed");
    row.querySelector(".reply").textContent = message;
    const again = make("button", { type: "button", className: "quiet small" }, "Ask again");
    again.onclick = () => {
      row.remove();
      this.onRepeat(row.dataset.text);
    };
    row.querySelector(".answer-foot").append(again);
  }

  clear() {
    for (const id of [...this.open.keys()]) this._finish(id);
    this.list.replaceChildren();
  }

  _patience(id) {
    return setTimeout(() => this.fail(id, "No answer came in time."), ANSWER_MS);
  }

  _finish(id) {
    const pending = this.open.get(id);
    if (!pending) return null;
    clearTimeout(pending.timer);
    this.open.delete(id);
    pending.row.classList.remove("pending");
    pending.row.querySelector(".answer-foot").replaceChildren();
    return pending.row;
  }

  /** A row for an answer that nobody here waits for: given up, or asked by somebody else for all. */
  _foreign(event) {
    const known = this.list.querySelector(`[data-id="${CSS.escape(event.question_id)}"]`);
    known?.remove();
    const question = make("p", { className: "question" }, known?.dataset.text ?? "A question to this session");
    const row = make("li", { className: "answer" }, question, make("p", { className: "reply" }), make("div", { className: "answer-foot" }));
    row.dataset.id = event.question_id;
    this.list.prepend(row);
    return row;
  }

  _chip(evidence) {
    const span = evidence.end - evidence.start >= 1 ? `${clockTime(evidence.start)}–${clockTime(evidence.end)}` : clockTime(evidence.start);
    const kind = KINDS[evidence.kind] ?? evidence.kind;
    const chip = make("button", { type: "button", className: "chip" }, make("b", {}, span), ` ${kind}`, make("q", {}, evidence.quote));
    chip.onclick = () => this.onEvidence(evidence.start, evidence.end);
    return chip;
  }
}

const FIGURES = { // kind -> [name, budget in seconds at the 95th percentile]
  partial: ["Words as they are spoken", 0.8],
  stable: ["Settled words", 1.2],
  final: ["Closed captions", 1.6],
  sight: ["Pictures looked at", null],
  scene: ["Scene captions", 2.0],
  scene_model: ["Scenes, by the language model", null],
  screen: ["Text on screen", 4.0],
};

function aged(value) {
  return value >= 10_000 ? `${Math.round(value / 1000)} s` : `${(value / 1000).toFixed(2)} s`;
}

/** latency.report -> rows of a table. Ages are in milliseconds. */
export function drawFigures(body, event) {
  const known = Object.keys(FIGURES).filter((kind) => event.ages?.[kind]);
  const rows = known.map((kind) => {
    const { p50, p95 } = event.ages[kind];
    const [name, budget] = FIGURES[kind];
    const late = budget !== null && p95 > budget * 1000;
    const verdict = budget === null ? "" : `${late ? "over" : "within"} ${budget.toFixed(1)} s`;
    return make(
      "tr",
      { className: late ? "late" : "" },
      make("th", { scope: "row" }, name),
      make("td", {}, aged(p50)),
      make("td", {}, aged(p95)),
      make("td", {}, verdict),
    );
  });
  body.replaceChildren(...rows);
}
