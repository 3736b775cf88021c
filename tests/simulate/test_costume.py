"""A simulated provider in the clothes of each real one, and our own reading of what it says."""

from base64 import b64decode
from typing import Any, get_args

import orjson
import pytest

from batchllm.provider.catalogue import RESPONSES_PATH, TASK_KINDS, load_catalogue
from batchllm.provider.hints import limits as read_limits
from batchllm.provider.responses_reply import as_chat
from batchllm.provider.verdict import judge
from batchllm.records import Action, Failure, FailureCode, LimitScope, Response
from batchllm.simulate.call import Kind
from batchllm.simulate.delivery import Reply
from batchllm.simulate.ledger import Ledger
from batchllm.simulate.profiles import PROFILES
from batchllm.simulate.responder import Responder
from batchllm.simulate.wire import HttpRequest
from batchllm.spec.lanes import ProfileName, Simulation
from batchllm.spec.models import ChatTask
from batchllm.task import build_task
from batchllm.task.usage import read_usage
from batchllm.testing import SteppedClock, text_request

CATALOGUE = load_catalogue()
ASKED = build_task(ChatTask(type="chat", prompt="{{ x }}"), dimensions=None)
NAMES = list(PROFILES)
CHAT, EMBED = "/v1/chat/completions", "/v1/embeddings"
CHATTING = [name for name in NAMES if Kind.CHAT in PROFILES[name].kinds]


class Desk:
    """One profile, asked without a socket."""

    def __init__(
        self, profile: str, *, api_key: str | None = None, models: tuple[str, ...] = (), **more: Any
    ) -> None:
        simulation = Simulation.model_validate({"profile": profile, "latency": {"median_s": 0}, **more})
        self.ledger = Ledger()
        self.responder = Responder(simulation, self.ledger, SteppedClock(), api_key=api_key, models=models)

    def ask(self, path: str = CHAT, **fields: Any) -> Reply:
        content = (
            {"input": ["a b c", "d"]}
            if path == EMBED
            else {"messages": [{"role": "user", "content": "hi " * 40}]}
        )
        body = orjson.dumps({"model": "m", **content, **fields})
        return self.send("POST", path, body)

    def send(self, method: str, path: str, body: bytes = b"") -> Reply:
        return self.responder.handle(HttpRequest(method, path, {"content-type": "application/json"}, body))


def told(reply: Reply) -> Any:
    return orjson.loads(reply.make_body())


def judged(profile: str, reply: Reply) -> tuple[FailureCode, Action]:
    """What a lane of this provider makes of a refusal."""
    response = Response(reply.status, dict(reply.headers), reply.make_body(), 0.0)
    dialect = CATALOGUE.get(profile).dialect
    failure = judge(response, text_request(0), ASKED, dialect=dialect, secrets=())
    assert isinstance(failure, Failure), failure
    return failure.code, failure.action


def test_there_is_a_profile_for_each_name_and_an_entry_for_each_profile() -> None:
    assert set(PROFILES) == set(get_args(ProfileName))
    assert {entry.name for entry in CATALOGUE} - set(PROFILES) == {"anyscale", "custom", "simulator"}
    assert all(profile.source for profile in PROFILES.values())


@pytest.mark.parametrize("name", NAMES)
def test_a_profile_offers_what_its_entry_offers(name: str) -> None:
    entry = CATALOGUE.get(name)
    offered = {kind for kind in TASK_KINDS if entry.supports(kind) and entry.path(kind) != RESPONSES_PATH}
    assert {kind.value for kind in PROFILES[name].kinds} == offered


@pytest.mark.parametrize("name", NAMES)
def test_widths_of_vectors_are_those_of_the_catalogue(name: str) -> None:
    known = {model.name: model.dimensions for model in CATALOGUE.get(name).embeddings}
    assert dict(PROFILES[name].widths) == known


@pytest.mark.parametrize("name", NAMES)
def test_caps_of_a_pack_are_those_of_the_catalogue(name: str) -> None:
    profile, known = PROFILES[name], CATALOGUE.get(name).embeddings
    for model in known:
        assert profile.most_inputs is None or model.max_inputs <= profile.most_inputs
        assert model.max_tokens_per_request is None or profile.most_tokens in (
            None,
            model.max_tokens_per_request,
        )


