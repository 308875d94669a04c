import errno
import json
import sqlite3

import pytest
from click.testing import CliRunner

from agentq.cli import checks
from agentq.cli.checks import Level
from agentq.cli.main import cli
from tests.helpers.stores import fill


def doctor(*words, code=0):
    result = CliRunner().invoke(cli, ["doctor", "--json", *words])
    assert result.exit_code == code, result.output
    return {(one["what"], one["level"]): one for one in json.loads(result.output)}


def test_a_store_that_is_well(tmp_path):
    made = fill(tmp_path / "agentq.db")
    found = doctor("--store", str(made.path))
    for what in ("lease", "room", "disk", "schema", "store", "clock", "workers"):
        assert (what, "ok") in found
    assert not [level for _, level in found if level == "broken"]


def test_a_store_that_is_not_there_yet_is_no_fault(tmp_path):
    assert "not there yet" in doctor("--store", str(tmp_path / "new.db"))["store", "ok"]["said"]


def test_a_folder_that_is_not_there_is_broken(tmp_path):
    assert "mkdir -p" in doctor("--store", str(tmp_path / "no" / "new.db"), code=1)["folder", "broken"]["remedy"]


def test_a_file_that_is_no_store_is_broken(tmp_path):
    path = tmp_path / "text.db"
    path.write_text("this is no database, it is a text that is long enough to be read as a header of one" * 20)
    assert [what for what, level in doctor("--store", str(path), code=1) if level == "broken"]


def test_a_schema_from_the_future_is_broken(tmp_path):
    made = fill(tmp_path / "agentq.db")
    with sqlite3.connect(made.path) as db:
        db.execute("pragma user_version = 9999")
    db.close()
    found = doctor("--store", str(made.path), code=1)
    assert ("schema", "broken") in found


def test_a_setting_that_means_nothing_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("AGENTQ_CONCURENCY", "4")
    assert "AGENTQ_CONCURENCY" in doctor("--store", str(tmp_path / "new.db"))["settings", "warning"]["said"]


def test_a_setting_that_cannot_be_read_is_broken(monkeypatch):
    monkeypatch.setenv("AGENTQ_LEASE", "soon")
    assert "AGENTQ_LEASE" in doctor(code=1)["settings", "broken"]["said"]


def test_a_queue_that_nobody_serves_and_failed_runs_are_told(tmp_path, monkeypatch):
    made = fill(tmp_path / "agentq.db")
    CliRunner().invoke(cli, ["workers", "cordon", "--all", "--store", str(made.path)])
    found = doctor("--store", str(made.path))
    assert "no worker that serves it" in found["queue", "warning"]["said"]
    (tmp_path / "doctored.py").write_text("from agentq import AgentQ\naq = AgentQ('hello')\n")
    monkeypatch.chdir(tmp_path)
    target = doctor("doctored:aq", "--store", str(made.path))
    assert target["queue", "warning"]["remedy"].startswith("agentq worker doctored:aq --queue")
    assert ("failed runs", "warning") in found


def test_code_that_cannot_be_loaded_is_broken(tmp_path):
    assert "no module named" in doctor("nothing_here:aq", "--store", str(tmp_path / "new.db"), code=1)["code", "broken"]["said"]


@pytest.mark.parametrize(("kind", "level"), [("nfs4", Level.BROKEN), ("ext4", Level.GOOD), ("tmpfs", Level.ODD)])
def test_the_file_system_is_judged(tmp_path, monkeypatch, kind, level):
    monkeypatch.setattr(checks, "_mount", lambda _: (kind, "/data"))
    assert [one.level for one in checks._file_system(tmp_path)] == [level]


def test_a_mount_inside_a_mount_is_found(tmp_path, monkeypatch):
    class Mounts:
        def __init__(self, path):
            self.path = path

        def read_text(self):
            return f"/dev/a / ext4 rw 0 0\nserver:/x {tmp_path} nfs4 rw 0 0\n/dev/b {tmp_path}/other xfs rw 0 0\n"

    real = checks.Path
    monkeypatch.setattr(checks, "Path", lambda path: Mounts(path) if path == "/proc/self/mounts" else real(path))
    assert checks._mount(tmp_path / "store") == ("nfs4", str(tmp_path))


@pytest.mark.parametrize(("free", "level"), [(1, Level.BROKEN), (200 << 20, Level.ODD), (50 << 30, Level.GOOD)])
def test_room_is_judged(tmp_path, monkeypatch, free, level):
    monkeypatch.setattr(checks.shutil, "disk_usage", lambda _: type("Usage", (), {"free": free})())
    assert [one.level for one in checks._room(tmp_path)] == [level]


def test_a_disk_that_takes_no_write_is_broken_and_no_surprise(tmp_path, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checks, "_sync_s", full)
    found = doctor("--store", str(tmp_path / "new.db"), code=1)
    assert "No space left" in found["disk", "broken"]["said"]
    assert "make room" in found["disk", "broken"]["remedy"]


def test_the_page_for_people_ends_with_a_verdict(tmp_path):
    out = CliRunner().invoke(cli, ["doctor", "--store", str(tmp_path / "new.db")]).output
    assert out.rstrip().endswith(("all is well", "to look at"))


def test_a_remedy_that_is_a_command_can_be_copied(tmp_path):
    made = fill(tmp_path / "agentq.db")
    CliRunner().invoke(cli, ["workers", "cordon", "--all", "--store", str(made.path)])
    found = doctor("--store", str(made.path))
    assert found["failed runs", "warning"]["remedy"] == f"agentq runs list --state failed --store {made.path}"
    assert found["queue", "warning"]["remedy"].endswith(f"--store {made.path}")
