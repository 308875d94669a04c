import asyncio
import json
import time

import click
import pytest
from click.testing import CliRunner

from agentq.cli import letters
from agentq.cli.main import cli
from agentq.message import Admission, DeadLetter, Envelope, LetterQuery, RunQuery, broker_run_id, new_run_id
from agentq.stores import open_store
from tests.helpers.cli_broker import give_up, send, stand_in

URL = "sqs://eu-central-1"
BODIES = {
    "untasked": b'{"v":1,"args":{"api_key":"sk-abcdefghijklmnopqrst"}}',
    "binary": b"\x00\xff\x1b[2J hello \xe2\x80\xaeabc",
    "healthy": b'{"task":"agent","args":{"goal":"x"}}',
    "keyed": b'{"task":"agent","key":"k1","args":{"goal":"x"}}',
    "empty": b"",
}


class Shelf:
    """A store with one letter of each kind, and the command line on it."""

    def __init__(self, folder):
        self.path = folder / "agentq.db"
        self.ids = {name: broker_run_id(name) for name in BODIES}
        self.do(self._fill)

    def do(self, action):
        async def inside():
            async with open_store(str(self.path)) as store:
                return await action(store)

        return asyncio.run(inside())

    async def _fill(self, store):
        made = tuple(
            DeadLetter(
                id=self.ids[name],
                queue="reports" if name == "binary" else "default",
                body=body,
                reason="task: None does not fit\x1b[31m; name one\nsecond line with password=hush",
                attributes={"tenant": "acme", "x-api-key": "hush", "odd\x1b[2J": "value"},
                origin=f"{name} of sqs://eu-central-1",
                received_at=time.time() - 60 * number,
            )
            for number, (name, body) in enumerate(BODIES.items())
        )
        known = Envelope(
            id=new_run_id(), app="hello", task="agent", queue="default", args=b"{}", args_hash="x", submitted_at=time.time()
        )
        await store.admit(Admission(envelopes=(known,), letters=made))

    def call(self, *words, code=0, given=None):
        result = CliRunner().invoke(cli, ["dead", *words, "--store", str(self.path)], input=given)
        assert result.exit_code == code, result.output
        return result

    def left(self):
        names = {one: name for name, one in self.ids.items()}
        return {names.get(letter.id, letter.id) for letter in self.do(lambda store: store.letters(LetterQuery()))}

    def run_of(self, run_id):
        found = self.do(lambda store: store.runs(RunQuery(ids=(run_id,))))
        return found[0] if found else None


@pytest.fixture
def broker(monkeypatch):
    return stand_in(monkeypatch)


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "140")
    return Shelf(tmp_path)


def test_list_shows_each_with_its_queue_age_origin_and_the_first_line_of_the_reason(shelf):
    out = shelf.call("list").output
    for word in ("reports", "3 m", "untasked", "task: None does not fit\\x1b[31m; name one"):
        assert word in out
    assert "second line" not in out
    assert "\x1b" not in out
    assert "reports" in shelf.call("list", "--queue", "reports").output
    assert "no dead letters of queue nope" in shelf.call("list", "--queue", "nope").output


