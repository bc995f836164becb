"""A session is tokenized as the model expects, and its text never becomes control tokens."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="needs the extra `gpu`")

from engines.vlm_model import INSTRUCTION, LONGEST, Layout, load_model  # noqa: E402
from engines.vlm_window import Picture  # noqa: E402
from streamsvc.core.errors import ModelMissing  # noqa: E402
from tests.engines.tiny_vlm import KINDS, SPECIAL, save  # noqa: E402


class Case:
    def __init__(self, folder: Path) -> None:
        self.model, self.tokenizer, _ = load_model(folder, "cpu")
        self.kind = self.model.config.model_type
        self.layout = Layout(self.model.config, self.tokenizer)

    def written(self, ids: tuple[int, ...]) -> str:
        return str(self.tokenizer.decode(list(ids)))


@pytest.fixture(scope="module", params=KINDS)
def case(request: pytest.FixtureRequest, tiny_vlm: Callable[[str], Path]) -> Case:
    return Case(tiny_vlm(request.param))


def test_a_picture_stands_between_the_marks_of_its_class(case: Case) -> None:
    piece = case.layout.picture_line("[3] 0:02 picture: two boxes", Picture("p", torch.zeros(3, 4)))
    before, after = {
        "llava": ("", ""),
        "smolvlm": ("<fake_token_around_image><global-img>", "<fake_token_around_image>"),
        "idefics3": ("<fake_token_around_image><global-img>", "<fake_token_around_image>"),
    }.get(case.kind, ("<|vision_start|>", "<|vision_end|>"))
    assert case.written(piece.ids) == f"[3] 0:02 picture: two boxes {before}<image><image><image>{after}\n"
    assert piece.ids[piece.first : piece.first + 3] == (SPECIAL.index("<image>"),) * 3


def test_the_chat_template_encloses_the_session_and_without_one_there_is_a_plain_question(
    case: Case,
) -> None:
    head, tail = case.written(case.layout.head.ids), case.written(case.layout.question("what?").ids)
    if case.kind == "llava":
        assert (head, tail) == (f"{INSTRUCTION}\n", "Question: what?\nAnswer:")
    else:
        assert head == f"<|im_start|>user\n{INSTRUCTION}\n"
        other = case.written(case.layout.headed("Answer.").ids)
        assert other == "<|im_start|>user\nAnswer.\n"
        assert tail == "Question: what?<|im_end|>\n<|im_start|>assistant\n"


def test_the_template_of_an_older_checkpoint_lies_in_a_file_of_its_own(tmp_path: Path) -> None:
    save("llava", tmp_path)
    template = (
        "{% for m in messages %}USER: {% for c in m.content %}{{ c.text }}{% endfor %}{% endfor %} ASSISTANT:"
    )
    (tmp_path / "chat_template.json").write_text(json.dumps({"chat_template": template}))
    case = Case(tmp_path)
    assert case.written(case.layout.head.ids) == f"USER: {INSTRUCTION}\n"
    assert case.written(case.layout.question("what?").ids) == "Question: what? ASSISTANT:"


def test_what_people_say_never_becomes_a_control_token(case: Case) -> None:
    for token in SPECIAL:
        for ids in (
            case.layout.text_line(token).ids,
            case.layout.prompt(token, 100).ids,
            case.layout.text(token),
        ):
            assert not set(ids) & set(range(len(SPECIAL)))


def test_a_long_line_keeps_its_beginning_and_a_long_prompt_its_end(case: Case) -> None:
    line = case.layout.text_line("a" * 1000)
    assert len(line.ids) == LONGEST + 1
    assert case.written(line.ids).endswith("aa\n")
    assert case.written(case.layout.prompt("x" * 50 + "end", 5).ids) == "xxend"


def test_folders_without_a_model_are_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelMissing, match="empty"):
        load_model(tmp_path / "empty", "cpu")
    (tmp_path / "empty" / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(ModelMissing, match="empty"):
        load_model(tmp_path / "empty", "cpu")


def test_a_tokenizer_that_begins_every_text_with_a_token_begins_a_session_once(tmp_path: Path) -> None:
    from tokenizers import processors

    case = Case(save("llava", tmp_path))
    start = SPECIAL.index("<s>")
    case.tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", start)]
    )
    layout = Layout(case.model.config, case.tokenizer)
    assert layout.head.ids[0] == layout.prompt("a", 5).ids[0] == start
    assert start not in (
        *layout.head.ids[1:],
        *layout.text_line("a").ids,
        *layout.question("b").ids,
    )


def test_threads_get_the_same_tokens_and_text_never_becomes_control_tokens(case: Case) -> None:
    def encode() -> tuple[tuple[int, ...], tuple[int, ...]]:
        line = case.layout.text_line("Hello <|im_end|> there.")
        return line.ids, case.layout.question("what?").ids

    expected = encode()
    wrong: list[tuple[tuple[int, ...], tuple[int, ...]]] = []

    def work() -> None:
        wrong.extend(ids for ids in (encode() for _ in range(400)) if ids != expected)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
