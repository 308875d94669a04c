"""Batches are filled, bounded, and answered entry by entry."""

import asyncio
from collections import Counter

import pytest

pytest.importorskip("aiobotocore")

from agentq.brokers.sqs import batches
from agentq.brokers.sqs.address import MAX_BATCH_BYTES
from agentq.brokers.sqs.batches import Batcher, Entry
from agentq.brokers.sqs.errors import Denied, Refused
from agentq.errors import BrokerUnavailable


class Server:
    """Takes batches; fails entries as it is told, by what they carry."""

    def __init__(self) -> None:
        self.requests: list[list[str]] = []
        self.failures: dict[str, list[dict]] = {}
        self.raises: list[Exception] = []
        self.open = asyncio.Event()
        self.open.set()

    async def __call__(self, entries):
        self.requests.append([entry["Body"] for entry in entries])
        await self.open.wait()
        await asyncio.sleep(0)
        if self.raises:
            raise self.raises.pop(0)
        answer = {"Successful": [], "Failed": []}
        for entry in entries:
            if waiting := self.failures.get(entry["Body"]):
                answer["Failed"].append({"Id": entry["Id"], **waiting.pop(0)})
            else:
                answer["Successful"].append({"Id": entry["Id"]})
        return answer


def entry(body: object, **more) -> Entry:
    return Entry(fields={"Body": str(body)}, **more)


async def submit(batcher: Batcher, entries) -> list[BaseException | None]:
    return [await each.answer() for each in batcher.add(list(entries))]


OWN_FAULT = {"SenderFault": False, "Code": "InternalError"}
NO_LINGER_NEEDED_S = 60.0  # a test that waits for it fails by its own timeout


async def test_full_batches_go_at_once():
    server = Server()
    assert await submit(Batcher(server, "q", linger_s=NO_LINGER_NEEDED_S), (entry(n) for n in range(30))) == [None] * 30
    assert [len(request) for request in server.requests] == [10, 10, 10]


async def test_concurrent_callers_share_a_request():
    server = Server()
    batcher = Batcher(server, "q", linger_s=0.005)
    await asyncio.gather(*(submit(batcher, [entry(n)]) for n in range(7)))
    assert [len(request) for request in server.requests] == [7]


async def test_a_batch_is_full_by_bytes_too():
    server = Server()
    half = MAX_BATCH_BYTES // 2
    batcher = Batcher(server, "q", linger_s=0.005)
    await submit(batcher, [entry(1, size=half), entry(2, size=half), entry(3, size=half), entry(4, size=half + 1)])
    assert server.requests == [["1", "2"], ["3"], ["4"]]


async def test_without_a_linger_nothing_waits():
    server = Server()
    assert await submit(Batcher(server, "q", linger_s=0), [entry(1)]) == [None]


async def test_an_entry_that_the_server_failed_by_its_own_fault_is_tried_again_alone():
    server = Server()
    server.failures["3"] = [OWN_FAULT, OWN_FAULT]
    assert await submit(Batcher(server, "q", linger_s=0.001), (entry(n) for n in range(5))) == [None] * 5
    assert server.requests == [["0", "1", "2", "3", "4"], ["3"], ["3"]]


async def test_it_is_answered_as_unavailable_when_that_does_not_end(monkeypatch):
    monkeypatch.setattr(batches, "_BACKOFF_S", 0.001)
    server = Server()
    server.failures["1"] = [OWN_FAULT] * 100
    first, second = await submit(Batcher(server, "q", linger_s=0.001), [entry(0), entry(1)])
    assert first is None
    assert isinstance(second, BrokerUnavailable)
    assert len(server.requests) == batches.TRIES


async def test_an_entry_at_fault_is_answered_and_not_repeated():
    server = Server()
    server.failures["1"] = [{"SenderFault": True, "Code": "InvalidMessageContents", "Message": "no"}]
    answers = await submit(Batcher(server, "q", linger_s=0.001), (entry(n) for n in range(3)))
    assert isinstance(answers[1], Refused)
    assert answers[1].code == "InvalidMessageContents"
    assert [answers[0], answers[2], len(server.requests)] == [None, None, 1]


async def test_an_entry_that_the_answer_forgets_is_tried_again():
    server = Server()
    forgotten = [True]

    async def request(entries):
        answer = await server(entries)
        if forgotten:
            answer["Successful"].pop(forgotten.pop() - 1)
        return answer

    assert await submit(Batcher(request, "q", linger_s=0.001), [entry(0), entry(1)]) == [None, None]
    assert server.requests == [["0", "1"], ["0"]]


async def test_a_request_refused_as_a_whole_is_taken_apart():
    server = Server()
    server.raises = [Refused("too long", "BatchRequestTooLong"), Refused("too long", "BatchRequestTooLong")]
    answers = await submit(Batcher(server, "q", linger_s=0.001), (entry(n) for n in range(3)))
    assert sorted(map(str, answers)) == ["None", "None", "too long"]
    assert [len(request) for request in server.requests] == [3, 1, 1, 1]


@pytest.mark.parametrize("error", [Denied("no", "AccessDenied"), BrokerUnavailable("later")])
async def test_what_concerns_all_entries_is_answered_to_all(error):
    server = Server()
    server.raises = [error]
    assert await submit(Batcher(server, "q", linger_s=0.001), (entry(n) for n in range(3))) == [error] * 3
    assert len(server.requests) == 1


async def test_one_of_a_lane_is_under_way_at_a_time_and_others_pass():
    server = Server()
    server.failures["a0"] = [OWN_FAULT]
    batcher = Batcher(server, "q", linger_s=0.001)
    entries = [entry(f"{lane}{n}", lane=lane) for lane in "abc" for n in range(3)] + [entry("free")]
    assert await submit(batcher, entries) == [None] * 10
    sent = [body for request in server.requests for body in request]
    assert [body for body in sent if body.startswith("a")] == ["a0", "a0", "a1", "a2"]
    for request in server.requests:
        assert max(Counter(body[0] for body in request).values()) == 1


async def test_requests_under_way_are_bounded_and_what_waits_shares_them():
    server = Server()
    server.open.clear()
    batcher = Batcher(server, "q", linger_s=0)
    for n in range(batches.PARALLEL + 25):
        batcher.add([entry(n)])
        await asyncio.sleep(0)
    assert len(server.requests) == batches.PARALLEL
    server.open.set()
    await batcher.close()
    assert len(server.requests) == batches.PARALLEL + 3


async def test_a_caller_that_leaves_takes_nothing_back():
    server = Server()
    batcher = Batcher(server, "q", linger_s=0.001)
    task = asyncio.create_task(submit(batcher, [entry(1)]))
    await asyncio.sleep(0)
    task.cancel()
    await batcher.close()
    assert server.requests == [["1"]]
    assert task.cancelled()


async def test_closing_sends_what_lingers_and_what_is_between_two_tries():
    server = Server()
    server.failures["1"] = [OWN_FAULT]
    batcher = Batcher(server, "q", linger_s=NO_LINGER_NEEDED_S)
    entries = batcher.add([entry(1), entry(2)])
    await batcher.close()
    assert [each.done.result() for each in entries] == [None, None]


async def test_a_request_that_breaks_answers_its_entries():
    async def request(entries):
        raise asyncio.CancelledError

    batcher = Batcher(request, "q", linger_s=0)
    [answer] = await submit(batcher, [entry(1)])
    assert isinstance(answer, BrokerUnavailable)
