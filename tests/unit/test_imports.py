"""``import agentq`` is light: a producer in a web application pays for nothing that it does not use."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HEAVY = {"aiohttp", "asyncpg", "click", "grpc", "prometheus_client", "pydantic", "rich", "structlog"}


def loaded_by(statement: str) -> set[str]:
    """Top-level modules that a fresh interpreter has loaded after ``statement``."""
    code = f"import json, sys\n{statement}\nprint(json.dumps(sorted({{name.partition('.')[0] for name in sys.modules}})))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=60, cwd=ROOT)
    return set(json.loads(done.stdout))


def test_import_agentq_pulls_in_nothing_heavy():
    assert not loaded_by("import agentq") & HEAVY


def test_a_declared_task_pulls_in_nothing_heavy():
    declare = (
        "from agentq import AgentQ, Context\naq = AgentQ('x')\n@aq.task\nasync def t(ctx: Context, a: str) -> str: return a"
    )
    assert not loaded_by(declare) & HEAVY


@pytest.mark.parametrize(
    ("missing", "url"), [("aiohttp", "sqs://eu-west-1"), ("botocore", "sqs://eu-west-1"), ("aiokafka", "kafka://h")]
)
def test_a_broker_whose_extra_is_not_installed_says_what_to_install(missing: str, url: str) -> None:
    code = (
        f"import sys\nsys.modules[{missing!r}] = None\nfrom agentq.brokers import open_broker\n"
        f"try:\n    open_broker({url!r}, app='a')\nexcept Exception as error:\n    print(type(error).__name__, error)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=60, cwd=ROOT)
    assert done.stdout.startswith("InvalidArgument broker:")
    assert f"pip install 'agentq[{url.partition(':')[0]}]'" in done.stdout
