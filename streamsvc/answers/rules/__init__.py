"""Answers by English patterns: a parsed question and the timeline in, a `Finding` out. Pure.

`router.find` asks the rules in order; `follow_ups` resolves what a question refers to. These modules lie here as they were, to be
replaced by exact tools and a reader over the window.
"""
