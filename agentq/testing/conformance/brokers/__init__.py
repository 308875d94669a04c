"""What every broker must do, clause by clause; anybody who writes a broker can run it.

With pytest::

    @pytest.mark.parametrize("clause", conformance.brokers.CLAUSES, ids=str)
    async def test_my_broker(clause):
        setting = Setting(open=lambda: MyBroker("my://localhost"), redelivery_s=5)
        if why := clause.does_not_apply(setting):
            pytest.skip(why)
        await clause(setting)

Without: ``await conformance.brokers.check(setting)`` answers what failed. Each clause makes queues of its own, by fresh names.
"""

from __future__ import annotations

from agentq.testing.conformance.brokers import counting, delivering, failing, leaving, logs, sending
from agentq.testing.conformance.brokers.bench import Clause, Need, Setting

__all__ = ["CLAUSES", "Clause", "Need", "Setting", "check"]

CLAUSES: tuple[Clause, ...] = tuple(
    clause
    for module in (sending, delivering, leaving, counting, failing, logs)
    for clause in vars(module).values()
    if isinstance(clause, Clause)
)


async def check(setting: Setting) -> dict[str, BaseException]:
    """Run every clause that applies; answer those that failed, by name."""
    failed: dict[str, BaseException] = {}
    for clause in CLAUSES:
        if clause.does_not_apply(setting):
            continue
        try:
            await clause(setting)
        except Exception as error:  # noqa: BLE001 - whatever a clause raises is its result
            failed[str(clause)] = error
    return failed
