"""A small storm of kills on every run of the tests, and proof that the tally would see what goes wrong."""

import dataclasses
from pathlib import Path

from agentq.message import Entry, EntryKind, Run, RunState
from tests.chaos import kill_workers, tally
from tests.helpers import postgres


async def test_nothing_is_lost_when_workers_are_killed(tmp_path: Path):
    storm = kill_workers.Storm(runs=60, steps=8, slots=4, workers=2, kill_every_s=1.0, step_ms=120, limit_s=60, seed=7)
    verdict = await kill_workers.strike(storm, tmp_path)
    assert not verdict.violations, f"{verdict}\n{(tmp_path / 'workers.log').read_text()[-4000:]}"
    assert verdict.kills >= 2, verdict
    assert verdict.taken_over >= 1, verdict


async def test_nothing_is_lost_when_workers_on_postgresql_are_killed(postgres_url: str, tmp_path: Path):
    storm = kill_workers.Storm(
        runs=60, steps=8, slots=4, workers=2, kill_every_s=1.0, step_ms=120, limit_s=60, seed=7, lease_s=2.0
    )
    async with postgres.fresh_schema(postgres_url) as url:
        verdict = await kill_workers.strike(dataclasses.replace(storm, store=url), tmp_path)
    assert not verdict.violations, f"{verdict}\n{(tmp_path / 'workers.log').read_text()[-4000:]}"
    assert verdict.kills >= 2, verdict
    assert verdict.taken_over >= 1, verdict


def entry(seq: int, occurrence: int) -> Entry:
    return Entry(seq=seq, kind=EntryKind.DONE, step="link", occurrence=occurrence)


def run(result: bytes = b'"right"') -> Run:
    return Run(
        id="r",
        app="a",
        task="t",
        queue="q",
        state=RunState.SUCCEEDED,
        args=b"{}",
        args_hash="",
        submitted_at=0.0,
        result=result,
    )


def judged(run: Run | None, journal: list[Entry], log: list[tuple[int, str]], kills: int = 1) -> list[str]:
    lines = [tally.Line(run_id="r", step=step, fence="1", pid=1, phase=phase) for step, phase in log]
    empty = tally.Tally(runs=1, steps=2, kills=kills, slots=1)
    return tally.judge(empty, lines, {"r": run} if run else {}, {"r": journal}, {"r": "right"}).violations


CLEAN = [(0, "begin"), (0, "end"), (1, "begin"), (1, "end")]
WHOLE = [entry(0, 0), entry(1, 1)]


def test_a_clean_run_is_clean():
    assert judged(run(), WHOLE, CLEAN) == []


def test_a_body_cut_off_by_a_kill_is_allowed_once_per_kill_and_slot():
    assert judged(run(), WHOLE, [(0, "begin"), *CLEAN]) == []
    assert judged(run(), WHOLE, [(0, "begin"), (0, "begin"), *CLEAN])
    assert judged(run(), WHOLE, [(0, "begin"), *CLEAN], kills=0)


def test_a_lost_run_is_seen():
    assert judged(None, WHOLE, CLEAN) == ["1 runs were lost"]


def test_a_wrong_result_is_seen():
    assert judged(run(b'"wrong"'), WHOLE, CLEAN) == ["1 results are wrong"]


def test_a_gap_is_seen():
    assert judged(run(), [entry(0, 0), entry(2, 1)], CLEAN) == ["1 journals have gaps"]


def test_a_step_committed_twice_is_seen():
    assert "1 steps were committed twice" in judged(run(), [*WHOLE, entry(2, 1)], CLEAN)


def test_a_body_that_runs_after_its_commit_is_seen():
    assert judged(run(), WHOLE, [*CLEAN[:3], (0, "begin"), *CLEAN[3:]]) == ["1 bodies ran although their step was committed"]


def test_a_missing_step_is_seen():
    assert judged(run(), WHOLE[:1], CLEAN) == ["run r holds 1 steps instead of 2"]
