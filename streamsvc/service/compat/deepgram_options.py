"""The query parameters of Deepgram's /v1/listen: parsed and checked.

Options that an application relies on (redact, diarize, callback, ...) are refused; unknown parameters are
ignored.
"""

from __future__ import annotations

from dataclasses import dataclass

from starlette.datastructures import QueryParams

from streamsvc.core.config import Hear
from streamsvc.core.errors import InvalidRequest
from streamsvc.core.options import SpeechOptions
from streamsvc.service.compat.audio_session import AudioFormat, clamp_hangover, language_code

CODECS = {"linear16": "pcm_s16le", "mulaw": "pcm_mulaw", "alaw": "pcm_alaw"}
TELEPHONE = ("mulaw", "alaw")  # their rate is 8000 Hz where none is given
# Codings that exist in files only, and what such a file begins with.
FILE_HEADS = {
    "flac": (b"fLaC", b"OggS", b"ID3"),
    "opus": (b"OggS", b"\x1aE\xdf\xa3"),
    "ogg-opus": (b"OggS",),
    "speex": (b"OggS",),
    "amr-nb": (b"#!AMR\n",),
    "amr-wb": (b"#!AMR-WB\n",),
}
MODELS = (
    "nova",
    "enhanced",
    "base",
    "general",
    "meeting",
    "phonecall",
    "finance",
    "conversationalai",
    "voicemail",
    "video",
    "whisper",
)
REFUSED = (
    "callback",
    "redact",
    "replace",
    "search",
    "diarize",
    "diarize_model",
    "multichannel",
    "detect_entities",
    "profanity_filter",
)
_FALSE = ("", "false", "0", "no")
_KEYTERMS = 100  # security limits: keyterms, and their characters together
_KEYTERM_CHARACTERS = 2000


@dataclass(frozen=True, slots=True)
class Options:
    """The options of a request.

    utterance_end: seconds without a word before UtteranceEnd; None: not requested.
    """

    speech: SpeechOptions
    interim: bool
    punctuate: bool
    endpointing: bool
    vad_events: bool
    utterance_end: float | None
    utterances: bool
    multichannel: bool = False


def parse_options(query: QueryParams, hear: Hear, *, multichannel: bool = False) -> Options:
    """Read and check a query; `audio_format` and `file_format` read the format.

    Args:
        query: of the request.
        hear: the service's settings.
        multichannel: the channels can be transcribed one by one.

    Raises:
        InvalidRequest: names the parameter.
    """
    for name in REFUSED:
        if _is_on(query, name) and not (multichannel and name == "multichannel"):
            raise InvalidRequest(f"The parameter {name} is not supported", code="unsupported_option")
    model = query.get("model", "base")
    if model != hear.model and model.lower().split("-")[0] not in MODELS:
        raise InvalidRequest("No such model/language/tier combination found.", code="unknown_model")
    vocabulary = _vocabulary(query)
    language = language_code(query.get("language"), hear.model)
    return Options(
        speech=SpeechOptions(language, vocabulary, _hangover(query)),
        interim=_is_on(query, "interim_results"),
        punctuate=_is_on(query, "punctuate") or _is_on(query, "smart_format"),
        # endpointing=0 is on, with the shortest hangover.
        endpointing=_is_on(query, "endpointing", "true") or query.get("endpointing") == "0",
        vad_events=_is_on(query, "vad_events"),
        utterance_end=_utterance_end(query),
        utterances=_is_on(query, "utterances"),
        multichannel=_is_on(query, "multichannel"),
    )


def audio_format(query: QueryParams) -> AudioFormat:
    """The format of samples without a container, named by `encoding`, `sample_rate` and `channels`.

    Raises:
        InvalidRequest: names the parameter.
    """
    encoding = query.get("encoding", "")
    if encoding not in CODECS:
        raise InvalidRequest(
            f"encoding is required and must be one of {', '.join(CODECS)}; got {encoding[:20]!r}",
            code="unsupported_encoding",
        )
    channels = query.get("channels", "1")
    if channels not in ("1", "2"):
        raise InvalidRequest(f"channels must be 1 or 2; got {channels[:20]!r}", code="unsupported_channels")
    if encoding in TELEPHONE and "sample_rate" not in query:
        return AudioFormat(CODECS[encoding], 8000, int(channels))
    return AudioFormat(CODECS[encoding], _number(query, "sample_rate", 8000, 48_000, "Hz"), int(channels))


def file_format(query: QueryParams) -> AudioFormat | str | None:
    """What the body of a file request is: samples of a format, a file of a named coding, or any file (None).

    Raises:
        InvalidRequest: names the parameter.
    """
    encoding = query.get("encoding")
    if encoding is None:
        return None
    if encoding in CODECS:
        return audio_format(query)
    if encoding not in FILE_HEADS:
        raise InvalidRequest(
            f"encoding must be one of {', '.join((*CODECS, *FILE_HEADS))}; got {encoding[:20]!r}",
            code="unsupported_encoding",
        )
    return encoding


def _is_on(query: QueryParams, name: str, default: str = "false") -> bool:
    return query.get(name, default).lower() not in _FALSE


def _vocabulary(query: QueryParams) -> tuple[str, ...]:
    terms = [*query.getlist("keyterm"), *(word.split(":")[0] for word in query.getlist("keywords"))]
    if len(terms) > _KEYTERMS or sum(map(len, terms)) > _KEYTERM_CHARACTERS:
        raise InvalidRequest(
            f"At most {_KEYTERMS} keyterms with {_KEYTERM_CHARACTERS} characters together are allowed",
            code="too_many_keyterms",
        )
    return tuple(term for term in terms if term)


def _hangover(query: QueryParams) -> float | None:
    """Seconds of `endpointing`; None for a boolean."""
    text = query.get("endpointing", "true").lower()
    if text in ("true", *_FALSE) and text != "0":
        return None
    return clamp_hangover(_number(query, "endpointing", 0, 999_999_999, "milliseconds"))


def _utterance_end(query: QueryParams) -> float | None:
    """Seconds of `utterance_end_ms`; None: not given."""
    if "utterance_end_ms" not in query:
        return None
    return _number(query, "utterance_end_ms", 1000, 5000, "milliseconds") / 1000


def _number(query: QueryParams, name: str, least: int, most: int, unit: str) -> int:
    text = query.get(name, "")
    if not text.isascii() or not text.isdigit() or len(text) > 9 or not least <= int(text) <= most:
        raise InvalidRequest(f"{name} must be a number from {least} to {most} ({unit})", code="bad_parameter")
    return int(text)
