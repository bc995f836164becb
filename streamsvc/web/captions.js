/**
 * Captions on a picture, rolled up, in such a way that what is shown stays where it is.
 *
 * Settled words are appended to the last line and never touched again. After them stands at most one word that may
 * still change: lighter, and without the punctuation at its end, which is a guess while the sentence goes on. Nothing
 * stands after that word, so nothing moves when it changes. A line that was begun stays begun.
 */

export const WIDTH = 42; // columns of a line; wide characters take two
const RESERVE = 3; // columns kept for the punctuation of a word that is not settled
const PAUSE = 2; // seconds of silence after which words begin a line
const ROLL_MS = 160; // of the movement of a line upwards
const SPACELESS = /[\u0e00-\u109f\u3001-\u30ff\u3400-\u9fff\uf900-\ufaff\uff01-\uff20]/; // as in core/types.py
const WIDE = /[\u1100-\u115f\u2e80-\ua4cf\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe6f\uff00-\uff60\uffe0-\uffe6\u{1f300}-\u{1faff}\u{20000}-\u{3fffd}]/u;
const END = /[.,;:!?…‥·。、，．：；！？،؛؟।"'”’»)\]}—–-]+$/;
const OPENING = /^[\p{Ps}\p{Pi}]+$/u;
const RTL = /[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc]/;
const RTL_LANGUAGES = new Set(["ar", "ckb", "dv", "fa", "he", "iw", "ps", "sd", "ug", "ur", "yi"]);
const WORDS = globalThis.Intl?.Segmenter ? new Intl.Segmenter(undefined, { granularity: "word" }) : null;
const GRAPHEMES = globalThis.Intl?.Segmenter ? new Intl.Segmenter(undefined, { granularity: "grapheme" }) : null;

/** How many columns a text takes. */
export function columns(text) {
  return [...text].reduce((sum, char) => sum + (WIDE.test(char) ? 2 : 1), 0);
}

/** The text of an event as its words, each with the blanks before it. */
export function wordsOf(text, words) {
  const known = (words ?? []).map((word) => (typeof word === "string" ? word : word.text));
  if (!known.length) return text.match(/\s*\S+/g) ?? [];
  let end = 0;
  return known.map((word) => {
    const found = text.indexOf(word, end);
    if (found < 0) return ` ${word}`;
    const piece = text.slice(end, found + word.length);
    end = found + word.length;
    return piece;
  });
}

/** A word as the parts between which a line may break: one, but for scripts without blanks. */
function parts(text) {
  if (!SPACELESS.test(text) || !WORDS) return [text];
  const found = [];
  let opening = "";
  for (const { segment, isWordLike } of WORDS.segment(text)) {
    if (OPENING.test(segment)) opening += segment;
    else if (isWordLike || opening || !found.length) {
      found.push(opening + segment);
      opening = "";
    } else found[found.length - 1] += segment; // no line begins with a full stop
  }
  return opening ? [...found, opening] : found;
}

/** Whether a blank stands between two texts. */
function apart(before, after) {
  return !(SPACELESS.test(before.slice(-1)) || SPACELESS.test(after.slice(0, 1)));
}

function directionOf(text, language) {
  if (RTL_LANGUAGES.has((language ?? "").split("-")[0])) return "rtl";
  return RTL.test(/\p{L}/u.exec(text)?.[0] ?? "") ? "rtl" : "ltr";
}

class Row {
  constructor(direction) {
    this.text = ""; // settled
    this.element = document.createElement("div");
    this.element.className = "caption-line";
    this.element.dir = direction;
    this.element.style.whiteSpace = "pre"; // lines are broken here alone
    this.element.style.textAlign = "start";
    this.words = document.createElement("span");
    this.words.className = "caption-words";
    this._settled = document.createTextNode("");
    this.words.append(this._settled);
    this.element.append(this.words, " "); // the blank: for who copies the text
  }

  add(text) {
    this.text += text;
    this._settled.data = this.text;
  }

  /** Whether more text fits; `room`: pixels of a line, 0: unknown. The word that may change must be off the row. */
  fits(more, room, reserve) {
    if (columns(this.text + more) + reserve > WIDTH) return false;
    if (!room) return true;
    this._settled.data = this.text + more + (reserve ? "…" : "");
    const wide = this.words.getBoundingClientRect().width;
    this._settled.data = this.text;
    return wide <= room + 0.5;
  }
}

export class CaptionView {
  /**
   * @param {HTMLElement} root where the lines go; its width is the width of a line, its height is limited by the style sheet
   * @param {object} options
   *   clearAfter  seconds without captions after which nothing is shown
   *   lines       how many lines are shown at most
   */
  constructor(root, { clearAfter = 6, lines = 2 } = {}) {
    this.root = root;
    this.clearAfter = clearAfter;
    this.lines = lines;
    this.rows = [];
    this._taken = []; // words of the open cue that are on the rows, or were
    this._loose = null; // the word that may still change
    this._end = NaN; // session seconds of the end of the last closed cue
    this._timer = 0;
  }

  /** caption.partial */
  partial(event) {
    this._change(() => {
      const words = wordsOf(event.text, event.words);
      const stable = Math.min(event.stable ?? 0, words.length);
      const direction = this._approach(event);
      this._settle(words, stable, direction);
      if (stable < words.length) this._guess(words[stable], direction);
    });
  }

  /** caption.final */
  final(event) {
    this._change(() => {
      const words = wordsOf(event.text, event.words);
      this._settle(words, words.length, this._approach(event, true));
      this._taken = [];
      this._end = event.end;
    });
  }

  /** caption.translation, or other text that is no part of the open cue */
  insert(event) {
    this._change(() => {
      const open = this._taken;
      this._taken = [];
      const words = wordsOf(event.text);
      this._settle(words, words.length, this._approach({ text: event.text, language: event.language }, true));
      this._taken = open;
    });
  }

  /** Show nothing, and begin anew. */
  clear() {
    this._taken = [];
    this._end = NaN;
    this._empty();
  }

  _empty() {
    clearTimeout(this._timer);
    this.rows = [];
    this._loose = null;
    this.root.replaceChildren();
  }

  _change(write) {
    clearTimeout(this._timer);
    this._timer = setTimeout(() => this._empty(), this.clearAfter * 1000);
    const last = this.rows.at(-1);
    const before = last?.element.getBoundingClientRect().top;
    this._loose?.remove();
    this._loose = null;
    write();
    for (const row of this.rows) row.words.style.visibility = row.text || row.words.contains(this._loose) ? "" : "hidden";
    const surplus = this.rows.splice(0, Math.max(0, this.rows.length - this.lines)).map((row) => row.element);
    this._roll(last ? before - last.element.getBoundingClientRect().top : 0, surplus);
  }

  /** Let all lines rise by `pixels`; `surplus` lines leave. */
  _roll(pixels, surplus) {
    const leave = () => surplus.forEach((element) => element.remove());
    if (pixels <= 0 || matchMedia("(prefers-reduced-motion: reduce)").matches) return leave();
    const path = [{ transform: `translateY(${pixels}px)` }, { transform: "none" }];
    for (const element of this.root.children) {
      element.getAnimations().forEach((running) => running.cancel());
      const rising = element.animate(path, { duration: ROLL_MS, easing: "ease-out" });
      if (surplus.includes(element)) rising.onfinish = rising.oncancel = () => element.remove();
    }
  }

  /**
   * Begin a line for a cue after a pause, and for a `whole` one whose beginning would roll off unseen. Returns the
   * direction of its text.
   */
  _approach(event, whole = false) {
    const direction = directionOf(event.text, event.language);
    const before = this.rows.at(-1)?.text ?? "";
    if (!before || this._taken.length) return direction;
    const long = whole && columns(before) + columns(event.text) > WIDTH * (this.lines - 0.5);
    if (long || event.start - this._end >= PAUSE) this._begin(direction);
    return direction;
  }

  /** Append the first `count` words of the open cue, without those that are there. */
  _settle(words, count, direction) {
    const same = count >= this._taken.length && this._taken.every((word, index) => word === words[index].trim());
    if (!same) this._taken = []; // another cue: the end of the last one was missed
    for (let index = this._taken.length; index < count; index += 1) {
      const word = words[index].trim();
      word.split(/\s+/).filter(Boolean).forEach((text, within) => {
        const blank = within > 0 || this._blankBefore(words[index], index);
        parts(text).forEach((part, place) => this._place(part, blank && !place, direction));
      });
      this._taken.push(word);
    }
  }

  _blankBefore(word, index) {
    return index ? /^\s/.test(word) : apart(this.rows.at(-1)?.text ?? "", word.trim());
  }

  /** Show the first word that may still change. */
  _guess(word, direction) {
    const text = word.trim().replace(END, "");
    if (!text || columns(text) + RESERVE > WIDTH) return;
    const blank = this._blankBefore(word, this._taken.length) ? " " : "";
    const [row, gap] = this._rowFor(blank, text, direction, RESERVE);
    this._loose = document.createElement("span");
    this._loose.className = "tentative";
    this._loose.textContent = gap + text;
    row.words.append(this._loose);
  }

  _place(text, blank, direction) {
    let [row, gap] = this._rowFor(blank ? " " : "", text, direction, 0);
    let rest = gap + text;
    while (rest) {
      const fitting = this._fitting(row, rest);
      row.add(fitting);
      rest = rest.slice(fitting.length);
      if (rest) row = this._begin(direction);
    }
  }

  /** The row that a text goes to, and the blank before it there. */
  _rowFor(blank, text, direction, reserve) {
    const row = this.rows.at(-1);
    if (row && !row.text) {
      row.element.dir = direction;
      return [row, ""];
    }
    if (row?.element.dir === direction && row.fits(blank + text, this.root.clientWidth, reserve)) return [row, blank];
    return [this._begin(direction), ""];
  }

  /** The beginning of a text that fits on a row: all, but for what is longer than a line. */
  _fitting(row, text) {
    const room = this.root.clientWidth;
    if (row.fits(text, room, 0)) return text;
    let fitting = "";
    for (const piece of GRAPHEMES ? Array.from(GRAPHEMES.segment(text), (one) => one.segment) : [...text]) {
      if (fitting && !row.fits(fitting + piece, room, 0)) break;
      fitting += piece;
    }
    return fitting;
  }

  _begin(direction) {
    const row = new Row(direction);
    this.rows.push(row);
    this.root.append(row.element);
    return row;
  }
}
