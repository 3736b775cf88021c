"""Decisions of the simulated provider, asked without a socket and with a clock that is moved by hand."""

import hashlib
from pathlib import Path

import orjson
import pytest

from batchllm.simulate.delivery import Delivery, Reply
from batchllm.simulate.ledger import Ledger
from batchllm.simulate.responder import Responder
from batchllm.simulate.wire import HttpRequest, WireError
from batchllm.spec.lanes import Simulation
from batchllm.testing import SteppedClock

CHAT = "/v1/chat/completions"


class Desk:
    """A responder with its clock and ledger."""

    def __init__(self, simulation: dict[str, object] | None = None, **options: object) -> None:
        self.clock = SteppedClock()
        self.ledger = options.pop("ledger", None) or Ledger()
        self.responder = Responder(
            Simulation.model_validate(simulation or {}), self.ledger, self.clock, **options
        )

    def ask(self, text: str = "hi", *, path: str = CHAT, **fields: object) -> Reply:
        body = {
            "model": "m",
            "messages": [{"role": "user", "content": text}],
            "prompt": text,
            "input": text,
            **fields,
        }
        return self.send(orjson.dumps(body), path=path)

    def send(
        self,
        body: bytes = b"",
        *,
        method: str = "POST",
        path: str = CHAT,
        headers: dict[str, str] | None = None,
    ) -> Reply:
        given = {"content-type": "application/json", **(headers or {})}
        return self.responder.handle(HttpRequest(method, path, given, body))

    def answered(self, text: str = "hi", **fields: object) -> Reply:
        reply = self.ask(text, **fields)
        self.end(reply)
        return reply

    def end(self, reply: Reply, *, is_delivered: bool = True) -> None:
        if reply.ticket is not None:
            self.responder.finish(reply.ticket, is_delivered=is_delivered)


def error_of(reply: Reply) -> dict[str, object]:
    error = orjson.loads(reply.make_body())["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return error


def test_a_second_responder_with_the_same_seed_answers_the_same() -> None:
    simulation = {
        "seed": 5,
        "faults": {"error_rate": 0.3, "cut_rate": 0.2},
        "latency": {"median_s": 1, "p99_s": 2},
    }
    one, other = Desk(simulation), Desk(simulation)
    for number in range(100):
        first, second = one.answered(str(number)), other.answered(str(number))
        assert (first.status, first.delivery, first.delay_s) == (
            second.status,
            second.delivery,
            second.delay_s,
        )
        assert first.make_body() == second.make_body()


def test_every_reply_has_a_new_id_and_the_headers_of_a_service() -> None:
    desk = Desk({"latency": {"median_s": 0.25}}, nonce="abc")
    first, second = dict(desk.ask().headers), dict(desk.ask().headers)
    assert first["x-request-id"] == "req_abc000000000001"
    assert second["x-request-id"] == "req_abc000000000002"
    assert first["openai-processing-ms"] == "250"
    assert first["date"].endswith("GMT")


def test_the_date_follows_the_clock() -> None:
    desk = Desk()
    before = dict(desk.ask().headers)["date"]
    desk.clock.advance(3600)
    assert dict(desk.ask().headers)["date"] != before


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/healthz", 200),
        ("GET", "/v1/healthz", 200),
        ("GET", "/v1/models", 200),
        ("GET", "/models/", 200),
        ("GET", "/api/v1/models/meta/llama-3", 200),
        ("GET", "/api/v1/models/meta%2Fllama-3", 200),
        ("GET", CHAT, 405),
        ("POST", "/v1/models", 405),
        ("POST", "/healthz", 405),
        ("DELETE", "/v1/models/x", 405),
        ("GET", "/v1/responses", 405),
        ("POST", "/v1/files", 404),
        ("GET", "/", 404),
    ],
)
def test_each_path_has_its_method(method: str, path: str, status: int) -> None:
    assert Desk().send(b"{}", method=method, path=path).status == status


@pytest.mark.parametrize("prefix", ["", "/v1", "/openai/v1", "/api/proxy/v2"])
@pytest.mark.parametrize("path", ["/chat/completions", "/completions", "/embeddings", "/moderations"])
def test_endpoints_are_found_under_any_prefix(prefix: str, path: str) -> None:
    assert Desk().ask(path=prefix + path).status == 200


def test_a_wrong_method_is_told_the_right_one() -> None:
    reply = Desk().send(method="GET")
    assert dict(reply.headers)["allow"] == "POST"
    assert error_of(reply)["code"] == "method_not_supported"


@pytest.mark.parametrize("media", ["", "text/plain", "application/x-www-form-urlencoded"])
def test_what_is_not_sent_as_json_is_not_taken(media: str) -> None:
    assert Desk().send(b"{}", headers={"content-type": media}).status == 415


