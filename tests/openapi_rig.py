"""OpenAI's own OpenAPI document as a judge of bodies.

It is not part of this project: `BATCHLLM_OPENAPI` names a copy of it (JSON, plain or gzipped), or it lies beside the
checkout; without it the tests that need it are skipped.
"""

import gzip
import json
import os
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match

VARIABLE = "BATCHLLM_OPENAPI"
_BESIDE = Path(__file__).parents[2] / "shared" / "openapi" / "openai.json.gz"
_JSON = "application/json"


class Document:
    """`version` is the document's own."""

    def __init__(self, raw: dict[str, Any]) -> None:
        self.version = str(raw["info"]["version"])
        self._paths = raw["paths"]
        self._raw_schemas = raw["components"]["schemas"]

    @cached_property
    def _schemas(self) -> dict[str, Any]:
        return {name: as_json_schema(schema) for name, schema in self._raw_schemas.items()}

    def request_faults(self, path: str, body: object) -> list[str]:
        """What is wrong with a request to `path`. A field that the document does not describe is a fault."""
        content = self._paths[path]["post"]["requestBody"]["content"]
        return self.faults(_name(content[_JSON]["schema"]), body)

    def reply_faults(self, path: str, body: object, *, media: str = _JSON, method: str = "post") -> list[str]:
        """The same for the reply of status 200, or for one event of a stream (`text/event-stream`)."""
        content = self._paths[path][method]["responses"]["200"]["content"]
        return self.faults(_name(content[media]["schema"]), body)

    def faults(self, name: str, body: object) -> list[str]:
        schema = {
            "$ref": f"#/components/schemas/{name}",
            "unevaluatedProperties": False,
            "components": {"schemas": self._schemas},
        }
        return [_said(error) for error in Draft202012Validator(schema).iter_errors(body)]


def as_json_schema(node: Any) -> Any:
    """OpenAPI's own words (`nullable`, a boolean `exclusiveMinimum`) in those of JSON Schema 2020-12.

    A `default` of null says nothing about validity; `discriminator` only tells which of the variants is meant.
    """
    if isinstance(node, list):
        return [as_json_schema(part) for part in node]
    if not isinstance(node, dict):
        return node
    schema = {key: as_json_schema(value) for key, value in node.items()}
    for bound, limit in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
        if isinstance(schema.get(bound), bool) and schema.pop(bound):
            schema[bound] = schema.pop(limit)
    if schema.get("nullable") is True:
        return {"anyOf": [schema, {"type": "null"}]}
    return schema


def openai_document() -> Document:
    """Skips the test where there is no copy."""
    named = os.environ.get(VARIABLE)
    path = Path(named) if named else _BESIDE
    if named is None and not path.exists():
        pytest.skip(f"no copy of OpenAI's OpenAPI document ({VARIABLE} names one)")
    data = path.read_bytes()
    return Document(json.loads(gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data))


def _name(schema: dict[str, str]) -> str:
    return schema["$ref"].rpartition("/")[2]


def _said(error: Any) -> str:
    deepest = best_match([error]) or error
    return f"{'.'.join(map(str, deepest.absolute_path)) or 'body'}: {deepest.message[:300]}"
