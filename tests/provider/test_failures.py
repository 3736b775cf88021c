"""One line for each refusal that providers are known to send, with its body as it comes."""

from collections.abc import Mapping

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchllm.provider.failures import classify
from batchllm.records import Action, Billed, Failure, FailureCode

AGAIN, ELSEWHERE, SPLIT, GIVE_UP = Action.AGAIN, Action.ELSEWHERE, Action.SPLIT, Action.GIVE_UP
Code = FailureCode
NO_HEADERS: Mapping[str, str] = {}


def openai(
    message: str, code: object = None, kind: str = "invalid_request_error", param: str | None = None
) -> bytes:
    return orjson.dumps({"error": {"message": message, "type": kind, "param": param, "code": code}})


def openrouter(code: int, message: str, **more: object) -> bytes:
    return orjson.dumps({"error": {"code": code, "message": message, **more}})


def mistral(message: object, code: str | None, kind: str, status: int) -> bytes:
    return orjson.dumps(
        {
            "object": "error",
            "message": message,
            "type": kind,
            "param": None,
            "code": code,
            "raw_status_code": status,
        }
    )


def xai(error: str, code: str = "invalid-argument") -> bytes:
    return orjson.dumps({"code": code, "error": error})


def vllm(message: str, kind: str, code: int) -> bytes:
    return orjson.dumps({"error": {"message": message, "type": kind, "param": None, "code": code}})


def run(status: int, dialect: str, body: bytes, headers: Mapping[str, str] = NO_HEADERS) -> Failure:
    return classify(status, headers, body, dialect=dialect)


