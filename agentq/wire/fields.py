"""Every field of the wire but ``v``, ``args`` and ``traceparent``: what it may hold, and what it means."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from agentq.wire.kinds import ID, Check, Kind, Seconds, Tags, Text, Whole


class Field(msgspec.Struct, frozen=True):
    """One field of the wire."""

    kind: Kind
    meaning: str
    example: Any


_NAME: Final = Text(255, controls=False)
_KEY: Final = Text(512)
_MOMENT: Final = Seconds("Unix seconds")
_SPAN: Final = Seconds("seconds")
_MOST: Final = 1_000_000  # as `Task.options` has it

FIELDS: Final[dict[str, Field]] = {
    "app": Field(_NAME, "The application. Default: the one that reads the message; a message for another is refused.", "shop"),
    "task": Field(_NAME, "The task to run, by the name that it is registered under.", "report"),
    "queue": Field(
        _NAME,
        "The queue whose workers run it. Default: that on which the message arrived. Where several queues of the app share "
        "one SQS queue or topic, say which.",
        "reports",
    ),
    "parcel": Field(
        Check(),
        "In the place of args, where they are too large for the broker: their SHA-256, their size in bytes and where they "
        "are kept, which has to be where the app looks for them.",
        {"sha256": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", "bytes": 0, "place": "s3://big/1"},
    ),
    "key": Field(
        _KEY,
        "Idempotency key: it determines the run within (app, tenant, task), so that the message can be sent again without "
        "fear. The same key with other arguments is refused.",
        "order-4711",
    ),
    "id": Field(
        ID,
        "The run's id, unique within the store; a UUID will do. Default: made of key, else of the broker's id of the "
        "message. Leave it out where there is a key.",
        "0b5c8c3e-6f0a-4c39-9a59-0f1a9c6f7f60",
    ),
    "ordering_key": Field(_KEY, "Runs of one key within (app, queue) start in order, one at a time.", "customer-42"),
    "tenant": Field(
        Text(512, controls=False),
        "Whose run it is. Default: the message attribute or header of the same name; where both are given, this one counts.",
        "acme",
    ),
    "priority": Field(Whole(-_MOST, _MOST), "Higher starts first within a queue. Default: 0.", 10),
    "submitted_at": Field(
        _MOMENT,
        "When it was submitted, in Unix seconds. Default: when the broker got it, which also counts where the two are more "
        "than a minute apart.",
        1_767_225_600.25,
    ),
    "due_at": Field(_MOMENT, "It starts not before this, in Unix seconds. Default: at once.", 1_767_229_200),
    "delay_s": Field(
        _SPAN,
        "It starts not before so many seconds after its submission, by the reader's clock; in the place of due_at, which asks "
        "for a clock of the sender's that is right.",
        300,
    ),
    "deadline": Field(_MOMENT, "It fails where it has not ended by this, in Unix seconds; waits count.", 1_767_312_000),
    "deadline_s": Field(_SPAN, "In the place of deadline: so many seconds after its submission.", 86_400),
    "max_attempts": Field(Whole(1, _MOST), "How often it is tried where it fails. Default: the task's own.", 5),
    "timeout_s": Field(_SPAN, "Seconds of running time that it may take, waits excluded. Default: the task's own.", 3600),
    "tags": Field(Tags(), "Labels for people.", {"source": "billing"}),
    "args_hash": Field(
        Text(128, controls=False),
        "What tells a repeated submission from another under the same key. Default: made of args. Leave it out.",
        "9f86d081884c7d65",
    ),
}
