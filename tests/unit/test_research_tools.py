"""The demo's agent without its runtime: documents, tools, planner, model interface."""

from __future__ import annotations

import bisect
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from agentq.cli.demo_agent import effects, tools
from agentq.cli.demo_agent.corpus import corpus, root
from agentq.cli.demo_agent.model import Endpoint, LocalPlanner, model_from
from agentq.cli.demo_agent.planner import plan
from agentq.cli.demo_agent.values import Decision, Hits, Summary, Trouble, Turn
from agentq.cli.demo_agent.words import read_goal, stem
from agentq.errors import PermanentError, TemporaryError

SOCKETS = "Which modules of the standard library open sockets, and which of them are the largest?"
CANCEL = "Where does asyncio handle task cancellation, and how is it documented?"
TOOLS = {
    "list": tools.list_modules,
    "search": tools.search,
    "read": tools.read,
    "count": tools.count,
    "rank": tools.rank,
}


def line_of(file: str, line: int) -> str:
    return (root() / file).read_text(encoding="utf-8", errors="replace").split("\n")[line - 1]


def observe(decision: Decision) -> Turn:
    seen = []
    for call in decision.calls:
        try:
            seen.append(TOOLS[call.tool](**call.args))
        except tools.ToolError as error:
            seen.append(Trouble(call.tool, str(error)))
    return Turn(decision, [*seen, *(Summary(module, "said") for module in decision.summarise)])


def research(goal: str) -> tuple[Decision, list[Turn]]:
    turns: list[Turn] = []
    while not (decision := plan(goal, turns)).final:
        turns.append(observe(decision))
        assert len(turns) <= 20, [turn.decision.why for turn in turns]
    return decision, turns


def test_the_corpus_is_the_standard_library_without_its_tests():
    names = corpus().keys()
    assert {"json", "json.decoder", "asyncio.tasks", "bisect"} <= names
    assert not [name for name in names if "test" in name.split(".") or "site-packages" in name]
    assert all((root() / text.file).is_file() for text in corpus().values())


def test_every_hit_is_the_line_it_says_and_matches():
    found = tools.search(r"\bdef \w*cancel", "asyncio")
    assert found.total == sum(found.modules.values()) > 0
    assert found.module_count == len(found.modules)
    for hit in found.hits:
        assert line_of(hit.file, hit.line).strip().startswith(hit.text)
        assert re.search("cancel", hit.text, re.IGNORECASE)


def test_leading_blank_lines_do_not_shift_a_hit():
    found = tools.search(r"^\s*def bisect_left", "bisect")
    assert [line_of(hit.file, hit.line).startswith("def bisect_left") for hit in found.hits] == [True]


def test_answers_are_bounded_whatever_is_asked():
    found = tools.search("e", limit=10_000)
    assert len(found.hits) <= 40
    assert len(found.modules) <= 60
    assert all(len(hit.text) <= 160 for hit in found.hits)
    assert len(tools.list_modules(limit=10_000).documents) <= 40
    assert len(tools.read("decimal" if "decimal" in corpus() else "_pydecimal", 1, around=9_999).text.splitlines()) <= 31
    with pytest.raises(tools.ToolError, match="rank them first"):
        tools.count(["json"] * 13)


def test_a_hit_says_whether_it_stands_in_code_a_comment_or_a_docstring():
    text = corpus()["json.decoder"].body
    doc_line = next(n for n, row in enumerate(text.split("\n"), 1) if "Implementation of JSONDecoder" in row)
    assert tools.read("json.decoder", doc_line).kind == "docstring"
    kinds = {hit.kind for hit in tools.search(r"^\s*#", "json").hits}
    assert kinds == {"comment"}
    assert {hit.kind for hit in tools.search(r"^def \w+\(", "bisect").hits} == {"code"}