DEAD = [
    # Keys.
    (401, "openai", openai("Incorrect API key provided: sk-abc***.", "invalid_api_key"), Code.CREDENTIALS),
    (401, "mistral", b'{"message":"Unauthorized","request_id":"1"}', Code.CREDENTIALS),
    (401, "custom", b"", Code.CREDENTIALS),
    (400, "xai", xai("Incorrect API key provided: xa***zz. You can obtain an API key"), Code.CREDENTIALS),
    (400, "gemini", (b'[{"error":{"code":400,"message":"API key not valid. Please pass a valid API key.",'
     b'"status":"INVALID_ARGUMENT"}}]'), Code.CREDENTIALS),
    (403, "mistral", mistral("This model is in Labs", "1913", "forbidden", 403), Code.CREDENTIALS),
    (403, "openai", openai("Country, region, or territory not supported", "unsupported_country_region_territory"),
     Code.LANE_DEAD),
    (403, "groq", b"error code: 1010", Code.LANE_DEAD),
    (403, "openrouter", openrouter(403, "Not available in your region", metadata={"error_type": "region_restricted"}),
     Code.LANE_DEAD),
    (407, "custom", b"<html><title>Proxy Authentication Required</title></html>", Code.CREDENTIALS),
    # Money.
    (429, "openai", openai("You exceeded your current quota, please check your plan and billing details.",
                           "insufficient_quota", "insufficient_quota"), Code.QUOTA),
    (429, "openai", openai("Spend limit", "project_spend_limit_exceeded", "x"), Code.QUOTA),
    (429, "openai", openai("Spend limit", "organization_spend_limit_exceeded", "x"), Code.QUOTA),
    (429, "openai", openai("Usage limit", "organization_usage_limit_exceeded", "x"), Code.QUOTA),
    (429, "openai", openai("No credits", "credit_balance_exhausted", "x"), Code.QUOTA),
    (402, "deepseek", openai("Insufficient Balance", "invalid_request_error", "unknown_error"), Code.QUOTA),
    (402, "openrouter", openrouter(402, "This request requires more credits, or fewer max_tokens. You requested up to "
                                        "4096 tokens, but can only afford 100"), Code.QUOTA),
    (402, "together", b"", Code.QUOTA),
    (400, "groq", openai("Spend cap reached", "blocked_api_access"), Code.QUOTA),
    (403, "xai", xai("Your team 123 has either used all available credits or reached its monthly spending limit.",
                     "The caller does not have permission"), Code.QUOTA),
    (429, "xai", xai("Your team 123 has either used all available credits or reached its monthly spending limit."),
     Code.QUOTA),
    (400, "anthropic", openai("Your credit balance is too low to access the Anthropic API."), Code.QUOTA),
    (429, "gemini", openrouter(429, "You exceeded your current quota.\n* Quota exceeded for metric: generate_free, "
                                    "limit: 0\nPlease retry in 34s.", status="RESOURCE_EXHAUSTED"), Code.QUOTA),
    (429, "openai", openai("Rate limit reached for m on tokens per min (TPM): Limit 0, Used 0, Requested 10.",
                           "rate_limit_exceeded", "tokens"), Code.QUOTA),
    # Models and paths.
    (404, "openai", openai("The model `gpt-9` does not exist or you do not have access to it.", "model_not_found"),
     Code.MODEL_MISSING),
    (403, "openai", openai("Project `p` does not have access to model `m`", "model_not_found"), Code.MODEL_MISSING),
    (404, "openai", openai("This is not a chat model and thus not supported in the v1/chat/completions endpoint.",
                           None, param="model"), Code.MODEL_MISSING),
    (400, "openai", openai("invalid model ID", None, param="model"), Code.MODEL_MISSING),
    (404, "azure", openai("The API deployment for this resource does not exist.", "DeploymentNotFound"),
     Code.MODEL_MISSING),
    (400, "deepseek", openai("Model Not Exist", "invalid_request_error"), Code.MODEL_MISSING),
    (400, "mistral", mistral("Invalid model: mistral-huge", "1500", "invalid_model", 400), Code.MODEL_MISSING),
    (400, "groq", openai("The model `x` has been decommissioned", "model_decommissioned"), Code.MODEL_MISSING),
    (400, "openrouter", openrouter(400, "foo/bar is not a valid model ID"), Code.MODEL_MISSING),
    (404, "openrouter", openrouter(404, "No endpoints found matching your data policy"), Code.MODEL_MISSING),
    (404, "openrouter", openrouter(404, "gone", metadata={"error_type": "free_variant_ended"}), Code.MODEL_MISSING),
    (404, "vllm", vllm("The model `a/b` does not exist.", "NotFoundError", 404), Code.MODEL_MISSING),
    (404, "ollama", openai('model "llama9" not found, try pulling it first', None, "api_error"), Code.MODEL_MISSING),
    # LiteLLM's proxy, as it answered.
    (400, "custom", openai("/chat/completions: Invalid model name passed in model=no-such. Call `/v1/models` to view "
                           "available models for your key.", "400", "invalid_request_error"), Code.MODEL_MISSING),
    (400, "custom", openai("No connected db.", "400", "no_db_connection"), Code.CREDENTIALS),
    (400, "custom", openai("litellm.UnsupportedParamsError: openai does not support parameters: ['verbosity'], for "
                           "model=simulated.", "400", "invalid_request_error"), Code.CAPABILITY),
    (404, "custom", b'{"detail":"Not Found"}', Code.LANE_DEAD),
    (404, "openai", openai("Invalid URL (POST /chat/completions)"), Code.LANE_DEAD),
    (404, "groq", openai("Unknown request URL: POST /v1/chat. Please check the URL", "unknown_url"), Code.LANE_DEAD),
    (404, "custom", b"<html><head><title>404 Not Found</title></head></html>", Code.LANE_DEAD),
    (405, "custom", b'{"detail":"Method Not Allowed"}', Code.LANE_DEAD),
    (410, "perplexity", b"", Code.LANE_DEAD),
    (400, "custom", b"<html><title>400 The plain HTTP request was sent to HTTPS port</title></html>", Code.LANE_DEAD),
    # Parameters, the same in each row.
    (400, "openai", openai("Unsupported parameter: 'max_tokens' is not supported with this model. Use "
                           "'max_completion_tokens' instead.", "unsupported_parameter", param="max_tokens"),
     Code.CAPABILITY),
    (400, "openai", openai("Unsupported value: 'temperature' does not support 0 with this model.",
                           "unsupported_value", param="temperature"), Code.CAPABILITY),
    (400, "openai", openai("Unknown parameter: 'foo'.", "unknown_parameter", param="foo"), Code.CAPABILITY),
    (400, "openai", openai("max_tokens is too large: 99999. This model supports at most 16384 completion tokens, "
                           "whereas you provided 99999.", param="max_tokens"), Code.CAPABILITY),
    (400, "groq", openai("`max_tokens` must be less than or equal to `8192`, the maximum value for `max_tokens` is "
                         "less than the `context_window` for this model"), Code.CAPABILITY),
    (400, "gemini", (b'[{"error":{"code":400,"message":"Invalid JSON payload received. Unknown name \\"seed\\": Cannot '
     b'find field.","status":"INVALID_ARGUMENT"}}]'), Code.CAPABILITY),
    (422, "mistral", mistral({"detail": [{"type": "extra_forbidden", "loc": ["body", "seed"],
                                          "msg": "Extra inputs are not permitted", "input": 1}]},
                             None, "invalid_request_error", 422), Code.CAPABILITY),
    (501, "llamacpp", vllm("This server does not support embeddings. Start it with `--embeddings`",
                           "not_supported_error", 501), Code.CAPABILITY),
]  # fmt: skip

