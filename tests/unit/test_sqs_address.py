"""The url of an SQS broker, and the names of its queues."""

import pytest

pytest.importorskip("aiobotocore")

from agentq.brokers import open_broker
from agentq.brokers.sqs.address import address, dead_name
from agentq.errors import InvalidArgument


def test_a_region_is_all_it_needs():
    read = address("sqs://eu-central-1", app="hello")
    assert read.name("work") == "hello-work"
    assert (read.wait_s, read.linger_s, read.endpoint, read.bucket) == (20, 0.005, None, None)
    assert read.where == "sqs://eu-central-1/hello-{queue}"


def test_every_parameter_is_read():
    read = address(
        "sqs://us-east-1/x-{queue}.fifo?endpoint=http://127.0.0.1:9324/&wait=3&linger=20ms&max_bytes=262144"
        "&payloads=s3://bucket/some/place/&payloads_endpoint=http://127.0.0.1:9000",
        app="hello",
    )
    assert read.name("work") == "x-work.fifo"
    assert (read.endpoint, read.wait_s, read.linger_s, read.max_bytes) == ("http://127.0.0.1:9324", 3, 0.02, 262144)
    assert (read.bucket, read.prefix, read.payloads_endpoint) == ("bucket", "some/place/", "http://127.0.0.1:9000")


def test_encoded_braces_are_braces():
    assert address("sqs://us-east-1/%7Bqueue%7D", app="hello").name("work") == "work"


@pytest.mark.parametrize(
    ("url", "field"),
    [
        ("sqs://", "region"),
        ("sqs://EU west", "region"),
        ("sqs://us-east-1/{tenant}", "template"),
        ("sqs://us-east-1/a/b", "template"),
        ("sqs://us-east-1?wait=21", "wait"),
        ("sqs://us-east-1?wait=0", "wait"),
        ("sqs://us-east-1?wait=x", "wait"),
        ("sqs://us-east-1?linger=2s", "linger"),
        ("sqs://us-east-1?linger=soon", "linger"),
        ("sqs://us-east-1?max_bytes=9999999", "max_bytes"),
        ("sqs://us-east-1?endpoint=127.0.0.1", "endpoint"),
        ("sqs://us-east-1?payloads=bucket", "payloads"),
        ("sqs://us-east-1?vait=1", "broker"),
    ],
)
def test_what_does_not_fit_is_named_with_a_remedy(url, field):
    with pytest.raises(InvalidArgument, match=field) as caught:
        address(url, app="hello")
    assert caught.value.remedy


@pytest.mark.parametrize("url", ["sqs://AKIA:sesame@us-east-1", "sqs://us-east-1?endpoint=http://me:sesame@host"])
def test_credentials_in_the_url_are_refused_and_not_shown(url):
    with pytest.raises(InvalidArgument) as caught:
        address(url, app="hello")
    assert "sesame" not in str(caught.value)


@pytest.mark.parametrize("queue", ["a.b", "ä", "a b", "x" * 80])
def test_a_queue_that_sqs_cannot_name_is_refused(queue):
    with pytest.raises(InvalidArgument, match="80 letters"):
        address("sqs://us-east-1", app="hello").name(queue)


def test_the_suffix_decides_what_a_queue_can_do():
    broker = open_broker("sqs://us-east-1", app="hello")
    assert broker.place("mail") == "hello-mail (SQS us-east-1)"
    standard, fifo = broker.capabilities("work"), broker.capabilities("orders.fifo")
    assert (standard.ordering, standard.max_delay_s, standard.partitioned) == (False, 900.0, False)
    assert (fifo.ordering, fifo.max_delay_s) == (True, 0.0)
    assert 1_048_000 < standard.max_bytes <= 1_048_576


def test_dead_letter_queues_have_the_kind_of_their_queue():
    assert dead_name("hello-work") == "hello-work-dead"
    assert dead_name("hello-orders.fifo") == "hello-orders-dead.fifo"
