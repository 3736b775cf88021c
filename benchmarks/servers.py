"""Servers to measure against, each in a process of its own, and rows and jobs to send to them.

`constant_server` is nginx with one worker and an answer from memory: no runner is as fast as it is, so that the
runner is what is measured. `limited_server` is `batchllm simulate`, which enforces limits and keeps a ledger.
"""

import json
import os
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.harness import BenchmarkError

_TEXT = (
    "the a kettle tent works great but slow really bad nice lid broke after two weeks would buy it again and"
    " my sister likes hers better than this one which is fine for the price I guess"
)
#: Where the answers of each kind are: plain text, and JSON for a job with a `schema`.
CHAT, TYPED, VARIED = "/v1", "/typed/v1", "/varied/v1"
#: Stands in a reply for letters and digits that are different in each answer.
UNIQUE = "@unique@"
#: nginx reads its configuration through a buffer of 4,096 bytes that a parameter has to fit (NGX_CONF_BUFFER).
_MAX_REPLY_BYTES = 3_500
#: The folder, under nginx's prefix, of replies that are longer than that.
_LONG = "long"
_START_S = 10.0
#: Somebody else may take a free port between its being found and nginx's binding it.
_TRIES = 5


def chat_reply(content: str) -> str:
    """A chat completion as OpenAI sends it, about 500 bytes."""
    message: dict[str, object] = {"role": "assistant", "content": content, "refusal": None, "annotations": []}
    reply = {
        "id": "chatcmpl-CgQ5bHh2mP3xT9vYkR8wL4nJ7sD1f",
        "object": "chat.completion",
        "created": 1764000000,
        "model": "sim",
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}],
        "usage": {
            "prompt_tokens": 45,
            "completion_tokens": 6,
            "total_tokens": 51,
            "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
        },
        "service_tier": "default",
        "system_fingerprint": None,
    }
    return json.dumps(reply)


_REPLIES = {
    f"{CHAT}/chat/completions": chat_reply("positive, I should say"),
    f"{TYPED}/chat/completions": chat_reply('{"label": "positive"}'),
    f"{VARIED}/chat/completions": chat_reply(f'{{"label": "positive", "quote": "{UNIQUE}"}}'),
}