def test_read_names_the_definition_and_its_docstring():
    line = tools.search(r"def raw_decode", "json.decoder").hits[0].line
    excerpt = tools.read("json.decoder", line)
    assert excerpt.symbol == "JSONDecoder.raw_decode"
    assert excerpt.symbol_line == line
    assert " ".join((json.JSONDecoder.raw_decode.__doc__ or "").split()).startswith(excerpt.doc[:60])
    assert "scan_once" in excerpt.calls


def test_count_and_rank_count_what_is_there():
    (measure,) = tools.count(["bisect"]).measures
    assert measure.functions == 4
    assert measure.documented == 4, bisect.insort.__doc__
    ranked = tools.rank(["bisect", "argparse", "json"]).ranked
    assert [r.value for r in ranked] == sorted((corpus()[r.module].lines for r in ranked), reverse=True)
    assert ranked[0].module == "argparse"


@pytest.mark.parametrize(
    ("tool", "args", "message"),
    [
        ("search", {"pattern": "("}, "not a regular expression"),
        ("search", {"pattern": "x", "within": "no.such"}, "no module 'no.such'"),
        ("read", {"module": "json", "line": 10**6}, "there is no line"),
        ("rank", {"names": ["json"], "by": "beauty"}, "rank knows"),
    ],
)
def test_a_tool_says_what_is_wrong(tool, args, message):
    with pytest.raises(tools.ToolError, match=message):
        TOOLS[tool](**args)


def test_goals_are_read():
    goal = read_goal(SOCKETS)
    assert goal.terms == ("sockets",)
    assert goal.wants_modules
    assert goal.wants_size
    assert read_goal(CANCEL).terms == ("asyncio", "task", "cancellation")
    assert [stem(word) for word in ("cancellation", "sockets", "processes", "date")] == ["cancel", "socket", "process", "date"]


def test_which_modules_open_sockets():
    decision, turns = research(SOCKETS)
    claimed = {finding.claim.split(" ")[0] for finding in decision.findings}
    assert {"smtplib", "logging.handlers"} <= claimed
    assert any(len(turn.decision.calls) > 1 for turn in turns)
    assert any(call.tool == "rank" for turn in turns for call in turn.decision.calls)


def test_where_asyncio_handles_cancellation():
    decision, _ = research(CANCEL)
    assert "asyncio.tasks.Task.cancel" in decision.answer
    assert any("Request that this task cancel itself" in finding.claim for finding in decision.findings)


@pytest.mark.parametrize("goal", [SOCKETS, CANCEL, "Which modules start subprocesses?", "Where does json parse numbers?"])
def test_every_source_is_the_line_it_says(goal):
    decision, _ = research(goal)
    sources = [source for finding in decision.findings for source in finding.sources]
    assert len(sources) >= 3
    assert all(line_of(source.file, source.line).strip().startswith(source.text) and source.text for source in sources)


def test_the_plan_follows_what_the_tools_showed():
    first = observe(plan(CANCEL, []))
    asked = plan(CANCEL, [first])
    found = plan(CANCEL, [first, observe(asked)])
    empty = [Hits(call.args["pattern"], call.args["within"], 0, {}, [], 0) for call in asked.calls]
    nothing = plan(CANCEL, [first, Turn(asked, empty)])
    assert found != nothing
    assert nothing.calls[0].tool == "search"


def test_the_plan_looks_elsewhere_when_the_named_module_says_nothing():
    decision, turns = research("Where does http check certificates?")
    assert any("whole library" in turn.decision.why for turn in turns)
    assert "ssl" in decision.answer


def test_what_is_not_there_is_not_made_up():
    decision, _ = research("Where does the library handle zzyzxq?")
    assert decision.answer.startswith("Nothing found")
    assert decision.findings == []
    assert plan("How?", []).answer.startswith("I found no topic")


def test_a_plan_is_the_same_every_time():
    assert research(SOCKETS) == research(SOCKETS)


