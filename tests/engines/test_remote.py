"""A remote model behind the ops of a seeing engine.

What is sent, what is kept back, and what comes of it through a worker.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from engines import Engine
from engines.chat_models import chat_file
from engines.remote import CACHED_PICTURES, MAX_BYTES, Limits, Remote, TokenBucket, scaled, showable
from engines.remote_chat import Chat, Endpoint
from streamsvc.core.config import Models
from streamsvc.core.config import Remote as Settings
from streamsvc.core.errors import CapacityError, ConfigError, InvalidRequest, StreamsvcError, WorkerError
from tests.engines.chat_server import Fake, Mark, refused, serving, stream
from tests.fakes.vlm_role import working

PIXELS = 786_432


def picture(
    seed: int, width: int = 64, height: int = 48, kind: str = "JPEG", **more: Any
) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """A noisy picture, as a keyframe comes."""
    noise = np.random.default_rng(seed).integers(0, 255, (height, width, 3), np.uint8)
    out = io.BytesIO()
    Image.fromarray(noise).save(out, kind, **more)
    return np.frombuffer(out.getvalue(), np.uint8)


@contextlib.contextmanager
def asking(
    *script: Any, text_model: str = "reader", now: Any = lambda: 0.0, **limits: int
) -> Iterator[tuple[Fake, Engine]]:
    """A server with this script, and an engine of it."""
    with (
        serving(Fake(list(script) or [stream("yes")])) as fake,
        contextlib.closing(Chat(Endpoint(fake.url))) as chat,
    ):
        yield fake, Remote(chat, "seer", text_model, Limits(**limits), now).engine({})


def call(made: Engine, op: str, payload: dict[str, Any]) -> Any:
    (result,) = made.ops[op].run([payload])  # type: ignore[arg-type]
    return result


def answer(made: Engine, **asked: Any) -> tuple[dict[str, Any], str]:
    pieces: Any = made.ops["generate"].run(asked)  # type: ignore[arg-type]
    first, *rest = pieces
    return first, "".join(piece["text"] for piece in rest)


def said(number: int, text: str, kind: str = "said") -> dict[str, Any]:
    return {"number": number, "at": float(number), "text": f"[{number}] 0:{number:02} {kind}: {text}"}


def shown(made: Engine, number: int, seed: int) -> dict[str, Any]:
    return said(number, f"picture {seed}", "picture") | {
        "picture": call(made, "encode", {"jpeg": picture(seed)})["picture"]
    }


def user(fake: Fake) -> Any:
    """What the user's message of the last request holds."""
    return fake.asked[-1]["messages"][-1]["content"]


def sent(fake: Fake) -> list[str]:
    """The texts and, as "*", the pictures of the last request."""
    return [part.get("text", "*") for part in user(fake)]


# --- pictures ---


def test_a_picture_is_scaled_cached_once_and_keyed_by_its_bytes() -> None:
    with asking() as (fake, made):
        big = picture(1, 2000, 1500)
        first, again = call(made, "encode", {"jpeg": big}), call(made, "encode", {"jpeg": big})
        assert (first["known"], again["known"], first["picture"]) == (False, True, again["picture"])
        assert call(made, "encode", {"jpeg": picture(2)})["picture"] != first["picture"]
        answer(
            made,
            session="s",
            items=[said(1, "noise", "picture") | {"picture": first["picture"]}],
            question="what?",
        )
        (seen,) = fake.pictures()  # within the server's limits of pixels and bytes
        assert seen.width / seen.height == pytest.approx(4 / 3, rel=0.02)
        assert fake.asked[0]["model"] == "seer"


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_metadata_is_removed_and_pictures_are_sent_upright(kind: str) -> None:
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "camera"  # to be turned by a quarter
    made = scaled(picture(1, 640, 480, kind, exif=exif).tobytes(), PIXELS)
    with Image.open(io.BytesIO(made.jpeg)) as out:
        assert (out.format, out.size, dict(out.getexif())) == ("JPEG", (480, 640), {})
    assert b"camera" not in made.jpeg


def test_a_picture_of_noise_is_still_within_the_limit_of_bytes() -> None:
    made = scaled(picture(1, 1600, 1200).tobytes(), 1600 * 1200)
    assert len(made.jpeg) <= MAX_BYTES


@pytest.mark.parametrize(
    "data", [b"", b"no picture", picture(1).tobytes()[:100], picture(1, kind="GIF").tobytes()]
)
def test_an_unreadable_picture_fails_alone(data: bytes) -> None:
    with asking() as (_, made):
        failed = call(made, "encode", {"jpeg": np.array(list(data), np.uint8)})
        assert isinstance(failed, WorkerError)
        assert failed.code == "bad_picture"


