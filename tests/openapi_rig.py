"""OpenAI's own OpenAPI document as a judge of bodies; the tests that need it are skipped where there is none."""

from typing import Any

import pytest
from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError, best_match

from benchmarks.openapi import VARIABLE, find_document, read_document

_JSON = "application/json"


class Document:
    def __init__(self, document: dict[str, Any]) -> None:
        self._document = document
        self._schemas = _by_discriminator(document["components"]["schemas"])

    def request_faults(self, path: str, body: object) -> list[str]:
        """What is wrong with a request to `path`. A field that the document does not describe is a fault."""
        content = self._document["paths"][path]["post"]["requestBody"]["content"]
        return self.faults(_name(content[_JSON]["schema"]), body)

    def reply_faults(self, path: str, body: object, *, media: str = _JSON) -> list[str]:
        """The same for the reply of status 200, or for one event of a stream (`text/event-stream`)."""
        content = self._document["paths"][path]["post"]["responses"]["200"]["content"]
        return self.faults(_name(content[media]["schema"]), body)

    def faults(self, name: str, body: object) -> list[str]:
        schema = {
            "$ref": f"#/components/schemas/{name}",
            "unevaluatedProperties": False,
            "components": {"schemas": self._schemas},
        }
        return [_said(error) for error in Draft202012Validator(schema).iter_errors(body)]


def openai_document() -> Document:
    """Skips the test where there is no copy."""
    path = find_document()
    if path is None:
        pytest.skip(f"no copy of OpenAI's OpenAPI document: set {VARIABLE} to one")
    return Document(read_document(path))


def _by_discriminator(schema: Any) -> Any:
    """`oneOf` there means what the discriminator says: a message with parts fits two of its descriptions."""
    if isinstance(schema, dict):
        return {"anyOf" if key == "oneOf" else key: _by_discriminator(part) for key, part in schema.items()}
    return [_by_discriminator(part) for part in schema] if isinstance(schema, list) else schema


def _name(schema: dict[str, str]) -> str:
    return schema["$ref"].rpartition("/")[2]


def _said(error: ValidationError) -> str:
    deepest = best_match([error]) or error
    return f"{'.'.join(map(str, deepest.absolute_path)) or 'body'}: {deepest.message[:300]}"