OTHERS = [
    # Rates.
    (429, "openai", openai("Rate limit reached for gpt-4o in organization o on tokens per min (TPM): Limit 200000, "
                           "Used 162960, Requested 42288. Please try again in 1.574s.", "rate_limit_exceeded",
                           "tokens"), AGAIN, Code.RATE_LIMIT),
    (429, "openai", openai("Slow down", "slow_down", "rate_limit_error"), AGAIN, Code.RATE_LIMIT),
    (429, "openai", openai("Resource Unavailable", None, "resource_unavailable"), AGAIN, Code.RATE_LIMIT),
    (429, "azure", (b'{"error":{"code":"429","message":"Requests have exceeded the token rate limit of your current '
     b'AIServices S0 pricing tier. Please retry after 26 seconds. To increase your default quota"}}'),
     AGAIN, Code.RATE_LIMIT),
    (429, "mistral", mistral("Rate limit exceeded", "1300", "rate_limited", 429), AGAIN, Code.RATE_LIMIT),
    (429, "mistral", mistral("Service tier capacity exceeded for this model.", "3505", "x", 429), AGAIN,
     Code.RATE_LIMIT),
    (429, "together", openai("You have been rate limited", "x", "dynamic_request_limited"), AGAIN, Code.RATE_LIMIT),
    (429, "fireworks", b'{"error":"rate limit exceeded, please try again later"}', AGAIN, Code.RATE_LIMIT),
    (429, "deepseek", openai("Too many concurrent requests"), AGAIN, Code.RATE_LIMIT),
    (429, "openrouter", openrouter(429, "Provider returned error", metadata={"provider_name": "X", "raw": "busy"}),
     AGAIN, Code.RATE_LIMIT),
    (429, "tgi", b'{"error":"Model is overloaded","error_type":"overloaded"}', AGAIN, Code.RATE_LIMIT),
    (429, "custom", b"", AGAIN, Code.RATE_LIMIT),
    (400, "custom", b'{"error":{"message":"rate limit exceeded"}}', AGAIN, Code.RATE_LIMIT),
    (503, "openai", openai("slow down", "slow_down", "service_unavailable_error"), AGAIN, Code.RATE_LIMIT),
    # Too much in one request.
    (429, "openai", openai("Request too large for gpt-4o in organization o on tokens per min (TPM): Limit 30000, "
                           "Requested 40000. The input or output tokens must be reduced in order to run "
                           "successfully.", "rate_limit_exceeded", "tokens"), SPLIT, Code.TOO_LARGE),
    (429, "openai", openai("Request too large for this organization."), SPLIT, Code.TOO_LARGE),
    (413, "groq", openai("Request too large for model `m` in organization `o` on tokens per minute (TPM): Limit 8000, "
                         "Requested 32979, please reduce your message size and try again.", "rate_limit_exceeded",
                         "tokens"), SPLIT, Code.TOO_LARGE),
    (429, "groq", openai("Rate limit reached for model `m` on tokens per minute (TPM): Limit 7000, Used 0, Requested "
                         "~12903. Please try again in 50s.", "rate_limit_exceeded", "tokens"), SPLIT, Code.TOO_LARGE),
    (413, "custom", b"<html><title>413 Request Entity Too Large</title></html>", SPLIT, Code.TOO_LARGE),
    (413, "openrouter", openrouter(413, "x", metadata={"error_type": "payload_too_large"}), SPLIT, Code.TOO_LARGE),
    (400, "mistral", mistral("Too many inputs in request, split into more batches.", "3210", "invalid_request_batch",
                             400), SPLIT, Code.TOO_LARGE),
    (400, "mistral", mistral("Too many tokens in batch. Max is 16384 got 20000", "3210", "x", 400), SPLIT,
     Code.TOO_LARGE),
    (400, "mistral", mistral("Too many tokens overall, split into more batches.", None, "x", 400), SPLIT,
     Code.TOO_LARGE),
    (400, "openai", openai("Invalid 'input': maximum request size is 300000 tokens per request.",
                           "max_tokens_per_request"), SPLIT, Code.TOO_LARGE),
    (422, "tei", b'{"error":"batch size 64 > maximum allowed batch size 32","error_type":"Validation"}', SPLIT,
     Code.TOO_LARGE),
    # Too long.
    (400, "openai", openai("This model's maximum context length is 128000 tokens. However, your messages resulted in "
                           "130000 tokens.", "context_length_exceeded", param="messages"), GIVE_UP,
     Code.CONTEXT_LENGTH),
    (400, "vllm", vllm("This model's maximum context length is 4096 tokens. However, you requested 5000 tokens (4000 "
                       "in the messages, 1000 in the completion).", "BadRequestError", 400), GIVE_UP,
     Code.CONTEXT_LENGTH),
    (400, "vllm", vllm("'max_tokens' or 'max_completion_tokens' is too large: 4096. This model's maximum context "
                       "length is 4096 tokens and your request has 20 input tokens", "BadRequestError", 400),
     GIVE_UP, Code.CONTEXT_LENGTH),
    (400, "anthropic", openai("prompt is too long: 210000 tokens > 200000 maximum"), GIVE_UP, Code.CONTEXT_LENGTH),
    (400, "xai", xai("This model's maximum prompt length is 131072 but the request contains 140000 tokens."), GIVE_UP,
     Code.CONTEXT_LENGTH),
    (400, "llamacpp", vllm("the request exceeds the available context size (4096)", "exceed_context_size_error", 400),
     GIVE_UP, Code.CONTEXT_LENGTH),
    (400, "gemini", openrouter(400, "The input token count (1100000) exceeds the maximum number of tokens allowed"),
     GIVE_UP, Code.CONTEXT_LENGTH),
    (422, "tgi", (b'{"error":"Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096. Given: 4000",'
     b'"error_type":"validation"}'), GIVE_UP, Code.CONTEXT_LENGTH),
    (400, "lmstudio", (b'{"error":"Trying to keep the first 5000 tokens when context the overflows. However, the model '
     b'is loaded with context length of only 4096 tokens"}'), GIVE_UP, Code.CONTEXT_LENGTH),
    (400, "openrouter", openrouter(400, "Provider returned error", metadata={
        "raw": '{"error":{"message":"This model\'s maximum context length is 8192 tokens."}}'}), GIVE_UP,
     Code.CONTEXT_LENGTH),
    (500, "custom", openai("image input is not supported - hint: if this is unexpected, you may need to provide the "
                           "mmproj", 500, "server_error"), ELSEWHERE, Code.CAPABILITY),
    (500, "custom", b'{"error":"the request exceeds the available context size"}', GIVE_UP, Code.CONTEXT_LENGTH),
    # Content.
    (400, "openai", openai("Your request was rejected", "content_policy_violation"), GIVE_UP, Code.CONTENT_FILTER),
    (400, "openai", openai("Invalid prompt: your prompt was flagged as potentially violating our usage policy.",
                           "invalid_prompt"), GIVE_UP, Code.CONTENT_FILTER),
    (400, "azure", (b'{"error":{"message":"The response was filtered","code":"content_filter","status":400,'
     b'"innererror":{"code":"ResponsibleAIPolicyViolation"}}}'), GIVE_UP, Code.CONTENT_FILTER),
    (403, "xai", xai("Content violates usage guidelines. Failed check: SAFETY_CHECK_TYPE_DATA_LEAKAGE"), GIVE_UP,
     Code.CONTENT_FILTER),
    (403, "openrouter", openrouter(403, "Your chosen model refused", metadata={"reasons": ["violence"]}), GIVE_UP,
     Code.CONTENT_FILTER),
    (400, "openrouter", openrouter(400, "no", metadata={"error_type": "refusal"}), GIVE_UP, Code.REFUSAL),
    # Bad requests.
    (400, "openai", openai("Invalid value: 'foo'.", "invalid_value", param="messages[0].role"), SPLIT,
     Code.INVALID_REQUEST),
    (400, "openai", openai("'$.input' is invalid. Please check the API reference"), SPLIT, Code.INVALID_REQUEST),
    (422, "deepseek", openai("Invalid parameter"), SPLIT, Code.INVALID_REQUEST),
    (422, "mistral", mistral({"detail": [{"type": "string_type", "loc": ["body", "input"], "msg": "bad"}]}, None, "x",
                             422), SPLIT, Code.INVALID_REQUEST),
    (412, "openrouter", openrouter(412, "x", metadata={"error_type": "precondition_failed"}), GIVE_UP,
     Code.INVALID_REQUEST),
    (424, "groq", openai("mcp server failed"), GIVE_UP, Code.INVALID_REQUEST),
    (418, "custom", b"teapot", SPLIT, Code.INVALID_REQUEST),
    (400, "openai", openai("Unsupported value: image", "unsupported_value", param="messages[0].content"), ELSEWHERE,
     Code.CAPABILITY),
    (403, "custom", b"<!DOCTYPE html><title>Attention Required!</title>", ELSEWHERE, Code.INVALID_REQUEST),
    (503, "openrouter", openrouter(503, "No available model provider that meets your routing requirements"),
     ELSEWHERE, Code.CAPABILITY),
    # The sampling went wrong, not the request.
    (400, "groq", (b'{"error":{"message":"Failed to validate JSON.","type":"invalid_request_error",'
     b'"code":"json_validate_failed","failed_generation":"{\\"a\\":"}}'), AGAIN, Code.SCHEMA_MISMATCH),
    (400, "groq", openai("Failed to call a function.", "tool_use_failed"), AGAIN, Code.MALFORMED),
    (422, "groq", openai("The model hallucinated a tool"), AGAIN, Code.MALFORMED),
    # The server's trouble.
    (408, "openrouter", openrouter(408, "timeout"), AGAIN, Code.SERVER),
    (409, "openai", openai("locked"), AGAIN, Code.SERVER),
    (498, "groq", openai("Flex tier capacity exceeded", "capacity_exceeded"), AGAIN, Code.SERVER),
    (499, "groq", b"", AGAIN, Code.SERVER),
    (500, "openai", openai("The server had an error", None, "server_error"), AGAIN, Code.SERVER),
    (502, "custom", b"<html><head><title>502 Bad Gateway</title></head></html>", AGAIN, Code.SERVER),
    (503, "llamacpp", vllm("Loading model", "unavailable_error", 503), AGAIN, Code.SERVER),
    (503, "ollama", b'{"error":"server busy, please try again.  maximum pending requests exceeded"}', AGAIN,
     Code.SERVER),
    (504, "openrouter", openrouter(504, "x", metadata={"error_type": "timeout"}), AGAIN, Code.SERVER),
    (520, "custom", b"", AGAIN, Code.SERVER),
    (524, "custom", b"error code: 524", AGAIN, Code.SERVER),
    (529, "anthropic", openai("Overloaded", None, "overloaded_error"), AGAIN, Code.SERVER),
    (599, "custom", b"\xff\xfe", AGAIN, Code.SERVER),
    (999, "custom", b"", AGAIN, Code.MALFORMED),
    (101, "custom", b"", AGAIN, Code.MALFORMED),
]  # fmt: skip


