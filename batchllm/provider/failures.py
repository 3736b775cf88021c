"""Replies that are no success: what each asks of the caller.

The table of `failure_rules` decides; here the server's own word is heeded, and the message is made: one line, with
the remedy, and without keys.
"""

import re
from collections.abc import Mapping, Sequence

from batchllm.provider.error_body import read_error
from batchllm.provider.failure_rules import REDIRECTED, Case, Ruling, highest_cap, ruling_for
from batchllm.provider.hints import retry_after_s
from batchllm.provider.redact import hide, one_line
from batchllm.records import Action, Failure, FailureCode

MESSAGE_CHARS = 300


def classify(
    status: int,
    headers: Mapping[str, str],
    body: bytes,
    *,
    dialect: str,
    requested_tokens: int | None = None,
    secrets: Sequence[str] = (),
) -> Failure:
    """What a reply with this status asks for. Header names are lower-case."""
    if 300 <= status < 400:
        return _failure(REDIRECTED, status, _redirection(headers), secrets)
    return rule(Case(status, headers, read_error(body), dialect, requested_tokens), secrets)


def rule(case: Case, secrets: Sequence[str] = (), *, http_status: int | None = None) -> Failure:
    """The same for an error that is read already; `http_status` where the error came with another one (200)."""
    wait_s = retry_after_s(case.headers, case.error.detail or case.error.message) or None
    ruling = _heed_server(ruling_for(case), case, wait_s)
    status = case.status if http_status is None else http_status
    failure = _failure(ruling, status, _message(case, status), secrets)
    text = case.error.generated
    return failure._replace(
        retry_after_s=wait_s if ruling.action is Action.AGAIN else None,
        content=None if text is None else hide(text, secrets),
        highest_cap=highest_cap(ruling, case.error.message),
    )


def _heed_server(ruling: Ruling, case: Case, wait_s: float | None) -> Ruling:
    """The server's own word on retrying goes before ours, where it gives one."""
    should_retry = {"true": True, "false": False}.get(case.headers.get("x-should-retry", "").lower())
    if should_retry is None:
        should_retry = case.error.is_retryable
    if should_retry is None or should_retry == (ruling.action is Action.AGAIN):
        return ruling
    if should_retry:
        # A rejected key or a spent account stays what it is, and a request that is too big stays too big.
        is_settled = ruling.is_dead or ruling.code in (FailureCode.TOO_LARGE, FailureCode.CONTEXT_LENGTH)
        return ruling if is_settled else ruling._replace(action=Action.AGAIN, code=_passing(ruling.code))
    if ruling.code is FailureCode.RATE_LIMIT and wait_s is not None:
        return ruling  # "not now" with a time is obeyed by waiting that long
    return ruling._replace(action=Action.ELSEWHERE)


def _passing(code: FailureCode) -> FailureCode:
    """What will pass is the server's trouble, not a fault of the request."""
    return FailureCode.SERVER if code in (FailureCode.INVALID_REQUEST, FailureCode.CAPABILITY) else code


def _failure(ruling: Ruling, status: int, message: str, secrets: Sequence[str]) -> Failure:
    tail = f" ({ruling.remedy})" if ruling.remedy else ""
    return Failure(
        ruling.action,
        ruling.code,
        one_line(message, secrets, MESSAGE_CHARS - len(tail)) + tail,
        status=status,
        billed=ruling.billed,
        lane_is_dead=ruling.is_dead,
    )


def _message(case: Case, status: int) -> str:
    error = case.error
    code = f" [{error.code}]" if error.code and error.code != str(status) else ""
    return f"HTTP {status}{code}: {error.message or 'no message'}"


def _redirection(headers: Mapping[str, str]) -> str:
    """Names the host alone: a path may hold what belongs to nobody else."""
    host = re.match(
        r"(?:https?:)?//(?:[^/@]*@)?([^/?#]+)", headers.get("location", "").strip(), re.IGNORECASE
    )
    return f"the server redirects to {host[1] if host else 'another path'}"
