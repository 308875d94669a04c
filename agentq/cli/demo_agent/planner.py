"""The local planner: decides the agent's next turn by rules from what its tools have shown. No language model.

It is deterministic: the same goal and transcript give the same decision. It knows a little about English endings and
about Python's syntax (`words`), and nothing about the documents: every name and number in its answers was read.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from agentq.cli.demo_agent.answer import compose
from agentq.cli.demo_agent.values import Call, Decision, Hit, Hits, Turn
from agentq.cli.demo_agent.view import View, answers, asks
from agentq.cli.demo_agent.words import Goal, read_goal, singular

NAME = "local planner, no language model"

_FEW, _MANY = 5, 400
"""Below: the pattern was too narrow. Above: it says nothing any more."""
_AT_ONCE = 4
_VERIFIED = 12
_PLACES = 12
_MAX_TURNS = 16


@dataclass(frozen=True, slots=True)
class Subject:
    """A goal after the first look at the documents."""

    goal: Goal
    module: str
    """The module that the goal names: the topic itself (``scope`` empty) or the place to look in."""
    scope: str
    ladder: tuple[tuple[str, str], ...]
    """(pattern, within), from the most telling to the most general."""
    extra: tuple[str, ...]
    """Searched beside the first pattern."""
    stems: tuple[str, ...]


def plan(goal: str, turns: Sequence[Turn]) -> Decision:
    """Decide the next turn."""
    wanted, view = read_goal(goal), View.of(turns)
    if not wanted.terms:
        return answers("the goal names no topic", "I found no topic in the goal. Name a module or a thing.", [])
    if not turns:
        names = dict.fromkeys(name for term in wanted.terms for name in (term, singular(term)))
        calls = [Call("list", {"prefix": name}) for name in list(names)[:6]]
        return asks("which of the goal's words are modules?", calls, remaining=6)
    subject = _subject(wanted, view)
    if view.turns < _MAX_TURNS:
        for rule in (_search, _rank, _verify, _follow, _measure, _delegate):
            if decision := rule(subject, view):
                return decision
    best = _best(subject, view)
    return compose(wanted, view, best, _candidates(subject, view))


def _subject(goal: Goal, view: View) -> Subject:
    known = [name for term in goal.terms for name in (term, singular(term)) if view.exists(name)]
    module = known[0] if known else ""
    rest = tuple(s for t, s in zip(goal.terms, goal.stems, strict=True) if module not in (t, singular(t)))
    definition = r"^\s*(?:async\s+)?(?:def|class)\s+\w*"
    if module and goal.wants_modules:
        last = module.rpartition(".")[2]
        verbs = "|".join(filter(None, [re.escape(last), goal.verb and f"(?:{goal.verb})\\w*", *(f"\\w*{s}\\w*" for s in rest)]))
        name = re.escape(module)
        imports = rf"^\s*(?:import|from)\s+{name}\b"
        calls = (rf"\b{name}\.(?:{verbs})\(", rf"\b{name}\.\w+\(", imports)
        return Subject(goal, module, "", tuple((p, "") for p in calls), (imports,), rest)
    if not rest:
        return Subject(goal, module, module, ((definition, module), (r"\w+", module)), (), ())
    line = "".join(rf"(?=.*{s})" for s in rest)
    head = rest[-1]
    with_verb = [rf"^(?=.*(?:{goal.verb})){line}.*$"] if goal.verb else []
    patterns = [*with_verb, *([rf"^{line}.*$"] if len(rest) > 1 else []), *(rf"\b\w*{s}\w*" for s in reversed(rest))]
    ladder = [(p, within) for within in dict.fromkeys((module, "")) for p in patterns]
    return Subject(goal, module, module, tuple(ladder), (rf"{definition}{head}\w*",), rest)


def _sensible(hits: Hits) -> bool:
    return _FEW <= hits.total <= _MANY and any(hit.kind == "code" for hit in hits.hits)


def _search(subject: Subject, view: View) -> Decision | None:
    """Search; where too little or too much comes back, go on with the next pattern, at last in the whole library."""
    before: Hits | None = None
    for pattern, within in subject.ladder:
        hits = view.searches.get((pattern, within))
        if hits is None:
            extra = [(p, within) for p in subject.extra if (p, within) not in view.searches and p != pattern]
            calls = [Call("search", {"pattern": p, "within": w}) for p, w in ((pattern, within), *extra)]
            return asks(_why_next(before, within), calls, remaining=5)
        if _sensible(hits) or (within and not pattern.startswith("^(") and _usable(hits)):
            return None
        before = hits
    return None


def _usable(hits: Hits) -> bool:
    return any(hit.kind == "code" for hit in hits.hits)


def _why_next(before: Hits | None, within: str) -> str:
    if before is None:
        return "search for it"
    if within != before.within:
        return f"{before.within} says nothing of it: look in the whole library"
    many = before.total > _MANY
    return f"{before.total} lines {'are too many' if many else 'tell too little'}: try another pattern"


def _best(subject: Subject, view: View) -> Hits | None:
    """The search to go by: the first of a sensible size, else the largest that is not too large, else the smallest."""
    found = [hits for step in subject.ladder if (hits := view.searches.get(step)) and hits.total]
    if sensible := [hits for hits in found if _sensible(hits)]:
        return sensible[0]
    usable = [hits for hits in found if _usable(hits)] or found
    return min(usable, key=lambda hits: (hits.total > _MANY, abs(hits.total - _MANY)), default=None)


def _candidates(subject: Subject, view: View) -> list[str]:
    """Modules worth a closer look, best first, without those that turned out to only talk about it."""
    best = _best(subject, view)
    if best is None:
        return []
    names = list(best.modules)
    if view.rankings and subject.goal.wants_size:
        order = [r.module for r in view.rankings[-1].ranked]
        names.sort(key=lambda name: order.index(name) if name in order else len(order))
    own = {subject.module} if subject.goal.wants_modules else set()
    talk = {name for name in names if (read := view.read_in(name)) and all(e.kind != "code" for e in read)}
    return [name for name in names if name not in talk | own]


def _rank(subject: Subject, view: View) -> Decision | None:
    best = _best(subject, view)
    if best is None or view.rankings or not subject.goal.wants_size:
        return None
    why = f"{best.module_count} modules match: which are the largest?"
    return asks(why, [Call("rank", {"names": list(best.modules), "by": "lines"})], remaining=4)


def _verify(subject: Subject, view: View) -> Decision | None:
    """Read the places that were found, a few at a time, the most telling first."""
    if subject.goal.wants_modules:
        unread = [name for name in _candidates(subject, view)[:_VERIFIED] if not view.read_in(name)]
        calls = [_look_into(subject, view, name) for name in unread]
        why = f"{len(calls)} modules still unread: see what they really do"
    else:
        places = [h for h in _places(subject, view) if not _covered(view, h)]
        calls = [Call("read", {"module": h.module, "line": h.line}) for h in places[: max(_PLACES - len(view.excerpts), 0)]]
        why = f"read the places that look most telling ({len(calls)} left)"
    calls = [call for call in calls if not _failed(view, call)]
    return asks(why, calls[:_AT_ONCE], remaining=2 + len(calls) // _AT_ONCE) if calls else None


def _look_into(subject: Subject, view: View, name: str) -> Call:
    best = _best(subject, view)
    pattern = best.pattern if best else ""
    inside = view.searches.get((pattern, name))
    hits = [h for h in [*(inside.hits if inside else []), *(best.hits if best else [])] if h.module == name]
    if not hits:
        return Call("search", {"pattern": pattern, "within": name})
    code = next((h for h in hits if h.kind == "code"), hits[0])
    return Call("read", {"module": name, "line": code.line})


def _places(subject: Subject, view: View) -> list[Hit]:
    """Hits in code, definitions first, then by how many of the topic's words stand there."""
    hits = {(h.module, h.line): h for found in view.searches.values() for h in found.hits if h.kind == "code"}

    def order(hit: Hit) -> tuple[bool, int, bool, str, int]:
        text = f"{hit.module} {hit.text}".lower()
        matching = sum(s in text for s in subject.stems)
        weak = bool(re.match(r"(import|from)\b|['\"]", hit.text))
        return (weak, -matching, not re.match(r"(async\s+)?(def|class)\b", hit.text), hit.module, hit.line)

    return sorted(hits.values(), key=order)


