"""LangChain's ChatOpenAI.abatch with max_concurrency, and its InMemoryRateLimiter where there is a limit."""

import asyncio

from langchain_core.rate_limiters import InMemoryRateLimiter
from langchain_openai import ChatOpenAI
from openai import OpenAIError

from benchmarks.peers.asked import KEY, MAX_TOKENS, RETRIES, Asked, answer, asked, write

#: Its default of 0.1 s lets the only token of its bucket lie for half of that; at 50 a second 10 ms is fair.
_CHECK_S = 0.01


async def run(request: Asked) -> int:
    limiter = None
    if request.rpm is not None:
        limiter = InMemoryRateLimiter(requests_per_second=request.rpm / 60, check_every_n_seconds=_CHECK_S)
    model = ChatOpenAI(
        model="sim",
        base_url=request.url,
        api_key=KEY,
        max_tokens=MAX_TOKENS,
        max_retries=RETRIES,
        rate_limiter=limiter,
    )
    rows = request.prompts()
    done = await model.abatch(
        [prompt for _, prompt in rows], config={"max_concurrency": request.in_flight}, return_exceptions=True
    )
    if faults := [one for one in done if isinstance(one, Exception) and not isinstance(one, OpenAIError)]:
        raise faults[0]
    answers = [
        {"id": key, "content": one.content, "usage": one.usage_metadata}
        for (key, _), one in zip(rows, done, strict=True)
        if not isinstance(one, Exception)
    ]
    write(answers)
    return len(answers)


if __name__ == "__main__":
    answer(asyncio.run(run(asked())))
