"""What one session is to do: frozen options, as asked for at a door or filled with the service's defaults."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from streamsvc.core.config import Hear
from streamsvc.core.errors import InvalidRequest

HANGOVER = (0.1, 5.0)  # seconds of silence that may end an utterance: at least, at most


@dataclass(frozen=True, slots=True)
class SpeechOptions:
    """How speech is recognised. None: as the service's settings say.

    `language`: of the speech; detected for each utterance where the settings name none either. `vocabulary`:
    names and terms to expect. `hangover`: seconds of silence that end an utterance. `translate`: captions in
    English too. `replace`: phrases that captions spell otherwise.
    """

    language: str | None = None
    vocabulary: tuple[str, ...] = ()
    hangover: float | None = None
    translate: bool | None = None
    replace: Mapping[str, str] = field(default_factory=dict)

    def check(self) -> None:
        """Check what a client has asked for. Raises InvalidRequest: the hangover is not within HANGOVER."""
        if self.hangover is not None and not HANGOVER[0] <= self.hangover <= HANGOVER[1]:
            raise InvalidRequest(
                f"hangover is between {HANGOVER[0]:g} and {HANGOVER[1]:g} seconds", code="bad_hangover"
            )

    def with_defaults(self, hear: Hear) -> SpeechOptions:
        """These options with the settings' value wherever nothing was asked for.

        `replace` adds to the settings' phrases.
        """
        return replace(
            self,
            language=self.language or hear.language,
            hangover=hear.hangover if self.hangover is None else self.hangover,
            translate=hear.translate if self.translate is None else self.translate,
            replace={**hear.replace, **self.replace},
        )


@dataclass(frozen=True, slots=True)
class VisionOptions:
    """How pictures are looked at.

    `enabled` False: not at all. `adapter`: LoRA adapter of the VLM; None: the plain model.
    """

    enabled: bool = True
    adapter: str | None = None


@dataclass(frozen=True, slots=True)
class SessionOptions:
    """What one session is to do.

    `lossless`: the source can wait, so nothing is dropped (a file read as fast as possible). `stored`: events
    and thumbnails are written to the disk. `record`: all that comes in is, for a replay; None: as the
    settings say.
    """

    speech: SpeechOptions = SpeechOptions()
    vision: VisionOptions = VisionOptions()
    lossless: bool = False
    stored: bool = True
    record: bool | None = None

    def to_json(self) -> str:
        """What another node needs to go on with a session that is published to."""
        speech = self.speech
        told = {
            "language": speech.language,
            "vocabulary": list(speech.vocabulary),
            "hangover": speech.hangover,
            "translate": speech.translate,
            "replace": dict(speech.replace),
            "enabled": self.vision.enabled,
            "adapter": self.vision.adapter,
        }
        return json.dumps(told, ensure_ascii=False, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> SessionOptions:
        """The options that `to_json` told. Raises ValueError, KeyError, TypeError: these are none."""
        told = json.loads(text)
        speech = SpeechOptions(
            language=told["language"],
            vocabulary=tuple(told["vocabulary"]),
            hangover=told["hangover"],
            translate=told["translate"],
            replace=dict(told["replace"]),
        )
        return cls(speech, VisionOptions(enabled=told["enabled"], adapter=told["adapter"]))
