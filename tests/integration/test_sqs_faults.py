"""The server stops, freezes and comes back; credentials run out; SQS fails in part: one broker object sees it through."""

import asyncio
import json

import pytest

pytest.importorskip("aiobotocore")

from aiohttp import web

from agentq.brokers.sqs import SQSBroker, client
from agentq.errors import BrokerError, BrokerUnavailable
from agentq.testing.wait import wait_until
from tests.helpers import elasticmq
from tests.helpers.processes import free_port
from tests.helpers.sqs import message, new_app, nowhere, opened, sent, url


@pytest.fixture(scope="module")
def own():
    """A server of this file's own."""
    if elasticmq.GIVEN:
        pytest.skip("the server given by AGENTQ_TEST_SQS is not ours to stop")
    with elasticmq.own() as process:
        yield process


@pytest.fixture
def mortal():
    """A server of one test's own, which keeps its messages when it is started again."""
    if elasticmq.GIVEN:
        pytest.skip("the server given by AGENTQ_TEST_SQS is not ours to stop")
    with elasticmq.own(durable=True) as process:
        yield process


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    """A server that is silent for a second is not there."""
    monkeypatch.setattr(client, "_READ_S", 1)
    monkeypatch.setattr(client, "_CONNECT_S", 1)
    monkeypatch.setattr(client, "_TRIES", 2)


async def until_received(inbox) -> tuple[list, list[BrokerError]]:
    """The next deliveries, and the errors on the way."""
    errors: list[BrokerError] = []
    while True:
        try:
            got = await inbox.receive(10)
        except BrokerError as error:
            errors.append(error)
        else:
            if got:
                return list(got), errors


async def until_unavailable(inbox) -> None:
    """A poll may be under way that ends well."""
    with pytest.raises(BrokerUnavailable):  # noqa: PT012 - it is the loop that ends so
        while True:
            await inbox.receive(1)


async def test_a_frozen_server_is_unavailable_and_all_goes_on_when_it_answers(own):
    async with opened(elasticmq.endpoint(own), "work") as broker, broker.inbox(["work"], nowhere) as inbox:
        await sent(broker, [message(body='"before"')])
        [before] = await inbox.receive(1)
        own.pause()
        try:
            [answer] = await broker.send([message(body='"during"')])
            assert isinstance(answer, BrokerUnavailable)
            [backlog] = await broker.backlog(["work"])
            assert backlog.error
            with pytest.raises(BrokerUnavailable):
                await inbox.acknowledge([before])
            await until_unavailable(inbox)
        finally:
            own.resume()
        await inbox.acknowledge([before])
        await sent(broker, [message(body='"after"')])
        seen = set()
        while b'"after"' not in seen:
            got, _ = await until_received(inbox)
            seen |= {each.body for each in got}
            await inbox.acknowledge(got)
        assert b'"before"' not in seen


async def test_a_server_that_died_is_found_again_with_all_that_was_sent(mortal):
    async with opened(elasticmq.endpoint(mortal), "work") as broker:
        await sent(broker, [message(body=f'"{n}"') for n in range(15)])
        async with broker.inbox(["work"], nowhere) as inbox:
            mortal.kill()
            [answer] = await broker.send([message(body='"lost to the caller"')])
            assert isinstance(answer, BrokerUnavailable)
            await until_unavailable(inbox)
            await asyncio.to_thread(mortal.start)

            async def accepted() -> bool:
                return await broker.send([message(body='"15"')]) == [None]

            await wait_until("the server has its queues again", accepted)
            seen: set[bytes] = set()
            while len(seen) < 16:
                got, _ = await until_received(inbox)
                seen |= {each.body for each in got}
                await inbox.acknowledge(got)
        assert seen == {f'"{n}"'.encode() for n in range(16)}


async def test_an_inbox_is_left_while_the_server_is_frozen(own):
    async with opened(elasticmq.endpoint(own), "work") as broker:
        async with broker.inbox(["work"], nowhere) as inbox:
            receiving = asyncio.create_task(inbox.receive(1))
            await asyncio.sleep(0)
            own.pause()
            receiving.cancel()
        own.resume()
        await sent(broker, [message()])


class Cloud:
    """Answers like SQS, except where a test says otherwise: (status, body) in the order of the requests of an operation."""

    def __init__(self) -> None:
        self.answers: dict[str, list[tuple[int, object]]] = {}
        self.seen: list[tuple[str, dict]] = []
        self.hanging: set[str] = set()
        """Operations that are not answered before all are free."""
        self.free = asyncio.Event()

    async def handle(self, request: web.Request) -> web.Response:
        operation = request.headers["X-Amz-Target"].rpartition(".")[2]
        asked = json.loads(await request.read())
        self.seen.append((operation, asked))
        if operation in self.hanging:
            await self.free.wait()
        if waiting := self.answers.get(operation):
            status, body = waiting.pop(0)
            text = body if isinstance(body, str) else json.dumps(body)
            return web.Response(status=status, text=text, content_type="application/x-amz-json-1.0")
        if operation == "GetQueueUrl":
            return web.json_response({"QueueUrl": f"http://{request.host}/1/{asked['QueueName']}"})
        entries = [entry["Id"] for entry in asked.get("Entries", ())]
        return web.json_response({"Successful": [{"Id": each, "MessageId": each, "MD5OfMessageBody": ""} for each in entries]})