@pytest.mark.parametrize(("status", "dialect", "body", "code"), DEAD)
def test_fault_of_the_lane_ends_the_lane(status: int, dialect: str, body: bytes, code: FailureCode) -> None:
    failure = run(status, dialect, body)
    assert (failure.action, failure.code, failure.lane_is_dead) == (ELSEWHERE, code, True), failure
    assert (failure.status, failure.billed) == (status, Billed.NO)


@pytest.mark.parametrize(("status", "dialect", "body", "action", "code"), OTHERS)
def test_other_faults_leave_the_lane_alive(
    status: int, dialect: str, body: bytes, action: Action, code: FailureCode
) -> None:
    failure = run(status, dialect, body)
    assert (failure.action, failure.code, failure.lane_is_dead) == (action, code, False), failure


@pytest.mark.parametrize("status", [408, 499, 500, 502, 503, 504, 520, 529])
def test_work_may_have_been_done_before_the_server_failed(status: int) -> None:
    assert run(status, "custom", b"").billed is Billed.UNKNOWN


@pytest.mark.parametrize("status", [400, 401, 402, 404, 409, 413, 422, 429, 498])
def test_refusals_are_not_billed(status: int) -> None:
    assert run(status, "custom", b"").billed is Billed.NO


class TestWait:
    def test_wait_comes_from_the_header(self) -> None:
        assert run(429, "openai", openai("x"), {"retry-after": "7"}).retry_after_s == 7.0

    def test_wait_comes_from_the_body(self) -> None:
        body = openai("Rate limit reached ... tokens per day (TPD): Limit 100000, Used 97050, Requested 3619. "
                      "Please try again in 9m38.016s.", "rate_limit_exceeded", "tokens")  # fmt: skip
        failure = run(429, "groq", body)
        assert (failure.action, failure.retry_after_s) == (AGAIN, 578.016)

    def test_wait_of_openrouter_is_in_availability(self) -> None:
        body = openrouter(429, "busy", availability={"retryable": True, "retry_after": 12})
        assert run(429, "openrouter", body).retry_after_s == 12.0

    def test_unavailable_server_may_say_when(self) -> None:
        failure = run(503, "custom", b"", {"retry-after": "3"})
        assert (failure.action, failure.retry_after_s) == (AGAIN, 3.0)

    def test_wait_of_nothing_is_no_hint(self) -> None:
        """Else the lane would ask again at once, for ever."""
        assert run(429, "openai", openai("x"), {"retry-after": "0"}).retry_after_s is None

    def test_what_is_not_tried_again_has_no_wait(self) -> None:
        assert run(401, "openai", openai("x"), {"retry-after": "7"}).retry_after_s is None


