"""Audio to words to captions.

In: `AudioChunk`s of a track (`core.types`) and the hear role (Silero VAD, Whisper). Out: `Words` (stable
words and a tentative tail), `Speech` (start and end of speech) and `Gap` (lost audio); from the words,
`Cue`s, their translations, and WebVTT, SubRip and JSON. `pipeline` connects these for a session;
`decoding_loop` drives VAD, language detection and decoding; `segmenter`, `stable_words` and `agreement`
decide, without I/O.
"""

from streamsvc.speech.captions import Cues, SubtitleWriter, to_json, to_srt, to_vtt
from streamsvc.speech.decoding_loop import DecodingOptions, Flush
from streamsvc.speech.replacements import Replacer
from streamsvc.speech.segmenter import Segmenter
from streamsvc.speech.translation import Translator

__all__ = [
    "Cues",
    "DecodingOptions",
    "Flush",
    "Replacer",
    "Segmenter",
    "SubtitleWriter",
    "Translator",
    "to_json",
    "to_srt",
    "to_vtt",
]