def _covered(view: View, hit: Hit) -> bool:
    return any(e.line == hit.line or (e.symbol and e.symbol_line <= hit.line <= e.line) for e in view.read_in(hit.module))


def _failed(view: View, call: Call) -> bool:
    return any(
        t.tool == call.tool and str(call.args.get("module", call.args.get("within"))) in t.message for t in view.troubles
    )


def _follow(subject: Subject, view: View) -> Decision | None:
    """Follow calls: what the definitions read so far call by a telling name, and nobody has looked up yet."""
    if subject.goal.wants_modules or not subject.stems:
        return None
    seen = {e.symbol.rpartition(".")[2] for e in view.excerpts.values()}
    leads = dict.fromkeys(
        name
        for e in view.excerpts.values()
        for name in e.calls
        if name not in seen and any(s in name.lower() for s in subject.stems)
    )
    patterns = [rf"^\s*(?:async\s+)?(?:def|class)\s+{re.escape(name)}\b" for name in leads]
    new = [p for p in patterns if (p, subject.scope) not in view.searches][:2]
    if not new or len(view.excerpts) >= _PLACES:
        return None
    return asks("follow what they call", [Call("search", {"pattern": p, "within": subject.scope}) for p in new], remaining=3)


def _measure(subject: Subject, view: View) -> Decision | None:
    goal = subject.goal
    names = [name for name in _main_modules(subject, view) if name not in view.measures]
    if not names or view.measures or not (goal.wants_size or goal.wants_docs):
        return None
    why = "how well are they documented?" if goal.wants_docs else "what are the largest made of?"
    return asks(why, [Call("count", {"names": names})], remaining=2)


def _main_modules(subject: Subject, view: View) -> list[str]:
    names = _candidates(subject, view)
    if not subject.goal.wants_modules:
        names = sorted(names, key=lambda name: -len(view.read_in(name)))
        names = [name for name in names if view.read_in(name)] or names
    return names[:5]


def _delegate(subject: Subject, view: View) -> Decision | None:
    names = _main_modules(subject, view)[:3]
    if not subject.goal.wants_summaries or view.summaries or not names:
        return None
    return Decision(f"let a child run read each of {', '.join(names)}", summarise=names, remaining=1)
