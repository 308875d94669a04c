"""Several processes' metrics as one exposition: each process's own figures under a label, shared ones once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

_SHARED: Final = ("agentq_queue_", "agentq_pool_", "agentq_census_")
"""What is read from the store and is the same whichever process says it."""


def merged(texts: Mapping[str, str]) -> tuple[bytes, str]:
    """Merge expositions by process name. Returns the text and its content type."""
    from prometheus_client import CollectorRegistry, exposition  # noqa: PLC0415 - only a scrape needs it
    from prometheus_client.parser import text_string_to_metric_families  # noqa: PLC0415 - as above

    families: dict[str, Any] = {}
    for process, text in texts.items():
        for family in text_string_to_metric_families(text):
            shared = family.name.startswith(_SHARED)
            if shared and family.name in families:
                continue
            kept = families.setdefault(family.name, family)
            samples = [
                sample if shared else sample._replace(labels={**sample.labels, "process": process}) for sample in family.samples
            ]
            kept.samples = samples if kept is family else [*kept.samples, *samples]

    class All:
        """What a registry asks for families."""

        def describe(self) -> list[Any]:
            return []

        def collect(self) -> list[Any]:
            return list(families.values())

    registry = CollectorRegistry(auto_describe=False)
    registry.register(All())
    return exposition.generate_latest(registry), exposition.CONTENT_TYPE_LATEST
