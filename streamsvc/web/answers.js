/** Questions and their answers, the newest first. */

import { make, plainLabels, sentence, span } from "./views.js";

const MOST = 50; // answers kept on the page
const ANSWER_MS = 20_000; // after this without a word, an answer is given up

const DECLINED = {
  nothing_yet: "Nothing has been said or shown yet",
  cannot_tell: "Not a thing that the models here can tell",
  not_found: "Neither said nor shown so far",
  busy: "The server has too much to do now",
  late: "The time was up before there was an answer",
  cancelled: "Cancelled",
};
const KINDS = { speech: "heard", screen: "on screen", sight: "seen", timeline: "noted", image: "in your picture" };

/** An error about a question, for its asker: what the machine has too much to do with is no matter of theirs. */
function plain({ code, message }) {
  if (code === "capacity") return "No questions are taken just now: this machine is busy.";
  return sentence(message);
}

/** Why an answer is no supported one. */
function verdict(event, declined) {
  if (event.outcome === "closest") return "No answer found: this is the nearest that was said or shown";
  if (event.outcome === "answer") return event.by === "model" ? "The model's own word: nothing here can check it" : "Nothing in the stream supports this";
  return declined || "Declined";
}

export class Answers {
  /** onEvidence(start, end): show that stretch. onAsk(text): ask again. onCancel(id): tell the server. leave(): the focused control goes away. */
  constructor(list, { onEvidence, onAsk, onCancel, leave }) {
    Object.assign(this, { list, onEvidence, onAsk, onCancel, leave });
    this.open = new Map(); // question id -> { row, timer }
  }

  asked(id, text) {
    const cancel = make("button", { type: "button", className: "quiet small" }, "Cancel");
    const row = make(
      "li",
      { className: "answer pending" },
      make("p", { className: "question" }, text),
      make("p", { className: "reply" }, "Looking through the stream…"),
      make("div", { className: "chips" }, cancel),
    );
    Object.assign(row.dataset, { id, text });
    cancel.onclick = () => {
      this.onCancel(id);
      this.leave();
      this.fail(id, "Cancelled.");
    };
    this.list.prepend(row);
    while (this.list.childElementCount > MOST) this.list.lastElementChild.remove();
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
      this.fail(event.question_id, declined ? `${declined}.` : plain(event.error));
      return "";
    }
    const nearest = event.outcome === "closest" && evidence.length > 0;
    const shown = nearest ? `Nearest: ${said(evidence[0])}` : event.text || `${declined}.`;
    const row = this._finish(event.question_id) ?? this._foreign(event);
    row.classList.add(event.supported ? "supported" : "unsupported", event.outcome);
    row.querySelector(".reply").textContent = shown;
    const foot = row.querySelector(".chips");
    if (!event.supported) foot.before(make("p", { className: "verdict" }, verdict(event, declined)));
    foot.append(...evidence.map((each) => this._chip(each)));
    return shown;
  }

  /**
   * Show a refusal at its question: the one of `questionId` (or of `id`, as the client named it), else, where none is
   * named, the only one that waits. Returns whether it was about a question of this page.
   */
  refused(questionId, id, error) {
    const named = [questionId, id].find((each) => this.open.has(each));
    const [only, more] = questionId ? [] : this.open.keys();
    const about = named ?? (more === undefined ? only : undefined);
    if (about !== undefined) this.fail(about, plain(error));
    return about !== undefined || Boolean(questionId && this.list.querySelector(`[data-id="${CSS.escape(questionId)}"]`));
  }

  fail(id, message) {
    const row = this._finish(id);
    if (!row) return;
    row.classList.add("failed");
    row.querySelector(".reply").textContent = message;
    const again = make("button", { type: "button", className: "quiet small" }, "Ask again");
    again.onclick = () => {
      this.leave();
      row.remove();
      this.onAsk(row.dataset.text);
    };
    row.querySelector(".chips").append(again);
  }

  /** Nobody answers any more. */
  failAll(message) {
    for (const id of [...this.open.keys()]) this.fail(id, message);
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
    pending.row.querySelector(".chips").replaceChildren();
    return pending.row;
  }

  /** A row for an answer that nobody here waits for: given up, or asked by somebody else for all. */
  _foreign(event) {
    const known = this.list.querySelector(`[data-id="${CSS.escape(event.question_id)}"]`);
    known?.remove();
    const question = make("p", { className: "question" }, known?.dataset.text ?? "A question to this session");
    const row = make("li", { className: "answer" }, question, make("p", { className: "reply" }), make("div", { className: "chips" }));
    row.dataset.id = event.question_id;
    this.list.prepend(row);
    return row;
  }

  _chip(evidence) {
    return evidenceChip(evidence, this.onEvidence);
  }
}

function said(evidence) {
  return evidence.kind === "sight" ? plainLabels(evidence.quote) : evidence.quote;
}

/** A button that leads to a stretch of the stream. */
export function evidenceChip(evidence, onEvidence) {
  const kind = KINDS[evidence.kind] ?? evidence.kind;
  const quote = evidence.kind === "sight" ? said(evidence) : `“${evidence.quote}”`;
  const chip = make("button", { type: "button", className: "chip" }, make("b", {}, span(evidence.start, evidence.end)), ` ${kind} `, make("span", {}, quote));
  chip.onclick = () => onEvidence(evidence.start, evidence.end);
  return chip;
}
