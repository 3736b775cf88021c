"""OpenAI's own OpenAPI document, which is not part of this project: where a copy is, and what is read from it.

`BATCHLLM_OPENAPI` names a copy (JSON, plain or gzipped); without it one may lie beside the checkout.
"""

import gzip
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

VARIABLE = "BATCHLLM_OPENAPI"
_BESIDE = Path(__file__).parents[2] / "shared" / "openapi" / "openai.json.gz"


def find_document() -> Path | None:
    named = os.environ.get(VARIABLE)
    if named:
        return Path(named)
    return _BESIDE if _BESIDE.exists() else None


def read_document(path: Path) -> dict[str, Any]:
    """With its schemas as JSON Schema 2020-12. Raises OSError, ValueError."""
    data = path.read_bytes()
    document: dict[str, Any] = json.loads(gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data)
    schemas = document["components"]["schemas"]
    document["components"]["schemas"] = {name: as_json_schema(schema) for name, schema in schemas.items()}
    return document


def as_json_schema(node: Any) -> Any:
    """OpenAPI 3.0's own words in those of JSON Schema: `nullable`, and a boolean `exclusiveMinimum`.

    The document says of itself that it is 3.1, where these words mean nothing: what reads it as such takes a null for
    a fault, or, as Ajv does, gives up on the whole schema.
    """
    if isinstance(node, list):
        return [as_json_schema(part) for part in node]
    if not isinstance(node, dict):
        return node
    schema = {key: as_json_schema(value) for key, value in node.items()}
    for bound, limit in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
        if isinstance(schema.get(bound), bool) and schema.pop(bound):
            schema[bound] = schema.pop(limit)
    if isinstance(schema.get("nullable"), bool) and schema.pop("nullable"):
        return {"anyOf": [schema, {"type": "null"}]}
    return schema


def excerpt(document: Mapping[str, Any], paths: Sequence[str]) -> dict[str, Any]:
    """A document of these paths alone, with the components that they lead to."""
    kept = {path: document["paths"][path] for path in paths}
    components: dict[str, dict[str, Any]] = {"securitySchemes": document["components"]["securitySchemes"]}
    waiting = [kept]
    while waiting:
        for group, name in _references(waiting.pop()):
            if name not in components.setdefault(group, {}):
                components[group][name] = document["components"][group][name]
                waiting.append(components[group][name])
    general = {
        name: document[name] for name in ("openapi", "info", "servers", "security") if name in document
    }
    return {**general, "paths": kept, "components": components}


def _references(node: Any) -> Iterator[tuple[str, str]]:
    """Group and name of each component that is referred to."""
    if isinstance(node, dict):
        reference = node.get("$ref")
        if isinstance(reference, str):
            group, name = reference.removeprefix("#/components/").split("/", 1)
            yield group, name
        node = list(node.values())
    if isinstance(node, list):
        for part in node:
            yield from _references(part)
