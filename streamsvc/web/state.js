/** The state of a session in plain words. */

const LATE = [
  [/sound|speech|captions?\b/, "captions are late"],
  [/picture/, "pictures are described late"],
  [/question/, "answers are late"],
];

/** What a degradation level means for the person at the page, in plain words; "" at level 0. */
function busyWords(level, reason = "") {
  if (!level) return "";
  const given = level >= 7 ? "captions only" : level >= 6 ? "questions must wait" : "";
  const late = LATE.find(([words]) => words.test(reason))?.[1] ?? "";
  const what = given || late || "less is looked at";
  return `${what}: ${/other sessions/.test(reason) ? "other sessions keep this machine busy" : "this machine is busy"}`;
}

const PHASES = {
  idle: ["idle", "Not started"],
  starting: ["busy", "Starting…"],
  waiting: ["busy", "Waiting for the stream…"],
  live: ["live", "Live"],
  stalled: ["warn", "No picture or sound is coming"],
  stopping: ["busy", "Stopping: the last words are being written"],
  ended: ["ended", "Ended"],
};

/**
 * What the pill shows, as [look, words].
 *
 * phase: one of PHASES. trouble: why nothing comes or goes at the moment, or "". load: the last session.degraded.
 */
export function stateWords(phase, trouble, load) {
  if (trouble && phase !== "ended") return ["warn", trouble];
  const slow = busyWords(load.level, load.reason);
  return phase === "live" && slow ? ["warn", `Live; ${slow}`] : PHASES[phase];
}

/** What stands on the screen while there is no picture. */
export function screenWords(phase) {
  return { live: "Captions will appear here.", ended: "The session has ended.", stopping: "Stopping…" }[phase] ?? "Waiting for the stream…";
}
