"""OpenAI's OpenAPI document: what is read from it, on a small one."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.openapi import VARIABLE, as_json_schema, excerpt, find_document, read_document

DOCUMENT: dict[str, Any] = {
    "openapi": "3.1.0",
    "info": {"version": "1"},
    "webhooks": {"gone": {"$ref": "#/components/schemas/Hook"}},
    "paths": {
        "/a": {"post": {"responses": {"200": {"$ref": "#/components/responses/Fine"}}}},
        "/b": {"post": {"$ref": "#/components/schemas/Other"}},
    },
    "components": {
        "securitySchemes": {"key": {}},
        "responses": {"Fine": {"schema": {"$ref": "#/components/schemas/Node"}}},
        "schemas": {
            "Node": {"properties": {"next": {"$ref": "#/components/schemas/Node"}, "n": {"nullable": True}}},
            "Other": {},
            "Hook": {},
        },
    },
}


@pytest.mark.parametrize("packed", [True, False])
def test_a_document_is_read_with_its_schemas_in_json_schema_s_words(tmp_path: Path, *, packed: bool) -> None:
    data = json.dumps(DOCUMENT).encode()
    (tmp_path / "document").write_bytes(gzip.compress(data) if packed else data)
    read = read_document(tmp_path / "document")
    assert read["components"]["schemas"]["Node"]["properties"]["n"] == {"anyOf": [{}, {"type": "null"}]}
    assert read["paths"] == DOCUMENT["paths"]


def test_words_of_openapi_3_0_are_translated() -> None:
    assert as_json_schema({"type": "string", "nullable": False}) == {"type": "string"}
    assert as_json_schema({"minimum": 0, "exclusiveMinimum": True}) == {"exclusiveMinimum": 0}
    assert as_json_schema({"minimum": 0, "exclusiveMinimum": False}) == {"minimum": 0}
    assert as_json_schema({"exclusiveMinimum": 3}) == {"exclusiveMinimum": 3}
    assert as_json_schema({"oneOf": [{"type": "array", "nullable": True}]}) == {
        "oneOf": [{"anyOf": [{"type": "array"}, {"type": "null"}]}]
    }
    called = {"properties": {"nullable": {"type": "boolean"}}}
    assert as_json_schema(called) == called


def test_an_excerpt_has_what_its_paths_lead_to_and_nothing_else() -> None:
    kept = excerpt(DOCUMENT, ["/a"])
    assert kept["paths"].keys() == {"/a"}
    assert kept["components"]["schemas"].keys() == {"Node"}
    assert kept["components"]["responses"].keys() == {"Fine"}
    assert "webhooks" not in kept


def test_a_named_document_is_the_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "/some/where.json")
    assert find_document() == Path("/some/where.json")