@pytest.mark.parametrize(
    "media", ["application/json; charset=utf-8", "Application/JSON", "application/vnd.x+json"]
)
def test_json_is_known_by_its_names(media: str) -> None:
    assert Desk().send(b"{}", headers={"content-type": media}).status == 400


def test_a_compressed_body_is_not_taken() -> None:
    assert Desk().send(b"{}", headers={"content-encoding": "gzip"}).status == 415


@pytest.mark.parametrize(
    ("header", "code"),
    [
        (None, None),
        ("Bearer other-key", "invalid_api_key"),
        ("canary-key", "invalid_api_key"),
        ("Bearer ky\u00ff", "invalid_api_key"),
    ],
)
def test_without_the_key_nothing_is_answered_and_no_key_is_repeated(
    header: str | None, code: str | None
) -> None:
    desk = Desk({"limits": {"rpm": 60}}, api_key="canary-key")
    reply = desk.send(b"not even json", headers={"authorization": header} if header else {})
    assert (reply.status, error_of(reply)["code"]) == (401, code)
    assert b"canary" not in reply.make_body()
    assert b"other" not in reply.make_body()
    assert desk.ledger.rejected == 1


def test_with_the_key_it_is_answered() -> None:
    desk = Desk(api_key="canary-key")
    reply = desk.send(b"{}", headers={"authorization": "Bearer canary-key"})
    assert reply.status == 400
    assert desk.send(method="GET", path="/healthz").status == 200


def test_only_the_models_that_exist_answer() -> None:
    desk = Desk(models=("m", "org/n"))
    assert desk.ask().status == 200
    assert error_of(desk.ask(model="x"))["code"] == "model_not_found"
    assert desk.send(method="GET", path="/v1/models/org/n").status == 200
    assert desk.send(method="GET", path="/v1/models/x").status == 404
    listed = orjson.loads(desk.send(method="GET", path="/v1/models").make_body())
    assert [entry["id"] for entry in listed["data"]] == ["m", "org/n"]


def test_what_is_wrong_in_itself_counts_against_no_limit() -> None:
    desk = Desk({"limits": {"rpm": 60}})
    for _ in range(5):
        assert desk.send(b"{").status == 400
    assert desk.ask().status == 200
    assert desk.ask().status == 429


def test_a_schema_that_nothing_fits_leaves_no_slot_taken() -> None:
    desk = Desk({"limits": {"concurrency": 1}})
    bad = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"enum": []}}}
    assert error_of(desk.ask(response_format=bad))["code"] == "invalid_json_schema"
    assert desk.responder.in_flight == 0
    assert desk.ledger.accepted == 0


def test_a_refusal_says_when_to_come_again_and_takes_no_time() -> None:
    desk = Desk({"limits": {"rpm": 30}, "latency": {"median_s": 5}})
    desk.answered()
    desk.clock.advance(0.5)
    reply = desk.ask()
    headers = dict(reply.headers)
    assert (reply.status, reply.delay_s) == (429, 0.0)
    assert (headers["retry-after"], headers["retry-after-ms"]) == ("2", "1500")
    assert error_of(reply)["message"].endswith("Please try again in 1.5s.")
    desk.clock.advance(1.5)
    assert desk.ask().status == 200


def test_limit_headers_stand_on_answers_and_refusals() -> None:
    desk = Desk({"limits": {"rpm": 60, "tpm": 100}})
    for _ in range(2):
        headers = dict(desk.ask(max_tokens=9).headers)
        assert headers["x-ratelimit-limit-requests"] == "60"
        assert headers["x-ratelimit-remaining-requests"] == "59"
        assert headers["x-ratelimit-reset-requests"] == "1s"
        assert headers["x-ratelimit-remaining-tokens"] == "90"
        assert headers["x-ratelimit-reset-tokens"] == "6s"


def test_a_request_larger_than_the_limit_is_told_so_without_a_wait() -> None:
    reply = Desk({"limits": {"tpm": 100}}).ask(max_tokens=200)
    assert reply.status == 429
    assert str(error_of(reply)["message"]).startswith("Request too large for m")
    assert "retry-after" not in dict(reply.headers)


def test_what_was_reserved_and_not_used_is_given_back() -> None:
    desk = Desk({"limits": {"tpm": 100}, "answers": [{"pattern": "hi", "reply": "ok"}]})
    desk.answered(max_tokens=90)
    assert desk.ask(max_tokens=90).status == 200


def test_requests_in_flight_are_capped_until_they_are_over() -> None:
    desk = Desk({"limits": {"concurrency": 1}})
    first = desk.ask()
    assert desk.ask().status == 429
    desk.end(first, is_delivered=False)
    assert desk.ask().status == 200
    assert desk.ledger.abandoned == 1


