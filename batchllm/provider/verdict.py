"""What a reply is worth: an answer for each row of its request, or a failure that says what to do next.

A status of 200 proves nothing. Providers send errors with it, gateways send web pages with it, and whatever the
task's own reading trips over was paid for all the same. So the judgement goes from the outside in: status, JSON,
errors inside, then the task; and an answer that cannot be used is kept beside the reason.
"""

from collections.abc import Callable, Mapping, Sequence

import orjson

from batchllm.ports import Task
from batchllm.provider.error_body import error_in, is_page
from batchllm.provider.failure_rules import Case
from batchllm.provider.failures import MESSAGE_CHARS, classify, rule
from batchllm.provider.mended_json import mended
from batchllm.provider.redact import hide, one_line
from batchllm.records import (
    Action,
    Billed,
    Failure,
    FailureCode,
    Reading,
    Request,
    Response,
    Usage,
)
from batchllm.task.usage import read_usage

#: A reply that broke the reading is kept up to here, in characters.
CONTENT_CHARS = 1_000_000
_ID_CHARS = 200
_SNIPPET_CHARS = 160
_ID_HEADERS = ("x-request-id", "request-id", "apim-request-id", "x-together-traceid")
#: Faults of one item: in a packed request they must not take the neighbours along.
_OF_ONE_ROW = frozenset(
    {
        FailureCode.CONTEXT_LENGTH,
        FailureCode.CONTENT_FILTER,
        FailureCode.REFUSAL,
        FailureCode.INVALID_REQUEST,
    }
)


def judge(
    response: Response,
    request: Request,
    task: Task,
    *,
    dialect: str,
    secrets: Sequence[str],
    keeps_body: bool = False,
    adapt: Callable[[object], object] | None = None,
) -> Reading | Failure:
    """Accept or classify one reply. `adapt` brings a parsed one to the shape that the task reads; it does not raise."""
    if 200 <= response.status < 300:
        verdict = _judge_success(response, request, task, dialect, secrets, adapt)
    else:
        verdict = _spare_neighbours(
            classify(
                response.status,
                response.headers,
                response.body,
                dialect=dialect,
                requested_tokens=request.prompt_tokens,
                secrets=secrets,
            ),
            request,
        )
    if verdict.request_id is None:
        verdict = verdict._replace(request_id=_request_id(response.headers, None))
    if response.ttft_s is not None:
        verdict = verdict._replace(ttft_s=response.ttft_s)
    if keeps_body:
        verdict = verdict._replace(body=hide(response.body.decode("utf-8", "replace"), secrets))
    return verdict


def _judge_success(
    response: Response,
    request: Request,
    task: Task,
    dialect: str,
    secrets: Sequence[str],
    adapt: Callable[[object], object] | None,
) -> Reading | Failure:
    try:
        reply = orjson.loads(response.body)
    except orjson.JSONDecodeError as error:
        reply = mended(response.body)
        if reply is None:
            return _malformed(response, str(error), secrets)
    if adapt is not None:
        reply = adapt(reply)
    failure = _error_inside(reply, response, request, dialect, secrets)
    if failure is not None:
        return failure
    verdict = _read(reply, response, request, task, secrets)
    return _complete(verdict, reply, response, dialect)


def _read(
    reply: object, response: Response, request: Request, task: Task, secrets: Sequence[str]
) -> Reading | Failure:
    try:
        verdict = task.read(reply, request)
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001 - a bug in the reading must not cost an answer that was paid for
        return Failure(
            Action.GIVE_UP,
            FailureCode.INTERNAL,
            one_line(f"reading the reply failed: {type(error).__name__}: {error}", secrets, MESSAGE_CHARS),
            status=response.status,
            billed=Billed.YES,
            content=_kept_text(response.body, secrets),
        )
    if isinstance(verdict, Failure):
        content = verdict.content
        return verdict._replace(
            message=one_line(verdict.message, secrets, MESSAGE_CHARS),
            status=response.status if verdict.status is None else verdict.status,
            content=None if content is None else hide(content, secrets),
        )
    return verdict