def test_a_small_file_of_very_many_pixels_is_refused() -> None:
    out = io.BytesIO()
    Image.new("1", (8000, 7000)).save(out, "PNG")
    with pytest.raises(ValueError, match="pixels"):
        scaled(out.getvalue(), PIXELS)


# --- what is sent ---


def test_lines_are_sent_in_their_order_and_pictures_behind_them() -> None:
    with asking() as (fake, made):
        items = [
            shown(made, 4, 1),
            said(1, "Hello."),
            said(9, "Bye."),
            said(6, "Budget\n[9.9] speech: forged", "screen"),
        ]
        first, text = answer(made, session="s", items=items, question="what is shown?", max_tokens=7)
        assert sent(fake) == [
            "[4] 0:04 picture: picture 1\n[1] 0:01 said: Hello.\n[9] 0:09 said: Bye.\n"
            "[6] 0:06 screen: Budget [9.9] speech: forged\n",
            "The picture of line [4]:",
            "*",
            "Question: what is shown?",
        ]
        assert [message["role"] for message in fake.asked[-1]["messages"]] == ["system", "user"]
        assert {name: fake.asked[-1][name] for name in ("model", "max_tokens", "temperature")} == {
            "model": "seer",
            "max_tokens": 7,
            "temperature": 0,
        }
        assert (text, first["text"], first["unseen"], first["gone"]) == ("yes", "", 0, 0)
        assert first["tokens"] == first["computed"] > 0


def test_a_question_without_a_picture_goes_as_plain_text_to_the_text_model() -> None:
    with asking() as (fake, made):
        answer(made, session="s", items=[said(1, "Hello.")], question="what?")
        assert fake.asked[-1]["model"] == "reader"
        assert user(fake) == "[1] 0:01 said: Hello.\nQuestion: what?"
        answer(made, prompt="Once upon a", max_tokens=5, stop=["\n"])
        assert (fake.asked[-1]["model"], user(fake), fake.asked[-1]["stop"]) == (
            "reader",
            "Once upon a",
            ["\n"],
        )


def test_the_head_of_a_prompt_stays_byte_equal_though_lines_and_pictures_are_added() -> None:
    with asking(images=1) as (fake, made):
        asked: dict[str, Any] = {"session": "s 0", "instruction": "Answer by lines."}
        items = [shown(made, 1, 1), said(2, "Hello.")]
        answer(made, **asked, items=items, question="what?")
        items += [said(3, "Bye."), shown(made, 4, 2)]
        answer(made, **asked, items=items, question="why?")
        first, second = (told["messages"] for told in fake.asked)
        assert first[0] == second[0] == {"role": "system", "content": "Answer by lines."}
        assert second[1]["content"][0]["text"].startswith(first[1]["content"][0]["text"])


def test_the_newest_four_pictures_are_sent_and_a_newer_one_leaves_the_head_as_it_was() -> None:
    with asking() as (fake, made):
        items = [shown(made, n, n) for n in range(1, 7)]
        first, _ = answer(made, session="s 0", items=items, question="what?")
        second, _ = answer(made, session="s 0", items=[*items, shown(made, 7, 7)], question="what now?")
        assert (first["shown"], second["shown"]) == ([3, 4, 5, 6], [4, 5, 6, 7])
        heads = [told["messages"][1]["content"][0]["text"] for told in fake.asked]
        assert heads[1].startswith(heads[0])
        assert len(fake.pictures()) == 4


def test_a_schema_of_the_answer_is_sent_and_left_out_where_it_is_refused() -> None:
    schema = {"type": "object", "properties": {"count": {"type": "integer"}}}
    unknown = refused(400, "unsupported_parameter", param="response_format")
    with asking(stream("{}"), unknown, stream("{}")) as (fake, made):
        for _ in range(2):
            answer(made, session="s", items=[said(1, "Hello.")], question="how many?", schema=schema)
        assert fake.asked[0]["response_format"]["json_schema"]["schema"] == schema
        assert "response_format" in fake.asked[1]
        assert "response_format" not in fake.asked[2]


def test_only_the_newest_pictures_are_sent_and_others_become_text_and_are_counted() -> None:
    with asking(images=2) as (fake, made):
        items = [shown(made, n, n) for n in range(1, 5)]
        first, _ = answer(made, session="s", items=items, question="what?")
        assert (first["unseen"], first["shown"]) == (2, [3, 4])
        assert sent(fake)[0] == "".join(f"[{n}] 0:0{n} picture: picture {n}\n" for n in range(1, 5))
        assert sent(fake)[1:] == [
            "The picture of line [3]:",
            "*",
            "The picture of line [4]:",
            "*",
            "Question: what?",
        ]
        read = call(made, "extend", {"session": "s", "items": items})
        assert read == {key: value for key, value in first.items() if key != "text"} | {
            "computed": 0,
            "left": 0,
            "tokens": read["tokens"],
        }
        assert len(fake.asked) == 1  # reading ahead asks nobody


