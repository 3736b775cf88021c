"""Simulated OpenAI-compatible providers over real HTTP on loopback: rehearse a job, test a runner.

wire        HTTP/1.1 as bytes             budgets    one limit's arithmetic       limits    what is let in
fields      fields of a request body      hints      what is told of the limits   schedule  what changes, and when
faults      what goes wrong, and when an answer comes
calls       body → what is asked          answers    what is answered      schemas   values that fit a JSON Schema
replies     OpenAI's shapes               ledger     what was seen
profiles    what sets a provider apart    wording    its errors             costume   what comes and goes, in its terms
responder   one request → one reply       server     sockets               embedded  in a thread of the runner
"""

from batchllm.simulate.embedded import EmbeddedProviders
from batchllm.simulate.ledger import Ledger, LedgerEntry
from batchllm.simulate.server import SimulatedProvider

__all__ = ["EmbeddedProviders", "Ledger", "LedgerEntry", "SimulatedProvider"]
