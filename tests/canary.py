"""The canary: a small scenario whose accuracy figures are committed.

A change of a model, a prompt or a quantisation shows in them.

    python -m tests.canary              evaluates it, prints what differs from tests/canary.json by more than
    the tolerances there
    python -m tests.canary --refresh    writes the figures of now into it
    python -m tests.canary --cut MEDIA  cuts the three fixtures out of the shared recordings, once; then
    --refresh

Half a minute: two slides drawn here, two photos and a black picture, under 23 s of speech.
fixtures/canary.ogg is the beginning of The Stone-Cutter (The Crimson Fairy Book, a LibriVox recording read by
Jenny Lundak; public domain); fixtures/canary_cat.jpg and canary_coffee.jpg are "Chelsea" and "Coffee" of
scikit-image's data (CC0).
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from streamsvc.core import config
from streamsvc.evaluation import evaluate
from streamsvc.evaluation.answer_figures import VERDICTS
from streamsvc.evaluation.report import table

FIXTURES = Path(__file__).parent / "fixtures"
COMMITTED = Path(__file__).parent / "canary.json"
WIDTH, HEIGHT, FPS = 960, 540, 5
SLIDES = (
    (
        "The ferry to Lindholm",
        ("Leaves at 7:40 from pier 3", "Forty minutes over the sound", "No bicycles on Sundays"),
    ),
    ("Invoice 1047", ("Nets and ropes 312.50", "Lamp oil 48.20", "Total 360.70")),
)
ENDS = (9.0, 18.0, 23.0, 28.0, 31.0)  # seconds: of the two slides, the cat, the coffee, the black picture
SAID = (
    "Once upon a time there lived a stone-cutter, who went every day to a great rock in the side of a big "
    "mountain and cut out slabs for gravestones or for houses. He understood very well the kinds of "
    "stones wanted for the different purposes, and as he was a careful workman he had plenty of "
    "customers."
)


def slide(title: str, lines: tuple[str, ...]) -> Image.Image:
    """A slide: a title and some lines, in Pillow's built-in font."""
    picture = Image.new("RGB", (WIDTH, HEIGHT), "white")
    pen = ImageDraw.Draw(picture)
    pen.text((70, 60), title, fill="black", font=ImageFont.load_default(48))
    for number, line in enumerate(lines):
        pen.text((90, 170 + 80 * number), line, fill="black", font=ImageFont.load_default(34))
    return picture


def photo(name: str) -> Image.Image:
    """A photo of the fixtures, as large as the picture."""
    with Image.open(FIXTURES / name) as opened:
        return opened.convert("RGB").resize((WIDTH, HEIGHT))


def question(
    number: int, kind: str, text: str, answer: str, span: tuple[float, float], **more: Any
) -> dict[str, Any]:
    """An entry of the scenario's "qa"; yes and no make it yes/no, a `form` else what it says."""
    form = more.pop("form", "yes/no" if answer in ("yes", "no") else "open")
    modality = {"speech": "speech", "screen": "ocr", "sound": "audio"}.get(kind, "vision")
    entry = {
        "id": f"c{number}",
        "kind": kind,
        "type": form,
        "question": text,
        "answer": answer,
        "keywords": [answer],
        "evidence_s": list(span),
    }
    return entry | {"modality": modality, "ask_at_s": ENDS[-1] + 1.0, **more}


def truth() -> dict[str, Any]:
    """The scenario's truth."""
    starts = (0.0, *ENDS)
    first, second, cat, coffee, _ = zip(starts, ENDS, strict=False)
    speech, unknown = (0.5, 23.5), {"answerable": False}
    asked: tuple[tuple[Any, ...], ...] = (
        (
            "speech",
            "What did the stone-cutter cut slabs for?",
            "gravestones",
            (0.5, 13.2),
            {"keywords": ["gravestones", "houses"]},
        ),
        ("speech", "Did the speaker mention customers?", "yes", (13.9, 23.5), {}),
        ("speech", "What kind of workman was he?", "careful", (13.9, 23.5), {}),
        ("time", "When was the mountain mentioned?", "0:08", (7.95, 8.53), {"form": "when"}),
        ("screen", "What is the title of the first slide?", SLIDES[0][0], first, {}),
        ("screen", "What is the total on the invoice?", "360.70", second, {}),
        ("time", f'When did the slide "{SLIDES[1][0]}" appear?', "0:09", second, {"form": "when"}),
        ("object", "Has a cat been shown?", "yes", cat, {}),
        ("time", "When did the cat appear?", "0:18", cat, {"form": "when"}),
        ("object", "Which came first, the cat or the coffee?", "cat", (cat[0], coffee[1]), {}),
        ("attribute", "What colour is the cat?", "ginger", cat, {"keywords": ["brown", "orange"]}),
        ("sound", "Is there music playing?", "no", speech, {"form": "open", **unknown}),
        ("never", "When did the dog appear?", "never", (0.0, ENDS[-1]), {"form": "when", **unknown}),
        ("never", "What did the stone-cutter give to the king?", "nothing", speech, unknown),
        ("never", "Has a bus been shown?", "no", (0.0, ENDS[-1]), {}),
    )
    spans: list[dict[str, Any]] = [
        *({"kind": "slide", "title": title, "text": "\n".join((title, *lines))} for title, lines in SLIDES),
        {"kind": "photo", "label": "cat"},
        {"kind": "photo", "label": "coffee", "things": ["coffee", "cup"]},
        {"kind": "photo"},
    ]
    intervals: list[dict[str, Any]] = [
        {"start": start, "end": end, **of} for start, end, of in zip(starts, ENDS, spans, strict=False)
    ]
    qa = [question(number, *rest, **more) for number, (*rest, more) in enumerate(asked, 1)]
    said: dict[str, Any] = {"transcript": SAID, "speech": [{"start": speech[0], "end": speech[1]}]}
    return {"file": "canary.mkv", "duration_s": ENDS[-1], "intervals": intervals, **said, "qa": qa}