def test_on_a_narrow_terminal_the_reason_takes_the_room(shelf, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    out = shelf.call("list").output
    assert "name one" in out
    assert "ORIGIN" not in out
    assert all(len(line) <= 80 for line in out.splitlines())


def test_show_writes_out_what_would_steer_a_terminal_and_hides_secrets(shelf):
    out = shelf.call("show", shelf.ids["binary"][:6]).output
    assert "\\x00\\xff\\x1b[2J hello \\u202eabc" in out
    assert "odd\\x1b[2J" in out
    out += shelf.call("show", shelf.ids["untasked"]).output
    assert "hush" not in out
    assert "sk-abc" not in out
    assert '"api_key": "***"' in out
    assert "(empty)" in shelf.call("show", shelf.ids["empty"]).output


def test_trying_again_as_it_is_is_offered_only_where_that_can_help(shelf):
    out = shelf.call("show", shelf.ids["healthy"]).output
    assert f"agentq dead replay {shelf.ids['healthy']} --store {shelf.path}  " in out
    assert "try again as it is" in out
    for name in ("untasked", "binary", "empty"):
        out = shelf.call("show", shelf.ids[name]).output
        assert "as it is" not in out
        assert f"agentq dead show {shelf.ids[name]} --raw --store {shelf.path} > body.json" in out
        assert f"agentq dead replay {shelf.ids[name]} --store {shelf.path} --body body.json" in out


def test_show_as_json_and_byte_for_byte(shelf):
    shown = json.loads(shelf.call("show", shelf.ids["binary"], "--json").output)
    assert shown["body_base64"]
    assert shown["attributes"]["x-api-key"] == "***"
    assert shelf.call("show", shelf.ids["binary"], "--raw").stdout_bytes == BODIES["binary"]


def test_a_letter_that_is_not_there_or_is_several(shelf):
    assert "no dead letter's id starts with 'zzzz'" in shelf.call("show", "zzzz", code=1).output
    assert "at least 4 characters" in shelf.call("show", "zzz", code=1).output


def test_replay_makes_a_run_of_what_can_be_read_and_twice_is_harmless(shelf):
    letter = shelf.ids["healthy"]
    out = shelf.call("replay", letter).stdout
    assert out.split() == [letter, "default", "queued"]
    assert shelf.run_of(letter).args == b'{"goal":"x"}'
    assert shelf.left() == {"untasked", "binary", "keyed", "empty"}
    assert "runs show" in shelf.call("replay", letter, code=1).output


def test_replay_says_what_is_still_wrong_and_keeps_it(shelf):
    out = shelf.call("replay", "--all", code=1)
    assert "3 letters still cannot become a run" in out.output
    assert "task is missing" in out.output
    assert "\x1b[2J" not in out.output
    assert shelf.left() == {"untasked", "binary", "empty"}
    assert shelf.run_of(shelf.ids["healthy"]) is not None
    told = json.loads(shelf.call("replay", shelf.ids["empty"], "--json", code=1).output)
    assert told[0]["run"] is None
    assert "JSON" in told[0]["reason"]


def test_a_mended_body_is_replayed_in_place_of_the_letters_own(shelf, tmp_path):
    (tmp_path / "body.json").write_bytes(b'{"task": "agent", "args": {"goal": "mended"}}')
    letter = shelf.ids["untasked"]
    shelf.call("replay", letter, "--body", str(tmp_path / "body.json"))
    assert shelf.run_of(letter).args == b'{"goal": "mended"}'
    assert "untasked" not in shelf.left()
    again = shelf.call("replay", shelf.ids["empty"], "--body", "-", given='{"task": "agent"}').output
    assert "queued" in again
    assert "--body mends one letter" in shelf.call("replay", "--all", "--body", "-", code=2).output


def test_a_replay_whose_key_names_another_run_stays(shelf, tmp_path):
    (tmp_path / "other.json").write_bytes(b'{"task": "agent", "key": "k1", "args": {"goal": "other"}}')
    shelf.call("replay", shelf.ids["keyed"])
    out = shelf.call("replay", shelf.ids["healthy"], "--body", str(tmp_path / "other.json"), code=1).output
    assert "key 'k1' names run" in out
    assert "healthy" in shelf.left()


def test_replay_wants_to_know_whose_letters_they_are(tmp_path, monkeypatch):
    shelf = Shelf(tmp_path)
    more = Envelope(id=new_run_id(), app="other", task="t", queue="q", args=b"{}", args_hash="x", submitted_at=time.time())
    shelf.do(lambda store: store.submit([more]))
    assert "several apps: hello other" in shelf.call("replay", shelf.ids["healthy"], code=2).output
    (tmp_path / "body.json").write_bytes(b'{"task": "agent", "app": "other"}')
    assert "queued" in shelf.call("replay", shelf.ids["empty"], "--body", str(tmp_path / "body.json")).output
    assert shelf.run_of(shelf.ids["empty"]).app == "other"
    assert "queued" in shelf.call("replay", shelf.ids["healthy"], "--app", "hello").output


def test_large_arguments_are_fetched_from_where_they_were_kept(shelf, tmp_path):
    async def keep(store):
        return await store.keep(b'{"goal": "large"}')

    sha = shelf.do(keep)
    parcel = {"task": "agent", "parcel": {"sha256": sha, "bytes": 17, "place": "store"}}
    (tmp_path / "body.json").write_text(json.dumps(parcel))
    shelf.call("replay", shelf.ids["untasked"], "--body", str(tmp_path / "body.json"))
    assert shelf.run_of(shelf.ids["untasked"]).args == b'{"goal": "large"}'
    parcel["parcel"]["place"] = "s3://bucket/key"
    (tmp_path / "body.json").write_text(json.dumps(parcel))
    out = shelf.call("replay", shelf.ids["empty"], "--body", str(tmp_path / "body.json"), code=1).output
    assert "give --broker URL" in out


def test_drop_asks_before_it_drops_everything(shelf):
    assert "--yes says that it is meant" in shelf.call("drop", "--all", code=2).output
    assert len(shelf.left()) == 5
    assert "1 dead letter dropped" in shelf.call("drop", "--all", "--queue", "reports", "--yes").output
    shelf.call("drop", shelf.ids["empty"])
    assert shelf.left() == {"untasked", "healthy", "keyed"}
    assert "say which" in shelf.call("drop", code=2).output
    assert "not both" in shelf.call("drop", "--all", shelf.ids["keyed"], code=2).output


def test_on_a_terminal_drop_asks(shelf, monkeypatch):
    asked = []
    monkeypatch.setattr("agentq.cli.dead._on_terminal", lambda: True)
    monkeypatch.setattr("click.confirm", lambda text, **_: asked.append(text))
    shelf.call("drop", shelf.ids["empty"])
    assert asked == ["drop 1 dead letter for good?"]


def test_collect_moves_what_the_broker_gave_up_into_the_store(shelf, broker):
    send(broker, "default", 3)
    send(broker, "reports", 1)
    give_up(broker, "default")
    give_up(broker, "reports")
    out = shelf.call("collect", "--broker", URL).output
    assert "default  3 dead letters collected" in out
    moved = [one for one in json.loads(shelf.call("list", "--json").output) if "gave it up" in one["reason"]]
    assert "reports  1 dead letter collected" in out
    assert len(moved) == 4
    assert "the broker has given nothing up" in shelf.call("collect", "--broker", URL).output
    assert "queued" in shelf.call("replay", moved[0]["id"]).output


def test_collect_without_a_broker_says_how_to_name_one(shelf):
    assert "no broker is named" in shelf.call("collect", code=2).output


def test_ids_are_completed_from_the_store(shelf, tmp_path):
    for path, offered in ((shelf.path, [shelf.ids["empty"]]), (tmp_path / "no.db", [])):
        context = click.Context(cli)
        context.params["store_url"] = str(path)
        found = letters.LetterId().shell_complete(context, None, shelf.ids["empty"][:5])
        assert [item.value for item in found] == offered


@pytest.mark.parametrize("body", [b"[" * 5000, b"\xc3\x28", b"{" * 5000, b'"\\ud800"', b"1e999999"])
def test_any_body_can_be_shown(body):
    assert isinstance(letters.body_text(body), str)