class ServerError(BenchmarkError):
    """A server could not be started; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Server:
    """`url` has no path. `environ` is what a client needs to trust it (SSL_CERT_FILE), else empty."""

    url: str
    environ: Mapping[str, str]


@contextmanager
def constant_server(
    *, core: int | None = None, is_tls: bool = False, replies: Mapping[str, str] = _REPLIES
) -> Iterator[Server]:
    """nginx on a free port of loopback, one worker, on `core` where given. Raises ServerError."""
    if shutil.which("nginx") is None:
        raise ServerError("nginx is not installed: apt-get install nginx (it need not be running)")
    with tempfile.TemporaryDirectory(prefix="nginx-") as name:
        folder = Path(name)
        folder.chmod(0o711)  # started by root, its worker is another user, and passes through here
        authority = _certificate(folder) if is_tls else None
        _write_long(folder / _LONG, replies)
        process, port = _started(folder, core=core, is_tls=is_tls, replies=replies)
        try:
            environ = {} if authority is None else {"SSL_CERT_FILE": str(authority)}
            yield Server(f"{'https' if is_tls else 'http'}://127.0.0.1:{port}", environ)
        finally:
            process.terminate()
            process.wait(timeout=20)


def _certificate(folder: Path) -> Path:
    """own.pem and key.pem for 127.0.0.1, good for a day; returns the authority that signed it."""
    if shutil.which("openssl") is None:
        raise ServerError("openssl is not installed: apt-get install openssl")
    request = ["openssl", "req", "-x509", "-nodes", "-days", "1", "-newkey", "ec"]
    request += ["-pkeyopt", "ec_paramgen_curve:P-256"]
    names = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    authority = ["-subj", "/CN=benchmark authority", "-keyout", "ca.key", "-out", "ca.pem"]
    # Strict clients take no authority's certificate for a server's.
    leaf = ["-addext", "basicConstraints=critical,CA:FALSE", "-addext", "extendedKeyUsage=serverAuth"]
    server = [*names, *leaf, "-CA", "ca.pem", "-CAkey", "ca.key", "-keyout", "key.pem", "-out", "own.pem"]
    for extra in (authority, server):
        command = [*request, *extra]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        if done.returncode:
            said = done.stderr.strip()
            raise ServerError(f"openssl made no certificate (3.0 or later is needed): {said}")
    return folder / "ca.pem"


def _started(
    folder: Path, *, core: int | None, is_tls: bool, replies: Mapping[str, str]
) -> tuple["subprocess.Popen[bytes]", int]:
    errors, said = folder / "error.log", ""
    for _ in range(_TRIES):
        port = free_port()
        config = nginx_config(port, core=core, is_tls=is_tls, replies=replies)
        (folder / "nginx.conf").write_text(config, "utf-8")
        with errors.open("wb") as file:
            process = subprocess.Popen(
                ["nginx", "-p", f"{folder}/", "-c", "nginx.conf", "-e", "error.log"], stderr=file
            )
        if _is_listening(process, port):
            return process, port
        process.terminate()
        process.wait(timeout=20)
        said = errors.read_text("utf-8", "replace").strip()
        if "in use" not in said:
            break
    raise ServerError(f"nginx did not start: {said.splitlines()[-1] if said else 'it said nothing'}")


def nginx_config(port: int, *, core: int | None, is_tls: bool, replies: Mapping[str, str]) -> str:
    """The whole configuration; paths are relative to nginx's prefix. Raises ValueError for a reply it cannot write."""
    places = "\n".join(_location(path, reply) for path, reply in replies.items())
    pinned = "" if core is None else f"worker_cpu_affinity 1{'0' * core};"
    tls = "ssl_certificate own.pem; ssl_certificate_key key.pem;" if is_tls else ""
    folders = " ".join(
        f"{kind}_temp_path {kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    return f"""
worker_processes 1; {pinned}
daemon off;
pid nginx.pid;
events {{ worker_connections 8192; }}
http {{
  access_log off;
  {folders}
  keepalive_requests 100000000; keepalive_timeout 600s;
  client_body_buffer_size 1m; client_max_body_size 64m;
  server {{
    listen 127.0.0.1:{port} {"ssl" if is_tls else ""} backlog=4096; {tls}
{places}
  }}
}}
"""


def _is_long(reply: str) -> bool:
    return len(reply.encode()) > _MAX_REPLY_BYTES


def _write_long(folder: Path, replies: Mapping[str, str]) -> None:
    """What does not fit into the configuration, as files under its own path."""
    for path, reply in replies.items():
        if _is_long(reply):
            file = folder / path.removeprefix("/")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(reply, "utf-8")


def _location(path: str, reply: str) -> str:
    if _is_long(reply):
        # nginx answers a POST to a file with 405, unless that is said to be the file with status 200.
        return f"    location = {path} {{ default_type application/json; root {_LONG}; error_page 405 =200 {path}; }}"
    # Inside single quotes nginx knows \\ and \', and reads $ as the start of a variable, which has no escape.
    if "$" in reply:
        raise ValueError(f"{path}: nginx's configuration has no way to write a $ in a reply")
    quoted = reply.replace("\\", "\\\\").replace("'", "\\'").replace(UNIQUE, "$request_id")
    return f"    location = {path} {{ default_type application/json; return 200 '{quoted}'; }}"


def free_port() -> int:
    """Of loopback, free at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _is_listening(process: "subprocess.Popen[bytes]", port: int) -> bool:
    """Whether it takes connections in time; False at once when it has ended."""
    end_s = time.monotonic() + _START_S
    while time.monotonic() < end_s and process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                # Somebody else may listen there: then nginx, which cannot, ends soon after.
                return process.poll() is None
        time.sleep(0.05)
    return False


@contextmanager
def limited_server(*options: str, core: int | None = None) -> Iterator[str]:
    """`batchllm simulate` with these options, on `core` where given; yields its base_url. Raises ServerError."""
    process = subprocess.Popen(
        [sys.executable, "-m", "batchllm", "simulate", "--port", "0", "--quiet", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        if core is not None:
            os.sched_setaffinity(process.pid, {core})
        first = process.stdout.readline().split() if process.stdout is not None else []
        if not first:
            said = process.stderr.read().strip() if process.stderr is not None else ""
            raise ServerError(
                f"batchllm simulate {' '.join(options)} did not start: {said or 'it said nothing'}"
            )
        yield first[0]
    finally:
        process.terminate()
        process.communicate(timeout=20)


def write_rows(path: Path, rows: int, seed: int = 1) -> None:
    """JSONL rows of 10 to 60 words, about 230 bytes each."""
    dice = random.Random(seed)
    words = _TEXT.split()
    with path.open("w", encoding="utf-8") as file:
        for number in range(rows):
            text = " ".join(dice.choices(words, k=dice.randint(10, 60)))
            file.write(json.dumps({"id": f"r{number:08d}", "text": text, "gold": "positive"}) + "\n")


#: What comes before the text of a row; the same from every client that is measured.
PROMPT = "Which sentiment has this review?\n\n"
MAX_TOKENS = 20
_LABEL = {"type": "string", "enum": ["positive", "negative", "neutral"]}
SCHEMA: Mapping[str, object] = {
    "type": "object",
    "properties": {"label": _LABEL},
    "required": ["label"],
    "additionalProperties": False,
}
QUOTING: Mapping[str, object] = {
    **SCHEMA,
    "properties": {"label": _LABEL, "quote": {"type": "string", "maxLength": 100}},
    "required": ["label", "quote"],
}


def job(
    base_url: str,
    *,
    limits: Mapping[str, float],
    schema: Mapping[str, object] | None = None,
    rows: str = "rows.jsonl",
) -> dict[str, object]:
    """A chat job over `rows`, into the folder `out`; `limits` as the lane is told them."""
    task: dict[str, object] = {
        "type": "chat",
        "prompt": PROMPT + "{{ text }}",
        "params": {"max_tokens": MAX_TOKENS},
    }
    if schema is not None:
        task["schema"] = schema
    lane = {
        "provider": "custom",
        "name": "local",
        "model": "sim",
        "base_url": base_url,
        "limits": limits,
        "price": {"input": 0.1, "output": 0.4},
    }
    return {
        "name": "benchmark",
        "input": {"path": rows, "key": "id"},
        "task": task,
        "providers": [lane],
        "output": {"path": "out", "carry": ["gold"]},
    }


def write_job(
    path: Path, base_url: str, *, limits: Mapping[str, float], schema: Mapping[str, object] | None = None
) -> None:
    """`job` as a file, over the rows.jsonl beside it."""
    path.write_text(json.dumps(job(base_url, limits=limits, schema=schema)), "utf-8")