# What is refused, and whether we understand it.


@pytest.mark.parametrize("name", NAMES)
def test_a_wrong_key_kills_the_lane(name: str) -> None:
    path = CHAT if name in CHATTING else EMBED
    reply = Desk(name, api_key="secret").ask(path)
    assert judged(name, reply) == (FailureCode.CREDENTIALS, Action.ELSEWHERE)


def test_xai_and_gemini_answer_a_wrong_key_with_400() -> None:
    assert {name for name in CHATTING if Desk(name, api_key="k").ask().status == 400} == {"xai", "gemini"}


@pytest.mark.parametrize("name", NAMES)
def test_a_model_that_does_not_exist_kills_the_lane(name: str) -> None:
    path = CHAT if name in CHATTING else EMBED
    reply = Desk(name, models=("another",)).ask(path)
    assert judged(name, reply) == (FailureCode.MODEL_MISSING, Action.ELSEWHERE)


@pytest.mark.parametrize("name", NAMES)
def test_an_endpoint_that_it_does_not_have_is_no_endpoint(name: str) -> None:
    paths = {Kind.CHAT: CHAT, Kind.EMBEDDING: EMBED, Kind.MODERATION: "/v1/moderations"}
    for kind, path in paths.items():
        if kind not in PROFILES[name].kinds:
            reply = Desk(name).ask(path)
            assert reply.status == 404
            assert judged(name, reply)[0] is FailureCode.LANE_DEAD


@pytest.mark.parametrize("name", NAMES)
def test_a_rate_limit_is_waited_for(name: str) -> None:
    path = CHAT if name in CHATTING else EMBED
    desk = Desk(name, limits={"rpm": 30})
    desk.ask(path)
    reply = desk.ask(path)
    assert reply.status == 429
    assert judged(name, reply) == (FailureCode.RATE_LIMIT, Action.AGAIN)
    assert desk.ledger.refused == 1


@pytest.mark.parametrize("name", NAMES)
def test_a_request_that_never_fits_is_split(name: str) -> None:
    path = CHAT if name in CHATTING else EMBED
    reply = Desk(name, limits={"tpm": 1}).ask(path)
    assert reply.status == (413 if name == "groq" or PROFILES[name].headers == "none" else 429)
    assert judged(name, reply) == (FailureCode.TOO_LARGE, Action.SPLIT)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("fault", ["overload_rate", "error_rate"])
def test_trouble_of_the_server_is_tried_again(name: str, fault: str) -> None:
    path = CHAT if name in CHATTING else EMBED
    reply = Desk(name, faults={fault: 1}).ask(path)
    odd = {("anthropic", "overload_rate"): 529, ("openrouter", "error_rate"): 200}
    assert reply.status == odd.get((name, fault), 503 if fault == "overload_rate" else 500)
    assert judged(name, reply) == (FailureCode.SERVER, Action.AGAIN)