class TestServersWord:
    def test_server_may_ask_for_a_retry(self) -> None:
        failure = run(400, "openai", openai("odd"), {"x-should-retry": "true"})
        assert (failure.action, failure.code) == (AGAIN, Code.SERVER)

    def test_server_may_forbid_a_retry(self) -> None:
        assert run(500, "openai", openai("x"), {"x-should-retry": "false"}).action is ELSEWHERE

    def test_forbidden_retry_with_a_time_is_a_wait(self) -> None:
        headers = {"x-should-retry": "false", "retry-after": "40"}
        failure = run(429, "openai", openai("x"), headers)
        assert (failure.action, failure.retry_after_s) == (AGAIN, 40.0)

    def test_rejected_key_is_not_tried_again_whatever_the_server_says(self) -> None:
        failure = run(401, "openai", openai("x"), {"x-should-retry": "true"})
        assert (failure.action, failure.lane_is_dead) == (ELSEWHERE, True)

    def test_too_long_a_prompt_is_not_tried_again_whatever_the_server_says(self) -> None:
        failure = run(400, "openai", openai("x", "context_length_exceeded"), {"x-should-retry": "true"})
        assert failure.action is GIVE_UP

    def test_word_of_openrouter_counts(self) -> None:
        busy = openrouter(503, "No provider meets your requirements", availability={"retryable": True})
        assert run(503, "openrouter", busy).action is AGAIN
        gone = openrouter(502, "x", availability={"retryable": False})
        assert run(502, "openrouter", gone).action is ELSEWHERE


