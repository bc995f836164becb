"""Answers by English patterns: a parsed question and the timeline in, a `Finding` out. Pure.

`router.find` asks the rules in order; `follow_ups` resolves what a question refers to.
"""