def build(folder: Path) -> Path:
    """Write the clip and its truth into a folder; the truth's path."""
    black = Image.new("RGB", (WIDTH, HEIGHT))
    pictures = [
        *(slide(title, lines) for title, lines in SLIDES),
        photo("canary_cat.jpg"),
        photo("canary_coffee.jpg"),
        black,
    ]
    with av.open(str(folder / "canary.mkv"), "w") as out, av.open(str(FIXTURES / "canary.ogg")) as speech:
        video: Any = out.add_stream(
            "libx264", rate=FPS, options={"preset": "ultrafast", "crf": "18", "tune": "zerolatency"}
        )
        video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        audio: Any = out.add_stream_from_template(speech.streams.audio[0])
        packets: list[Any] = [packet for packet in speech.demux(audio=0) if packet.dts is not None]
        for number in range(round(FPS * ENDS[-1])):
            shown = next(picture for picture, end in zip(pictures, ENDS, strict=True) if number / FPS < end)
            frame = av.VideoFrame.from_ndarray(np.asarray(shown), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, FPS)
            out.mux(video.encode(frame))
            while packets and float(packets[0].dts * packets[0].time_base) <= number / FPS:
                packet = packets.pop(0)
                packet.stream = audio
                out.mux(packet)
        out.mux(video.encode(None))
    place = folder / "canary.json"
    place.write_text(json.dumps(truth()), encoding="utf-8")
    return place


def cut(media: Path) -> None:
    """Make the fixtures from the shared media: 23.9 s of the talk as Opus at 24 kb/s, two photos as JPEG."""
    rate, seconds = 48_000, 23.9
    with (
        av.open(str(media / "speech" / "crimson_17_the_stone_cutter.flac")) as talk,
        av.open(str(FIXTURES / "canary.ogg"), "w") as out,
    ):
        sound: Any = out.add_stream("libopus", rate=rate, layout="mono")
        sound.bit_rate = 24_000
        resampler = av.AudioResampler(format=sound.format.name, layout="mono", rate=rate, frame_size=960)
        for frame in talk.decode(audio=0):
            if frame.time is not None and frame.time >= seconds:
                break
            for piece in resampler.resample(frame):
                out.mux(sound.encode(piece))
        for last in [*resampler.resample(None), None]:
            out.mux(sound.encode(last))
    with av.open(str(media / "scenarios" / "scenes_photos.mp4")) as clip:
        wanted = {"canary_coffee.jpg": 18.0, "canary_cat.jpg": 38.0}
        for shown in clip.decode(video=0):
            for name in [name for name, at in wanted.items() if shown.time is not None and shown.time >= at]:
                picture: Any = shown
                picture.to_image().resize((640, 360)).save(FIXTURES / name, quality=80)
                del wanted[name]
            if not wanted:
                break


def figures(report: dict[str, Any]) -> dict[str, float]:
    """The committed figures: word errors, keyframes, screen text, objects, and verdicts."""
    of = report["scenarios"]["canary"]
    counts = {word: of["answers"]["total"].get(word, 0) for word in (*VERDICTS, "cited")}
    return {
        "wer_percent": of["speech"]["wer_percent"],
        "captions_without_speech": of["speech"]["captions_without_speech"],
        "keyframes_found": of["keyframes"]["found"],
        "keyframes_needless": of["keyframes"]["of_still"] - of["keyframes"]["due"],
        "titles_found": of["screens"]["found"],
        "cer_mean": of["screens"]["cer_mean"],
        "things_named": of["sights"]["named"],
        **counts,
    }


def differences(measured: dict[str, float], committed: dict[str, dict[str, float]]) -> list[str]:
    """The figures that differ from the committed ones by more than their tolerance (default 0)."""
    goal, most = committed["figures"], committed["tolerances"]
    return [
        f"{name}: {measured.get(name)}, committed {goal.get(name)} (tolerance {most.get(name, 0)})"
        for name in sorted(goal.keys() | measured.keys())
        if name not in measured or name not in goal or abs(measured[name] - goal[name]) > most.get(name, 0)
    ]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--refresh", action="store_true", help="write the figures of now into tests/canary.json"
    )
    parser.add_argument("--cut", type=Path, metavar="MEDIA", help="the folder of the shared recordings")
    chosen = parser.parse_args()
    if chosen.cut is not None:
        cut(chosen.cut)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        plan = evaluate.planned([str(build(Path(folder)))])
        report = evaluate.run(config.load(), plan, lambda line: print(line, file=sys.stderr))
    measured, committed = figures(report), json.loads(COMMITTED.read_text(encoding="utf-8"))
    changed = differences(measured, committed)
    print(table(report), *changed, sep="\n")
    if chosen.refresh:
        COMMITTED.write_text(
            json.dumps(committed | {"models": report["models"], "figures": measured}, indent=1) + "\n",
            encoding="utf-8",
        )
        return 0
    return 1 if changed else 0


if __name__ == "__main__":
    sys.exit(main())
