"""All measurements, in the order of the table."""

from tests.bench import drain, enqueue_many, idle, imports, resume, scale, start_latency, steps
from tests.bench.contest import Measurement

ALL: tuple[Measurement, ...] = (
    steps.ONE_RUN,
    steps.FIFTY_RUNS,
    drain.MEASUREMENT,
    start_latency.MEASUREMENT,
    enqueue_many.MEASUREMENT,
    resume.MEASUREMENT,
    imports.MEASUREMENT,
    idle.MEASUREMENT,
    scale.MEASUREMENT,
)


def by_name(name: str) -> Measurement:
    """The measurement called ``name``."""
    return next(each for each in ALL if each.name == name)
