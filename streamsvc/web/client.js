/**
 * The browser client of a session's event socket. No dependencies; may be used from any page:
 *
 *   import { Session } from "https://HOST/web/client.js";
 *   const session = new Session("a.3f9c", { token });          // token: only where the server asks for one
 *   session.on("caption.partial", (e) => show(e.text, e.stable));
 *   session.on("caption.final", (e) => append(e.start, e.text));
 *   session.on("answer.delta", (e) => type(e.question_id, e.text));
 *   session.on("answer.done", (e) => finish(e.question_id, e.text, e.supported, e.evidence));
 *   session.on("state", (s) => console.log(s.state, s.message)); // connecting, open, waiting, closed, refused
 *   session.open();
 *   const id = session.ask("What does the slide say?");        // while the state is "open", and after the session's end
 *   session.close();
 *
 * Where a proxy lets no WebSocket through, events come as Server-Sent Events and questions go by POST; nothing else changes.
 *
 * Other names to listen for: every event type of the server; "*" (each event); "gap" {from, to} when durable events
 * were missed; "epoch" {epoch} when the server's log was reset: discard what is shown.
 * What arrives is text, never markup: put it on a page with textContent.
 */

const FIRST_RETRY_MS = 500;
const LAST_RETRY_MS = 10_000;
const PING_MS = 20_000;
const SILENCE_MS = 45_000; // without any message for so long, the connection is taken for dead
const FATAL = new Set([4400, 4401, 4403, 4404]); // close codes that a retry cannot help
const REASONS = {
  400: "The server did not accept the request.",
  401: "This session needs a token.",
  403: "The token does not allow this.",
  404: "There is no such session.",
};

/** What all addresses of the service begin with: this script lies at ROOT + "web/client.js", also below a sub-path. */
export const ROOT = new URL("../", import.meta.url).href;

/** The address of a path of the service, such as "v1/sessions". */
export function place(path, root = ROOT) {
  return new URL(path, root.endsWith("/") ? root : `${root}/`);
}