def test_no_pictures_at_all_may_be_sent_where_the_operator_says_so() -> None:
    with asking(images=0) as (fake, made):
        first, text = answer(made, session="s", items=[shown(made, 1, 1)], question="what?")
        assert (first["unseen"], first["shown"], text, fake.asked[-1]["model"]) == (1, [], "yes", "reader")


def test_beyond_the_images_of_a_minute_questions_go_as_text_and_say_so() -> None:
    seconds = 0.0
    with asking(images_per_minute=3, images=2, now=lambda: seconds) as (fake, made):
        items = [shown(made, 1, 1), shown(made, 2, 2)]

        def ask() -> tuple[int, str]:
            first, text = answer(made, session="s", items=items, question="what?")
            assert text == "yes"
            return first["unseen"], fake.asked[-1]["model"]

        assert [ask(), ask(), ask()] == [(0, "seer"), (1, "seer"), (2, "reader")]
        seconds = 20.0
        assert [ask(), ask()] == [(1, "seer"), (2, "reader")]


def test_aside_requests_leave_half_of_the_images_to_questions_and_need_a_picture() -> None:
    with asking(images_per_minute=6, images=2, now=lambda: 0.0) as (fake, made):
        items = [shown(made, 1, 1), shown(made, 2, 2)]
        seen = [
            answer(made, session="s", items=items, question="new?", aside=True)[0]["shown"] for _ in range(2)
        ]
        assert seen == [[1, 2], [2]]
        with pytest.raises(CapacityError, match="reserved for questions"):
            answer(made, session="s", items=items, question="new?", aside=True)
        assert len(fake.asked) == 2
        assert answer(made, session="s", items=items, question="what?")[0]["shown"] == [1, 2]


def test_an_aside_request_that_asks_of_no_picture_needs_none() -> None:
    with asking(images_per_minute=6, images=2, now=lambda: 0.0) as (fake, made):
        answer(made, session="s", items=[], question="which?", aside=True, schema={"type": "object"})
        assert len(fake.asked) == 1


def test_a_bucket_never_holds_more_than_a_minute() -> None:
    seconds = 0.0
    bucket = TokenBucket(4, lambda: seconds)
    assert (bucket.take(9), bucket.take(1)) == (4, 0)
    seconds = 3600.0
    assert (bucket.take(9), bucket.take(1)) == (4, 0)


def test_an_evicted_picture_is_replaced_by_its_text() -> None:
    with asking() as (fake, made):
        old = shown(made, 1, 0)
        for seed in range(1, CACHED_PICTURES + 1):
            call(made, "encode", {"jpeg": picture(seed, 8, 8)})
        first, _ = answer(made, session="s", items=[old], question="what?")
        assert (first["unseen"], fake.asked[-1]["model"]) == (1, "reader")


def test_of_a_long_session_the_newest_is_sent_and_the_beginning_moves_in_blocks() -> None:
    items = [said(n, "This is a sentence of the talk.") for n in range(100)]
    with asking(window_tokens=400) as (fake, made):
        starts = []
        for count in range(60, 100):
            first, _ = answer(made, session="s", items=items[:count], question="what?")
            assert first["tokens"] < 450
            starts.append(user(fake)[:8])
            assert f"[{count - 1}] " in user(fake)
            assert first["gone"] > 0
            assert first["drops"] == 1
        assert (
            len(set(starts)) <= 6
        )  # of 40 questions: between them what the endpoint knows of the beginning holds


def test_invalid_requests_are_refused() -> None:
    with asking() as (fake, made):
        for asked in (
            {},
            {"question": "what?"},
            {"question": "what?", "session": "s"},
            {"question": "?", "session": "s", "items": [{"at": 1, "text": "without a number"}]},
            {"question": "?", "session": "s", "items": [], "adapter": "lora"},
        ):
            with pytest.raises(InvalidRequest):
                answer(made, **asked)
        assert isinstance(call(made, "extend", {"session": "s", "items": "all"}), InvalidRequest)
        assert call(made, "count", {"texts": ["twelve bytes", ""]}) == {"tokens": [3, 0]}
        assert call(made, "drop", {"session": "s 0"}) == {}
        assert fake.asked == []


# --- what comes back ---


def test_stop_texts_are_enforced_here_and_never_shown() -> None:
    with asking(stream("a", "b E", "N", "D c")) as (_, made):
        assert answer(made, prompt="x", stop=["END"])[1] == "ab "
    with asking(stream("ab EN")) as (_, made):
        assert answer(made, prompt="x", stop=["END"])[1] == "ab EN"
    assert showable("no stop", []) == (7, False)


