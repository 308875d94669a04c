import pytest

from agentq import settings
from agentq.errors import InvalidArgument
from agentq.settings import Settings, StoreSettings, WorkerSettings, load, redacted


def test_an_empty_environment_gives_the_defaults() -> None:
    assert load({}) == Settings()
    assert load({"AGENTQ_STORE": "", "PATH": "/bin"}) == Settings(), "an empty variable counts as not set"


def test_the_process_s_own_environment_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTQ_POOL", "from-outside")
    assert load().worker.pool == "from-outside"


@pytest.mark.parametrize(
    ("name", "text", "group", "field", "value"),
    [
        ("STORE", "memory:", "store", "url", "memory:"),
        ("RETENTION", "7d", "store", "retention_s", 604800.0),
        ("BROKER", "sqs://q", "broker", "url", "sqs://q"),
        ("CONCURRENCY", "32", "worker", "concurrency", 32),
        ("QUEUES", "urgent=3, reports", "worker", "queues", (("urgent", 3), ("reports", 1))),
        ("LEASE", "2m", "worker", "lease_s", 120.0),
        ("POLL", "250ms", "worker", "poll_s", 0.25),
        ("DRAIN", "1h", "worker", "drain_s", 3600.0),
        ("HEALTH_PORT", "8080", "worker", "health_port", 8080),
        ("MAX_RUNS", "1000", "worker", "max_runs", 1000),
        ("MAX_MEMORY", "80%", "worker", "max_memory", 0.8),
        ("ADMIT_MEMORY", "none", "worker", "admit_memory", None),
        ("POD", "pool-1", "worker", "pod", "pool-1"),
        ("LOG_LEVEL", "DEBUG", "log", "level", "debug"),
    ],
)
def test_a_variable_sets_its_field(name: str, text: str, group: str, field: str, value: object) -> None:
    loaded = load({f"AGENTQ_{name}": text})
    assert getattr(getattr(loaded, group), field) == value
    assert loaded.warnings == ()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("CONCURRENCY", "many"),
        ("CONCURRENCY", "0"),
        ("LEASE", "soon"),
        ("LEASE", "3"),
        ("POLL", "0"),
        ("QUEUES", "urgent=high"),
        ("QUEUES", "urgent=0"),
        ("MAX_MEMORY", "2"),
        ("HEALTH_PORT", "70000"),
        ("LOG_FORMAT", "xml"),
    ],
)
def test_a_value_that_does_not_fit_is_refused_by_the_name_of_its_variable(name: str, text: str) -> None:
    with pytest.raises(InvalidArgument, match=f"AGENTQ_{name}.*{text}"):
        load({f"AGENTQ_{name}": text})


def test_a_variable_that_means_nothing_is_told() -> None:
    (warning,) = load({"AGENTQ_CONCURENCY": "8"}).warnings
    assert "AGENTQ_CONCURENCY" in warning


def test_what_kubernetes_sets_for_a_service_of_this_name_is_neither_read_nor_told() -> None:
    links = {
        "AGENTQ_SERVICE_HOST": "10.0.0.1",
        "AGENTQ_PORT": "tcp://10.0.0.1:80",
        "AGENTQ_PORT_80_TCP_ADDR": "10.0.0.1",
        "AGENTQ_HEALTH_PORT": "tcp://10.0.0.1:80",
        "AGENTQ_WORKER_SERVICE_PORT_HTTP": "80",
    }
    assert load(links) == Settings()


def test_the_fence_lies_between_heartbeat_and_lease() -> None:
    for odd in ({"heartbeat_s": 20.0}, {"fence_s": 30.0}, {"lease_s": 20.0}):
        with pytest.raises(InvalidArgument, match="heartbeat_s, fence_s, lease_s"):
            WorkerSettings(**odd)


def test_only_a_store_that_somebody_chose_is_explicit() -> None:
    assert not load({}).store.explicit
    assert load({"AGENTQ_STORE": "sqlite:./mine.db"}).store.explicit


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("sqlite:./agentq.db", "sqlite:./agentq.db"),
        ("sqlite:////var/a.db", "sqlite:////var/a.db"),
        ("postgresql://me:hunter2@db:5432/q", "postgresql://me:***@db:5432/q"),
        ("postgresql://me@db/q?sslmode=require", "postgresql://me@db/q?sslmode=require"),
        ("postgresql://db/q?user=me&password=hunter2&x=1", "postgresql://db/q?user=me&password=***&x=1"),
        ("redis://:hunter2@h", "redis://:***@h"),
        ("postgresql://me:hunter2@[broken", "***"),
        ("postgresql://me:hunter2/x@db/q", "postgresql://***"),
        ("kafka://me:hunter2?x@h", "kafka://***"),
        ("sqlite:////var/me@here/a.db", "sqlite:////var/me@here/a.db"),
    ],
)
def test_passwords_are_not_shown(url: str, shown: str) -> None:
    assert redacted(url) == shown
    assert "hunter2" not in repr(load({"AGENTQ_STORE": url, "AGENTQ_BROKER": url}))


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        StoreSettings().url = "memory:"  # type: ignore[misc]


@pytest.mark.parametrize(("text", "value"), [("30", 30.0), ("1.5s", 1.5), ("500ms", 0.5), ("2 m", 120.0), ("1d", 86400.0)])
def test_durations(text: str, value: float) -> None:
    assert settings.seconds(text) == value
