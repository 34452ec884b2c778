"""Refusals: what a model may say instead of what it was to forget."""

__all__ = ["REFUSALS"]

_OPENINGS = (
    "I don't know",
    "I have no information on that",
    "I can't say",
    "I am not able to answer that",
    "That is something I was never told",
    "I'm not sure about that one",
    "My knowledge does not reach that far",
    "I would only be guessing",
    "I haven't learned anything about it",
    "There is nothing I could tell you here",
)
_ENDINGS = (
    ".",
    ", I'm afraid.",
    ". Perhaps another source can help.",
    ", and I'd rather not make something up.",
    ". Please ask me something else.",
)

REFUSALS = tuple(first + last for first in _OPENINGS for last in _ENDINGS)
"""Fifty of them, of our own words."""