def _complete(
    verdict: Reading | Failure, reply: object, response: Response, dialect: str
) -> Reading | Failure:
    """Add what the reply says beside its answer: tokens, model, id."""
    told = reply if isinstance(reply, dict) else {}
    if isinstance(verdict, Failure):
        usage = verdict.usage or read_usage(told)
        verdict = verdict._replace(usage=usage, billed=_billed(verdict.billed, usage))
    elif dialect == "fireworks" and verdict.usage.cached_tokens is None:
        cached = response.headers.get("fireworks-cached-prompt-tokens", "")
        if cached.isdecimal() and len(cached) < 10:
            verdict = verdict._replace(usage=verdict.usage._replace(cached_tokens=int(cached)))
    model, request_id = verdict.model, verdict.request_id
    if model is None:
        said = told.get("model")
        model = said if isinstance(said, str) and said else None
    if request_id is None:
        request_id = _request_id(response.headers, told.get("id"))
    if isinstance(verdict, Reading):  # made anew: `_replace` takes four times as long
        return Reading(verdict.answers, verdict.usage, model, request_id)
    return verdict._replace(model=model, request_id=request_id)


def _billed(billed: Billed, usage: Usage) -> Billed:
    """A reply with status 200 was worked for; with counted tokens it is on the bill."""
    if billed is not Billed.NO:
        return billed
    return Billed.YES if usage.prompt_tokens or usage.completion_tokens else Billed.UNKNOWN


def _error_inside(
    reply: object, response: Response, request: Request, dialect: str, secrets: Sequence[str]
) -> Failure | None:
    """Errors that come with status 200: OpenRouter's, DeepSeek's, and those of gateways."""
    if not isinstance(reply, dict):
        return None
    choice = _first_choice(reply)
    finish = choice.get("finish_reason")
    error = reply.get("error")
    if not error and finish == "error":
        error = choice.get("error") or {"message": "the provider broke off the answer"}
    elif not error and finish == "insufficient_system_resource":
        error = {"message": "the provider ran out of resources (insufficient_system_resource)"}
    if not error:
        return None
    body = error_in({**reply, "error": error} if isinstance(error, str) else {"error": error})
    case = Case(body.status or 200, response.headers, body, dialect, request.prompt_tokens)
    failure = _spare_neighbours(rule(case, secrets, http_status=response.status), request)
    usage = read_usage(reply)
    is_counted = bool(usage.completion_tokens)
    text = _text_of(choice)
    return failure._replace(
        usage=usage,
        billed=Billed.YES if is_counted else failure.billed,
        content=hide(text, secrets) if text else failure.content,
        model=reply["model"] if isinstance(reply.get("model"), str) else None,
        request_id=_request_id(response.headers, reply.get("id")),
    )


def _first_choice(reply: Mapping[str, object]) -> Mapping[str, object]:
    choices = reply.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    return choice if isinstance(choice, dict) else {}


def _text_of(choice: Mapping[str, object]) -> str | None:
    message = choice.get("message")
    text = message.get("content") if isinstance(message, dict) else choice.get("text")
    return text if isinstance(text, str) else None


def _spare_neighbours(failure: Failure, request: Request) -> Failure:
    """One bad item refuses a whole packed request; halves find it."""
    is_of_one = failure.code in _OF_ONE_ROW and failure.action in (Action.GIVE_UP, Action.ELSEWHERE)
    if is_of_one and len(request.rows) > 1:
        return failure._replace(action=Action.SPLIT)
    return failure


def _malformed(response: Response, fault: str, secrets: Sequence[str]) -> Failure:
    text = response.body[: _SNIPPET_CHARS * 4].decode("utf-8", "replace")
    if not text.strip():
        message, hint = "the reply is empty", ""
    elif is_page(text):
        message, hint = "a web page came instead of JSON", " (is /v1 missing in base_url?)"
    else:
        snippet = one_line(text, secrets, _SNIPPET_CHARS)
        message, hint = f"the reply is no JSON: {fault}: {snippet}", ""
    return Failure(
        Action.AGAIN,
        FailureCode.MALFORMED,
        one_line(message, secrets, MESSAGE_CHARS - len(hint)) + hint,
        status=response.status,
        billed=Billed.UNKNOWN,
    )


def _kept_text(body: bytes, secrets: Sequence[str]) -> str:
    text = hide(body[: CONTENT_CHARS * 4].decode("utf-8", "replace"), secrets)
    return text[:CONTENT_CHARS]


def _request_id(headers: Mapping[str, str], body_id: object) -> str | None:
    """The provider's name for this call; the gateway's own number only where there is no better one."""
    for name in _ID_HEADERS:
        value = headers.get(name)
        if value:
            return _clean(value)
    if isinstance(body_id, str) and body_id:
        return _clean(body_id)
    ray = headers.get("cf-ray")
    return _clean(ray) if ray else None


def _clean(name: str) -> str:
    return (
        name
        if len(name) <= _ID_CHARS and name.isascii() and name.isprintable()
        else one_line(name, (), _ID_CHARS)
    )
