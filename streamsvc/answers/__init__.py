"""Questions and watches of a session: a question in, an answer with its evidence out; units in, alerts out.

A question is put into the `QuestionQueue` of `Answering`. The `router` chooses an exact tool or a reader for
it, a plan what fits before its deadline; `answer` tells what the tool found, what a language model's grounded
sentences say, or what the extractive reader quotes. Every part leaves through the session's `dispatch` as a
`Reply`. `Watches` is given each unit, and dispatches `AlertFired`.
"""

from streamsvc.answers.answering import Answering
from streamsvc.answers.question_queue import QuestionQueue, QuestionRequest
from streamsvc.answers.watches import Watches

__all__ = ["Answering", "QuestionQueue", "QuestionRequest", "Watches"]
