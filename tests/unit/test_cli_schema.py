import json

import jsonschema
from click.testing import CliRunner

from agentq import wire
from agentq.cli.main import cli


def printed(*words: str) -> str:
    result = CliRunner().invoke(cli, ["schema", *words])
    assert result.exit_code == 0, result.output
    return result.output


def test_the_schema_is_one():
    schema = json.loads(printed())
    assert schema == wire.schema()
    jsonschema.Draft202012Validator.check_schema(schema)


def test_the_example_fits_the_schema_and_is_one_line():
    out = printed("--example")
    assert out.count("\n") == 1
    jsonschema.Draft202012Validator(wire.schema()).validate(json.loads(out))