@pytest.mark.parametrize(
    ("name", "path", "fields", "status"),
    [
        ("openai", CHAT, {"top_k": 5}, 400),
        ("openai", CHAT, {"model": "gpt-5-nano", "max_tokens": 5}, 400),
        ("openai", CHAT, {"model": "o3", "temperature": 0}, 400),
        ("openai", EMBED, {"encoding_format": "base64_int8"}, 400),
        ("azure", CHAT, {"top_k": 5}, 400),
        ("groq", CHAT, {"logprobs": True}, 400),
        ("groq", CHAT, {"n": 2}, 400),
        ("groq", CHAT, {"presence_penalty": 0.5}, 400),
        ("mistral", CHAT, {"seed": 7}, 422),
        ("mistral", CHAT, {"max_completion_tokens": 7}, 422),
        ("mistral", CHAT, {"stream_options": {"include_usage": True}}, 422),
        ("mistral", CHAT, {"temperature": 1.6}, 422),
        ("mistral", EMBED, {"dimensions": 7}, 422),
        ("mistral", EMBED, {"encoding_format": "base64"}, 422),
        ("deepseek", CHAT, {"response_format": {"type": "json_schema"}}, 400),
        ("deepseek", CHAT, {"n": 2}, 400),
        ("xai", CHAT, {"model": "grok-4.7", "stop": "x"}, 400),
        ("perplexity", EMBED, {"encoding_format": "base64"}, 400),
        ("perplexity", EMBED, {"encoding_format": "base64_int8", "user": "u"}, 400),
        ("perplexity", EMBED, {"model": "pplx-embed-v1-4b", "dimensions": 100}, 400),
        ("gemini", CHAT, {"seed": 1}, 400),
        ("anthropic", CHAT, {"n": 2}, 400),
    ],
)
def test_a_strict_provider_refuses_what_its_dialect_never_sends(
    name: str, path: str, fields: dict[str, Any], status: int
) -> None:
    desk = Desk(name)
    reply = desk.ask(path, **fields)
    assert reply.status == status
    assert desk.ledger.rejected == 1
    assert judged(name, reply)[1] in (Action.ELSEWHERE, Action.SPLIT, Action.GIVE_UP)


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("groq", {"logprobs": False, "n": 1, "presence_penalty": 0}),
        ("openai", {"model": "gpt-5-chat-latest", "max_tokens": 5}),
        ("xai", {"model": "grok-4.20-0309-non-reasoning", "stop": "x"}),
        ("mistral", {"random_seed": 7, "max_tokens": 5}),
        ("together", {"logprobs": 1, "anything": 1}),
        ("openrouter", {"anything": 1}),
        ("vllm", {"top_k": 5}),
    ],
)
def test_what_a_provider_takes_is_answered(name: str, fields: dict[str, Any]) -> None:
    assert Desk(name).ask(**fields).status == 200


def test_mistral_says_which_field_is_too_much() -> None:
    body = told(Desk("mistral").ask(seed=7))
    assert body["message"]["detail"][0]["loc"] == ["body", "seed"]
    assert body["raw_status_code"] == 422
    assert "error" not in body


@pytest.mark.parametrize(("name", "texts"), [("mistral", 513), ("perplexity", 513), ("gemini", 101)])
def test_a_pack_that_is_too_large_is_split(name: str, texts: int) -> None:
    reply = Desk(name).ask(EMBED, input=["x"] * texts)
    assert judged(name, reply) == (FailureCode.TOO_LARGE, Action.SPLIT)


def test_mistral_counts_the_tokens_of_a_pack() -> None:
    reply = Desk("mistral").ask(EMBED, input=["x" * 40_000] * 2)
    assert "Max is 16384 got 20000" in told(reply)["message"]
    assert judged("mistral", reply) == (FailureCode.TOO_LARGE, Action.SPLIT)


# What is told of the limits.


@pytest.mark.parametrize(
    ("name", "first"),
    [
        ("openai", {LimitScope.REQUESTS: (600.0, 60.0), LimitScope.TOKENS: (60_000.0, 60.0)}),
        ("azure", {LimitScope.REQUESTS: (600.0, 60.0), LimitScope.TOKENS: (60_000.0, 60.0)}),
        ("anthropic", {LimitScope.REQUESTS: (600.0, 60.0), LimitScope.TOKENS: (60_000.0, 60.0)}),
        ("groq", {LimitScope.REQUESTS: (5_000.0, 86_400.0), LimitScope.TOKENS: (60_000.0, 60.0)}),
        ("mistral", {LimitScope.REQUESTS: (600.0, 60.0), LimitScope.TOKENS: (60_000.0, 60.0)}),
        ("together", {LimitScope.REQUESTS: (10.0, 1.0), LimitScope.TOKENS: (1_000.0, 1.0)}),
        ("fireworks", {LimitScope.TOKENS: (60_000.0, 60.0)}),
        ("openrouter", {}),
        ("deepseek", {}),
        ("xai", {}),
        ("vllm", {}),
    ],
)
def test_limit_headers_are_read_as_what_is_enforced(
    name: str, first: dict[LimitScope, tuple[float, float]]
) -> None:
    desk = Desk(name, limits={"rpm": 600, "tpm": 60_000, "rpd": 5_000})
    hints = read_limits(dict(desk.ask(max_tokens=16).headers), dialect=CATALOGUE.get(name).dialect)
    assert {hint.scope: (hint.limit, hint.window_s) for hint in hints} == first


