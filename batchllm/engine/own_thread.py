"""A run beside an event loop that is there already, as notebooks have one."""

import asyncio
import threading
from collections.abc import Callable
from typing import Any

from batchllm.engine.signals import RemoteStop, interrupts_for


def in_own_thread(call: Callable[[], Any], remote: RemoteStop) -> Any:
    """Run `call` where no event loop runs, so that it may start its own: notebooks have one already.

    Ctrl-C while the caller waits is passed to the run through `remote`: it must not go on, and spend, unseen.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return call()
    box: list[Any] = []
    errors: list[BaseException] = []

    def work() -> None:
        try:
            box.append(call())
        except BaseException as error:  # noqa: BLE001 - it is raised again in the thread that asked
            errors.append(error)

    thread = threading.Thread(target=work, name="batchllm-run", daemon=True)
    with interrupts_for(remote):
        thread.start()
        thread.join()
    if errors:
        raise errors[0]
    return box[0]