class TestLimitOfTheRequest:
    BODY = openai("Token limit: 6000 tokens per minute")

    @pytest.mark.parametrize(
        ("tokens", "code"), [(6_001, Code.TOO_LARGE), (6_000, Code.RATE_LIMIT), (None, Code.RATE_LIMIT)]
    )
    def test_request_above_the_stated_limit_can_never_go(self, tokens: int | None, code: FailureCode) -> None:
        failure = classify(429, {}, self.BODY, dialect="together", requested_tokens=tokens)
        assert failure.code is code

    def test_limit_of_requests_is_not_compared_with_tokens(self) -> None:
        body = openai("Limit 3 requests, please slow down")
        assert classify(429, {}, body, dialect="x", requested_tokens=100).code is Code.RATE_LIMIT

    @pytest.mark.parametrize("name", ["x-ratelimit-limit-req-minute", "x-ratelimit-limit-tokens-minute"])
    def test_limit_of_nothing_in_the_headers_ends_the_lane(self, name: str) -> None:
        failure = run(
            429, "mistral", mistral("Rate limit exceeded", "1300", "rate_limited", 429), {name: "0"}
        )
        assert (failure.code, failure.lane_is_dead) == (Code.QUOTA, True)


class TestRedirect:
    def test_redirect_names_the_host_alone(self) -> None:
        failure = run(
            307, "custom", b"", {"location": "https://user:pw@other.example:8443/secret?key=abcdefgh"}
        )
        assert (failure.action, failure.code, failure.lane_is_dead) == (ELSEWHERE, Code.LANE_DEAD, True)
        assert "other.example:8443" in failure.message
        assert not any(word in failure.message for word in ("pw", "secret", "abcdefgh"))

    @pytest.mark.parametrize("location", ["", "/v2", "javascript:x"])
    def test_redirect_without_a_host_is_told_all_the_same(self, location: str) -> None:
        assert "another path" in run(301, "custom", b"", {"location": location}).message


