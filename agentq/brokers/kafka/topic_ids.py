"""Topics with their ids: a request of Kafka's protocol that the library does not know (Metadata, version 10)."""

from __future__ import annotations

import uuid
from io import BytesIO
from typing import Any, Final

from aiokafka.protocol.abstract import AbstractType
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import Boolean, CompactArray, CompactString, Int16, Int32, Schema, TaggedFields

_TEXT: Final = CompactString("utf-8")


class _UUID(AbstractType):  # type: ignore[misc]  # the library has no types
    @classmethod
    def encode(cls, value: uuid.UUID) -> bytes:
        return value.bytes

    @classmethod
    def decode(cls, data: BytesIO) -> uuid.UUID:
        return uuid.UUID(bytes=data.read(16))


class _Answer(Response):  # type: ignore[misc]  # as above
    API_KEY = 3
    API_VERSION = 10
    SCHEMA = Schema(
        ("throttle_ms", Int32),
        ("brokers", CompactArray(("node", Int32), ("host", _TEXT), ("port", Int32), ("rack", _TEXT), ("tags", TaggedFields))),
        ("cluster_id", _TEXT),
        ("controller", Int32),
        (
            "topics",
            CompactArray(
                ("error", Int16),
                ("name", _TEXT),
                ("id", _UUID),
                ("internal", Boolean),
                (
                    "partitions",
                    CompactArray(
                        ("error", Int16),
                        ("partition", Int32),
                        ("leader", Int32),
                        ("epoch", Int32),
                        ("replicas", CompactArray(Int32)),
                        ("in_sync", CompactArray(Int32)),
                        ("offline", CompactArray(Int32)),
                        ("tags", TaggedFields),
                    ),
                ),
                ("allowed", Int32),
                ("tags", TaggedFields),
            ),
        ),
        ("allowed", Int32),
        ("tags", TaggedFields),
    )


class _Question(RequestStruct):  # type: ignore[misc]  # as above
    API_KEY = 3
    API_VERSION = 10
    FLEXIBLE_VERSION = True
    RESPONSE_TYPE = _Answer
    SCHEMA = Schema(
        ("topics", CompactArray(("id", _UUID), ("name", _TEXT), ("tags", TaggedFields))),
        ("create", Boolean),
        ("cluster_allowed", Boolean),
        ("topic_allowed", Boolean),
        ("tags", TaggedFields),
    )


class TopicsRequest(Request[_Question]):  # type: ignore[misc]  # as above
    """Ask any broker for these topics; nothing is created. Brokers before 2.8 refuse it (`NotImplementedError`)."""

    API_KEY = 3

    def __init__(self, names: list[str]) -> None:
        """Name the topics."""
        self._names = names

    def build(self, request_struct_class: type[_Question]) -> Any:
        """Put it into the form that goes out."""
        return request_struct_class([(uuid.UUID(int=0), name, {}) for name in self._names], False, False, False, {})  # noqa: FBT003 - as ordered on the wire
