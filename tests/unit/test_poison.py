"""The limits of poison."""

import pytest

from agentq.poison import DEATHS, LOSSES, poisoned


@pytest.mark.parametrize(
    ("deaths", "losses", "poison"),
    [
        (0, 0, False),
        (DEATHS - 1, 0, False), (DEATHS, 0, True), (DEATHS + 1, 0, True),
        (0, LOSSES - 1, False), (0, LOSSES, True),
        (1, 6, False), (1, 7, True), (2, 3, False), (2, 4, True),
    ],
)  # fmt: skip
def test_a_death_alone_weighs_more_than_a_worker_that_was_lost(deaths: int, losses: int, *, poison: bool) -> None:
    assert poisoned(deaths, losses) is poison


def test_the_outage_of_a_database_that_takes_a_worker_with_it_a_few_times_is_no_poison() -> None:
    assert not poisoned(0, 3)
