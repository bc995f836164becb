/**
 * Publish a MediaStream by WHIP (RFC 9725).
 *
 *   const publication = new Publication(stream, { token, onState: ({ state, message }) => … });
 *   const { session } = await publication.start();   // PublishError if the server refuses
 *   …
 *   await publication.stop();
 *
 * States: connecting, live, reconnecting, stopped, failed. When the connection breaks, it is made again into the same
 * session, which the server keeps for 30 s.
 */

import { bearer, place, problem } from "./client.js";

const GATHER_MS = 1000; // candidates found later go by PATCH
const CONNECT_MS = 15_000;
const DISCONNECTED_MS = 4000; // ICE often mends itself within this time
const GIVE_UP_MS = 60_000;
const MAX_BITRATE = 1_500_000; // bit/s; keyframes are sampled about once a second: more would be wasted
const MAX_FRAMERATE = 15; // frames/s
const EVENTS_REL = "urn:ietf:params:whip:ext:streamsvc:events";

/** Why publishing did not begin. `status`: of HTTP, 0 where the server was not reached. `retryAfter`: seconds, or null. */
export class PublishError extends Error {
  constructor(message, status = 0, retryAfter = null) {
    super(message);
    this.status = status;
    this.retryAfter = retryAfter;
  }
}

/** `Link` header -> [{target, params}]. */
export function parseLinks(header) {
  const links = [];
  for (const match of (header ?? "").matchAll(/<([^>]*)>((?:\s*;\s*[\w*-]+\s*=\s*(?:"(?:[^"\\]|\\.)*"|[^\s;,"]+))*)/g)) {
    const params = {};
    for (const pair of match[2].matchAll(/;\s*([\w*-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s;,"]+))/g)) {
      params[pair[1].toLowerCase()] = pair[2] !== undefined ? pair[2].replace(/\\(.)/g, "$1") : pair[3];
    }
    links.push({ target: match[1], params });
  }
  return links;
}

function iceServers(links) {
  return links
    .filter((link) => link.params.rel === "ice-server")
    .map((link) => ({ urls: link.target, username: link.params.username, credential: link.params.credential }));
}

/** Candidates of one media section -> body of a PATCH (RFC 8840). */
export function candidateFragment(sdp, candidates, complete) {
  const line = (name) => sdp.match(new RegExp(`^a=${name}:.*$`, "m"))?.[0] ?? "";
  const media = sdp.match(/^m=(audio|video) .*$/m)?.[0] ?? "m=audio 9 UDP/TLS/RTP/SAVPF 0";
  const lines = [line("ice-ufrag"), line("ice-pwd"), media, line("mid")];
  for (const candidate of candidates) lines.push(`a=${candidate.candidate}`);
  if (complete) lines.push("a=end-of-candidates");
  return lines.filter(Boolean).map((text) => `${text.trim()}\r\n`).join("");
}

export class Publication {
  constructor(stream, { session = null, url = place("whip"), token = "", onState = () => {} } = {}) {
    this.stream = stream;
    this.url = url;
    this.token = token;
    this.onState = onState;
    this.session = session; // the name to publish under; null: the server makes one
    this.state = "stopped";
    this._pc = null;
    this._resource = null;
    this._etag = null;
    this._servers = [];
    this._stopping = false;
    this._timers = new Set();
    this._leave = () => this._delete(true);
  }

  /** Begin. Resolves when the server has accepted the offer. */
  async start() {
    window.addEventListener("pagehide", this._leave);
    this._set("connecting", "");
    try {
      await this._negotiate();
    } catch (error) {
      this._teardown();
      this._set("failed", error.message);
      throw error;
    }
    return { session: this.session };
  }

  /** End: the server is told, then the connection closed. */
  async stop() {
    this._stopping = true;
    window.removeEventListener("pagehide", this._leave);
    await this._delete(false);
    this._teardown();
    this._set("stopped", "");
  }

  async _negotiate() {
    const pc = new RTCPeerConnection({ iceServers: this._servers, bundlePolicy: "max-bundle" });
    this._pc = pc;
    const late = [];
    let posted = false;
    pc.onicecandidate = ({ candidate }) => {
      if (!posted) return;
      if (candidate?.candidate) late.push(candidate);
      this._trickle(pc, late, !candidate);
    };
    pc.onconnectionstatechange = () => this._watch(pc);
    for (const track of this.stream.getTracks()) this._addTrack(pc, track);

    await pc.setLocalDescription(await pc.createOffer());
    await this._gathered(pc);
    const offer = pc.localDescription.sdp;
    posted = true;
    const door = this._door();
    const response = await this._post(door, offer);
    const answer = await response.text();
    const links = parseLinks(response.headers.get("Link"));
    const resource = response.headers.get("Location");
    this._resource = resource ? resourceUrl(resource, response.url, door) : null;
    this._etag = response.headers.get("ETag");
    this._servers = iceServers(links); // for the next attempt: this one has gathered already
    const events = links.find((link) => link.params.rel === EVENTS_REL)?.target ?? "";
    this.session = decodeURIComponent(events.match(/\/v1\/sessions\/([^/]+)\/events/)?.[1] ?? "") || this.session;
    if (this._stopping) return void (await this._delete(false));
    await pc.setRemoteDescription({ type: "answer", sdp: answer });
    await this._limit(pc);
    this._later(CONNECT_MS, () => {
      if (this._pc === pc && pc.connectionState !== "connected") this._reconnect("No connection could be made.");
    });
  }

  _addTrack(pc, track) {
    const transceiver = pc.addTransceiver(track, { direction: "sendonly", streams: [this.stream] });
    if (track.kind !== "video" || !transceiver.setCodecPreferences) return;
    const codecs = RTCRtpSender.getCapabilities?.("video")?.codecs ?? [];
    const served = ({ mimeType }) => /\/(vp8|h264)$/i.test(mimeType); // what the server can decode goes first
    try {
      transceiver.setCodecPreferences([...codecs.filter(served), ...codecs.filter((codec) => !served(codec))]);
    } catch {
      // keep the browser's own order
    }
  }

  async _limit(pc) {
    for (const sender of pc.getSenders()) {
      if (sender.track?.kind !== "video") continue;
      const parameters = sender.getParameters();
      for (const encoding of parameters.encodings ?? []) Object.assign(encoding, { maxBitrate: MAX_BITRATE, maxFramerate: MAX_FRAMERATE });
      await sender.setParameters(parameters).catch(() => {});
    }
  }

  _gathered(pc) {
    if (pc.iceGatheringState === "complete") return Promise.resolve();
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, GATHER_MS);
      pc.addEventListener("icegatheringstatechange", () => {
        if (pc.iceGatheringState !== "complete") return;
        clearTimeout(timer);
        resolve();
      });
    });
  }

  _door() {
    return new URL(this.session ? place(`whip/${encodeURIComponent(this.session)}`) : this.url, document.baseURI);
  }

  async _post(door, offer) {
    let response;
    try {
      response = await fetch(door, {
        method: "POST",
        headers: { "Content-Type": "application/sdp", ...bearer(this.token) },
        body: offer,
      });
    } catch {
      throw new PublishError("The server could not be reached.");
    }
    if (response.status === 201) return response;
    const retry = Number.parseFloat(response.headers.get("Retry-After") ?? "");
    throw new PublishError(await refusal(response, retry), response.status, Number.isFinite(retry) ? retry : null);
  }

  async _trickle(pc, late, complete) {
    if (this._pc !== pc || !this._resource) return;
    const candidates = late.splice(0);
    if (!candidates.length && !complete) return;
    const response = await fetch(this._resource, {
      method: "PATCH",
      headers: { "Content-Type": "application/trickle-ice-sdpfrag", "If-Match": this._etag ?? "*", ...bearer(this.token) },
      body: candidateFragment(pc.localDescription.sdp, candidates, complete),
    }).catch(() => null);
    const etag = response?.headers.get("ETag");
    if (etag) this._etag = etag;
  }

  _watch(pc) {
    if (this._pc !== pc || this._stopping) return;
    if (pc.connectionState === "connected") this._set("live", "");
    else if (pc.connectionState === "failed") this._reconnect("The connection was lost.");
    else if (pc.connectionState === "disconnected") {
      this._later(DISCONNECTED_MS, () => {
        if (this._pc === pc && pc.connectionState === "disconnected") this._reconnect("The connection was lost.");
      });
    }
  }

  async _reconnect(why) {
    if (this._stopping || this.state === "reconnecting") return;
    this._set("reconnecting", `${why} Connecting again…`);
    const until = performance.now() + GIVE_UP_MS;
    let wait = 500;
    while (!this._stopping) {
      await this._delete(false);
      this._pc?.close();
      try {
        await this._negotiate();
        this.state = "connecting";
        this._watch(this._pc);
        return;
      } catch (error) {
        const hopeless = [400, 401, 403, 404, 415, 422].includes(error.status);
        if (hopeless || performance.now() > until) {
          this._teardown();
          this._set("failed", error.message);
          return;
        }
        await new Promise((resolve) => setTimeout(resolve, Math.max(wait, 1000 * (error.retryAfter ?? 0))));
        wait = Math.min(wait * 2, 8000);
      }
    }
  }

  async _delete(leaving) {
    const resource = this._resource;
    this._resource = null;
    if (!resource) return;
    const request = fetch(resource, { method: "DELETE", headers: bearer(this.token), keepalive: true }).catch(() => {});
    if (!leaving) await request;
  }

  _teardown() {
    this._timers.forEach(clearTimeout);
    this._timers.clear();
    window.removeEventListener("pagehide", this._leave);
    this._pc?.close();
    this._pc = null;
  }

  _later(ms, fn) {
    const timer = setTimeout(() => {
      this._timers.delete(timer);
      fn();
    }, ms);
    this._timers.add(timer);
  }

  _set(state, message) {
    this.state = state;
    this.onState({ state, message });
  }
}

/**
 * Where a publication is changed and ended. The server may give its public address, or another node may have answered
 * (307): it is reached where it was asked, which passes requests on, and the token goes to no other origin.
 */
export function resourceUrl(given, answered, asked) {
  const url = new URL(given, answered);
  if (url.origin === new URL(asked).origin) return url.href;
  return new URL(url.pathname.split("/").slice(-2).join("/"), String(asked).replace(/\/whip(\/[^/]*)?$/, "/whip/")).href;
}

async function refusal(response, retryAfter) {
  const said = await problem(response);
  switch (response.status) {
    case 401:
      return "The server needs a token. Paste one into the token field and start again.";
    case 403:
      return "The token does not allow publishing here.";
    case 429:
    case 503: {
      const when = Number.isFinite(retryAfter) ? ` Try again in ${Math.ceil(retryAfter)} s.` : " Try again later.";
      return `The server has no room for another stream now.${when}`;
    }
    default:
      return said;
  }
}
