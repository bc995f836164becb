"""Questions and watches of a session: a question in, an answer with its evidence out; units in, alerts out.

A question is put into the `QuestionQueue` of `Answering`, which parses it once, plans what fits before its
deadline, and answers it by an exact tool, by a language model's supported phrase, or by the vision language
model (vlm_reader). Every part leaves through the session's `dispatch` as a `Reply`. `Watches` is given each
unit, and dispatches `AlertFired`.
"""

from streamsvc.answers.answering import Answering
from streamsvc.answers.question_queue import QuestionQueue, QuestionRequest
from streamsvc.answers.watches import Watches

__all__ = ["Answering", "QuestionQueue", "QuestionRequest", "Watches"]
