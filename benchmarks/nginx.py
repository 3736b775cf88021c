"""nginx as the constant server: it answers at once, with one reply, and costs so little that the client is measured."""

import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

_ANSWER = (
    '{"id":"chatcmpl-1","object":"chat.completion","created":1700000000,"model":"sim","choices":[{"index":0,'
    '"message":{"role":"assistant","content":"positive, I should say"},"finish_reason":"stop","logprobs":null}],'
    '"usage":{"prompt_tokens":45,"completion_tokens":6,"total_tokens":51}}'
)
_CONFIG = """\
worker_processes 1;
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/error.log crit;
events {{ worker_connections 8192; }}
http {{
  access_log off;
  client_body_temp_path {folder}/1; proxy_temp_path {folder}/2; fastcgi_temp_path {folder}/3;
  uwsgi_temp_path {folder}/4; scgi_temp_path {folder}/5;
  keepalive_requests 100000000; keepalive_timeout 600s;
  client_body_buffer_size 1m; client_max_body_size 64m;
  server {{
    listen 127.0.0.1:{port} backlog=4096{ssl};
    {certificate}
    location = /v1/chat/completions {{ default_type application/json; return 200 '{answer}'; }}
  }}
}}
"""


class Server(NamedTuple):
    """`authority`: the certificate to trust; None without TLS."""

    base_url: str
    authority: Path | None


@contextmanager
def nginx(*, tls: bool = False) -> Iterator[Server]:
    """A server of its own on a free port of loopback, with a certificate made for it where TLS is asked for."""
    program = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin:/opt/homebrew/bin")
    if program is None:
        raise SystemExit("nginx is not installed: it is the server that clients are measured against")
    with tempfile.TemporaryDirectory() as name:
        folder, port = Path(name), _free_port()
        authority = _certificate(folder) if tls else None
        told = (
            f"ssl_certificate {folder}/certificate.pem; ssl_certificate_key {folder}/key.pem;" if tls else ""
        )
        (folder / "nginx.conf").write_text(
            _CONFIG.format(
                folder=folder, port=port, ssl=" ssl" if tls else "", certificate=told, answer=_ANSWER
            )
        )
        process = subprocess.Popen([program, "-p", name, "-c", str(folder / "nginx.conf")])
        try:
            _await_port(port, process)
            yield Server(f"http{'s' if tls else ''}://localhost:{port}/v1", authority)
        finally:
            process.terminate()
            process.wait(timeout=20)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _await_port(port: int, process: subprocess.Popen[bytes]) -> None:
    for _ in range(200):
        if process.poll() is not None:
            raise SystemExit(f"nginx ended with {process.returncode} before it listened on port {port}")
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise SystemExit(f"nginx does not listen on port {port} after 10 s")


def _certificate(folder: Path) -> Path:
    """An authority, and the server's certificate signed by it: some clients take no authority for a server."""
    make = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2"
    authority = f"{make} -subj /CN=benchmark -keyout {folder}/ca.key -out {folder}/ca.pem"
    server = (
        f"{make} -subj /CN=localhost -addext subjectAltName=DNS:localhost"
        f" -addext basicConstraints=critical,CA:FALSE -CA {folder}/ca.pem -CAkey {folder}/ca.key"
        f" -keyout {folder}/key.pem -out {folder}/certificate.pem"
    )
    for command in (authority, server):
        subprocess.run(command.split(), check=True, capture_output=True)
    return folder / "ca.pem"
