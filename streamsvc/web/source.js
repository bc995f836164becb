/** The form that chooses a source, and the camera, screen or file that is captured here. */

import { INSECURE, LevelMeter, captureAllowed, closeFile, devices, openCamera, openFile, openScreen } from "./media.js";
import { fillLanguages, sayOptions } from "./options.js";
import { make } from "./views.js";

const $ = (id) => document.getElementById(id);
const QUIET_S = 10; // without sound for so long, the page says so
const TAIL_MS = 1500; // a file that has ended stays connected for so long, so that its last words arrive

export class SourceForm {
  /** onStart(): the form was sent. */
  constructor(onStart) {
    this.stream = null;
    this.meter = null;
    fillLanguages($("language"));
    $("source").addEventListener("submit", (event) => {
      event.preventDefault();
      onStart();
    });
    $("source").addEventListener("change", () => this.draw());
    $("file").addEventListener("change", () => this._name());
    $("mute").addEventListener("change", () => ($("preview").muted = $("mute").checked));
    navigator.mediaDevices?.addEventListener?.("devicechange", () => this._fill());
    this._dropFiles();
    this._fill();
    this.draw();
  }

  /** camera, screen, file, address, obs or watch */
  get kind() {
    return document.querySelector('input[name="kind"]:checked').value;
  }

  /** Show the fields of the chosen kind. */
  draw() {
    const kind = this.kind;
    for (const part of document.querySelectorAll("#source [data-for]")) part.hidden = !part.dataset.for.split(" ").includes(kind);
    const capture = kind === "camera" || kind === "screen";
    $("insecure").textContent = INSECURE;
    $("insecure").hidden = !capture || captureAllowed();
    $("start").disabled = capture && !captureAllowed();
    $("start").textContent = { watch: "Watch", obs: "Make a session" }[kind] ?? "Start";
    sayOptions();
  }

  /** Capture what is chosen. onEnd(why): it has ended by itself. Raises SourceProblem. */
  async open(onEnd) {
    const video = $("preview");
    if (this.kind === "file") {
      $("mute").checked = $("file-muted").checked;
      this.stream = await openFile($("file").files[0], video, $("mute").checked);
      video.onended = () => setTimeout(() => onEnd("The file has ended."), TAIL_MS);
    } else {
      const microphone = $("microphone").value;
      this.stream = await (this.kind === "screen" ? openScreen(microphone) : openCamera($("camera").value, microphone));
      this._fill(); // the browser reveals device names only after permission
      video.muted = true;
      video.srcObject = this.stream;
      video.play().catch(() => {});
      for (const track of this.stream.getTracks()) track.onended = () => onEnd("The source has ended.");
    }
    return this.stream;
  }

  /** Show the picture and the level of the sound that is captured. hint(message): what the person should know. */
  show(hint) {
    const sound = this.stream.getAudioTracks().length > 0;
    $("preview").hidden = !this.stream.getVideoTracks().length;
    $("mute-field").hidden = this.kind !== "file";
    $("level").hidden = !sound;
    if (!sound) return hint("This source has no sound: only the picture will be described.");
    let told = false;
    this.meter = new LevelMeter(this.stream, {
      onLevel: (level) => ($("level-bar").style.transform = `scaleX(${level.toFixed(3)})`),
      onQuiet: (seconds) => {
        const silent = seconds >= QUIET_S && !$("preview").paused;
        const message = `No sound for ${Math.floor(seconds / 10) * 10} seconds. Is the right microphone chosen, and is it switched on?`;
        if (silent) hint(message);
        else if (told) hint("");
        told = silent;
      },
    });
  }

  /** Let camera, microphone, screen and file go. */
  release() {
    this.meter?.close();
    this.meter = null;
    for (const track of this.stream?.getTracks() ?? []) {
      track.onended = null;
      track.stop();
    }
    this.stream = null;
    const video = $("preview");
    video.onended = null;
    video.srcObject = null;
    closeFile(video);
    for (const part of [video, $("mute-field"), $("level")]) part.hidden = true;
  }

  async _fill() {
    const { cameras, microphones } = await devices();
    for (const [select, found, none] of [
      [$("camera"), cameras, "No camera"],
      [$("microphone"), microphones, "No microphone"],
    ]) {
      const before = select.value;
      const option = (value, text) => make("option", { value }, text);
      select.replaceChildren(option("", "Default"), ...found.map(({ id, label }) => option(id, label)), option("none", none));
      if ([...select.options].some((each) => each.value === before)) select.value = before;
    }
  }

  _name() {
    $("file-name").textContent = $("file").files[0]?.name ?? "Drop a video or sound file here, or choose one";
  }

  _dropFiles() {
    const area = $("drop");
    for (const name of ["dragover", "drop"]) window.addEventListener(name, (event) => event.preventDefault());
    window.addEventListener("dragover", () => area.classList.add("over"));
    window.addEventListener("dragleave", (event) => event.relatedTarget || area.classList.remove("over"));
    window.addEventListener("drop", (event) => {
      area.classList.remove("over");
      if (!event.dataTransfer?.files.length || $("idle").hidden) return;
      document.querySelector('input[value="file"]').checked = true;
      $("file").files = event.dataTransfer.files;
      this._name();
      this.draw();
    });
  }
}
