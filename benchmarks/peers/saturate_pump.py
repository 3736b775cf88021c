"""saturate's pump with its adaptive window (it takes no rate); it writes its own Parquet."""

from saturate import pump

from benchmarks.peers.asked import MAX_TOKENS, Asked, answer, asked


def body(row: dict[str, str]) -> dict[str, object]:
    return {
        "model": "sim",
        "messages": [{"role": "user", "content": row["prompt"]}],
        "max_tokens": MAX_TOKENS,
    }


def columns(_row: dict[str, str], reply: dict[str, object]) -> dict[str, object]:
    return {"content": reply["choices"][0]["message"]["content"], "tokens": reply["usage"]["total_tokens"]}


def run(request: Asked) -> int:
    rows = ({"id": key, "prompt": prompt} for key, prompt in request.prompts())
    done = pump(rows, body, columns, request.url, "out", id_key="id", flush_every=1000)
    return done.rows_processed


if __name__ == "__main__":
    answer(run(asked()))
