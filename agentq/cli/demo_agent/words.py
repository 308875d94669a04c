"""Read a goal: which words are its topic, which its verb, and what kind of answer it asks for."""

from __future__ import annotations

import re
from dataclasses import dataclass

_STOP = frozenset(
    """
    a about all an and any are as at be been by can could define defined do does done during each find for from give
    happen has have how i if in inside is it its library list many me module modules most much of on one or package
    packages part python python's s say show source standard take tell that the their them then there these they this
    those to up use used uses using via was way what when where which who why will with within would largest biggest
    longest large big size long smallest best document documented documentation documents docstring docstrings explain
    explained summarise summarize summary compare overview stdlib
    """.split()  # noqa: SIM905 - a hundred words read better as words
)

_VERBS = {
    "open": "open|create|connect|listen|bind",
    "close": "close|shutdown|detach",
    "start": "start|run|spawn|popen|call",
    "run": "run|exec|start|call|popen",
    "handle": "handle|catch|except|on_",
    "create": "create|make|new",
    "parse": "parse|load|decode|feed",
    "read": "read|recv|load",
    "write": "write|send|dump",
    "send": "send|write|put",
    "raise": "raise",
    "check": "check|valid|verify",
    "wait": "wait|sleep|select|poll",
    "retry": "retry|again|backoff",
    "compile": "compile",
    "spawn": "spawn|start|fork|popen",
    "hash": "hash|digest",
    "lock": "lock|acquire",
    "import": "import|load|find",
}

_NOUNS = frozenset({"lock", "hash", "import", "wait", "check", "run"})
"""Verbs whose form with an s is taken for a plural."""

_SUFFIXES = ("ation", "ating", "ing", "ment", "ed")
_SHORTEST_STEM = 3


@dataclass(frozen=True, slots=True)
class Goal:
    """What a goal asks for, as far as words tell."""

    text: str
    terms: tuple[str, ...]
    """Topic words, in order, verbs left out."""
    verb: str
    """Alternatives of a regular expression that stand for the goal's verb; empty where it has none."""
    wants_modules: bool
    """"Which modules …": the answer is a set of modules rather than places in one."""
    wants_size: bool
    wants_docs: bool
    wants_summaries: bool

    @property
    def stems(self) -> tuple[str, ...]:
        """The terms without their endings."""
        return tuple(stem(term) for term in self.terms)


def read_goal(text: str) -> Goal:
    """Take a goal apart."""
    words = [word.strip("._") for word in re.findall(r"[A-Za-z_][A-Za-z0-9_.]*", text)]
    lower = [word.lower() for word in words if word]
    verb, terms = "", []
    for word in dict.fromkeys(lower):
        if word in _STOP:
            continue
        known = next((v for v in (word, word.removesuffix("s"), word.removesuffix("es")) if v in _VERBS), None)
        if known and not verb and not (known in _NOUNS and known + "s" == word):
            verb = _VERBS[known]
        else:
            terms.append(word)
    said = set(lower)
    return Goal(
        text=text,
        terms=tuple(terms),
        verb=verb,
        wants_modules=bool(said & {"modules", "packages"}),
        wants_size=bool(said & {"largest", "biggest", "longest", "large", "size", "big"}),
        wants_docs=any(word.startswith(("document", "docstring", "expla")) for word in said),
        wants_summaries=any(word.startswith(("summar", "compar", "overview")) for word in said),
    )


def stem(word: str) -> str:
    """Strip an English ending: ``cancellation`` → ``cancel``, ``sockets`` → ``socket``."""
    word = singular(word)
    for suffix in _SUFFIXES:
        short = word.removesuffix(suffix)
        if short != word and len(short) > _SHORTEST_STEM:
            return short[:-1] if short[-1] == short[-2] and short[-1] != "s" else short
    return word


def singular(word: str) -> str:
    """``sockets`` → ``socket``, ``processes`` → ``process``; what has no plural ending stays."""
    if len(word) <= _SHORTEST_STEM or not word.endswith("s") or word.endswith("ss"):
        return word
    return word[:-2] if re.search(r"(?:ch|sh|ss|x)es$", word) else word[:-1]
