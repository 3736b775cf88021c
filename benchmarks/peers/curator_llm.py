"""Curator's LLM on its OpenAI backend with the limits told; it writes its own JSONL and Arrow."""

import os
from importlib.util import find_spec
from pathlib import Path

from benchmarks.peers.asked import KEY, MAX_TOKENS, RETRIES, Asked, answer, asked

# It counts tokens with a vocabulary that it would fetch from the network; LiteLLM, which it installs, ships it.
_LITELLM = find_spec("litellm")
if _LITELLM is not None and _LITELLM.origin is not None:
    _VOCABULARIES = Path(_LITELLM.origin).parent / "litellm_core_utils" / "tokenizers"
    os.environ["TIKTOKEN_CACHE_DIR"] = str(_VOCABULARIES)

from bespokelabs import curator  # noqa: E402 - after the variable that it reads

#: It falls back to 200 requests and 100,000 tokens a minute where it is told nothing.
_NEVER_BINDS = 1_000_000_000


class Sentiment(curator.LLM):
    """A prompt a row, the answer as a column beside its key."""

    def prompt(self, input: dict[str, str]) -> str:  # noqa: A002 - curator passes it by this name
        return input["prompt"]

    def parse(self, input: dict[str, str], response: str) -> dict[str, str]:  # noqa: A002 - the same
        return {"id": input["id"], "content": response}


def run(request: Asked) -> int:
    limits = {
        "max_requests_per_minute": _NEVER_BINDS if request.rpm is None else int(request.rpm),
        "max_tokens_per_minute": _NEVER_BINDS,
        "max_concurrent_requests": request.in_flight,
    }
    model = Sentiment(
        model_name="sim",
        backend="openai",
        generation_params={"max_tokens": MAX_TOKENS},
        backend_params={
            "base_url": request.url,
            "api_key": KEY,
            "max_retries": RETRIES,
            "require_all_responses": False,
            **limits,
        },
    )
    done = model([{"id": key, "prompt": prompt} for key, prompt in request.prompts()])
    return len(done.dataset)


if __name__ == "__main__":
    answer(run(asked()))
