"""What a run of embeddings is compared with: the openai SDK, and the decoding of a reply alone.

Run as `python -m benchmarks.vector_clients sdk URL PACKS FORM` or `... decode FILE PACKS FORM`; FORM is `base64` or
`float`, FILE holds one reply. Nothing is kept by either of them.
"""

import asyncio
import binascii
import sys
from array import array
from pathlib import Path

#: Texts in one request, and their words: short, for it is vectors that are measured.
PACK = 256
DIMENSIONS = 1536
MODEL = "text-embedding-3-small"
IN_FLIGHT = 8
TEXT = "a passage of some words about lids, kettles and tents, number {}"


def texts(first: int) -> list[str]:
    return [TEXT.format(number) for number in range(first, first + PACK)]


async def ask_sdk(url: str, packs: int, form: str) -> None:
    """embeddings.create as its documents show it; in base64, its default, the SDK makes lists of floats itself."""
    import openai

    left = iter(range(packs))
    async with openai.AsyncOpenAI(
        base_url=url, api_key="none", max_retries=0, http_client=openai.DefaultAioHttpClient()
    ) as client:

        async def work() -> None:
            for pack in left:
                asked = texts(pack * PACK)
                reply = await (
                    client.embeddings.create(model=MODEL, input=asked)
                    if form == "base64"
                    else client.embeddings.create(model=MODEL, input=asked, encoding_format="float")
                )
                if len(reply.data) != PACK or len(reply.data[-1].embedding) != DIMENSIONS:
                    raise ValueError(f"the SDK read {len(reply.data)} vectors")

        await asyncio.gather(*(work() for _ in range(IN_FLIGHT)))


def decode(body: bytes, packs: int, form: str) -> None:
    """JSON → float32 → an Arrow column, and nothing else."""
    import orjson
    import pyarrow as pa

    for _ in range(packs):
        data = orjson.loads(body)["data"]
        if form == "base64":
            packed = [binascii.a2b_base64(entry["embedding"]) for entry in data]
        else:
            packed = [array("f", entry["embedding"]).tobytes() for entry in data]
        numbers = pa.Array.from_buffers(
            pa.float32(), PACK * DIMENSIONS, [None, pa.py_buffer(b"".join(packed))]
        )
        column = pa.FixedSizeListArray.from_arrays(numbers, DIMENSIONS)
        if len(column) != PACK:
            raise ValueError(f"{len(column)} vectors were decoded")


def main() -> None:
    what, place, packs, form = sys.argv[1:]
    if what == "sdk":
        import uvloop

        uvloop.run(ask_sdk(place, int(packs), form))
    else:
        decode(Path(place).read_bytes(), int(packs), form)


if __name__ == "__main__":
    main()