class TestMessage:
    def test_server_s_words_code_and_status_are_told(self) -> None:
        message = run(404, "openai", openai("The model `x` does not exist.", "model_not_found")).message
        assert message.startswith("HTTP 404 [model_not_found]: The model `x` does not exist.")

    def test_remedy_stays_when_the_message_is_long(self) -> None:
        message = run(401, "openai", openai("no " * 500)).message
        assert len(message) <= 300
        assert message.endswith("(check this lane's api_key and its rights)")

    def test_control_characters_are_escaped_and_lines_folded(self) -> None:
        message = run(500, "x", openai("a\x1b[31mred\x00\r\n\n  b\u202e\u2028c\x85d")).message
        assert message == r"HTTP 500: a\x1b[31mred\x00 b\u202e c d"

    def test_echoed_key_is_hidden(self) -> None:
        key = "topsecret-0123456789"
        body = openai(f"the header was Authorization: {key}")
        assert key not in classify(400, {}, body, dialect="x", secrets=[key]).message

    def test_key_at_the_cut_is_hidden_whole(self) -> None:
        key = "Zq" * 40
        for before in range(200, 300, 7):
            body = openai("w " * (before // 2) + key)
            assert "ZqZq" not in classify(500, {}, body, dialect="x", secrets=[key]).message

    def test_page_is_told_by_its_title(self) -> None:
        message = run(502, "x", b"\n<!DOCTYPE html><html><title>Bad gateway</title><p>lots</p>").message
        assert "a web page: Bad gateway" in message
        assert "lots" not in message

    @pytest.mark.parametrize(
        ("body", "said"),
        [
            (b'{"error":"plain words"}', "plain words"),
            (b'{"message":"flat"}', "flat"),
            (b'{"detail":"fast"}', "fast"),
            (b'{"detail":[{"loc":["body","n"],"msg":"too big","type":"x"}]}', "n: too big"),
            (b'{"errors":[{"code":1,"message":"cloud"}]}', "cloud"),
            (b'[{"error":{"message":"array"}}]', "array"),
            (b'[{"loc":["body"],"msg":"listed"}]', "listed"),
            (b'{"error":{"message":"outer","metadata":{"raw":"inner words"}}}', "outer: inner words"),
            (b'"just text"', "just text"),
            (b"plain text", "plain text"),
            (b'{"a":1}', '{"a":1}'),
            (b"[]", "[]"),
            (b"", "no message"),
            (b'{"error":{}}', "no message"),
        ],
    )
    def test_words_are_found_in_every_shape(self, body: bytes, said: str) -> None:
        assert said in run(500, "x", body).message

    def test_rejected_generation_is_kept(self) -> None:
        body = b'{"error":{"code":"json_validate_failed","message":"x","failed_generation":"{\\"a\\" my-secret"}}'
        failure = classify(400, {}, body, dialect="groq", secrets=["my-secret"])
        assert (failure.content, failure.billed) == ('{"a" [key]', Billed.UNKNOWN)


_FIELDS = [
    "error",
    "message",
    "code",
    "type",
    "param",
    "detail",
    "errors",
    "metadata",
    "raw",
    "availability",
    "retryable",
    "retry_after",
    "details",
    "retryDelay",
    "loc",
    "msg",
    "innererror",
    "headers",
    "status",
]
_PLAIN = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False, allow_infinity=False)
)
_JSON = st.recursive(
    _PLAIN | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(_FIELDS), inner, max_size=5),
    max_leaves=12,
)


