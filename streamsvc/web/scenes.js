/**
 * What was shown, the newest first: one row a scene, not one a keyframe. A keyframe opens a row only where its picture,
 * and what is seen, described or read on it, differs from the row before; else it joins that row.
 */

import { Follower, SURE, counted, make, markWithin, span, time } from "./views.js";

const MOST = 150; // rows kept on the page
const GROWING_MS = 10_000; // a caption of which nothing more has come for so long was withdrawn, and that was lost
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

/** Whether half of all labels of two pictures are the same; null where neither has any. */
function sameLabels(one, other) {
  const [a, b] = [new Set(one), new Set(other)];
  if (!a.size && !b.size) return null;
  const shared = [...a].filter((label) => b.has(label)).length;
  return shared >= (a.size + b.size - shared) / 2;
}

const [WIDE, HIGH] = [64, 36]; // a picture as it is compared
const CHANGE = 24; // gray levels of 255: more is another cell
const CHANGED = 0.004; // share of other cells up to which it is the same picture

/** A picture in small and gray; null where it cannot be loaded. */
async function lookOf(address) {
  const image = new Image();
  image.src = address;
  try {
    await image.decode();
  } catch {
    return null;
  }
  const pen = Object.assign(document.createElement("canvas"), { width: WIDE, height: HIGH }).getContext("2d");
  pen.drawImage(image, 0, 0, WIDE, HIGH);
  const { data } = pen.getImageData(0, 0, WIDE, HIGH);
  return Float32Array.from({ length: WIDE * HIGH }, (_, n) => 0.3 * data[4 * n] + 0.6 * data[4 * n + 1] + 0.1 * data[4 * n + 2]);
}

/** Whether two looks are of one picture; null where one of them is not known. */
function sameLook(one, other) {
  if (!one || !other) return null;
  const cells = one.filter((gray, n) => Math.abs(gray - other[n]) > CHANGE).length;
  return cells <= CHANGED * one.length;
}

/** Whether a keyframe shows the scene of the row before. */
function sameScene(before, frame) {
  const [labels, look] = [sameLabels(before.labels ?? [], frame.labels), sameLook(before.look, frame.look)];
  if (labels || look) return true;
  return labels === null && look === null ? frame.reason !== "scene" : labels === null && !["scene", "text"].includes(frame.reason);
}

export class Scenes {
  /** load(url) -> Promise of an address for <img>; onPicture(address): the newest picture; button: back to the newest. */
  constructor(list, { load, onPicture, button }) {
    Object.assign(this, { list, load, onPicture });
    this.placing = Promise.resolve();
    this.growing = null; // the caption that a model is making: { id, text, next, row, timer }
    this.frames = new Map(); // keyframe id -> { id, at, address, labels, row, timer }
    this.follower = new Follower(list.parentElement, button, "start");
  }

  keyframe(event) {
    const frame = { id: event.id, at: event.at, reason: event.reason, address: null, look: null, labels: null, row: null }; // row: null until it is placed
    this.frames.set(event.id, frame);
    if (this.frames.size > 2 * MOST) this.frames.delete(this.frames.keys().next().value);
    frame.placed = new Promise((resolve) => (frame.isPlaced = resolve));
    const seen = new Promise((resolve) => (frame.isSeen = resolve));
    const late = new Promise((resolve) => setTimeout(resolve, SIGHT_MS));
    const loaded = this.load(event.url).then(async (address) => {
      if (!address) return;
      this.onPicture(address);
      frame.address = address;
      frame.look = await lookOf(address);
      if (frame.row) this._picture(frame.row, frame);
    });
    const known = Promise.race([late, Promise.all([loaded, seen])]);
    this.placing = Promise.all([this.placing, known]).then(() => this._place(frame)); // in their order: each is compared with the one before
    if (!this.list.childElementCount) this._open(frame);
  }

  sight(event) {
    const frame = this.frames.get(event.of);
    if (!frame) return;
    const sure = (found) => (found ?? []).filter(({ score }) => score >= SURE).map(({ label }) => label);
    const boxes = sure(event.boxes);
    frame.labels = [...boxes, ...sure(event.tags).filter((label) => !boxes.includes(label))];
    frame.isSeen();
    if (frame.row) this._labels(frame);
  }

  screenText(event) {
    const title = event.title || event.lines?.[0]?.text || "";
    const frame = this.frames.get(event.of);
    if (title) frame?.placed.then(() => this._title(frame, title, event.lines));
  }

