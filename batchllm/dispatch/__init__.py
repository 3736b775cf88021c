"""One request → one outcome: the only loop over limit, provider, verdict, retry and fallback."""

from batchllm.dispatch.calls import Out
from batchllm.dispatch.endings import Ending
from batchllm.dispatch.lane import Lane, asked_as_before
from batchllm.dispatch.loop import Dispatcher, FeedBatch, Portion, Spreading
from batchllm.dispatch.polls import Polling

__all__ = [
    "Dispatcher",
    "Ending",
    "FeedBatch",
    "Lane",
    "Out",
    "Polling",
    "Portion",
    "Spreading",
    "asked_as_before",
]