async def test_without_an_endpoint_the_planner_decides_and_says_so():
    model = model_from({"AGENTQ_DEMO_THINK_S": "0", "OPENAI_API_KEY": "set for something else"})
    assert isinstance(model, LocalPlanner)
    assert "no language model" in model.name
    assert (await model.decide(SOCKETS, [])).decision == plan(SOCKETS, [])
    page = tools.read("bisect", tools.search("def bisect_left").hits[0].line)
    summary = (await model.summarise("bisect", "where?", "Bisection algorithms.", [page])).summary
    assert summary.text.startswith("Bisection algorithms. — bisect_left: ")


@pytest.fixture
def endpoint():
    """An OpenAI-compatible endpoint on loopback that answers what the test puts into ``answers``: (status, body)."""
    answers, requests = [], []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            length = int(self.headers["Content-Length"])
            requests.append((self.path, self.headers["Authorization"], json.loads(self.rfile.read(length))))
            status, body = answers.pop(0)
            self.send_response(status)
            self.send_header("Retry-After", "7")
            self.end_headers()
            self.wfile.write(body if isinstance(body, bytes) else json.dumps(body).encode())

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    url = f"http://127.0.0.1:{server.server_port}/v1"
    model = model_from({"AGENTQ_DEMO_MODEL": "m1", "OPENAI_BASE_URL": url, "OPENAI_API_KEY": "k"})
    yield model, answers, requests
    server.shutdown()
    thread.join()
    server.server_close()


def said(text: str) -> dict:
    return {"choices": [{"message": {"content": text}}], "usage": {"total_tokens": 42}}


async def test_an_endpoint_decides(endpoint):
    model, answers, requests = endpoint
    assert isinstance(model, Endpoint)
    answers.append((200, said('Sure!\n```json\n{"why": "w", "calls": [{"tool": "list", "args": {"prefix": "json"}}]}\n```')))
    turn = observe(plan(SOCKETS, []))
    thought = await model.decide(SOCKETS, [turn])
    assert thought.tokens == 42
    assert thought.decision.calls[0].args == {"prefix": "json"}
    path, authorization, body = requests[0]
    assert (path, authorization, body["model"]) == ("/v1/chat/completions", "Bearer k", "m1")
    assert [message["role"] for message in body["messages"]] == ["system", "user", "assistant", "user"]
    assert "socket" in body["messages"][3]["content"]


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        (429, b"slow down", TemporaryError),
        (500, b"oops", TemporaryError),
        (401, b"no such key", PermanentError),
        (200, b"not json", TemporaryError),
        (200, {"choices": []}, TemporaryError),
        (200, said("I would rather not."), TemporaryError),
        (200, said('{"why": "nothing to do"}'), TemporaryError),
    ],
)
async def test_an_endpoint_that_fails_is_retried_or_not(endpoint, status, body, error):
    model, answers, _ = endpoint
    answers.append((status, body))
    with pytest.raises(error) as caught:
        await model.decide(SOCKETS, [])
    if status == 429:
        assert caught.value.retry_after == 7.0


async def test_a_strange_address_is_refused():
    with pytest.raises(PermanentError, match="http://"):
        await Endpoint("m", "file:///etc", "").decide("x", [])


def test_effects_are_lines_that_only_a_killed_body_leaves_open(tmp_path, monkeypatch):
    file = tmp_path / "effects"
    monkeypatch.setenv(effects.VARIABLE, str(file))
    with effects.recorded(run="r", key="k1", step="think", epoch=1):
        assert [(e.key, e.what) for e in effects.load(file)] == [("k1", "began")]
    with pytest.raises(RuntimeError), effects.recorded(run="r", key="k2", step="think", epoch=1):
        raise RuntimeError
    whats = [(e.key, e.what) for e in effects.load(file)]
    assert whats == [("k1", "began"), ("k1", "ended"), ("k2", "began"), ("k2", "failed")]
    monkeypatch.delenv(effects.VARIABLE)
    with effects.recorded(run="r", key="k3", step="think", epoch=1):
        pass
    assert len(effects.load(file)) == 4
    assert effects.load(tmp_path / "none") == []
