/** What a new session is asked for, before it starts. */

import { request, sessionPlace } from "./client.js";
import { make } from "./views.js";

// Of Whisper's multilingual models; a server with an English model refuses the others, and says so.
const CODES =
  "en zh de es ru ko fr ja pt tr pl ca nl ar sv it id hi fi vi he uk el ms cs ro da hu ta no th ur hr bg lt la mi ml cy sk te fa lv bn sr az sl kn et " +
  "mk br eu is hy ne mn bs kk sq sw gl mr pa si km sn yo so af oc ka be tg sd gu am yi lo uz fo ht ps tk nn mt sa lb my bo tl mg as tt haw ln ha ba jw su";

const $ = (id) => document.getElementById(id);

/** The choices of a language, by name; the first one leaves it to the server. */
export function fillLanguages(select) {
  const names = new Intl.DisplayNames(["en"], { type: "language", fallback: "code" });
  const name = (code) => names.of(code === "jw" ? "jv" : code);
  const languages = CODES.split(" ").map((code) => [code, name(code)]).sort(([, one], [, other]) => one.localeCompare(other));
  select.replaceChildren(make("option", { value: "" }, "Find out by itself"), ...languages.map(([value, text]) => make("option", { value }, text)));
}

/** "heard = written", one a line -> { heard: written }. Raises Error, which names the line. */
export function replacements(text) {
  const found = {};
  for (const line of text.split("\n").map((each) => each.trim()).filter(Boolean)) {
    const [heard, written, ...more] = line.split(/=|→|->/).map((part) => part.trim());
    if (!heard || !written || more.length) throw new Error(`“${line}” is no replacement: write it as “heard = written”, one a line.`);
    found[heard] = written;
  }
  return found;
}

/** The options as POST /v1/sessions takes them; only those that say something. Raises Error. */
export function options() {
  const vocabulary = $("vocabulary").value.split(",").map((word) => word.trim()).filter(Boolean);
  const replace = replacements($("replace").value);
  const name = $("name").value.trim();
  return {
    ...(name && { name }),
    ...($("language").value && { language: $("language").value }),
    ...(vocabulary.length && { vocabulary }),
    ...(Object.keys(replace).length && { replace }),
    ...($("translate").checked && { translate: true }),
    ...($("no-store").checked && { no_store: true }),
  };
}

/** Say beside the closed panel what is chosen in it. */
export function sayOptions() {
  const language = $("language");
  const words = $("vocabulary").value.split(",").filter((word) => word.trim()).length;
  const said = [
    $("name").value.trim(),
    language.value && language.selectedOptions[0].text,
    $("translate").checked && "translated",
    words && `${words} word${words > 1 ? "s" : ""}`,
    $("replace").value.trim() && "replacements",
    $("no-store").checked && "not kept",
  ].filter(Boolean);
  $("options-said").textContent = said.length ? `: ${said.join(", ")}` : "";
}

/** Have the speech of a live session recognised in another language. Returns what to say; raises RequestError. */
export async function changeLanguage({ id, token }) {
  await request(sessionPlace(id), { token, method: "PATCH", json: { language: $("live-language").value || null } });
  return "The spoken language is changed.";
}
