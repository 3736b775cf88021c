"""Limits and waits as providers were seen to state them, and everything that is none."""

import math
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchllm.provider.hints import LONGEST_WAIT_S, duration_s, limits, nonsense, retry_after_s
from batchllm.records import LimitHint, LimitScope

DATE = "Mon, 23 Nov 2026 15:00:00 GMT"
DATE_S = 1_795_446_000.0


class TestDuration:
    @pytest.mark.parametrize(
        ("text", "seconds"),
        [
            ("1s", 1.0),
            ("6m0s", 360.0),
            ("12ms", 0.012),
            ("120ms", 0.12),
            ("4m12.172s", 252.172),
            ("23h18m29.144s", 83_909.144),
            ("2m59.56s", 179.56),
            ("7.66s", 7.66),
            ("1h", 3_600.0),
            ("2m", 120.0),
            ("1m30ms", 60.03),
            ("500µs", 0.0005),
            ("1d2h", 93_600.0),
            ("0", 0.0),
            ("0s", 0.0),
            ("33011.382867", 33_011.382867),
            (" 5 ", 5.0),
            ("-3", -3.0),
            (".5", 0.5),
        ],
    )
    def test_go_durations_and_numbers_are_seconds(self, text: str, seconds: float) -> None:
        assert duration_s(text) == pytest.approx(seconds)

    @pytest.mark.parametrize(
        "text",
        [
            "",
            " ",
            "s",
            "m",
            "-",
            ".",
            "nan",
            "inf",
            "-inf",
            "1e30",
            "unlimited",
            "5 s",
            "1s1h",
            "\uff11\uff12",
            "1__0",
            "2026-11-23",
        ],
    )
    def test_other_text_is_none(self, text: str) -> None:
        assert duration_s(text) is None
        assert duration_s(text, now_wall_s=DATE_S) is None

    @pytest.mark.parametrize(
        "text",
        [
            "1795446030",
            "1795446030000",
            "2026-11-23T15:00:30Z",
            "2026-11-23T16:00:30+01:00",
            "2026-11-23T15:00:30",
        ],
    )
    def test_points_in_time_are_measured_from_now(self, text: str) -> None:
        assert duration_s(text, now_wall_s=DATE_S) == 30.0
        assert duration_s(text) is None

    @given(st.text(max_size=120))
    def test_any_text_gives_a_number_or_none(self, text: str) -> None:
        for now_s in (None, DATE_S):
            seconds = duration_s(text, now_wall_s=now_s)
            assert seconds is None or math.isfinite(seconds)

    @given(st.integers(0, 23), st.integers(0, 59), st.integers(0, 59_999))
    def test_what_go_prints_reads_back(self, hours: int, minutes: int, milliseconds: int) -> None:
        text = f"{hours}h{minutes}m{milliseconds / 1000}s"
        assert duration_s(text) == pytest.approx(hours * 3_600 + minutes * 60 + milliseconds / 1000)