@pytest.mark.parametrize("path", [CHAT, "/v1/completions", "/v1/embeddings", "/v1/moderations"])
@pytest.mark.parametrize(
    ("rate", "status", "delivery", "is_billed"),
    [
        ("error_rate", 500, Delivery.WHOLE, False),
        ("overload_rate", 503, Delivery.WHOLE, False),
        ("stall_rate", 200, Delivery.NEVER, True),
        ("cut_rate", 200, Delivery.CUT, True),
        ("html_rate", 200, Delivery.WHOLE, False),
        ("empty_rate", 200, Delivery.WHOLE, True),
    ],
)
def test_each_fault_does_what_it_says_at_each_endpoint(
    path: str, rate: str, status: int, delivery: Delivery, is_billed: bool
) -> None:
    desk = Desk({"faults": {rate: 1.0}})
    reply = desk.ask(path=path)
    assert (reply.status, reply.delivery) == (status, delivery)
    assert (desk.ledger.billed["hi"] > 0) is is_billed
    assert sum(desk.ledger.faults.values()) == 1


def test_a_web_page_is_no_json() -> None:
    reply = Desk({"faults": {"html_rate": 1.0}}).ask()
    assert dict(reply.headers)["content-type"].startswith("text/html")
    assert reply.make_body().startswith(b"<!DOCTYPE html>")


@pytest.mark.parametrize(
    ("path", "field"),
    [
        (CHAT, "choices"),
        ("/v1/completions", "choices"),
        ("/v1/embeddings", "data"),
        ("/v1/moderations", "results"),
    ],
)
def test_an_empty_answer_has_the_right_shape_and_nothing_in_it(path: str, field: str) -> None:
    reply = Desk({"faults": {"empty_rate": 1.0}}).ask(path=path)
    assert orjson.loads(reply.make_body())[field] == []


def test_a_stream_stalls_half_way() -> None:
    reply = Desk({"faults": {"stall_rate": 1.0}}).ask(stream=True)
    assert reply.delivery is Delivery.STALLED
    assert len(reply.events) > 2


def test_an_empty_stream_is_only_its_end() -> None:
    reply = Desk({"faults": {"empty_rate": 1.0}}).ask(stream=True)
    assert reply.events == (b"data: [DONE]\n\n",)


def test_an_overloaded_server_asks_to_wait() -> None:
    reply = Desk({"faults": {"overload_rate": 1.0}}).ask()
    assert dict(reply.headers)["retry-after"] == "1"
    assert error_of(reply)["code"] == "server_is_overloaded"


def test_faults_take_their_time_but_an_overload_does_not() -> None:
    late = {"latency": {"median_s": 3}}
    assert Desk({**late, "faults": {"error_rate": 1.0}}).ask().delay_s == 3
    assert Desk({**late, "faults": {"overload_rate": 1.0}}).ask().delay_s == 0


def test_a_retry_passes_and_a_rerun_meets_the_fault_again() -> None:
    desk = Desk({"faults": {"error_rate": 0.5}})
    first = [desk.answered(str(number)).status for number in range(40)]
    for number, status in enumerate(first):
        while status != 200:
            status = desk.answered(str(number)).status  # noqa: PLW2901 - until it passes
    assert {200, 500} == set(first)
    assert [desk.answered(str(number)).status for number in range(40)] == first


def test_an_answer_that_nobody_waited_for_is_drawn_anew() -> None:
    desk = Desk({"latency": {"median_s": 1, "p99_s": 5}})
    first = desk.ask()
    desk.end(first, is_delivered=False)
    second = desk.ask()
    desk.end(second)
    assert first.delay_s != second.delay_s
    assert desk.ask().delay_s == first.delay_s


def test_after_so_many_requests_the_server_is_dead() -> None:
    desk = Desk({"faults": {"die_after": 2}, "latency": {"median_s": 3}})
    assert [desk.answered(str(number)).status for number in range(4)] == [200, 200, 500, 500]
    assert desk.ledger.faults == {"dead": 2}


def test_a_server_can_be_dead_from_the_start() -> None:
    assert Desk({"faults": {"die_after": 0}}).ask().status == 500


def test_the_ledger_bills_what_the_reply_says() -> None:
    desk = Desk()
    total = 0
    for path in (CHAT, "/v1/completions", "/v1/embeddings"):
        total += orjson.loads(desk.answered(path=path).make_body())["usage"]["total_tokens"]
    assert desk.ledger.prompt_tokens + desk.ledger.completion_tokens == total
    assert desk.ledger.billed == {"hi": 3}
    assert desk.ledger.answered == 3