/** A short random id. (crypto.randomUUID is missing on pages without TLS.) */
export function randomId(size = 8) {
  const bytes = crypto.getRandomValues(new Uint8Array(size));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** HTTP headers that carry a token. */
export function bearer(token) {
  return token ? { Authorization: `Bearer ${token}` } : {};
}

/** The error message of a failed HTTP response, as one sentence. */
export async function problem(response) {
  let message = "";
  try {
    const body = await response.json();
    message = body?.error?.message ?? (typeof body?.detail === "string" ? body.detail : "");
  } catch {
    // no JSON body: use the status
  }
  return message || REASONS[response.status] || `The server answered ${response.status}.`;
}

/** Why a request failed, as a sentence. `status`: of HTTP, 0 where the server was not reached. */
export class RequestError extends Error {
  constructor(message, status = 0) {
    super(message);
    this.status = status;
  }
}

/** The address of a session, or of something below it: sessionPlace("a.3f9c", "/captions.vtt"). */
export function sessionPlace(id, rest = "", root = ROOT) {
  return place(`v1/sessions/${encodeURIComponent(id)}${rest}`, root);
}

/** Ask the service for something. Returns the response; raises RequestError where it is refused. */
export async function request(address, { token = "", method = "GET", json, headers = {} } = {}) {
  const type = json === undefined ? {} : { "Content-Type": "application/json" };
  const body = json === undefined ? undefined : JSON.stringify(json);
  const response = await fetch(address, { method, headers: { ...type, ...headers, ...bearer(token) }, body }).catch(() => {
    throw new RequestError("The server could not be reached.");
  });
  if (!response.ok) throw new RequestError(await problem(response), response.status);
  return response;
}

/** The data of each Server-Sent Event of a response; null for a comment that only keeps the connection. */
async function* serverSent(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  for (let rest = ""; ; ) {
    const { done, value } = await reader.read();
    if (done) return;
    const blocks = (rest + value).split("\n\n");
    rest = blocks.pop();
    for (const block of blocks) yield block.split("\n").find((line) => line.startsWith("data: "))?.slice(6) ?? null;
  }
}

export class Session extends EventTarget {
  /**
   * @param {string} id the session's id
   * @param {object} options
   *   token    a JWT, sent as a subprotocol, never in the address
   *   origin   "https://host" or "https://host/sub-path" of the service; default: where this script came from
   *   types    e.g. "caption.*,answer.*"; default: everything
   *   history  true: begin with all that the server still holds; default: begin now
   *   forever  true: keep trying even where the session is unknown (an overlay may be opened before the stream)
   */
  constructor(id, { token = "", origin = ROOT, types = "", history = false, forever = false } = {}) {
    super();
    this.id = id;
    this.token = token;
    this.origin = origin;
    this.types = types;
    this.forever = forever;
    this.epoch = null;
    this.seq = history ? 0 : null; // the last durable event seen; null: never saw one, begin now
    this.client = randomId(16); // a secret: finds our own answers again after a reconnect
    this.state = "closed";
    this.ended = false; // the session itself has ended
    this._socket = null;
    this._stream = null; // an AbortController, while events come as Server-Sent Events
    this._tries = 0;
    this._timers = new Set();
    this._wake = () => this._retryNow();
  }

  /** Listen: fn gets the event itself. Returns a function that stops listening. */
  on(type, fn) {
    const listener = (event) => fn(event.detail);
    this.addEventListener(type, listener);
    return () => this.removeEventListener(type, listener);
  }

  /** Connect, and stay connected until close(). */
  open() {
    if (this._socket || this._stream || this._wanted) return;
    this._wanted = true;
    window.addEventListener("online", this._wake);
    this._connect();
  }

  /** Disconnect for good. */
  close() {
    this._wanted = false;
    window.removeEventListener("online", this._wake);
    this._clearTimers();
    const socket = this._socket;
    this._socket = null;
    socket?.close(1000);
    this._stream?.abort();
    this._stream = null;
    this._setState("closed", "");
  }

  /** Ask a question. Returns the id that answer.delta and answer.done will carry as question_id. */
  ask(text, { id = randomId(), deadlineMs } = {}) {
    if (this.ended || this._stream) {
      this._askByPost(id, text, deadlineMs).catch((error) => this._emit("error", { question_id: id, error: { message: error.message } }));
      return id;
    }
    this.send({ type: "question.ask", id, text, ...(deadlineMs ? { deadline_ms: deadlineMs } : {}) });
    return id;
  }

  /** Give a question up; its answer.done will say so. */
  cancel(id) {
    if (this._socket?.readyState === WebSocket.OPEN) this.send({ type: "question.cancel", id });
  }

  /** Take the session for ended, as GET says it: its log may have been cut off before its end. */
  end() {
    this.close();
    this.ended = true;
  }

  /** Send any client message. Throws while not connected, and where no WebSocket gets through. */
  send(message) {
    if (this._stream) throw new Error("This connection lets no messages through: a proxy before the server stops WebSockets.");
    if (this._socket?.readyState !== WebSocket.OPEN) throw new Error("Not connected to the session.");
    this._socket.send(JSON.stringify(message));
  }

  /** Without an event socket (the session has ended, or a proxy lets none through) the answer comes in the response. */
  async _askByPost(id, text, deadlineMs) {
    const url = this._place("/questions");
    const response = await request(url, {
      token: this.token,
      method: "POST",
      headers: { Accept: "text/event-stream" },
      json: { text, ...(deadlineMs ? { deadline_ms: deadlineMs } : {}) },
    });
    let over = false;
    for await (const data of serverSent(response)) {
      if (data === null) continue;
      const event = JSON.parse(data);
      over ||= event.type === "answer.done" || event.type === "error";
      this._emit(event.type, { ...event, question_id: id });
    }
    if (!over) throw new Error("The connection was lost before the answer was complete.");
  }

  // --- inside ---------------------------------------------------------------------------------------------------

  _place(path) {
    return sessionPlace(this.id, path, this.origin);
  }

  _address() {
    const url = this._place("/events");
    url.searchParams.set("client", this.client);
    if (this.types) url.searchParams.set("types", this.types);
    if (this.epoch !== null) url.searchParams.set("epoch", this.epoch);
    if (this.seq !== null) url.searchParams.set("after", String(this.seq));
    return url;
  }

  _connect() {
    this._setState("connecting", "");
    // The server selects "streamsvc.v1"; the token rides beside it. Without a token nothing need be negotiated.
    const protocols = this.token ? ["streamsvc.v1", `streamsvc.token.${this.token}`] : [];
    const address = this._address();
    address.protocol = address.protocol === "https:" ? "wss:" : "ws:";
    const socket = new WebSocket(address, protocols);
    this._socket = socket;
    let opened = false;
    let heard = performance.now();
    let ping = 0;
    socket.onopen = () => {
      opened = true;
      heard = performance.now();
      this._setState("open", "");
      ping = setInterval(() => {
        if (performance.now() - heard > SILENCE_MS) socket.close(4000);
        else if (socket.readyState === WebSocket.OPEN) socket.send('{"type":"ping"}');
      }, PING_MS);
    };
    socket.onmessage = (message) => {
      heard = performance.now();
      if (this._socket === socket) this._take(message.data);
    };
    socket.onclose = (close) => {
      clearInterval(ping);
      if (this._socket !== socket) return;
      this._socket = null;
      this._lost(close, opened);
    };
  }

  async _lost(close, opened) {
    if (!this._wanted) return;
    if (close.code === 1000 && !this.forever) {
      // Closed in order: the session has ended, also where its log lacks the end because the server was killed.
      this._wanted = false;
      this.ended = true;
      this._setState("closed", "The session has ended.");
      return;
    }
    let status = close.code >= 4400 && FATAL.has(close.code) ? close.code - 4000 : 0;
    // A proxy that replaces the Host makes our own origin look foreign to the event socket (403), not to the plain door.
    if ((!opened && !status) || status === 403) status = await this._whyRefused();
    if (!this._wanted || this._socket) return;
    if (status === 200) return void this._follow(); // the session is there: something between us stops WebSockets
    if (status && !this.forever) {
      this._wanted = false;
      this._setState("refused", REASONS[status], { status });
      return;
    }
    // A subscriber that fell behind (4008) may resume at once; others wait, a little apart from each other.
    const wait = close.code === 4008 ? 50 : Math.min(LAST_RETRY_MS, FIRST_RETRY_MS * 2 ** this._tries) * (0.75 + Math.random() / 2);
    this._tries += 1;
    this._setState("waiting", REASONS[status] ?? "The connection was lost. Connecting again…", { status });
    this._later(wait, () => this._connect());
  }

  /** A refused handshake tells a page nothing, so ask the plain door. 0: a passing trouble. */
  async _whyRefused() {
    try {
      const response = await fetch(this._place(""), { headers: bearer(this.token) });
      return response.ok ? 200 : REASONS[response.status] ? response.status : 0;
    } catch {
      return 0;
    }
  }

  /** Events as Server-Sent Events, where no WebSocket gets through. (An EventSource could send no token.) */
  async _follow() {
    const stream = new AbortController();
    this._stream = stream;
    let silence = 0;
    let code = 0;
    const heard = () => {
      clearTimeout(silence);
      silence = setTimeout(() => stream.abort(), SILENCE_MS);
    };
    try {
      heard();
      const headers = { Accept: "text/event-stream", ...bearer(this.token) };
      const response = await fetch(this._address(), { headers, signal: stream.signal, cache: "no-store" });
      if (!response.ok) code = 4000 + response.status;
      else {
        this._setState("open", "");
        for await (const data of serverSent(response)) {
          heard();
          if (data !== null && this._stream === stream) this._take(data);
        }
        code = this.ended ? 1000 : 0; // a proxy may end a response in order, too
      }
    } catch {
      // aborted, or the connection broke
    }
    clearTimeout(silence);
    if (this._stream !== stream) return;
    this._stream = null;
    this._lost({ code, reason: "" }, true);
  }

  _retryNow() {
    if (this.state !== "waiting") return;
    this._clearTimers();
    this._connect();
  }

  _take(data) {
    let event;
    try {
      event = JSON.parse(data);
    } catch {
      return;
    }
    if (typeof event?.type !== "string") return;
    if (event.type !== "error") this._tries = 0; // a refusal comes as an error and a close code
    if (event.epoch && event.epoch !== this.epoch) {
      const first = this.epoch === null;
      this.epoch = event.epoch;
      if (!first) {
        this.seq = 0;
        this._emit("epoch", { epoch: event.epoch });
      }
    }
    if (typeof event.seq === "number") {
      if (this.seq !== null && event.seq <= this.seq) return; // sent again after a reconnect
      if (this.seq !== null && typeof event.prev === "number" && event.prev > this.seq) this._emit("gap", { from: this.seq, to: event.prev });
      this.seq = event.seq;
    } else if (event.epoch && this.seq === null && typeof event.after === "number") {
      this.seq = event.after;
    }
    if (event.type === "session.closed") this.ended = true;
    this._emit(event.type, event);
    this._emit("*", event);
  }

  _emit(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }

  _setState(state, message, more = {}) {
    if (this.state === state && !message) return;
    this.state = state;
    this._emit("state", { state, message, ...more });
  }

  _later(ms, fn) {
    const timer = setTimeout(() => {
      this._timers.delete(timer);
      fn();
    }, ms);
    this._timers.add(timer);
  }

  _clearTimers() {
    this._timers.forEach(clearTimeout);
    this._timers.clear();
  }
}
