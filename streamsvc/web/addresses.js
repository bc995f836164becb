/** The addresses of a session, with tokens that end, and the copy buttons. */

import { ROOT, place, request, sessionPlace } from "./client.js";

const $ = (id) => document.getElementById(id);

export class Addresses {
  /** find(): { id, name, token } of the session, or null. */
  constructor(find) {
    this.find = find;
    this.tokens = null; // { view, publish, until } once asked for
    for (const button of document.querySelectorAll("[data-copy]")) button.addEventListener("click", () => this._copy($(button.dataset.copy)));
    $("life").addEventListener("change", () => this._renew());
  }

  /** Show the addresses of the session. */
  show() {
    const session = this.find();
    if (!session) return; // left while tokens were asked for
    const { id, name: door, token } = session;
    const name = encodeURIComponent(door || id); // under its name each later broadcast is found too
    const view = this.tokens ? `token=${this.tokens.view}` : "";
    $("overlay-url").value = `${ROOT}overlay/${name}?lines=2${view && `#${view}`}`;
    $("whip-url").value = `${ROOT}whip/${name}`;
    $("whip-token").value = this.tokens?.publish ?? "";
    $("page-url").value = `${ROOT}#session=${encodeURIComponent(id)}${view && `&${view}`}`;
    $("whip-token-field").hidden = !this.tokens?.publish;
    $("life-field").hidden = !token;
    if (!token) return this._tell("Who can reach this server needs no token.");
    if (!this.tokens) return this._tell("These addresses hold no token; who opens them is asked for one.");
    const until = this.tokens.until.toLocaleString([], { weekday: "short", hour: "2-digit", minute: "2-digit" });
    this._tell(`Who has these addresses can watch and ask until ${until}${this.tokens.publish ? "; who has the bearer token can publish" : ""}.`);
  }

  /** Forget the tokens: another session is shown. */
  clear() {
    this.tokens = null;
    $("life").value = "0";
  }

  /** Tokens for this session alone, with as much as the own token may. */
  async _renew() {
    const [seconds, session] = [Number($("life").value), this.find()];
    this.tokens = null;
    let refusal = "";
    if (seconds && session) {
      const issue = async (may) => {
        const body = { session: session.name || session.id, may, expires_in: seconds };
        return (await (await request(place("v1/tokens"), { token: session.token, method: "POST", json: body })).json()).token;
      };
      try {
        const view = await issue(["subscribe", "ask"]).catch(() => issue(["subscribe"]));
        const publish = await issue(["publish"]).catch(() => null); // the own token may be one to watch with
        this.tokens = { view, publish, until: new Date(Date.now() + seconds * 1000) };
      } catch (error) {
        refusal = error.message;
        $("life").value = "0";
      }
    }
    this.show();
    if (refusal) this._tell(refusal);
  }

  async _copy(field) {
    field.select();
    const done = await navigator.clipboard?.writeText(field.value).then(
      () => true,
      () => false,
    );
    this._tell(done ? "Copied." : "Selected: press Ctrl+C to copy.");
  }

  _tell(message) {
    $("copied").textContent = message;
  }
}

/** Save a file of the session: "captions.vtt", "export.md". */
export async function download({ id, token, client }, file) {
  const url = sessionPlace(id, `/${file}`);
  if (file === "export.md") url.searchParams.set("client", client); // with the answers that were for this page alone
  const response = await request(url, { token });
  const address = URL.createObjectURL(await response.blob());
  const link = document.createElement("a");
  Object.assign(link, { href: address, download: `${id}.${file.split(".").pop()}` });
  link.click();
  setTimeout(() => URL.revokeObjectURL(address), 10_000);
}
