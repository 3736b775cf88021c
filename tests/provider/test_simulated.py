import socket
import threading

import job_rig as rig
import pytest

from batchllm.provider.simulated import is_simulator


def test_a_simulator_says_what_it_is() -> None:
    with rig.served({}) as (urls, books):
        assert is_simulator(urls[0])
        assert is_simulator(urls[0].replace("127.0.0.1", "localhost"))
        assert books[0].ledger.accepted == 0
        gone = urls[0]
    assert not is_simulator(gone)


def test_another_server_is_none() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            client, _ = server.accept()
            with client:
                client.recv(4096)
                client.sendall(b"HTTP/1.1 200 OK\r\nserver: nginx\r\ncontent-length: 2\r\n\r\nok")

        thread = threading.Thread(target=answer)
        thread.start()
        assert not is_simulator(f"http://127.0.0.1:{server.getsockname()[1]}/v1")
        thread.join()


def test_a_server_that_talks_no_http_is_none() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            client, _ = server.accept()
            with client:
                client.sendall(b"220 mail ready\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        assert not is_simulator(f"http://127.0.0.1:{server.getsockname()[1]}/v1")
        thread.join()


@pytest.mark.parametrize(
    "url", ["https://api.openai.com/v1", "http://example.test/v1", "http://10.0.0.1/v1", ""]
)
def test_only_this_machine_is_asked(url: str) -> None:
    assert not is_simulator(url)
