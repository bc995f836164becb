/** Pictures and sound of this computer as a MediaStream, and how loud it is. */

/** Why a source cannot be opened, as a sentence for the person at the page. */
export class SourceProblem extends Error {}

/** Cameras, microphones and screens are given to pages on localhost or behind TLS only. */
export function captureAllowed() {
  return window.isSecureContext && Boolean(navigator.mediaDevices?.getUserMedia);
}

export const INSECURE =
  "A browser gives its camera, microphone and screen only to pages on localhost or with TLS (https). " +
  "Start the server with --tls self-signed, or publish a file or an address instead.";

function explain(error, what) {
  switch (error?.name) {
    case "NotAllowedError":
    case "SecurityError":
      return new SourceProblem(`The browser was not allowed to use the ${what}. Allow it next to the address bar, then start again.`);
    case "NotFoundError":
    case "OverconstrainedError":
      return new SourceProblem(`No ${what} was found. Plug one in, or choose another source.`);
    case "NotReadableError":
    case "AbortError":
      return new SourceProblem(`The ${what} is in use by another program, or does not answer.`);
    default:
      return new SourceProblem(`The ${what} could not be opened (${error?.name ?? "unknown reason"}).`);
  }
}

/** {cameras, microphones}: lists of {id, label}. Labels are known only once the person has allowed a device. */
export async function devices() {
  if (!captureAllowed()) return { cameras: [], microphones: [] };
  const all = await navigator.mediaDevices.enumerateDevices().catch(() => []);
  const pick = (kind, name) =>
    all
      .filter((device) => device.kind === kind && device.deviceId !== "default" && device.deviceId !== "communications")
      .map((device, index) => ({ id: device.deviceId, label: device.label || `${name} ${index + 1}` }));
  return { cameras: pick("videoinput", "Camera"), microphones: pick("audioinput", "Microphone") };
}

const SOUND = { echoCancellation: true, noiseSuppression: true, autoGainControl: true };

/** camera, microphone: a device id, "" for the default one, "none". */
export async function openCamera(camera, microphone) {
  if (!captureAllowed()) throw new SourceProblem(INSECURE);
  if (camera === "none" && microphone === "none") throw new SourceProblem("Choose a camera, a microphone or both.");
  const video = camera === "none" ? false : { width: { ideal: 1280 }, height: { ideal: 720 }, frameRate: { ideal: 30 } };
  const audio = microphone === "none" ? false : { ...SOUND };
  if (video && camera) video.deviceId = { exact: camera };
  if (audio && microphone) audio.deviceId = { exact: microphone };
  const what = video && audio ? "camera or microphone" : video ? "camera" : "microphone";
  const stream = await navigator.mediaDevices.getUserMedia({ video, audio }).catch((error) => {
    throw explain(error, what);
  });
  return hint(stream, "motion");
}

/** A screen, a window or a tab, with its sound where the browser can, and a microphone if asked for. */
export async function openScreen(microphone) {
  if (!captureAllowed() || !navigator.mediaDevices.getDisplayMedia) throw new SourceProblem(INSECURE);
  const stream = await navigator.mediaDevices.getDisplayMedia({ video: { frameRate: { ideal: 15 } }, audio: true }).catch((error) => {
    throw explain(error, "screen");
  });
  if (!stream.getAudioTracks().length && microphone !== "none") {
    const audio = microphone ? { ...SOUND, deviceId: { exact: microphone } } : { ...SOUND };
    const sound = await navigator.mediaDevices.getUserMedia({ audio }).catch(() => null); // a silent screen is fine too
    for (const track of sound?.getTracks() ?? []) stream.addTrack(track);
  }
  return hint(stream, "detail");
}

/** Play a file in `video` and capture what it plays. Resolves when it plays. */
export async function openFile(file, video, muted) {
  if (!file) throw new SourceProblem("Choose a video or sound file first.");
  video.srcObject = null;
  video.src = URL.createObjectURL(file);
  video.muted = muted;
  const capture = video.captureStream ?? video.mozCaptureStream;
  if (!capture) throw new SourceProblem("This browser cannot publish a file. Use Chrome, Edge or Firefox, or give the file to the server by its address.");
  await new Promise((resolve, reject) => {
    video.onloadeddata = resolve;
    video.onerror = () => reject(new SourceProblem(`This browser cannot play ${file.name}. MP4 (H.264, AAC) and WebM work everywhere.`));
  });
  const stream = capture.call(video);
  await video.play().catch(() => {
    throw new SourceProblem("The browser did not let the file play. Press Start again.");
  });
  if (!stream.getTracks().length) {
    await new Promise((resolve) => {
      stream.onaddtrack = resolve;
      setTimeout(resolve, 2000);
    });
  }
  if (!stream.getTracks().length) throw new SourceProblem(`${file.name} has neither pictures nor sound that can be published.`);
  return hint(stream, "motion");
}

/** Forget the file that `video` plays. */
export function closeFile(video) {
  if (!video.src) return;
  video.pause();
  URL.revokeObjectURL(video.src);
  video.onerror = null;
  video.removeAttribute("src");
  video.load();
}

function hint(stream, picture) {
  for (const track of stream.getVideoTracks()) track.contentHint = picture;
  for (const track of stream.getAudioTracks()) track.contentHint = "speech";
  return stream;
}

const QUIET_DB = -60; // below this, relative to full scale, there is no sound
const FLOOR_DB = -66; // the left end of the meter

export class LevelMeter {
  /** onLevel(0..1) about 15 times a second; onQuiet(seconds without sound) once a second. */
  constructor(stream, { onLevel, onQuiet }) {
    this.context = new AudioContext();
    this.analyser = this.context.createAnalyser();
    this.analyser.fftSize = 1024;
    this.source = this.context.createMediaStreamSource(stream);
    this.source.connect(this.analyser);
    this.context.resume().catch(() => {});
    const samples = new Float32Array(this.analyser.fftSize);
    let heard = performance.now();
    let told = 0;
    this.timer = setInterval(() => {
      this.analyser.getFloatTimeDomainData(samples);
      const power = samples.reduce((sum, sample) => sum + sample * sample, 0) / samples.length;
      const db = 10 * Math.log10(power + 1e-12);
      const now = performance.now();
      if (db > QUIET_DB) heard = now;
      onLevel(Math.min(1, Math.max(0, 1 - db / FLOOR_DB)));
      if (now - told > 1000) {
        told = now;
        onQuiet((now - heard) / 1000);
      }
    }, 66);
  }

  /** Stop measuring. */
  close() {
    clearInterval(this.timer);
    this.context.close().catch(() => {});
  }
}