def test_openrouter_tells_its_limit_with_a_refusal_only() -> None:
    desk = Desk("openrouter", limits={"rpm": 60})
    assert "x-ratelimit-limit" not in dict(desk.ask().headers)
    headers = dict(desk.ask().headers)
    assert (headers["x-ratelimit-limit"], headers["x-ratelimit-remaining"]) == ("60", "0")
    assert len(headers["x-ratelimit-reset"]) == 13


def test_fireworks_says_that_it_is_over_its_limit() -> None:
    desk = Desk("fireworks", limits={"rpm": 60})
    desk.ask()
    assert dict(desk.ask().headers)["x-ratelimit-over-limit"] == "yes"


def test_a_simulation_s_own_words_win_over_the_profile_s() -> None:
    desk = Desk("groq", limits={"rpm": 60}, headers="mistral", retry_after="none")
    assert "x-ratelimit-limit-req-minute" in dict(desk.ask().headers)
    assert "retry-after" not in dict(desk.ask().headers)


# What is answered.


@pytest.mark.parametrize("name", CHATTING)
def test_what_was_used_is_read_from_each_provider_s_words(name: str) -> None:
    desk = Desk(name)
    model = {"xai": "grok-4.7", "openai": "o3", "azure": "o3", "fireworks": "a/gpt-oss-20b"}.get(
        name, "openai/gpt-oss-20b"
    )
    reply = desk.ask(model=model)
    usage = read_usage(told(reply))
    assert usage.prompt_tokens == desk.ledger.prompt_tokens
    assert usage.completion_tokens == desk.ledger.completion_tokens
    profile = PROFILES[name]
    thought = profile.thought_tokens if profile.usage != "plain" else 0
    assert (usage.reasoning_tokens or 0) == (0 if name == "mistral" else thought)
    if profile.usage not in ("plain", "together"):
        assert usage.cached_tokens == (usage.prompt_tokens or 0) // 4 > 0
    assert (usage.cost_usd is not None) == (name in {"xai", "openrouter"})


def test_xai_leaves_the_reasoning_out_of_the_completion() -> None:
    told_usage = told(Desk("xai").ask(model="grok-4.7"))["usage"]
    thought = told_usage["completion_tokens_details"]["reasoning_tokens"]
    assert thought > 0
    assert (
        told_usage["total_tokens"] == told_usage["prompt_tokens"] + told_usage["completion_tokens"] + thought
    )


def test_deepseek_does_not_think_when_told_not_to() -> None:
    thinking, silent = (
        read_usage(told(Desk("deepseek").ask(**fields))).reasoning_tokens
        for fields in ({}, {"thinking": {"type": "disabled"}})
    )
    assert thinking
    assert silent == 0


def test_deepseek_keeps_the_connection_alive_with_blank_lines() -> None:
    assert Desk("deepseek").ask().make_body().startswith(b"\n\n\n{")


def test_fireworks_tells_the_cached_tokens_in_a_header_too() -> None:
    headers = dict(Desk("fireworks").ask().headers)
    assert int(headers["fireworks-cached-prompt-tokens"]) == int(headers["fireworks-prompt-tokens"]) // 4


def test_together_ends_with_a_word_of_its_own() -> None:
    assert told(Desk("together").ask())["choices"][0]["finish_reason"] == "eos"


@pytest.mark.parametrize(
    ("name", "model", "field"),
    [
        ("deepseek", "deepseek-flash", "reasoning_content"),
        ("xai", "grok-4.7", "reasoning_content"),
        ("groq", "openai/gpt-oss-20b", "reasoning"),
        ("together", "openai/gpt-oss-20b", "reasoning"),
    ],
)
def test_reasoning_stands_where_the_provider_puts_it(name: str, model: str, field: str) -> None:
    assert told(Desk(name).ask(model=model))["choices"][0]["message"][field]


@pytest.mark.parametrize(
    ("name", "model", "width"),
    [
        ("mistral", "mistral-embed", 1024),
        ("openai", "text-embedding-3-large", 3072),
        ("gemini", "gemini-embedding-001", 3072),
    ],
)
def test_a_known_model_s_vectors_have_its_width(name: str, model: str, width: int) -> None:
    assert len(told(Desk(name).ask(EMBED, model=model))["data"][1]["embedding"]) == width


