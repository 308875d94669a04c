"""``agentq schema``: the format in which any program can submit a run, for people and for validators."""

from __future__ import annotations

import click
import msgspec

from agentq.cli.teach import Teaching


@click.command(
    cls=Teaching,
    epilog=(
        "\b\nExamples:\n  agentq schema > envelope.schema.json\n"
        "  agentq schema --example | kafka-console-producer.sh --bootstrap-server localhost:9092 --topic shop.reports"
    ),
)
@click.option("--example", "sample", is_flag=True, help="Print an envelope on one line instead.")
def schema(sample: bool) -> None:  # noqa: FBT001 - click passes options so
    """Print the JSON Schema of what a broker's message holds.

    Whatever can write such an object into an SQS queue or a Kafka topic can submit runs, in any language and without agentq.
    Only "task" is required.
    """
    from agentq import wire  # noqa: PLC0415 - the help needs none of it

    if sample:
        click.echo(msgspec.json.encode(wire.example()).decode())
    else:
        click.echo(msgspec.json.format(msgspec.json.encode(wire.schema()), indent=2).decode())
