"""LiteLLM's Router with one deployment, its limit told, retries on, gather with a semaphore, JSONL at the end."""

import asyncio

import litellm

from benchmarks.peers.asked import KEY, MAX_TOKENS, RETRIES, Asked, answer, asked, write


def router(request: Asked) -> litellm.Router:
    parameters: dict[str, object] = {"model": "openai/sim", "api_base": request.url, "api_key": KEY}
    if request.rpm is not None:
        parameters["rpm"] = int(request.rpm)
    return litellm.Router(
        model_list=[{"model_name": "sim", "litellm_params": parameters}],
        num_retries=RETRIES,
        # A single deployment that cools down after refusals leaves nobody to ask.
        disable_cooldowns=True,
    )


async def run(request: Asked) -> int:
    room = asyncio.Semaphore(request.in_flight)
    client = router(request)

    async def ask(key: str, prompt: str) -> dict[str, object] | None:
        async with room:
            try:
                reply = await client.acompletion(
                    model="sim", messages=[{"role": "user", "content": prompt}], max_tokens=MAX_TOKENS
                )
            except litellm.exceptions.RateLimitError:
                return None
        return {"id": key, "content": reply.choices[0].message.content, "tokens": reply.usage.total_tokens}

    done = await asyncio.gather(*(ask(*row) for row in request.prompts()))
    answers = [one for one in done if one is not None]
    write(answers)
    return len(answers)


if __name__ == "__main__":
    answer(asyncio.run(run(asked())))