def test_the_ledger_file_has_a_line_for_each_request(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    ledger = Ledger(path)
    ledger.open()
    desk = Desk({"limits": {"rpm": 60}}, ledger=ledger)
    desk.answered("abc")
    desk.ask("abc")
    desk.send(b"{")
    lines = [orjson.loads(line) for line in path.read_bytes().splitlines()]
    ledger.close()
    assert [(line["verdict"], line["status"]) for line in lines] == [
        ("accepted", 200),
        ("refused", 429),
        ("rejected", 400),
    ]
    assert lines[0]["digest"] == hashlib.blake2b(b"abc", digest_size=16).hexdigest()
    assert lines[0]["text"] == "abc"


@pytest.mark.parametrize("body", [None, b"{"])
def test_a_ledger_that_cannot_be_written_stops_all_answers(body: bytes | None) -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("this system has no /dev/full")
    ledger = Ledger(full)
    ledger.open()
    desk = Desk(ledger=ledger)
    reply = desk.ask() if body is None else desk.send(body)
    ledger.close()
    assert reply.status == 500
    assert reply.ticket is None
    assert "cannot be written" in str(error_of(reply)["message"])
    assert desk.responder.failure is not None
    assert desk.responder.in_flight == 0


def test_bytes_that_are_no_request_are_told_so() -> None:
    desk = Desk()
    reply = desk.responder.refuse_bytes(WireError(431, "too much"))
    assert (reply.status, error_of(reply)["message"]) == (431, "too much")
    assert desk.ledger.rejected == 1


def test_refused_requests_count_where_the_provider_counts_them() -> None:
    """At one a second: who comes every 0.6 s is let in each second time, or never again."""
    for counts, expected in ((False, [200, 429, 200, 429, 200]), (True, [200, 429, 429, 429, 429])):
        desk = Desk({"limits": {"rpm": 60.0}, "counts_refused": counts})
        statuses = []
        for _ in range(5):
            statuses.append(desk.answered().status)
            desk.clock.advance(0.6)
        assert statuses == expected


def test_who_waits_as_told_is_let_in_also_where_refusals_count() -> None:
    desk = Desk({"limits": {"rpm": 60.0}, "counts_refused": True})
    desk.answered()
    desk.clock.advance(0.6)
    wait_s = int(dict(desk.answered().headers)["retry-after-ms"]) / 1000
    assert wait_s == 1.0
    desk.clock.advance(wait_s)
    assert desk.answered().status == 200


def test_by_the_second_nothing_comes_on_top_of_a_second_s_worth() -> None:
    desk = Desk({"limits": {"rpm": 120.0}, "enforcement": "second"})
    assert [desk.answered().status for _ in range(3)] == [200, 200, 429]
    desk.clock.advance(0.9)
    assert desk.answered().status == 429
    desk.clock.advance(0.1)
    assert [desk.answered().status for _ in range(3)] == [200, 200, 429]


def test_the_day_refuses_when_the_minute_would_not() -> None:
    desk = Desk({"limits": {"rpm": 6000.0, "rpd": 2.0}, "headers": "groq"})
    assert [desk.answered().status for _ in range(2)] == [200, 200]
    error = error_of(desk.answered())
    assert error["type"] == "requests"
    assert "requests per day (RPD): Limit 2, Used 2, Requested 1." in str(error["message"])


def test_a_limit_on_concurrency_alone_is_refused_bluntly() -> None:
    desk = Desk({"limits": {"concurrency": 1}, "headers": "none", "retry_after": "none"})
    first = desk.ask()
    refused = desk.ask()
    assert (refused.status, orjson.loads(refused.make_body())) == (
        429,
        {"error": {"message": "Too Many Requests"}},
    )
    assert not [name for name, _ in refused.headers if "ratelimit" in name or "retry" in name]
    desk.end(first)
    assert desk.ask().status == 200


def test_limits_latency_and_faults_follow_the_schedule_from_the_first_call_on() -> None:
    desk = Desk(
        {
            "limits": {"rpm": 60.0},
            "latency": {"median_s": 1.0},
            "schedule": [
                {"at_s": 10.0, "limits": {"rpm": 180.0}, "latency": {"median_s": 5.0}},
                {"at_s": 20.0, "faults": {"error_rate": 1.0}},
            ],
        }
    )
    desk.send(method="GET", path="/healthz")
    desk.clock.advance(100.0)
    seen = []
    for _ in range(3):
        replies = [desk.answered() for _ in range(4)]
        seen.append(([reply.status for reply in replies], replies[0].delay_s))
        desk.clock.advance(10.0)
    assert seen == [
        ([200, 429, 429, 429], 1.0),
        ([200, 200, 200, 429], 5.0),
        ([500, 500, 500, 429], 5.0),
    ]
