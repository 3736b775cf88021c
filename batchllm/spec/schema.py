"""The job file as JSON Schema: for editors, and for saying what a key expects.

Both read the same document, so that what an editor underlines and what a fault says cannot drift apart. `Shape`
is a view of one place in it; it knows the three forms that pydantic writes (references, unions, unions told apart
by a tag) and nothing else.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from pydantic import BaseModel, JsonValue
from pydantic.json_schema import GenerateJsonSchema

from batchllm.spec.models import Job

DIALECT = "https://json-schema.org/draft/2020-12/schema"


class _PlainSchema(GenerateJsonSchema):
    """Without a title for each key (it only repeats the key) and without defaults made of nulls."""

    def field_title_should_be_set(self, schema: object) -> bool:  # noqa: ARG002 - pydantic's signature
        return False

    def encode_default(self, dft: object) -> JsonValue:
        if isinstance(dft, BaseModel):
            return dict(dft.model_dump(mode="json", by_alias=True, exclude_defaults=True))
        value: JsonValue = super().encode_default(dft)
        return value


def job_schema() -> dict[str, JsonValue]:
    """JSON Schema (draft 2020-12) of a job file."""
    schema = Job.model_json_schema(by_alias=True, schema_generator=_PlainSchema)
    _need_by_kind(schema)
    head: dict[str, JsonValue] = {
        "$schema": DIALECT,
        "title": "batchllm job",
        "description": "A table of prompts, the providers that answer it, and where the answers go.",
    }
    return {**head, **{key: value for key, value in schema.items() if key not in head}}


def _need_by_kind(schema: dict[str, JsonValue]) -> None:
    """What a job needs depends on whether its votes are there already."""
    definitions = schema["$defs"]
    needed: list[JsonValue] = ["input", "task", "providers"]
    if isinstance(definitions, dict) and isinstance(of_input := definitions["Input"], dict):
        del of_input["required"]
    schema["required"] = ["name"]
    has_votes: JsonValue = {"properties": {"consensus": {"type": "object", "required": ["votes"]}}}
    schema["if"] = {**has_votes, "required": ["consensus"]} if isinstance(has_votes, dict) else True
    schema["else"] = {"required": needed, "properties": {"input": {"required": ["path"]}}}


@dataclass(frozen=True, slots=True)
class Shape:
    """What may stand at one place of the job file. `node` has its reference and its nullability resolved."""

    node: Mapping[str, object]
    definitions: Mapping[str, object]

    @property
    def description(self) -> str:
        return str(self.node.get("description", ""))

    @property
    def kind(self) -> str:
        """`object`, `array`, `string`, `number`, `integer`, or empty for a union or anything at all."""
        return str(self.node.get("type", ""))

    @property
    def is_tagged(self) -> bool:
        return "discriminator" in self.node

    @property
    def tags(self) -> list[str]:
        return list(self._tag_references())

    @property
    def branches(self) -> list["Shape"]:
        """The forms of a union that is told apart by the type of the value; empty where there is one form."""
        found = self.node.get("anyOf")
        return [self._shape(branch) for branch in found] if isinstance(found, list) else []

    @property
    def keys(self) -> list[str]:
        properties = self.node.get("properties")
        return list(properties) if isinstance(properties, Mapping) else []

    @property
    def choices(self) -> list[str]:
        """The words that are allowed, where only words of a list are."""
        listed = self.node.get("enum", [self.node["const"]] if "const" in self.node else [])
        return [str(choice) for choice in listed] if isinstance(listed, list) else []

    def tagged(self, tag: str) -> "Shape":
        return self._shape({"$ref": self._tag_references()[tag]})

    def branch_for(self, value: object) -> "Shape":
        """The form of a union that a value of this type was meant for; the first where none fits."""
        wanted = "string" if isinstance(value, str) else "array" if isinstance(value, list) else "object"
        return next((branch for branch in self.branches if branch.kind == wanted), self.branches[0])

    def child(self, part: str | int) -> "Shape":
        """What may stand under a key or index; a shape without content where nothing is said of it."""
        if isinstance(part, int):
            return self._shape(self.node.get("items"))
        properties = self.node.get("properties")
        if isinstance(properties, Mapping) and part in properties:
            return self._shape(properties[part])
        return self._shape(self.node.get("additionalProperties"))

    def at(self, part: str | int, value: object) -> "Shape":
        """The shape under `part` of `value`, through the union that `value` decides."""
        shape = self.branch_for(value) if self.branches else self.tagged_by(value)
        return shape.child(part)

    def tagged_by(self, value: object) -> "Shape":
        """The form of a tagged union that `value` says it has; the shape itself where it says none."""
        tag = value.get("type") if isinstance(value, Mapping) else None
        return self.tagged(tag) if isinstance(tag, str) and tag in self.tags else self

    def _tag_references(self) -> Mapping[str, str]:
        discriminator = self.node.get("discriminator")
        mapping = discriminator.get("mapping") if isinstance(discriminator, Mapping) else None
        return mapping if isinstance(mapping, Mapping) else {}

    def _shape(self, node: object) -> "Shape":
        return Shape(_resolved(node, self.definitions), self.definitions)


def _resolved(node: object, definitions: Mapping[str, object]) -> Mapping[str, object]:
    """Follow a reference and drop `null` from a union; what is said beside either is kept."""
    if not isinstance(node, Mapping):
        return {}
    beside = {key: value for key, value in node.items() if key not in ("$ref", "anyOf")}
    if "$ref" in node:
        target = definitions.get(str(node["$ref"]).rpartition("/")[2])
        return {**_resolved(target, definitions), **beside}
    forms = [form for form in node.get("anyOf", ()) if form != {"type": "null"}]
    if len(forms) == 1:
        return {**_resolved(forms[0], definitions), **beside}
    return {**beside, "anyOf": forms} if forms else beside


@cache
def job_shape() -> Shape:
    schema = job_schema()
    definitions = schema["$defs"]
    return Shape(schema, definitions if isinstance(definitions, dict) else {})


@cache
def _known_keys() -> tuple[tuple[str, str], ...]:
    """Every key of a job with the dotted path of what holds it; items of a list are not counted."""
    return tuple(_walk(job_shape(), ""))


def _walk(shape: Shape, path: str) -> Iterator[tuple[str, str]]:
    forms = [*shape.branches, *(shape.tagged(tag) for tag in shape.tags)]
    if shape.kind == "array":
        forms.append(shape.child(0))
    for form in forms:
        yield from _walk(form, path)
    for key in shape.keys:
        yield key, path
        yield from _walk(shape.child(key), f"{path}.{key}" if path else key)


def homes(key: str, here: str = "") -> list[str]:
    """What may hold a key of this name, such as `task.params`; where that lies inside `here`, nothing else.

    A simulator's twin of it, that twin's in a schedule, and what the consensus section repeats (lanes, a prompt) count
    only when alone.
    """
    found = list(dict.fromkeys(path for known, path in _known_keys() if known == key and path != here))
    found = _without("schedule", _without("simulate", found))
    inside = [path for path in found if here and path.startswith(f"{here}.")]
    return _without("consensus", inside or found)


def _without(twin: str, paths: list[str]) -> list[str]:
    """The paths that do not lead through `twin`; where all do, all."""
    return [path for path in paths if twin not in path.split(".")] or paths


def shape_at(parts: Sequence[str | int], data: object) -> Shape:
    """What may stand at a path of a job, as far as `data` decides it."""
    shape = job_shape()
    for part in parts:
        shape, data = shape.at(part, data), under(data, part)
    return shape.tagged_by(data)


def under(value: object, part: str | int) -> object:
    """What `value` holds under a key or index; None where it holds nothing there."""
    if isinstance(value, Mapping):
        return value.get(part)
    if isinstance(value, list) and isinstance(part, int) and 0 <= part < len(value):
        return value[part]
    return None