@given(
    status=st.integers(100, 999),
    body=st.binary(max_size=200) | _JSON.map(orjson.dumps),
    dialect=st.sampled_from(["openai", "groq", "openrouter", "mistral", "xai", "custom"]),
    headers=st.dictionaries(
        st.sampled_from(
            ["retry-after", "x-should-retry", "location", "date", "x-ratelimit-limit-req-minute"]
        ),
        st.text(max_size=20),
    ),
)
def test_no_body_is_too_strange(status: int, body: bytes, dialect: str, headers: dict[str, str]) -> None:
    failure = classify(status, headers, body, dialect=dialect)
    assert 0 < len(failure.message) <= 300
    assert failure.message.isprintable()
    assert not failure.lane_is_dead or failure.action is ELSEWHERE


@pytest.mark.parametrize("nest", [b'{"error":', b"[", b'{"error":[', b'{"message":{"detail":['])
def test_deep_nesting_is_survived(nest: bytes) -> None:
    close = {b"{": b"}", b"[": b"]"}
    tail = b"".join(close[bytes([char])] for char in reversed(nest) if bytes([char]) in close)
    for depth in (200, 500, 5_000):
        assert run(500, "x", nest * depth + b"1" + tail * depth).code is Code.SERVER


def test_huge_body_is_looked_at_briefly() -> None:
    failure = run(500, "x", b'{"error":{"message":"' + b"x" * 3_000_000 + b'"}}')
    assert failure.code is Code.SERVER
    assert '{"error"' in failure.message  # its beginning, as it came


@pytest.mark.parametrize(
    ("dialect", "message", "highest"),
    [
        ("openai", "max_tokens is too large: 99999. This model supports at most 16384 completion tokens", 16384),
        ("groq", "`max_completion_tokens` must be less than or equal to `8192`, the maximum value for it", 8192),
        ("deepseek", "Invalid max_tokens value, the valid range of max_tokens is [1, 8192]", 8192),
        ("anthropic", "max_tokens: 99999 > 64000, which is the maximum allowed number of output tokens for m", 64000),
        ("openai", "max_tokens is too large", None),
        ("openai", "Unknown parameter: 'at most 5 tokens'", None),
        ("openai", "max_tokens is too large: 1. This model supports at most 0 completion tokens", None),
    ],
)  # fmt: skip
def test_the_longest_answer_that_a_refusal_names(dialect: str, message: str, highest: int | None) -> None:
    failure = run(400, dialect, openai(message))
    assert (failure.code, failure.highest_cap) == (Code.CAPABILITY, highest)
