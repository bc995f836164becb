/** Watches as chips, and what they have told. */

import { evidenceChip } from "./answers.js";
import { request, sessionPlace } from "./client.js";
import { clockTime, make, sentence } from "./views.js";

const MOST_ALERTS = 50;

export class Watches {
  /** find(): { id, token } of the session, or null. onEvidence(start, end). onAlert(text): a new one. */
  constructor({ form, input, problem, chips, alerts }, { find, onEvidence, onAlert }) {
    Object.assign(this, { input, problem, chips, alerts, find, onEvidence, onAlert });
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this._add();
    });
  }

  /** Read the watches of the session. */
  async load() {
    const session = this.find();
    if (!session) return;
    const read = async () => (await request(sessionPlace(session.id, "/watches"), { token: session.token })).json();
    const watches = await read().catch(() => null);
    if (!watches || this.find() !== session) return;
    this.chips.replaceChildren(...watches.map((watch) => this._chip(watch)));
  }

  /** alert.fired. `fresh`: it happened now, and is no old one that is sent again. */
  alert(event, fresh) {
    const chip = this._find(event.watch_id);
    const count = chip?.querySelector(".count");
    if (count) count.textContent = String(Number(count.textContent || 0) + (fresh ? 1 : 0) || "");
    const at = event.evidence?.[0]?.start ?? event.at;
    const chips = (event.evidence ?? []).slice(0, 2).map((each) => evidenceChip(each, this.onEvidence));
    this.alerts.prepend(make("li", {}, make("p", {}, make("b", {}, clockTime(at)), ` ${event.text}`), make("div", { className: "chips" }, ...chips)));
    while (this.alerts.childElementCount > MOST_ALERTS) this.alerts.lastElementChild.remove();
    if (fresh) this.onAlert(event.text);
  }

  clear() {
    this.chips.replaceChildren();
    this.alerts.replaceChildren();
    this._tell("");
  }

  async _add() {
    const [when, session] = [this.input.value.trim(), this.find()];
    if (!when) return this._tell("Say what to watch for, such as: someone says budget.");
    if (!session) return this._tell("Start or open a stream first.");
    try {
      const response = await request(sessionPlace(session.id, "/watches"), { token: session.token, method: "POST", json: { when } });
      this.chips.append(this._chip(await response.json()));
      this.input.value = "";
      this._tell("");
    } catch (error) {
      this._tell(error.message);
    }
    this.input.focus();
  }

  async _remove(chip) {
    const session = this.find();
    if (!session) return;
    try {
      await request(sessionPlace(session.id, `/watches/${encodeURIComponent(chip.dataset.id)}`), { token: session.token, method: "DELETE" });
    } catch (error) {
      if (error.status !== 404) return this._tell(error.message);
    }
    chip.remove();
    this.input.focus();
  }

  _chip({ id, when, fired }) {
    const close = make("button", { type: "button", className: "quiet close", ariaLabel: `Remove the watch: ${when}` }, "×");
    const chip = make("li", { className: "watch" }, make("span", {}, when), make("b", { className: "count", title: "alerts so far" }, fired ? String(fired) : ""), close);
    chip.dataset.id = id;
    close.onclick = () => this._remove(chip);
    return chip;
  }

  _find(id) {
    return this.chips.querySelector(`[data-id="${CSS.escape(id)}"]`);
  }

  _tell(message) {
    this.problem.textContent = sentence(message);
    this.problem.hidden = !message;
  }
}
