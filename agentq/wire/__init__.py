"""The wire: one submission as a JSON object that any program can write and every agentq of this version reads.

The format is documented by `schema`. Three rules hold for whoever writes it: only ``task`` is required; null says the same
as leaving a field out; fields that this version does not know are ignored, so that later ones may add some. Of a field that
stands twice the last one counts, in ``args`` too, as nearly every JSON reader has it.
"""

from agentq.message import WIRE_VERSION
from agentq.message.wire import broker_run_id
from agentq.wire.arguments import shown
from agentq.wire.canonical import args_hash, same_args
from agentq.wire.parcel import Parcel, parcel_of
from agentq.wire.reading import Arrived, Unreadable, filled, read
from agentq.wire.schema import example, schema
from agentq.wire.writing import attributes, write

__all__ = [
    "WIRE_VERSION",
    "Arrived",
    "Parcel",
    "Unreadable",
    "args_hash",
    "attributes",
    "broker_run_id",
    "example",
    "filled",
    "parcel_of",
    "read",
    "same_args",
    "schema",
    "shown",
    "write",
]
