"""`batchllm schema`: the JSON Schema of the job file, for editors."""

import click


@click.command("schema")
def schema_command() -> None:
    """Print the JSON Schema of the job file.

    Editors complete and check a job that names it in its first line:

    \b
        batchllm schema > job.schema.json
        # yaml-language-server: $schema=job.schema.json
    """
    import json

    from batchllm.spec.schema import job_schema

    click.echo(json.dumps(job_schema(), indent=2, ensure_ascii=False))
