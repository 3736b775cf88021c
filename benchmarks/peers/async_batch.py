"""async-batch-llm's process_prompts, tuned: the rate told, a second's worth at once, a cooldown of a second.

At its defaults one refusal stops everything for five minutes and lets 50 rows follow at 2 to 0.1 s each.
"""

import asyncio

from async_batch_llm import ProcessorConfig, llm, process_prompts
from async_batch_llm.core.config import RateLimitConfig

from benchmarks.peers.asked import KEY, MAX_TOKENS, Asked, answer, asked, write


async def run(request: Asked) -> int:
    config = ProcessorConfig(
        concurrency=request.in_flight,
        max_requests_per_minute=request.rpm,
        quota_burst_seconds=None if request.rpm is None else 1.0,
        rate_limit=RateLimitConfig(cooldown_seconds=1.0, slow_start_items=0),
    )
    strategy = llm(
        "openai-compatible:sim",
        base_url=request.url,
        api_key=KEY,
        generation_config={"max_tokens": MAX_TOKENS},
    )
    done = await process_prompts(strategy, request.prompts(), config=config)
    answers = [{"id": one.item_id, "content": one.output} for one in done.results if one.success]
    write(answers)
    return len(answers)


if __name__ == "__main__":
    answer(asyncio.run(run(asked())))
