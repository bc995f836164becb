/**
 * What was shown, the newest first: one row a scene, not one a keyframe. A keyframe opens a row only where what is seen,
 * described or read on it differs from the row before; else its picture joins that row.
 */

import { Follower, SURE, counted, make, markWithin, span, time } from "./views.js";

const MOST = 150; // rows kept on the page
const SIGHT_MS = 1500; // a keyframe that nothing has been seen on for so long opens its row by itself

/** Whether two titles are the same text, give or take a misread letter. */
export function sameText(one, other) {
  const pairs = (text) => {
    const plain = text.toLowerCase().replace(/[^\p{L}\p{N}]+/gu, " ").trim();
    return [...plain].slice(1).map((letter, index) => [...plain][index] + letter);
  };
  const [a, b] = [pairs(one), pairs(other)];
  if (!a.length || !b.length) return one.trim() === other.trim();
  const rest = [...b];
  const shared = a.filter((pair) => rest.includes(pair) && rest.splice(rest.indexOf(pair), 1)).length;
  return (2 * shared) / (a.length + b.length) > 0.75;
}

function alike(one, other) {
  const [a, b] = [new Set(one), new Set(other)];
  const shared = [...a].filter((label) => b.has(label)).length;
  return shared >= (a.size + b.size - shared) / 2; // half of all labels, or no labels at all
}

export class Scenes {
  /** load(url) -> Promise of an address for <img>; onPicture(address): the newest picture; button: back to the newest. */
  constructor(list, { load, onPicture, button }) {
    Object.assign(this, { list, load, onPicture });
    this.frames = new Map(); // keyframe id -> { id, at, address, labels, row, timer }
    this.follower = new Follower(list.parentElement, button, "start");
  }

  keyframe(event) {
    const frame = { id: event.id, at: event.at, reason: event.reason, address: null, labels: null, row: null };
    this.frames.set(event.id, frame);
    if (this.frames.size > 2 * MOST) this.frames.delete(this.frames.keys().next().value);
    this.load(event.url).then((address) => {
      if (!address) return;
      frame.address = address;
      if (frame.row) this._picture(frame.row, frame);
      this.onPicture(address);
    });
    if (!this.list.childElementCount) this._open(frame);
    else frame.timer = setTimeout(() => frame.row || (event.reason === "scene" ? this._open(frame) : this._join(frame)), SIGHT_MS);
  }

  sight(event) {
    const frame = this.frames.get(event.of);
    if (!frame) return;
    const sure = (found) => (found ?? []).filter(({ score }) => score >= SURE).map(({ label }) => label);
    const boxes = sure(event.boxes);
    frame.labels = [...boxes, ...sure(event.tags).filter((label) => !boxes.includes(label))];
    clearTimeout(frame.timer);
    if (!frame.row) {
      const before = this._before(frame.at);
      if (before && alike(before.labels ?? [], frame.labels)) this._join(frame);
      else this._open(frame);
    }
    if (frame.row.frame === frame) frame.row.labels = frame.labels;
    this._tags(frame.row);
  }

  screenText(event) {
    const title = event.title || event.lines?.[0]?.text || "";
    const frame = this.frames.get(event.of);
    if (!frame || !title) return;
    let row = frame.row ?? this._open(frame);
    const known = row.querySelector(".scene-title").textContent;
    if (row.frame !== frame && (known ? !sameText(known, title) : frame.reason === "scene")) row = this._open(frame);
    const place = row.querySelector(".scene-title");
    place.textContent = title;
    place.title = event.lines.map((line) => line.text).join("\n");
  }

  caption(event) {
    const frame = [...this.frames.values()].findLast(({ at }) => at <= event.start + 0.25);
    if (!frame) return;
    let row = frame.row ?? this._open(frame);
    const place = row.querySelector(".scene-text");
    const other = place.textContent && row.frame !== frame && row.text !== event.text;
    if (other && event.by !== "model") row = this._open(frame);
    row.text = event.text;
    const mark = event.by === "model" ? [make("span", { className: "why", title: "Nothing here can check it" }, " by the model")] : [];
    row.querySelector(".scene-text").replaceChildren(event.text, ...mark);
    row.querySelector("img").alt = event.text;
    this._tags(row);
  }

  clear() {
    for (const { timer } of this.frames.values()) clearTimeout(timer);
    this.frames.clear();
    this.list.replaceChildren();
    this.follower.jump();
  }

  /** Mark the scenes within start..end and show the first of them. */
  mark(start, end) {
    const rows = markWithin(this.list, start, end);
    if (rows.length) this.follower.show(rows.at(-1));
  }

  _before(at) {
    return [...this.list.children].find((row) => Number(row.dataset.start) <= at);
  }

  /** A row of its own, in its place by time. */
  _open(frame) {
    clearTimeout(frame.timer);
    const picture = make("img", { alt: "", width: 160, height: 90, decoding: "async", hidden: true });
    const row = make(
      "li",
      {},
      make("div", { className: "thumb" }, picture),
      make(
        "div",
        { className: "scene-body" },
        make("p", {}, time(frame.at)),
        make("p", { className: "scene-text" }),
        make("p", { className: "scene-title" }),
        make("p", { className: "tags" }),
      ),
    );
    Object.assign(row.dataset, { start: frame.at, end: frame.at });
    Object.assign(row, { frame, labels: frame.labels, text: "" });
    picture.onload = () => (picture.hidden = false);
    const before = this._before(frame.at);
    if (before) this._last(before, frame.at); // the scene before lasts until this one
    if (before) before.before(row);
    else this.list.append(row);
    while (this.list.childElementCount > MOST) this.list.lastElementChild.remove();
    frame.row = row;
    if (frame.address) this._picture(row, frame);
    if (frame.labels) this._tags(row);
    this.follower.grown();
    return row;
  }

  /** One picture more of the scene that is shown already. */
  _join(frame) {
    const row = this._before(frame.at);
    if (!row) return void this._open(frame);
    frame.row = row;
    this._last(row, Math.max(Number(row.dataset.end), frame.at));
    if (!row.frame.address && frame.address) this._picture(row, frame);
  }

  _last(row, end) {
    row.dataset.end = end;
    row.querySelector(".at").textContent = span(Number(row.dataset.start), end);
  }

  _picture(row, frame) {
    const picture = row.querySelector("img");
    if (row.frame === frame || !picture.src) picture.src = frame.address;
  }

  /** What is seen and not in the caption already. */
  _tags(row) {
    const text = row.text.toLowerCase();
    const more = (row.labels ?? []).filter((label) => !text.includes(label.toLowerCase()));
    row.querySelector(".tags").textContent = counted(more).slice(0, 5).join(", ");
  }
}
