"""The job file: its types (`models`), reading it with every fault and its place (`loading`), `${NAME}` (`env`),
changes from the command line (`overrides`), the JSON Schema for editors (`schema`), and what of it decides an
answer (`fingerprint`). `extras` are the types of what a chat may ask for beside a text, `strict` is what all types
share.

Nothing is re-exported here, so that a part that needs the types alone does not load the YAML parser.
"""