def test_mistral_s_other_width_is_asked_for_by_another_name() -> None:
    assert len(told(Desk("mistral").ask(EMBED, output_dimension=5))["data"][0]["embedding"]) == 5


def test_perplexity_s_vectors_are_signed_bytes() -> None:
    reply = told(Desk("perplexity").ask(EMBED, model="pplx-embed-v1-4b", dimensions=128))
    raw = b64decode(reply["data"][0]["embedding"])
    assert len(raw) == 128
    assert max(abs(byte - 256 if byte > 127 else byte) for byte in raw) == 127
    assert read_usage(reply).cost_usd == reply["usage"]["cost"]["total_cost"] > 0


def test_together_lists_its_models_bare_and_perplexity_lists_none() -> None:
    assert isinstance(told(Desk("together").send("GET", "/v1/models")), list)
    assert told(Desk("groq").send("GET", "/v1/models"))["object"] == "list"
    assert Desk("perplexity").send("GET", "/v1/models").status == 404


def test_the_usage_of_a_stream_is_told_in_the_same_words() -> None:
    fields = {"model": "grok-4.7", "stream": True, "stream_options": {"include_usage": True}}
    reply = Desk("xai").ask(**fields)
    usages = [event for event in reply.events if b'"usage":{' in event]
    assert len(usages) == 1
    assert b"cost_in_usd_ticks" in usages[0]


def test_a_body_that_cannot_be_read_is_refused_as_without_a_profile() -> None:
    desk = Desk("mistral")
    for body in (b"{", b"[]"):
        assert desk.send("POST", CHAT, body).status == 400


@pytest.mark.parametrize("name", NAMES)
def test_those_that_have_the_responses_api_serve_it(name: str) -> None:
    reply = Desk(name).send("POST", "/v1/responses", orjson.dumps({"model": "a/m", "input": "hi " * 40}))
    assert reply.status == (200 if "responses" in CATALOGUE.get(name).apis else 404)


@pytest.mark.parametrize(
    ("name", "model", "thought"),
    [
        ("openai", "gpt-5-nano", 8),
        ("xai", "grok-4.7", 24),
        ("perplexity", "a/b", 0),
        ("openai", "gpt-4.1", 0),
    ],
)
def test_the_usage_of_a_response_is_told_in_the_provider_s_words(name: str, model: str, thought: int) -> None:
    body = orjson.dumps({"model": model, "input": "hi " * 40})
    usage = read_usage(as_chat(told(Desk(name).send("POST", "/v1/responses", body))))
    assert (usage.reasoning_tokens, usage.cached_tokens) == (thought, (usage.prompt_tokens or 0) // 4)
    assert (usage.completion_tokens or 0) > thought
    assert (usage.cost_usd is not None) == (name in ("xai", "perplexity"))


def test_perplexity_s_presets_formats_and_refusals() -> None:
    desk = Desk("perplexity")
    schema = {"type": "object", "properties": {"label": {"enum": ["a"]}}, "required": ["label"]}
    form = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}
    given = {"preset": "medium", "input": "x", "response_format": form, "tools": [{"type": "web_search"}]}
    reply = told(desk.send("POST", "/v1/responses", orjson.dumps(given)))
    results, message = reply["output"]
    assert (results["type"], reply["model"]) == ("search_results", "medium")
    assert orjson.loads(message["content"][0]["text"]) == {"label": "a"}
    bad = desk.send("POST", "/v1/responses", orjson.dumps({**given, "temperature": 0}))
    assert judged("perplexity", bad) == (FailureCode.CAPABILITY, Action.ELSEWHERE)


def test_a_response_by_events_ends_with_the_same_words() -> None:
    given = {"preset": "medium", "input": "x", "tools": [{"type": "web_search"}], "stream": True}
    reply = Desk("perplexity").send("POST", "/v1/responses", orjson.dumps(given))
    last = orjson.loads(reply.events[-1].partition(b"data: ")[2])
    assert last["type"] == "response.completed"
    assert last["response"]["output"][0]["type"] == "search_results"
    assert last["response"]["usage"]["cost"]["total_cost"] > 0
