"""This project in the peers' harness: a whole run, Parquet and journal out."""

import os

import batchllm
from benchmarks.peers.asked import Asked, answer, asked
from benchmarks.servers import job


def run(request: Asked) -> int:
    limits: dict[str, float] = {"concurrency": request.in_flight}
    if request.rpm is not None:
        limits["rpm"] = request.rpm
    done = batchllm.run(job(request.url, limits=limits, rows=os.fspath(request.rows)), limit=request.limit)
    return done.summary.ok


if __name__ == "__main__":
    answer(run(asked()))