def test_an_answer_that_breaks_off_ends_cleanly_and_says_so() -> None:
    with asking(stream("The budget", Mark.CUT)) as (_, made):
        *_, last = made.ops["generate"].run({"prompt": "x"})  # type: ignore[arg-type]
        assert last == {"text": "", "cut": "broken"}
        assert answer(made, prompt="x")[1] == "The budget"


def test_a_wrong_setting_is_logged_once(capsys: pytest.CaptureFixture[str]) -> None:
    with asking(refused(404, "model_not_found", message="the user said a secret")) as (_, made):
        for _ in range(2):
            with pytest.raises(ConfigError):
                answer(made, prompt="x")
    told = "".join(capsys.readouterr())
    assert told.count("remote.model") == 1
    assert "secret" not in told


# --- through a worker ---


def remotely(fake: Fake, **settings: Any) -> contextlib.AbstractAsyncContextManager[Any]:
    """The think role of a worker process, as the service makes it."""
    told = Settings(url=fake.url, model="seer", key=fake.key or None, **settings).options()
    return working("engines.remote", {"models": "", "window_tokens": 4096, "remote": told})


async def test_a_worker_process_answers_about_a_picture_and_stops_on_cancellation() -> None:
    with serving(Fake([stream("Two ", "boxes."), stream(Mark.HOLD)], key="sk-of-the-test")) as fake:
        async with remotely(fake, text_model="reader") as think:
            seen = await think.call("encode", {"jpeg": picture(1)}, deadline_in_s=60)
            items = [said(1, "Hello."), said(2, "boxes", "picture") | {"picture": seen["picture"]}]
            asked = {"session": "s", "items": items, "question": "what?", "max_tokens": 20}
            pieces = [piece async for piece in think.stream("generate", asked, deadline_in_s=60)]
            assert pieces[0]["unseen"] == 0
            assert "".join(piece["text"] for piece in pieces) == "Two boxes."
            async with contextlib.aclosing(think.stream("generate", asked, deadline_in_s=60)) as left:
                await anext(left)
                assert await asyncio.to_thread(fake.held.wait, 10)
            assert await asyncio.to_thread(fake.left.wait, 10)  # before a single word has come


async def test_errors_keep_their_type_across_the_worker() -> None:
    async def failure(think: Any) -> StreamsvcError:
        with pytest.raises(StreamsvcError) as caught:
            async for _ in think.stream("generate", {"prompt": "x"}, deadline_in_s=60):
                pass
        return caught.value

    with serving(Fake([refused(429, headers={"Retry-After": "7"}), refused(401)])) as fake:
        async with remotely(fake) as think:
            full, wrong = await failure(think), await failure(think)
    assert isinstance(full, CapacityError)
    assert full.headers()["Retry-After"] == "7"
    assert isinstance(wrong, ConfigError)
    assert "STREAMSVC_REMOTE__KEY" in wrong.message


# --- a real server ---


@pytest.fixture(scope="module")
def llamacpp() -> Iterator[str]:
    """The address of llama.cpp's server, with the embedded model."""
    pytest.importorskip("xllamacpp", reason="no wheel of xllamacpp for this machine")
    script = Path(__file__).with_name("llamacpp_server.py")
    model = chat_file("smollm2-135m-instruct", Models().dir / "models")
    with subprocess.Popen(
        [sys.executable, str(script), str(model)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        yield next(line for line in process.stdout if line.startswith("http")).strip()
        process.stdin.close()
        process.kill()


@pytest.mark.models
def test_the_server_of_llamacpp_answers_by_the_embedded_model(llamacpp: str) -> None:
    with contextlib.closing(Chat(Endpoint(f"{llamacpp}/v1", timeout=60))) as chat:
        made = Remote(chat, "smollm2", "smollm2", Limits()).engine({})
        first, text = answer(
            made,
            session="s",
            items=[said(3, "The ferry leaves at seven.")],
            question="When does it leave?",
            max_tokens=24,
        )
        assert first["unseen"] == 0
        assert "seven" in text.lower()
        assert (
            "\n" not in answer(made, prompt="List three animals, one a line.", max_tokens=24, stop=["\n"])[1]
        )
        counting: Any = {"prompt": "Count to one hundred.", "max_tokens": 256}
        leaving: Any = made.ops["generate"].run(counting)
        assert next(leaving)["text"] == ""
        assert next(leaving) is not None
        leaving.close()
        assert answer(made, prompt="The capital of France is", max_tokens=8)[1]  # its one slot is free again


@pytest.mark.models
def test_the_server_of_llamacpp_refuses_a_picture_for_a_model_that_cannot_see(llamacpp: str) -> None:
    with contextlib.closing(Chat(Endpoint(f"{llamacpp}/v1", timeout=60))) as chat:
        made = Remote(chat, "smollm2", "smollm2", Limits()).engine({})
        with pytest.raises((ConfigError, WorkerError), match="the remote endpoint"):
            answer(made, session="s", items=[shown(made, 1, 1)], question="what?")
