/** The sessions of the service, live and ended, as a list with pictures. */

import { place, request, sessionPlace } from "./client.js";
import { clockTime, make } from "./views.js";

const PAGE = 12; // sessions asked for at once
const AGAIN_MS = 10_000;

/** The last keyframe at or before a second far off; another address every time, since pictures are cached. */
const lastPicture = () => `/frames/${9_000_000 + (Math.floor(Date.now() / AGAIN_MS) % 1_000_000)}.jpg`;

const STATES = { created: "waiting for its stream", live: "live", stalled: "nothing is coming", ended: "ended" };

/** "today 14:05", "Mon 14:05", "3 Nov 14:05" */
function when(utc) {
  const date = new Date(utc);
  if (Number.isNaN(date.getTime())) return "";
  const days = Math.floor((Date.now() - date) / 86_400_000);
  const clock = date.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
  if (date.toDateString() === new Date().toDateString()) return `today ${clock}`;
  return `${date.toLocaleDateString([], days < 6 ? { weekday: "short" } : { day: "numeric", month: "short" })} ${clock}`;
}

export class SessionList {
  /** token(): of the page. picture(url) -> Promise of an address for <img>. onOpen(id). onDelete(id, name): asks and deletes. */
  constructor({ card, list, more, empty, filter }, { token, picture, onOpen, onDelete }) {
    Object.assign(this, { card, list, more, empty, filter, token, picture, onOpen, onDelete, shown: false, next: null, timer: 0, wanted: PAGE });
    more.addEventListener("click", () => {
      this.wanted += PAGE;
      this.refresh();
    });
    filter.addEventListener("change", () => this.refresh());
    document.addEventListener("visibilitychange", () => this.refresh());
  }

  show(shown) {
    this.shown = shown;
    if (shown) this.refresh();
    else clearTimeout(this.timer);
  }

  async refresh() {
    clearTimeout(this.timer);
    if (!this.shown || document.hidden) return;
    try {
      this._draw(await this._read());
      if (this.shown) this.timer = setTimeout(() => this.refresh(), AGAIN_MS);
    } catch (error) { // asked again when a token is typed, or the page is seen again
      this.card.hidden = ![401, 403].includes(error.status); // a service without this list, or one that is away
      this._tell(error.status === 401 ? "Paste the access token to see the sessions." : error.message);
    }
  }

  async _read() {
    const sessions = [];
    let after = "";
    do {
      const url = place("v1/sessions");
      url.searchParams.set("limit", String(PAGE));
      for (const state of this.filter.value.split(" ").filter(Boolean)) url.searchParams.append("state", state);
      if (after) url.searchParams.set("after", after);
      const body = await (await request(url, { token: this.token() })).json();
      sessions.push(...body.sessions);
      after = body.next;
    } while (after && sessions.length < this.wanted);
    this.more.hidden = !after;
    return sessions;
  }

  _draw(sessions) {
    this.card.hidden = false;
    const before = new Map([...this.list.children].map((row) => [row.dataset.id, row]));
    const rows = sessions.map((session) => {
      const row = before.get(session.id) ?? this._row(session);
      this._update(row, session);
      return row;
    });
    const kept = new Set(rows);
    for (const row of before.values()) if (!kept.has(row)) row.remove();
    rows.forEach((row, index) => this.list.children[index] === row || this.list.insertBefore(row, this.list.children[index] ?? null));
    this._tell(rows.length ? "" : "No sessions yet. They appear here, with what was said and shown, as long as the server keeps them.");
  }

  _row({ id, name }) {
    const title = name || id;
    const picture = make("img", { alt: "", hidden: true, decoding: "async" });
    const open = make("button", { type: "button", className: "link" }, title);
    const remove = make("button", { type: "button", className: "quiet small", ariaLabel: `Delete ${title}` }, "Delete");
    const row = make("li", {}, make("div", { className: "thumb" }, picture), make("div", { className: "session-body" }, open, make("p", { className: "known-by" }), make("p", { className: "note" })), remove);
    row.dataset.id = id;
    picture.onload = () => (picture.hidden = false);
    open.onclick = () => this.onOpen(id);
    remove.onclick = () => this.onDelete(id, title);
    return row;
  }

  _update(row, session) {
    const state = session.error ? "failed" : (STATES[session.state] ?? session.state);
    const facts = [state, when(session.started_utc), session.seconds >= 1 && clockTime(session.seconds)];
    row.dataset.state = session.state;
    row.querySelector(".note").textContent = facts.filter(Boolean).join(" · ");
    row.querySelector(".known-by").textContent = session.title || session.last_caption || "";
    const live = session.state === "live" || session.state === "stalled";
    const url = session.thumbnail_url ?? (session.tracks?.includes("video") ? sessionPlace(session.id, lastPicture()) : null);
    if (!url || (row.pictured && !live)) return;
    row.pictured = true;
    this.picture(url).then((address) => {
      const image = row.querySelector("img");
      if (!address) return;
      if (image.src.startsWith("blob:")) URL.revokeObjectURL(image.src);
      image.src = address;
    });
  }

  _tell(message) {
    this.empty.textContent = message;
    this.empty.hidden = !message;
    if (message) this.list.replaceChildren();
  }
}

/** Erase a session, after asking. Returns "" where it is gone, null where it is kept, else why it could not be erased. */
export async function deleteSession(id, name, token) {
  const dialog = document.getElementById("sure");
  document.getElementById("sure-text").textContent = `What was said and shown in “${name}” is erased. This cannot be undone.`;
  dialog.returnValue = "no";
  dialog.showModal();
  await new Promise((resolve) => dialog.addEventListener("close", resolve, { once: true }));
  if (dialog.returnValue !== "yes") return null;
  const gone = request(`${sessionPlace(id)}?purge=1`, { token, method: "DELETE" });
  return gone.then(() => "", (error) => error.message);
}
