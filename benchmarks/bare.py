"""The wire and nothing else: aiohttp, uvloop and orjson in a loop, no row kept, no verdict, no record.

What a run costs is quoted as a multiple of this, against the same server in the same minute.
Run as `python -m benchmarks.bare BASE_URL ROWS_FILE CALLS IN_FLIGHT`. Its prompts are those of the first rows of
the file, over and over: reading rows is a runner's work and is not counted here.
"""

import asyncio
import json
import sys
from itertools import islice
from pathlib import Path

import aiohttp
import orjson
import uvloop

from benchmarks.servers import MAX_TOKENS, PROMPT

#: Enough that their lengths average out to those of the whole file.
_PROMPTS = 1_000


async def calls(url: str, prompts: list[str], count: int, in_flight: int) -> None:
    left = iter(range(count))
    connector = aiohttp.TCPConnector(limit=in_flight)
    async with aiohttp.ClientSession(connector=connector) as session:

        async def work() -> None:
            for number in left:
                body = {
                    "model": "sim",
                    "messages": [{"role": "user", "content": prompts[number % len(prompts)]}],
                    "max_tokens": MAX_TOKENS,
                }
                async with session.post(f"{url}/chat/completions", data=orjson.dumps(body)) as reply:
                    reply.raise_for_status()
                    orjson.loads(await reply.read())

        await asyncio.gather(*(work() for _ in range(in_flight)))


def main() -> None:
    url, rows, count, in_flight = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    with rows.open(encoding="utf-8") as file:
        prompts = [PROMPT + json.loads(line)["text"] for line in islice(file, _PROMPTS)]
    uvloop.run(calls(url, prompts, count, in_flight))


if __name__ == "__main__":
    main()
