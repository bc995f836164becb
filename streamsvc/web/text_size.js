/** Larger and smaller text, remembered by this browser. */

const SIZES = [0.875, 1, 1.15, 1.35, 1.6, 2];
const $ = (id) => document.getElementById(id);

function resize(step) {
  let index = SIZES.indexOf(Number(localStorage.getItem("text-size") ?? 1));
  index = Math.min(SIZES.length - 1, Math.max(0, (index < 0 ? 1 : index) + step));
  localStorage.setItem("text-size", String(SIZES[index]));
  document.documentElement.style.setProperty("--text", String(SIZES[index]));
  $("smaller").disabled = index === 0;
  $("larger").disabled = index === SIZES.length - 1;
}

/** Make the two buttons work. */
export function textSize() {
  $("smaller").addEventListener("click", () => resize(-1));
  $("larger").addEventListener("click", () => resize(1));
  resize(0);
}
