"""Everything known of a session, on one time axis.

In: units of the speech and vision pipelines, by `Timeline.add`. Out: sentences, talks, screens, text tracks
and keyframes by time; `Timeline.lines` as evidence, which an `Index` searches by words and by meaning. Memory
is bounded: `TimelineLimits` states how much of each kind is kept, `Timeline.dropped` counts the rest. All
modules but `index` are free of I/O.
"""

from streamsvc.timeline.index import Index
from streamsvc.timeline.keyframe_history import Shown
from streamsvc.timeline.ranking import Hit
from streamsvc.timeline.screen_history import Screen
from streamsvc.timeline.text_tracks import TextTrack
from streamsvc.timeline.timeline import Timeline, TimelineLimits
from streamsvc.timeline.transcript import Sentence

__all__ = ["Hit", "Index", "Screen", "Sentence", "Shown", "TextTrack", "Timeline", "TimelineLimits"]
