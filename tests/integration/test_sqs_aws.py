"""Against AWS's own shapes, limits and errors, as moto knows them: setup, group names, payloads in S3."""

import hashlib
import json

import pytest

pytest.importorskip("aiobotocore")

from agentq.brokers.sqs import SQSBroker
from agentq.errors import BrokerError, BrokerUnavailable, NotFound
from tests.helpers.sqs import message, new_app, nowhere, opened, sent, url


@pytest.fixture(autouse=True)
def _someone(monkeypatch):
    """Credentials by the default chain, and no look for others at a cloud's address."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


async def attributes(broker, name: str) -> dict[str, str]:
    answer = await broker._clients.ask("get_queue_attributes", name, AttributeNames=["All"])
    return answer["Attributes"]


async def set_attributes(broker, name: str, **values: str) -> None:
    await broker._clients.ask("set_queue_attributes", name, Attributes=values)


async def test_doctor_makes_what_is_missing_and_then_finds_it_well(moto_url):
    app = new_app()
    async with SQSBroker(url(moto_url), app=app) as broker:
        found = await broker.inspect(["work", "o.fifo"])
        assert [finding.ok for finding in found] == [False] * 4
        assert all("agentq doctor --fix" in finding.text for finding in found)
        made = await broker.inspect(["work", "o.fifo"], fix=True)
        assert all(finding.ok and finding.fixed for finding in made)
        well = await broker.inspect(["work", "o.fifo"])
        assert [(finding.what, finding.ok) for finding in well] == [(f"{app}-work", True), (f"{app}-o.fifo", True)]
        work, fifo, dead = [await attributes(broker, f"{app}-{name}") for name in ("work", "o.fifo", "o-dead.fifo")]
        assert (work["VisibilityTimeout"], work["MessageRetentionPeriod"], work["MaximumMessageSize"]) == (
            *("60", "1209600", "1048576"),
        )
        assert json.loads(work["RedrivePolicy"])["maxReceiveCount"] == 100
        assert (fifo["FifoQueue"], fifo["FifoThroughputLimit"]) == ("true", "perMessageGroupId")
        assert (dead["FifoQueue"], dead["MessageRetentionPeriod"]) == ("true", "1209600")


async def test_doctor_says_what_is_not_well_and_puts_it_right_without_touching_the_rest(moto_url):
    async with opened(moto_url, "work") as broker:
        name = broker._address.name("work")
        arn = (await attributes(broker, f"{name}-dead"))["QueueArn"]
        policy = json.dumps({"deadLetterTargetArn": arn, "maxReceiveCount": 3})
        await set_attributes(
            broker, name, VisibilityTimeout="5", MaximumMessageSize="2048", RedrivePolicy=policy, DelaySeconds="7"
        )
        await set_attributes(broker, f"{name}-dead", MessageRetentionPeriod="3600")
        found = await broker.inspect(["work"])
        assert not any(finding.ok for finding in found)
        for word in ("VisibilityTimeout is 5 s", "MaximumMessageSize is 2048", "maxReceiveCount is 3", "dead letters vanish"):
            assert any(word in finding.text for finding in found), word
        assert all(finding.fixed for finding in await broker.inspect(["work"], fix=True))
        assert [finding.ok for finding in await broker.inspect(["work"])] == [True]
        now = await attributes(broker, name)
        assert (now["VisibilityTimeout"], now["DelaySeconds"]) == ("60", "7")


async def test_a_dead_letter_queue_of_the_users_is_used(moto_url):
    async with opened(moto_url, "work") as broker:
        own = f"{broker._address.app}-letters"
        await broker._clients.call("create_queue", own, QueueName=own, Attributes={"MessageRetentionPeriod": "1209600"})
        arn = (await attributes(broker, own))["QueueArn"]
        policy = json.dumps({"deadLetterTargetArn": arn, "maxReceiveCount": "500"})
        await set_attributes(broker, broker._address.name("work"), RedrivePolicy=policy)
        [finding] = await broker.inspect(["work"])
        assert own in finding.text
        await broker._clients.ask("send_message", own, MessageBody='"letter"')
        assert [each.dead for each in await broker.backlog(["work"])] == [1]
        async with broker.inbox(["work"], nowhere, dead=True) as inbox:
            [letter] = await inbox.receive(5)
            assert letter.body == b'"letter"'
            await inbox.acknowledge([letter])


async def test_a_queue_with_a_smaller_limit_refuses_the_large_and_takes_the_rest(moto_url):
    async with opened(moto_url, "work") as broker:
        await set_attributes(broker, broker._address.name("work"), MaximumMessageSize="1024")
        small, large, other = await broker.send([message(), message(body=f'"{"x" * 2000}"'), message()])
        assert (small, other) == (None, None)
        assert isinstance(large, BrokerError)
        assert not isinstance(large, BrokerUnavailable)


async def test_tenants_and_keys_of_any_letters_arrive(moto_url):
    async with opened(moto_url, "work", "o.fifo") as broker:
        await sent(broker, [message(group=group, attributes={"tenant": group}) for group in ("acme", "ä ö", "x" * 200)])
        await sent(broker, [message("o.fifo", group=group, ordered=True) for group in ("key", "ä ö", "x" * 200)])
        async with broker.inbox(["work", "o.fifo"], nowhere) as inbox:
            found = []
            while len(found) < 6:
                found += (got := await inbox.receive(10))
                await inbox.acknowledge(got)
        assert {each.attributes.get("tenant") for each in found} == {None, "acme", "ä ö", "x" * 200}


@pytest.fixture
async def keeping(moto_url):
    """A broker that keeps large arguments in S3."""
    bucket = f"bucket-{new_app()}"
    where = {"payloads": f"s3://{bucket}/some/place", "payloads_endpoint": moto_url}
    async with SQSBroker(url(moto_url, **where), app=new_app()) as broker:
        await broker._clients.call("create_bucket", bucket, kind="s3", Bucket=bucket)
        yield broker, bucket


async def test_a_parcel_is_kept_once_under_the_name_of_its_content(keeping):
    broker, bucket = keeping
    data = b'{"large":"' + b"x" * 2_000_000 + b'"}'
    sha = hashlib.sha256(data).hexdigest()
    place = await broker.parcels.put(sha, data)
    assert place == f"s3://{bucket}/some/place/{sha[:2]}/{sha}"
    assert await broker.parcels.put(sha, data) == place
    assert await broker.parcels.get(place) == data


async def test_a_hostile_reference_is_refused_without_a_request(keeping):
    broker, bucket = keeping
    sha = "a" * 64
    before = broker.requests
    for place in (
        f"s3://other/some/place/aa/{sha}",
        f"s3://{bucket}/some/secret/aa/{sha}",
        f"s3://{bucket}/some/place/../secret/aa/{sha}",
        f"s3://{bucket}/some/place/aa/{sha}/../../../secret",
        f"s3://{bucket}/some/place/ab/{sha}",
        f"s3://{bucket}/some/place/aa/{sha}\n",
        f"s3://{bucket}.evil/some/place/aa/{sha}",
        f"https://{bucket}/some/place/aa/{sha}",
        "file:///etc/passwd",
        "store",
        "",
    ):
        with pytest.raises(BrokerError, match="no payload of ours") as caught:
            await broker.parcels.get(place)
        assert not isinstance(caught.value, BrokerUnavailable)
    assert broker.requests == before


async def test_a_parcel_that_is_gone_is_not_found(keeping):
    broker, bucket = keeping
    with pytest.raises(NotFound, match="submit the run again"):
        await broker.parcels.get(f"s3://{bucket}/some/place/aa/{'a' * 64}")


async def test_a_bucket_that_cannot_be_used_is_reported(keeping, moto_url):
    broker, _ = keeping
    assert [finding.ok for finding in await broker.inspect([])] == [True]
    other = {"payloads": "s3://nobody-made-this/x", "payloads_endpoint": moto_url}
    async with SQSBroker(url(moto_url, **other), app=new_app()) as lost:
        [finding] = await lost.inspect([], fix=True)
        assert not finding.ok
        with pytest.raises(BrokerError, match="NoSuchBucket"):
            await lost.parcels.put("a" * 64, b"{}")


async def test_without_a_bucket_there_are_no_parcels(moto_url):
    async with SQSBroker(url(moto_url), app=new_app()) as broker:
        assert broker.parcels is None


async def test_the_policy_of_a_broker_names_its_bucket(keeping):
    broker, bucket = keeping
    assert f"arn:aws:s3:::{bucket}/some/place/*" in json.dumps(broker.policy(["work"]))