class TestRetryAfter:
    @pytest.mark.parametrize(
        ("headers", "body", "seconds"),
        [
            ({"retry-after-ms": "1500", "retry-after": "9"}, None, 1.5),
            ({"retry-after": "7"}, "Please try again in 1s", 7.0),
            ({"retry-after": "7.25"}, None, 7.25),
            ({"retry-after": "Mon, 23 Nov 2026 15:00:42 GMT", "date": DATE}, None, 42.0),
            ({"retry-after-ms": "soon", "retry-after": "7"}, None, 7.0),
            ({"retry-after": "soon"}, "Please try again in 5.289s. Visit", 5.289),
            ({}, "Please try again in 9m38.016s.", 578.016),
            ({}, "Please try again in 120ms.", 0.12),
            ({}, "try again in 20s", 20.0),
            ({}, "Please retry after 26 seconds. To increase", 26.0),
            ({}, "Please retry in 34.074824224s.", 34.074824224),
            ({}, "try again in 2 minutes", 120.0),
            ({}, "Rate limited, retry after 1 hour", 3_600.0),
            ({}, "please wait 3 seconds", 3.0),
            ({}, {"message": "Please try again in 5.289s."}, 5.289),
            ({}, {"availability": {"retry_after": 11}}, 11.0),
            ({}, {"details": [{"@type": "x"}, {"retryDelay": "34s"}]}, 34.0),
            ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "6m0s"}, None, 360.0),
            ({"x-ratelimit-remaining-tokens": "5", "x-ratelimit-reset-tokens": "6m0s"}, None, None),
            ({"x-ratelimit-remaining": "0", "x-ratelimit-reset": "1795446012000", "date": DATE}, None, 12.0),
            (
                {"date": DATE},
                {
                    "metadata": {
                        "headers": {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "1795446012000"}
                    }
                },
                12.0,
            ),
            ({}, None, None),
            ({}, "try again later", None),
            ({}, {"availability": "no", "details": "x", "metadata": 3, "message": None}, None),
        ],
    )
    def test_most_precise_hint_counts(
        self, headers: Mapping[str, str], body: Mapping[str, object] | str | None, seconds: float | None
    ) -> None:
        assert retry_after_s(headers, body) == seconds

    @pytest.mark.parametrize(
        ("headers", "seconds"),
        [
            ({"retry-after": "-5"}, 0.0),
            ({"retry-after": "999999999"}, LONGEST_WAIT_S),
            ({"retry-after": "9" * 90}, None),  # a point in time, and none to measure it from
            ({"retry-after": "Mon, 23 Nov 2026 14:00:00 GMT", "date": DATE}, 0.0),
            ({"retry-after": "Mon, 23 Nov 2099 14:00:00 GMT", "date": DATE}, LONGEST_WAIT_S),
            ({"retry-after": "Mon, 23 Nov 2026 15:00:42 GMT"}, None),
            ({"retry-after": "nan"}, None),
            ({"retry-after": "inf"}, None),
            ({"retry-after": ""}, None),
            ({"retry-after": "Mon, 99 Foo 2026 99:99:99 GMT", "date": "yesterday"}, None),
        ],
    )
    def test_nonsense_is_clamped_or_left_out(self, headers: Mapping[str, str], seconds: float | None) -> None:
        assert retry_after_s(headers) == seconds

    def test_wrong_clock_of_the_server_does_not_matter(self) -> None:
        headers = {"retry-after": "Fri, 01 Jan 2010 00:00:30 GMT", "date": "Fri, 01 Jan 2010 00:00:00 GMT"}
        assert retry_after_s(headers, now_wall_s=DATE_S) == 30.0

    def test_own_clock_stands_in_for_a_missing_date(self) -> None:
        headers = {"retry-after": "Mon, 23 Nov 2026 15:00:42 GMT"}
        assert retry_after_s(headers, now_wall_s=DATE_S) == 42.0

    @given(
        st.dictionaries(
            st.sampled_from(
                ["retry-after", "retry-after-ms", "date", "x-ratelimit-reset", "x-ratelimit-remaining"]
            ),
            st.text(max_size=60) | st.from_regex(r"\A[0-9.hms:TZ -]{1,30}\Z"),
        ),
        st.none() | st.text(max_size=80) | st.from_regex(r"\Atry again in [0-9.hms ]{1,20}[a-z]{0,8}\Z"),
    )
    def test_any_reply_gives_a_wait_within_a_day_or_none(
        self, headers: dict[str, str], body: str | None
    ) -> None:
        for now_s in (None, DATE_S):
            seconds = retry_after_s(headers, body, now_wall_s=now_s)
            assert seconds is None or 0.0 <= seconds <= LONGEST_WAIT_S


OPENAI = {
    "date": DATE,
    "x-ratelimit-limit-requests": "500",
    "x-ratelimit-limit-tokens": "200,000",
    "x-ratelimit-remaining-requests": "499",
    "x-ratelimit-remaining-tokens": "190000",
    "x-ratelimit-reset-requests": "120ms",
    "x-ratelimit-reset-tokens": "3s",
}


