"""The wire as JSON Schema (2020-12), made of the same table by which messages are checked."""

from __future__ import annotations

from typing import Any

from agentq.message import WIRE_VERSION
from agentq.wire.arguments import MAX_DEPTH
from agentq.wire.fields import FIELDS

_TITLE = "AgentQ envelope"
_ABOUT = (
    "One submission: the body of an SQS message or the value of a Kafka record, as JSON in UTF-8 without a byte order mark, "
    "64 MiB at most. Only task is required. null says the same as leaving a field out. Fields that are not described here are "
    "ignored; of a field that stands twice the last one counts. A traceparent (W3C Trace Context) and a tenant may "
    "travel as message attributes or headers instead."
)


def schema() -> dict[str, Any]:
    """The schema. What it accepts `agentq.wire.read` accepts, save an ``id`` that contradicts a ``key`` and another ``app``."""
    properties: dict[str, Any] = {
        "v": {
            "enum": [WIRE_VERSION, None],
            "description": f"Version of this format. Default: {WIRE_VERSION}.",
            "examples": [WIRE_VERSION],
        }
    }
    for name, field in FIELDS.items():
        form = field.kind.schema()
        if name != "task":
            form["type"] = [form["type"], "null"]
        properties[name] = {**form, "description": field.meaning, "examples": [field.example]}
        if name == "queue":
            properties["args"] = {
                "type": ["object", "null"],
                "description": f"The task's arguments, name to value, {MAX_DEPTH} levels deep at most. Default: {{}}.",
                "examples": [{"topic": "k8s"}],
            }
    properties["traceparent"] = {
        "description": "W3C Trace Context, where the message has no attribute or header of this name. What is none is ignored.",
        "examples": ["00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"],
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:agentq:envelope:{WIRE_VERSION}",
        "title": _TITLE,
        "description": _ABOUT,
        "type": "object",
        "required": ["task"],
        "properties": properties,
        "not": {"required": ["args", "parcel"], "properties": {"args": {"type": "object"}, "parcel": {"type": "object"}}},
        "examples": [example()],
    }


def example() -> dict[str, Any]:
    """An envelope such as a program in another language would write."""
    return {
        "v": WIRE_VERSION,
        "task": FIELDS["task"].example,
        "args": {"topic": "k8s"},
        "key": FIELDS["key"].example,
        "tenant": FIELDS["tenant"].example,
        "tags": FIELDS["tags"].example,
    }
