"""The job file: its types (`models`), reading it with every fault and its place (`loading`), `${NAME}` (`env`),
changes from the command line (`overrides`), the JSON Schema for editors (`schema`), and what of it decides an
answer (`fingerprint`).

Nothing is re-exported here, so that a part that needs the types alone does not load the YAML parser.
"""
