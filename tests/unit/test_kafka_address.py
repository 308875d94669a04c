"""What a kafka:// url says, and that it never says its password again."""

import pytest

from agentq.brokers.kafka.address import address
from agentq.errors import InvalidArgument


def test_a_plain_url() -> None:
    read = address("kafka://h1", app="shop")
    assert (read.servers, read.security, read.group) == (("h1:9092",), "PLAINTEXT", "agentq.shop")
    assert read.topic("orders") == "shop.orders"
    assert read.where == "kafka://h1:9092"


def test_several_servers_and_a_template() -> None:
    read = address("kafka://h1:9093,[::1]:9094,h2/x-{queue}?group=g-{app}&partitions=3", app="shop")
    assert read.servers == ("h1:9093", "[::1]:9094", "h2:9092")
    assert (read.topic("orders"), read.group, read.partitions) == ("x-orders", "g-shop", 3)
    assert read.where == "kafka://h1:9093,[::1]:9094,h2:9092/x-{queue}"


def test_queues_that_share_a_topic() -> None:
    read = address("kafka://h1/all-of-{app}", app="shop")
    assert read.shared
    assert read.topics(["a", "b"]) == {"all-of-shop": "a"}


def test_a_user_means_encryption() -> None:
    read = address("kafka://al%40ice:s%2Fecret@h1", app="shop")
    assert (read.security, read.mechanism, read.user, read.password) == ("SASL_SSL", "PLAIN", "al@ice", "s/ecret")


def test_scram_without_encryption_must_be_said() -> None:
    read = address("kafka://u:p@h1?security=sasl_plaintext&mechanism=scram-sha-512", app="shop")
    assert (read.security, read.mechanism) == ("SASL_PLAINTEXT", "SCRAM-SHA-512")


def test_a_token_means_oauthbearer() -> None:
    read = address("kafka://h1?token=package.module:function", app="shop")
    assert (read.security, read.mechanism, read.token) == ("SASL_SSL", "OAUTHBEARER", "package.module:function")


def test_certificates_mean_ssl() -> None:
    read = address("kafka://h1?ca=/ca.pem&cert=/c.pem&key=/k.pem", app="shop")
    assert (read.security, read.ca, read.cert, read.key) == ("SSL", "/ca.pem", "/c.pem", "/k.pem")


def test_times_and_sizes() -> None:
    read = address("kafka://h1?session=10s&poll_interval=1m&linger=2ms&max_bytes=2000&replication=3", app="shop")
    assert (read.session_s, read.poll_interval_s, read.linger_s, read.max_bytes, read.replication) == (10, 60, 0.002, 2000, 3)


@pytest.mark.parametrize(
    ("url", "named"),
    [
        ("kafka://", "at least one server"),
        ("kafka://u:hidden@", "at least one server"),
        ("kafka://u:hidden@h1:x", "host:port"),
        ("kafka://u:hidden@h1?colour=red", "parameters are"),
        ("kafka://u:hidden@h1?security=TLS", "use one of PLAINTEXT"),
        ("kafka://u:hidden@h1?mechanism=MD5", "use one of PLAIN"),
        ("kafka://u:hidden@h1?security=PLAINTEXT", "SASL_SSL"),
        ("kafka://u@h1", "user:password"),
        ("kafka://h1?mechanism=OAUTHBEARER", "`token`, package.module:function"),
        ("kafka://h1?token=nonsense", "package.module:function"),
        ("kafka://h1?key=/k.pem", "cert="),
        ("kafka://h1?security=PLAINTEXT&ca=/ca.pem", "SASL_SSL"),
        ("kafka://h1?partitions=0", "from 1"),
        ("kafka://h1?session=soon", "give seconds"),
        ("kafka://h1/{topic}", "{app} and {queue}"),
        ("kafka://h1/{queue", "{app} and {queue}"),
    ],
)
def test_what_does_not_fit_is_named_without_the_password(url: str, named: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        address(url, app="shop")
    assert named in str(caught.value)
    assert "hidden" not in str(caught.value)


def test_a_queue_that_kafka_cannot_name() -> None:
    with pytest.raises(InvalidArgument, match="at most 249"):
        address("kafka://h1", app="shop").topic("a b")


def test_the_password_is_never_shown() -> None:
    read = address("kafka://alice:hidden@h1/x", app="shop")
    assert "hidden" not in repr(read) + str(read) + read.where
