/** Search over what was said and shown in a session. */

import { request, sessionPlace } from "./client.js";
import { clockTime, make, plainLabels, sentence } from "./views.js";

const $ = (id) => document.getElementById(id);
const KINDS = { speech: "heard", screen: "on screen", sight: "seen", scene: "seen" };

export class Search {
  /** find(): { id, token } of the session, or null. onPlace(start, end): show that stretch. */
  constructor({ find, onPlace }) {
    Object.assign(this, { find, onPlace });
    $("search").addEventListener("submit", (event) => {
      event.preventDefault();
      this._ask($("search-text").value.trim());
    });
    $("search-text").addEventListener("input", () => $("search-text").value || this.close());
    $("found-close").addEventListener("click", () => {
      this.close();
      $("search-text").focus();
    });
  }

  close() {
    $("found").hidden = true;
    $("found-list").replaceChildren();
    $("search-text").value = "";
  }

  async _ask(text) {
    const session = this.find();
    if (!text || !session) return;
    const url = sessionPlace(session.id, "/search");
    url.searchParams.set("q", text);
    let said = "";
    try {
      const hits = await (await request(url, { token: session.token })).json();
      if (this.find() !== session) return; // left meanwhile
      $("found-list").replaceChildren(...hits.map((hit) => this._row(hit)));
      said = hits.length ? `${hits.length} place${hits.length > 1 ? "s" : ""}, the best first` : "Nothing like it was said or shown.";
    } catch (error) {
      $("found-list").replaceChildren();
      said = sentence(error.message);
    }
    $("found-said").textContent = said;
    $("found").hidden = false;
  }

  _row({ start, end, kind, text }) {
    const words = kind === "speech" ? text : plainLabels(text);
    const place = make("button", { type: "button", className: "place" }, make("b", { className: "at" }, clockTime(start)), make("span", {}, words), make("i", {}, KINDS[kind] ?? kind));
    place.onclick = () => this.onPlace(start, end);
    return make("li", {}, place);
  }
}
