"""The client without await leaves nothing behind."""

import gc
import threading

import pytest
from server_rig import Say, chat_reply, scripted

import batchllm
from batchllm.errors import BatchllmError


def threads() -> set[str]:
    return {
        thread.name for thread in threading.enumerate() if thread.name.startswith(("batchllm", "simulated"))
    }


def test_no_thread_before_the_first_call_and_none_after_the_end() -> None:
    client = batchllm.connect("simulator")
    assert threads() == set()
    client.chat("x")
    assert threads() == {"batchllm-client", "simulated-providers"}
    client.close()
    client.close()
    assert threads() == set()


def test_a_client_that_is_forgotten_ends_its_thread() -> None:
    with scripted(Say(body=chat_reply())) as server:
        client = batchllm.connect("custom", base_url=server.base_url, default_model="m")
        assert client.chat("x").content == "fine"
        del client
        gc.collect()
        assert threads() == set()


def test_it_is_of_no_use_after_its_close() -> None:
    with scripted(Say(body=chat_reply())) as server:
        client = batchllm.connect("custom", base_url=server.base_url, default_model="m")
        assert client.chat("x").content == "fine"
        client.close()
        with pytest.raises(BatchllmError, match="closed"):
            client.chat("x")


def test_a_close_ends_a_call_that_is_under_way() -> None:
    with scripted(Say(silent=True)) as server:
        client = batchllm.connect("custom", base_url=server.base_url, default_model="m", retries=0)
        outcome: list[BaseException] = []

        def ask() -> None:
            try:
                client.chat("x")
            except BaseException as error:  # noqa: BLE001 - whatever it is, it is looked at below
                outcome.append(error)

        asking = threading.Thread(target=ask)
        asking.start()
        while not server.seen:
            threading.Event().wait(0.005)
        client.close()
        asking.join(5)
    assert not asking.is_alive()
    assert isinstance(outcome[0], BatchllmError)
