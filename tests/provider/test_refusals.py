import pytest

from batchllm.provider.refusals import refused_limit
from batchllm.records import LimitScope


@pytest.mark.parametrize(
    ("message", "scope", "limit", "window_s"),
    [
        (
            "Rate limit reached for gpt-4o on tokens per min (TPM): Limit 30000, Used 29000, Requested 1500. Wait 1s",
            LimitScope.TOKENS, 30_000.0, 60.0,
        ),
        ("Rate limit reached for m on requests per min (RPM): Limit: 3, Used 3", LimitScope.REQUESTS, 3.0, 60.0),
        ("Rate limit reached on tokens per day (TPD): Limit 100,000, Used 97050", LimitScope.TOKENS, 1e5, 86_400.0),
        ("limit 60 requests per second exceeded", LimitScope.REQUESTS, 60.0, 1.0),
        ("Rate limit reached on concurrent requests: Limit 20, Used 20", LimitScope.CONCURRENCY, 20.0, 1.0),
        ("Too many simultaneous requests", LimitScope.CONCURRENCY, None, None),
        ("tokens per minute exceeded", LimitScope.TOKENS, None, None),
        ("HTTP 429: Too Many Requests", None, None, None),
        ("", None, None, None),
        ("Limit 0 on requests per min (RPM)", LimitScope.REQUESTS, None, None),
    ],
)  # fmt: skip
def test_what_a_refusal_names_is_read(
    message: str, scope: LimitScope | None, limit: float | None, window_s: float | None
) -> None:
    found = refused_limit(message)
    assert found.scope == scope
    if limit is None:
        assert found.hint is None
    else:
        assert found.hint is not None
        assert (found.hint.limit, found.hint.window_s) == (limit, window_s)


def test_a_hostile_message_takes_no_time() -> None:
    assert refused_limit("limit " * 100_000 + "per per per " * 100_000).scope is None
