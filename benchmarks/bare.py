"""The wire and nothing else: aiohttp, uvloop and orjson in a loop, no row kept, no verdict, no record.

What a run costs is quoted as a multiple of this, against the same server in the same minute.
Run as `python -m benchmarks.bare URL CALLS IN_FLIGHT`; prints one JSON object.
"""

import asyncio
import json
import resource
import sys
import time

import aiohttp
import orjson
import uvloop


async def calls(url: str, count: int, in_flight: int) -> None:
    left = iter(range(count))
    connector = aiohttp.TCPConnector(limit=in_flight)
    async with aiohttp.ClientSession(connector=connector) as session:

        async def work() -> None:
            for number in left:
                body = {
                    "model": "sim",
                    "messages": [{"role": "user", "content": f"Which sentiment has review {number}?"}],
                    "max_tokens": 20,
                }
                async with session.post(f"{url}/chat/completions", data=orjson.dumps(body)) as reply:
                    orjson.loads(await reply.read())

        await asyncio.gather(*(work() for _ in range(in_flight)))


def main() -> None:
    url, count, in_flight = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    start_s = time.monotonic()
    uvloop.run(calls(url, count, in_flight))
    used = resource.getrusage(resource.RUSAGE_SELF)
    print(
        json.dumps(
            {
                "calls": count,
                "wall_s": time.monotonic() - start_s,
                "cpu_s": used.ru_utime + used.ru_stime,
                "peak_mb": used.ru_maxrss / 1024,
            }
        )
    )


if __name__ == "__main__":
    main()
