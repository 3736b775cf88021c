"""`batchllm schema`."""

import json

from click.testing import CliRunner

from batchllm.cli.schema import schema_command
from batchllm.spec.schema import job_schema


def test_it_prints_the_schema_as_indented_json() -> None:
    result = CliRunner().invoke(schema_command)
    assert result.exit_code == 0
    assert json.loads(result.stdout) == job_schema()
    assert result.stdout.startswith('{\n  "$schema"')
    assert result.stderr == ""


def test_it_is_called_schema_and_takes_no_arguments() -> None:
    assert schema_command.name == "schema"
    assert CliRunner().invoke(schema_command, ["x"]).exit_code == 2
