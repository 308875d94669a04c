"""Put the local planner's answer together: sentences whose names and numbers all come from observations."""

from __future__ import annotations

from collections.abc import Sequence

from agentq.cli.demo_agent.values import Decision, Excerpt, Finding, Hits, Source
from agentq.cli.demo_agent.view import View, answers
from agentq.cli.demo_agent.words import Goal

_FINDINGS = 8


def compose(goal: Goal, view: View, best: Hits | None, candidates: Sequence[str]) -> Decision:
    """Answer ``goal`` from what was seen; says so where nothing was."""
    if best is None:
        tried = ", ".join(f"/{pattern}/ in {within or 'all modules'}" for pattern, within in view.searches)
        return answers("nothing was found", f"Nothing found. I searched for {tried or 'nothing'}.", [])
    if goal.wants_modules:
        answer, findings = _modules(goal, view, best, candidates)
    else:
        answer, findings = _places(goal, view, best)
    findings += [Finding(f"{s.module}: {s.text}", s.sources) for s in view.summaries]
    return answers("enough was read", answer, findings)


def _modules(goal: Goal, view: View, best: Hits, candidates: Sequence[str]) -> tuple[str, list[Finding]]:
    read = [name for name in candidates if view.read_in(name)]
    dropped = len(best.modules) - len(candidates)
    parts = [f"{best.module_count - dropped} modules match /{best.pattern}/ in code ({best.total} lines in all)"]
    if dropped:
        parts.append(f"{dropped} more turned out to define it or only talk about it")
    sizes = {r.module: r.value for ranking in view.rankings if ranking.by == "lines" for r in ranking.ranked}
    if goal.wants_size and (largest := [name for name in candidates if name in sizes][:3]):
        parts.append("the largest are " + ", ".join(f"{name} ({sizes[name]:,} lines)" for name in largest))
    else:
        parts.append("most often in " + ", ".join(f"{name} ({best.modules[name]})" for name in list(candidates)[:3]))
    findings = []
    for name in read[:_FINDINGS]:
        excerpt = next(e for e in view.read_in(name) if e.kind == "code")
        size = f" ({sizes[name]:,} lines)" if name in sizes else ""
        made = ""
        if measure := view.measures.get(name):
            made = f"; {measure.classes} classes, {measure.functions} functions"
        where = f"in {excerpt.symbol}" if excerpt.symbol else "at module level"
        findings.append(Finding(f"{name}{size} {where}{made}", [_source(excerpt)]))
    return "; ".join(parts) + ".", findings


def _places(goal: Goal, view: View, best: Hits) -> tuple[str, list[Finding]]:
    seen: dict[tuple[str, str], Excerpt] = {}
    for excerpt in view.excerpts.values():
        seen.setdefault((excerpt.module, excerpt.symbol), excerpt)

    def order(excerpt: Excerpt) -> tuple[bool, int, bool]:
        named = f"{excerpt.module}.{excerpt.symbol}".lower()
        return (not excerpt.symbol, -sum(s in named for s in goal.stems), not excerpt.doc)

    code = sorted((e for e in seen.values() if e.kind == "code"), key=order)
    home = next(iter(best.modules))
    parts = [
        f"{best.total} lines in {best.module_count} modules match /{best.pattern}/",
        f"most of them in {home} ({best.modules[home]})",
    ]
    if code:
        parts.append("the places to read are " + ", ".join(_name(e) for e in code[:3]))
    if goal.wants_docs:
        with_doc = sum(bool(e.doc) for e in code)
        parts.append(f"{with_doc} of the {len(code)} definitions read have a docstring")
        parts += [
            f"in {m.module} {m.documented} of {m.public} public definitions have one" for m in list(view.measures.values())[:2]
        ]
    findings = [Finding(f"{_name(e)}: {e.doc or 'no docstring'}", [_source(e)]) for e in code[:_FINDINGS]]
    return "; ".join(parts) + ".", findings


def _name(excerpt: Excerpt) -> str:
    return f"{excerpt.module}.{excerpt.symbol}" if excerpt.symbol else excerpt.module


def _source(excerpt: Excerpt) -> Source:
    marked = next((row[6:].strip() for row in excerpt.text.splitlines() if row[:5].strip() == str(excerpt.line)), "")
    return Source(excerpt.file, excerpt.line, marked)
