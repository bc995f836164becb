"""Video to keyframes to sights and screen text.

In: decoded pictures of a track (`ingest.decode`), and the see role (detector, tagger, embedding, OCR) and
VLM role. Out: `Keyframe`s, for each a `Sight` (tags, boxes, embedding) and where text changed a `ScreenText`,
and `Scene` captions by rule or by the VLM. `pipeline` connects these for a session; `keyframes`,
`frame_difference`, `labels` and `scenes` decide, without I/O; `still_image` does the same for an image that
comes with a question.
"""

from streamsvc.vision.keyframes import Change, Sampler, TokenBucket
from streamsvc.vision.perception import ScreenReader, perceive
from streamsvc.vision.scenes import scene

__all__ = ["Change", "Sampler", "ScreenReader", "TokenBucket", "perceive", "scene"]
