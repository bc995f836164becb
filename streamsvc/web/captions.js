/** Captions on a picture: the last lines, rolled up; settled words solid, words that may still change lighter. */

/** Text of an open cue -> [what will never change, what still may]. Works for scripts without blanks too. */
export function splitStable(text, words, stable) {
  let end = 0;
  const known = Array.isArray(words) ? words.map((word) => (typeof word === "string" ? word : word.text)) : text.split(/\s+/);
  for (const word of known.slice(0, stable)) {
    const found = text.indexOf(word, end);
    if (found < 0) break;
    end = found + word.length;
  }
  return [text.slice(0, end), text.slice(end)];
}

/** Words on one line each, however the cue breaks them. */
function linesOf(text) {
  return text.split("\n").map((line) => line.trim()).filter(Boolean);
}

function line(...parts) {
  const row = document.createElement("div");
  row.className = "caption-line";
  const words = document.createElement("span");
  words.className = "caption-words";
  words.append(...parts);
  row.append(words);
  return row;
}

function tentative(text) {
  const part = document.createElement("span");
  part.className = "tentative";
  part.textContent = text;
  return part;
}

export class CaptionView {
  /**
   * @param {HTMLElement} root where the lines go (its height is limited by the style sheet: --lines)
   * @param {object} options clearAfter: seconds of silence after which nothing is shown
   */
  constructor(root, { clearAfter = 6 } = {}) {
    this.root = root;
    this.clearAfter = clearAfter;
    this.closed = []; // texts of the last closed cues
    this.open = null;
    this._timer = 0;
  }

  /** caption.partial */
  partial(event) {
    this.open = event.text ? splitStable(event.text, event.words, event.stable ?? 0) : null;
    this._draw();
  }

  /** caption.final */
  final(event) {
    this.closed = [...this.closed, event.text].slice(-3);
    this.open = null;
    this._draw();
  }

  /** Show nothing. */
  clear() {
    clearTimeout(this._timer);
    this.closed = [];
    this.open = null;
    this.root.replaceChildren();
  }

  _draw() {
    clearTimeout(this._timer);
    this._timer = setTimeout(() => this.clear(), this.clearAfter * 1000);
    const rows = this.closed.flatMap(linesOf).map((text) => line(text));
    if (this.open) rows.push(...this._openRows());
    this.root.replaceChildren(...rows.slice(-4));
  }

  _openRows() {
    const [solid, loose] = this.open;
    const rows = [];
    let at = 0; // position in the whole text
    for (const piece of (solid + loose).split("\n")) {
      const cut = Math.min(Math.max(solid.length - at, 0), piece.length);
      if (piece.trim()) rows.push(line(piece.slice(0, cut), ...(cut < piece.length ? [tentative(piece.slice(cut))] : [])));
      at += piece.length + 1;
    }
    return rows;
  }
}
