"""The openai SDK as its users run it: AsyncOpenAI with retries, gather, a semaphore, JSONL at the end."""

import asyncio

from openai import AsyncOpenAI, OpenAIError

from benchmarks.peers.asked import KEY, MAX_TOKENS, RETRIES, Asked, answer, asked, write


async def run(request: Asked) -> int:
    room = asyncio.Semaphore(request.in_flight)
    async with AsyncOpenAI(base_url=request.url, api_key=KEY, max_retries=RETRIES) as client:

        async def ask(key: str, prompt: str) -> dict[str, object]:
            async with room:
                reply = await client.chat.completions.create(
                    model="sim", messages=[{"role": "user", "content": prompt}], max_tokens=MAX_TOKENS
                )
            used = reply.usage.total_tokens if reply.usage is not None else None
            return {"id": key, "content": reply.choices[0].message.content, "tokens": used}

        done = await asyncio.gather(*(ask(*row) for row in request.prompts()), return_exceptions=True)
    if faults := [one for one in done if isinstance(one, BaseException) and not isinstance(one, OpenAIError)]:
        raise faults[0]
    answers = [one for one in done if isinstance(one, dict)]
    write(answers)
    return len(answers)


if __name__ == "__main__":
    answer(asyncio.run(run(asked())))