@pytest.fixture
async def cloud():
    """A stand-in for AWS, and a broker that speaks to it."""
    answering = Cloud()
    app = web.Application()
    app.router.add_post("/{any:.*}", answering.handle)
    runner = web.AppRunner(app)
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    async with SQSBroker(url(f"http://127.0.0.1:{port}"), app=new_app()) as broker:
        yield answering, broker
    await runner.cleanup()


def refusal(code: str) -> dict:
    return {"__type": f"com.amazonaws.sqs#{code}", "message": "said so"}


@pytest.fixture
def sessions(monkeypatch):
    """Counts the sessions that are made."""
    made = []

    def get_session():
        made.append(client_session())
        return made[-1]

    client_session = client.get_session
    monkeypatch.setattr(client, "get_session", get_session)
    return made


async def test_credentials_that_ran_out_are_fetched_anew(cloud, sessions, monkeypatch):
    monkeypatch.setattr(client, "_LEAST_AGE_S", 0)
    answering, broker = cloud
    await sent(broker, [message()])
    assert len(sessions) == 1
    answering.answers["SendMessageBatch"] = [(403, refusal("ExpiredToken"))]
    await sent(broker, [message()])
    assert len(sessions) == 2
    answering.answers["SendMessageBatch"] = [(403, refusal("ExpiredToken"))] * 2
    [answer] = await broker.send([message()])
    assert isinstance(answer, BrokerUnavailable)
    await sent(broker, [message()])


async def test_sessions_are_not_made_by_the_dozen_where_new_ones_are_refused_as_well(cloud, sessions):
    answering, broker = cloud
    answering.answers["SendMessageBatch"] = [(403, refusal("ExpiredToken"))] * 10
    answers = [answer for _ in range(10) for answer in await broker.send([message()])]
    assert all(isinstance(answer, BrokerUnavailable) for answer in answers)
    assert len(sessions) == 1


async def test_throttling_is_waited_for(cloud):
    answering, broker = cloud
    answering.answers["SendMessageBatch"] = [(400, refusal("ThrottlingException"))]
    await sent(broker, [message()])


async def test_a_gateway_that_answers_in_html_is_unavailable(cloud):
    answering, broker = cloud
    answering.answers["SendMessageBatch"] = [(502, "<html>Bad Gateway</html>")] * 2
    [answer] = await broker.send([message()])
    assert isinstance(answer, BrokerUnavailable)


async def test_what_failed_of_a_batch_is_sent_again_and_nothing_else(cloud):
    answering, broker = cloud
    partly = {
        "Successful": [{"Id": "0", "MessageId": "0", "MD5OfMessageBody": ""}],
        "Failed": [
            {"Id": "1", "SenderFault": False, "Code": "InternalError"},
            {"Id": "2", "SenderFault": True, "Code": "InvalidMessageContents", "Message": "no"},
        ],
    }
    answering.answers["SendMessageBatch"] = [(200, partly)]
    first, second, third = await broker.send([message(body=f'"{n}"') for n in range(3)])
    assert (first, second) == (None, None)
    assert "InvalidMessageContents" in str(third)
    sends = [
        [entry["MessageBody"] for entry in asked["Entries"]] for name, asked in answering.seen if name == "SendMessageBatch"
    ]
    assert sends == [['"0"', '"1"', '"2"'], ['"1"']]


async def test_access_denied_says_what_prints_the_policy(cloud):
    answering, broker = cloud
    answering.answers["ReceiveMessage"] = [(403, refusal("AccessDeniedException"))]
    async with broker.inbox(["work"], nowhere) as inbox:
        with pytest.raises(BrokerError, match="agentq doctor --iam") as caught:
            await inbox.receive(1)
    assert not isinstance(caught.value, BrokerUnavailable)


async def test_polls_hold_up_nothing_else(cloud):
    answering, broker = cloud
    answering.hanging = {"ReceiveMessage"}
    queues = [f"q{number}" for number in range(80)]  # more than there are connections for the rest
    async with broker.inbox(queues, nowhere) as inbox:
        receiving = asyncio.create_task(inbox.receive(100))
        await wait_until("all polls hang", lambda: sum(name == "ReceiveMessage" for name, _ in answering.seen) == 80)
        await sent(broker, [message(queue) for queue in queues])
        assert not receiving.done()
        answering.free.set()
        await receiving