class TestLimits:
    @pytest.mark.parametrize(
        ("dialect", "headers", "hints"),
        [
            ("openai", OPENAI, [("requests", 500, 499, 0.12, 60), ("tokens", 200_000, 190_000, 3, 60)]),
            (
                "openai",
                {
                    "x-ratelimit-limit-requests": "200",
                    "x-ratelimit-remaining-requests": "199",
                    "x-ratelimit-reset-requests": "7m12s",
                },
                [("requests", 200, 199, 432, 86_400)],
            ),
            (
                "openai",
                {
                    **{key: value for key, value in OPENAI.items() if key.endswith("tokens")},
                    "x-ratelimit-limit-project-tokens": "50000",
                    "x-ratelimit-remaining-project-tokens": "10",
                    "x-ratelimit-reset-project-tokens": "59.98s",
                },
                [("tokens", 50_000, 10, 59.98, 60)],
            ),
            (
                "azure",
                {
                    "x-ratelimit-limit-tokens": "1000",
                    "x-ratelimit-remaining-tokens": "900",
                    "x-ratelimit-reset-tokens": "0",
                    "x-ratelimit-renewalperiod-tokens": "10",
                },
                [("tokens", 1_000, 900, 0, 10)],
            ),
            (
                "groq",
                {
                    "x-ratelimit-limit-requests": "1000",
                    "x-ratelimit-remaining-requests": "998",
                    "x-ratelimit-reset-requests": "2m52.8s",
                    "x-ratelimit-limit-tokens": "8000",
                    "x-ratelimit-remaining-tokens": "7979",
                    "x-ratelimit-reset-tokens": "157.5ms",
                },
                [("requests", 1_000, 998, 172.8, 86_400), ("tokens", 8_000, 7_979, 0.1575, 60)],
            ),
            ("groq", {"x-ratelimit-limit-requests": "1000"}, [("requests", 1_000, None, None, 86_400)]),
            (
                "mistral",
                {
                    "x-ratelimit-limit-req-minute": "50",
                    "x-ratelimit-remaining-req-minute": "49",
                    "x-ratelimit-limit-tokens-minute": "50000",
                    "x-ratelimit-remaining-tokens-minute": "0",
                    "x-ratelimit-tokens-query-cost": "17",
                },
                [("requests", 50, 49, None, 60), ("tokens", 50_000, 0, None, 60)],
            ),
            (
                "mistral",
                {
                    "x-ratelimitbysize-limit-minute": "500000",
                    "x-ratelimitbysize-remaining-minute": "499000",
                    "x-ratelimitbysize-limit-month": "1000000000",
                    "x-ratelimitbysize-remaining-month": "999999000",
                },
                [("tokens", 500_000, 499_000, None, 60), ("tokens", 1e9, 999_999_000, None, 2_592_000)],
            ),
            (
                "together",
                {
                    "x-ratelimit-limit": "10",
                    "x-ratelimit-remaining": "9",
                    "x-ratelimit-reset": "1",
                    "x-tokenlimit-limit": "3000",
                    "x-tokenlimit-remaining": "2000",
                },
                [("requests", 10, 9, 1, 1), ("tokens", 3_000, 2_000, None, 1)],
            ),
            (
                "fireworks",
                {
                    "x-ratelimit-limit-tokens-prompt": "21600000",
                    "x-ratelimit-limit-tokens-cache-adjusted-prompt": "5400000",
                    "x-ratelimit-limit-tokens-generated": "216000",
                    "x-ratelimit-remaining-tokens-prompt": "21000000",
                    "x-ratelimit-over-limit": "yes",
                },
                [("tokens", 5_400_000, 21_000_000, None, 60)],
            ),
            (
                "openrouter",
                {
                    "x-ratelimit-limit": "20",
                    "x-ratelimit-remaining": "0",
                    "x-ratelimit-reset": "1795446037000",
                    "date": DATE,
                },
                [("requests", 20, 0, 37, 60)],
            ),
            (
                "openrouter",
                {
                    "x-ratelimit-limit": "50",
                    "x-ratelimit-remaining": "0",
                    "x-ratelimit-reset": "1795467600000",
                    "date": DATE,
                },
                [("requests", 50, 0, 21_600, 86_400)],
            ),
            (
                "anthropic",
                {
                    "anthropic-ratelimit-requests-limit": "50",
                    "anthropic-ratelimit-requests-remaining": "40",
                    "anthropic-ratelimit-requests-reset": "2026-11-23T15:00:12Z",
                    "date": DATE,
                },
                [("requests", 50, 40, 12, 60)],
            ),
            (
                "custom",
                {
                    "x-ratelimit-limit-requests-day": "14400",
                    "x-ratelimit-remaining-requests-day": "14000",
                    "x-ratelimit-reset-requests-day": "33011.382867",
                    "x-ratelimit-limit-tokens-minute": "60000",
                    "x-ratelimit-remaining-tokens-minute": "0",
                },
                [("requests", 14_400, 14_000, 33_011.382867, 86_400), ("tokens", 60_000, 0, None, 60)],
            ),
            (
                "custom",
                {"ratelimit-limit": "100", "ratelimit-remaining": "50", "ratelimit-reset": "30"},
                [("requests", 100, 50, 30, 60)],
            ),
            ("deepseek", {"date": DATE, "content-type": "application/json"}, []),
        ],
    )
    def test_captured_headers_are_read(
        self,
        dialect: str,
        headers: Mapping[str, str],
        hints: list[tuple[str, float, float | None, float | None, float]],
    ) -> None:
        got = limits(headers, dialect=dialect)
        assert all(isinstance(hint, LimitHint) for hint in got)
        assert [tuple(hint) for hint in got] == hints

    @pytest.mark.parametrize(
        "limit", ["0", "-1", "NaN", "inf", "1e30", "9" * 30, "unlimited", "", "100, 100;w=60", "1.2.3", "٣"]
    )
    def test_limit_that_is_none_takes_its_budget_along(self, limit: str) -> None:
        headers = {"x-ratelimit-limit-tokens": limit, "x-ratelimit-remaining-tokens": "0"}
        assert limits(headers, dialect="openai") == ()

    @pytest.mark.parametrize("remaining", ["-1", "x", "", "nan"])
    def test_strange_remainder_is_unknown(self, remaining: str) -> None:
        headers = {"x-ratelimit-limit-tokens": "100", "x-ratelimit-remaining-tokens": remaining}
        assert limits(headers, dialect="openai") == (LimitHint("tokens", 100.0, None, None, 60.0),)

    @pytest.mark.parametrize(("limit", "reset"), [("150000000", "1ms"), ("3000", "1"), ("10000", "0s")])
    def test_rounded_reset_tells_no_window(self, limit: str, reset: str) -> None:
        """One of ten thousand taken and "1 s" to go: rounded up, not an hour's window."""
        headers = {
            "x-ratelimit-limit-tokens": limit,
            "x-ratelimit-remaining-tokens": str(int(limit) - 1),
            "x-ratelimit-reset-tokens": reset,
        }
        assert limits(headers, dialect="openai")[0].window_s == 60.0

    def test_window_that_fits_none_in_use_is_at_least_as_long_as_its_reset(self) -> None:
        headers = {"x-ratelimit-limit": "100", "x-ratelimit-remaining": "50", "x-ratelimit-reset": "100"}
        assert limits(headers, dialect="custom")[0].window_s == 3_600.0

    @given(
        limit=st.integers(10, 10**7),
        used_share=st.floats(0.01, 1.0),
        window_s=st.sampled_from([1.0, 60.0, 3_600.0, 86_400.0]),
    )
    def test_window_follows_from_the_refill(self, limit: int, used_share: float, window_s: float) -> None:
        used = max(1, int(limit * used_share))
        reset_ms = round(used / limit * window_s * 1000)
        headers = {
            "x-ratelimit-limit-tokens": str(limit),
            "x-ratelimit-remaining-tokens": str(limit - used),
            "x-ratelimit-reset-tokens": f"{reset_ms}ms",
        }
        told = limits(headers, dialect="openai")[0].window_s
        assert told == (window_s if reset_ms >= 5 else 60.0)

    @given(
        st.dictionaries(
            st.sampled_from(
                [
                    *OPENAI,
                    "x-ratelimit-limit",
                    "x-ratelimit-reset",
                    "x-ratelimit-remaining",
                    "x-ratelimit-limit-tokens-minute",
                    "x-ratelimit-renewalperiod-requests",
                    "x-tokenlimit-limit",
                    "anthropic-ratelimit-tokens-reset",
                ]
            )
            | st.text(max_size=20),
            st.text(max_size=40) | st.from_regex(r"\A[-0-9.,ehms:TZ ]{1,25}\Z") | st.integers().map(str),
        ),
        st.sampled_from(["openai", "groq", "together", "", "x"]),
    )
    def test_any_headers_give_sane_hints(self, headers: dict[str, str], dialect: str) -> None:
        hints = limits(headers, dialect=dialect)
        assert len({(hint.scope, hint.window_s) for hint in hints}) == len(hints)
        for hint in hints:
            assert hint.limit is None or 0 < hint.limit <= 1e13
            assert hint.remaining is None or hint.remaining >= 0
            assert hint.reset_s is None or hint.reset_s >= 0
            assert 0 < hint.window_s <= 2_592_000


@pytest.mark.parametrize(
    ("value", "is_a_word"),
    [("unlimited", True), ("", True), ("Inf", True), ("NaN", False), ("1e30", False), ("-5s", False)],
)
def test_a_limit_that_is_no_number_is_told_from_a_word_for_none(value: str, is_a_word: bool) -> None:
    headers = {"x-ratelimit-limit-tokens": value, "x-ratelimit-limit-requests": "60", "x-request-id": "NaN"}
    (found,) = nonsense(headers)
    assert found == (LimitScope.TOKENS, f"x-ratelimit-limit-tokens: {value!r}", is_a_word)


@pytest.mark.parametrize("value", ["60", "0", "-1", "1,000", "0.5"])
def test_a_number_is_no_nonsense(value: str) -> None:
    assert nonsense({"x-ratelimit-limit-requests": value}) == []