  caption(event) {
    if (event.scene_id === this.growing?.id) this._stopGrowing();
    const frame = this._frameAt(event.start);
    frame?.placed.then(() => this._caption(frame, event));
  }

  /** A caption that a model is making, shown below the one that is there; one of which a part was lost is not. */
  delta({ scene_id: id, index, text, start, withdrawn }) {
    const frame = this._frameAt(start);
    if (index === 0) {
      this._stopGrowing();
      this.growing = { id, text: "", next: 0, row: null };
      const growing = this.growing;
      frame?.placed.then(() => {
        growing.row = frame.row;
        this._grow(growing);
      });
    }
    const growing = this.growing;
    if (growing?.id !== id) return;
    if (withdrawn || index !== growing.next) return void this._stopGrowing();
    growing.next += 1;
    growing.text += text;
    this._grow(growing);
  }

  _grow(growing) {
    if (growing !== this.growing || !growing.row) return;
    growing.row.querySelector(".scene-growing").textContent = growing.text;
    clearTimeout(growing.timer);
    growing.timer = setTimeout(() => growing === this.growing && this._stopGrowing(), GROWING_MS);
  }

  _stopGrowing() {
    const { row, timer } = this.growing ?? {};
    this.growing = null;
    clearTimeout(timer);
    row?.querySelector(".scene-growing").replaceChildren();
  }

  _frameAt(start) {
    return [...this.frames.values()].findLast(({ at }) => at <= start + 0.25);
  }

  clear() {
    this._stopGrowing();
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

  /** Whatever is known by now decides where a keyframe belongs. */
  _place(frame) {
    if (frame.row || !this.frames.has(frame.id)) return;
    const before = this._before(frame.at);
    frame.labels ??= before?.labels ?? [];
    if (before && sameScene(before, frame)) this._join(frame);
    else this._open(frame);
  }

  _title(frame, title, lines) {
    let row = frame.row;
    const known = row.querySelector(".scene-title").textContent;
    const other = known ? !sameText(known, title) : frame.reason === "scene" && sameLook(row.look, frame.look) === false;
    if (row.frame !== frame && other) row = this._open(frame);
    const place = row.querySelector(".scene-title");
    place.textContent = title;
    place.title = lines.map((line) => line.text).join("\n");
    this._once(row);
  }

  _caption(frame, { text, by }) {
    let row = frame.row;
    if (row.text && row.text !== text && row.frame !== frame && by !== "model") row = this._open(frame);
    row.text = text;
    const mark = by === "model" ? [make("span", { className: "why", title: "Nothing here can check it" }, " by the model")] : [];
    row.querySelector(".scene-text").replaceChildren(text, ...mark);
    row.querySelector("img").alt = text;
    this._tags(row);
    this._once(row);
  }

  /** A title that stands in the caption is not shown twice. */
  _once(row) {
    const place = row.querySelector(".scene-title");
    place.hidden = row.text.includes(place.textContent);
  }

  _labels(frame) {
    if (frame.row.frame === frame) frame.row.labels = frame.labels;
    this._tags(frame.row);
  }

  /** A row of its own, in its place by time. */
  _open(frame) {
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
        make("p", { className: "scene-growing" }),
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
    const after = row.previousElementSibling;
    if (after) this._last(row, Number(after.dataset.start));
    while (this.list.childElementCount > MOST) this.list.lastElementChild.remove();
    frame.row = row;
    frame.isPlaced();
    if (frame.address) this._picture(row, frame);
    if (frame.labels) this._labels(frame);
    this.follower.grown();
    return row;
  }

  /** One picture more of the scene that is shown already. */
  _join(frame) {
    const row = this._before(frame.at);
    frame.row = row;
    frame.isPlaced();
    this._last(row, Math.max(Number(row.dataset.end), frame.at));
    if (frame.address) this._picture(row, frame);
  }

  _last(row, end) {
    row.dataset.end = end;
    row.querySelector(".at").textContent = span(Number(row.dataset.start), end);
  }

  _picture(row, frame) {
    const picture = row.querySelector("img");
    if (row.frame !== frame && picture.src) return;
    row.look = frame.look;
    picture.src = frame.address;
  }

  /** What is seen and not in the caption already. */
  _tags(row) {
    const text = row.text.toLowerCase();
    const more = (row.labels ?? []).filter((label) => !text.includes(label.toLowerCase()));
    row.querySelector(".tags").textContent = counted(more).slice(0, 5).join(", ");
  }
}
