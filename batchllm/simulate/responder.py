"""One request → one reply: auth, parse, limits, fault, latency, answer, in this order, and an entry in the ledger.

Everything is decided when the request arrives: what it will be answered, when, and what it costs. The connection only
carries it out. So there is no task a request, and a test can ask without a socket.
"""

import hmac
from collections.abc import Callable, Sequence
from functools import partial
from hashlib import blake2b
from typing import Final
from urllib.parse import unquote

from batchllm.clock import Clock
from batchllm.errors import StorageError
from batchllm.simulate import replies
from batchllm.simulate.answers import Model
from batchllm.simulate.call import Call, Kind
from batchllm.simulate.calls import parse_call
from batchllm.simulate.costume import clothed, costume_of
from batchllm.simulate.delivery import (
    JSON,
    Delivery,
    Draft,
    Reply,
    Ticket,
    emptied,
    plain,
    text_body,
    text_events,
    typed,
)
from batchllm.simulate.faults import Attempts, Fate, Fates, FaultKind
from batchllm.simulate.fields import CallError
from batchllm.simulate.hints import Hints
from batchllm.simulate.ledger import Ledger, LedgerEntry
from batchllm.simulate.limits import Gate
from batchllm.simulate.replies import Headers, Stamp
from batchllm.simulate.responses_calls import parse_responses
from batchllm.simulate.schedule import Timetable
from batchllm.simulate.wire import HttpRequest, WireError, http_date
from batchllm.spec.lanes import Simulation

#: What an overloaded server asks for; the only wait in a reply that no limit knows.
OVERLOAD_WAIT_S: Final = 1.0
_ENDPOINTS: Final = (
    ("/chat/completions", Kind.CHAT),
    ("/completions", Kind.COMPLETION),
    ("/embeddings", Kind.EMBEDDING),
    ("/moderations", Kind.MODERATION),
)
#: Chat by another body.
_RESPONSES: Final = "/responses"


class Responder:
    """The simulated provider without its sockets. `nonce` sets the ids of one server apart from another's."""

    def __init__(
        self,
        simulation: Simulation,
        ledger: Ledger,
        clock: Clock,
        *,
        api_key: str | None = None,
        models: Sequence[str] = (),
        nonce: str = "",
    ) -> None:
        simulation = clothed(simulation)
        self._costume = costume_of(simulation)
        self._ledger = ledger
        self._clock = clock
        self._authorization = f"Bearer {api_key}".encode() if api_key is not None else None
        self._models = tuple(models)
        self._nonce = nonce
        self._hints = Hints(simulation)
        self._model = Model(simulation)
        self._gate = Gate(simulation.limits, simulation.enforcement, counts_refused=simulation.counts_refused)
        self._timetable = Timetable(simulation)
        self._become(simulation)
        self._attempts = Attempts()
        self._count = 0
        self._date = ""
        self._date_of_s = -1
        self.failure: StorageError | None = None

    @property
    def in_flight(self) -> int:
        return self._gate.in_flight

    def handle(self, request: HttpRequest) -> Reply:
        """What to send, and when. A ticket in it must be given back to `finish`."""
        stamp, now_s = self._stamped()
        return self._sealed(stamp, partial(self._routed, request, stamp, now_s))

    def refuse_bytes(self, error: WireError) -> Reply:
        """The reply to what is no HTTP request at all."""
        stamp, now_s = self._stamped()
        return self._sealed(
            stamp, lambda: self._reject("", CallError(error.message, status=error.status), now_s)
        )

    def finish(self, ticket: Ticket, *, is_delivered: bool) -> None:
        """The request of this ticket is over: answered, or its client has left."""
        now_s = self._clock.monotonic_s()
        self._keep_to_schedule(now_s)
        self._gate.settle(ticket.reserved_tokens, ticket.used_tokens, now_s)
        if is_delivered:
            self._ledger.answered += 1
            if ticket.is_answer:
                self._attempts.forget(ticket.digest)
        else:
            self._ledger.abandoned += 1

    def _become(self, simulation: Simulation) -> None:
        self._gate.change(simulation.limits)
        self._fates = Fates(simulation)
        self._die_after = simulation.faults.die_after

    def _keep_to_schedule(self, now_s: float) -> None:
        changed = self._timetable.turn(now_s)
        if changed is not None:
            self._become(changed)

    def _stamped(self) -> tuple[Stamp, float]:
        self._count += 1
        stamp = Stamp(f"{self._nonce}{self._count:012x}", int(self._clock.wall_s()))
        return stamp, self._clock.monotonic_s()

    def _sealed(self, stamp: Stamp, decide: Callable[[], Reply]) -> Reply:
        try:
            reply = decide()
        except StorageError as error:
            self.failure = error
            reply = plain(500, replies.error_body(error.message, "server_error"))
        reply.headers.extend(self._common_headers(stamp, reply.delay_s))
        return reply

    def _routed(self, request: HttpRequest, stamp: Stamp, now_s: float) -> Reply:
        try:
            return self._route(request, stamp, now_s)
        except CallError as error:
            return self._reject(request.path, error, now_s)

    def _route(self, request: HttpRequest, stamp: Stamp, now_s: float) -> Reply:
        path = request.path.rstrip("/")
        if path.endswith("/healthz"):
            _allow(request, "GET")
            return plain(200, b'{"status":"ok"}')
        self._authorize(request)
        if path.endswith(_RESPONSES) and (self._costume is None or self._costume.has_responses):
            return self._called(request, partial(self._parsed_response, request), stamp, now_s)
        for suffix, kind in _ENDPOINTS:
            if path.endswith(suffix) and (self._costume is None or self._costume.offers(kind)):
                return self._called(request, partial(self._parsed, kind, request), stamp, now_s)
        if path.endswith("/models") and (self._costume is None or self._costume.has_models):
            _allow(request, "GET")
            body = replies.models_body(self._models or ("simulated",))
            return plain(
                200, body if self._costume is None else self._costume.models(body), self._limit_headers(now_s)
            )
        _, found, name = path.rpartition("/models/")
        if found:
            model = unquote(name)
            _allow(request, "GET")
            if self._models and model not in self._models:
                raise _unknown_model(model)
            return plain(200, replies.model_body(model), self._limit_headers(now_s))
        raise CallError(
            f"Unknown request URL: {request.method} {request.path}. Please check the URL for typos.",
            status=404,
            code="unknown_url",
        )

    def _called(
        self, request: HttpRequest, parse: Callable[[bytes], Call], stamp: Stamp, now_s: float
    ) -> Reply:
        _allow(request, "POST")
        _check_media(request)
        call = parse(request.body)
        if self._models and call.model not in self._models:
            raise _unknown_model(call.model)
        return self._admit(request, call, stamp, now_s)

    def _parsed_response(self, request: HttpRequest, body: bytes) -> Call:
        return parse_responses(body if self._costume is None else self._costume.take_response(request).body)

    def _parsed(self, kind: Kind, request: HttpRequest, body: bytes) -> Call:
        return parse_call(kind, body if self._costume is None else self._costume.take(kind, request).body)

    def _admit(self, request: HttpRequest, call: Call, stamp: Stamp, now_s: float) -> Reply:
        self._keep_to_schedule(now_s)
        reserved = call.reserved_tokens
        refusal = self._gate.admit(reserved, now_s)
        if refusal is not None:
            status, body = self._worded(*self._hints.refusal(refusal, call.model))
            self._ledger.note(LedgerEntry(now_s, request.path, "refused", status, texts=call.subjects))
            headers = self._limit_headers(now_s) + self._hints.retry(refusal.wait_s, self._count)
            headers += self._hints.refused(refusal, stamp.created)
            return plain(status, body, headers)
        try:
            return self._answer(request, call, stamp, now_s)
        except (CallError, StorageError):
            self._gate.settle(reserved, 0, now_s)
            raise

    def _answer(self, request: HttpRequest, call: Call, stamp: Stamp, now_s: float) -> Reply:
        digest = _text_digest(call)
        attempt, fate = self._fate(digest)
        draft = self._dressed(call, request, self._draft(call, stamp))
        reply = self._apply(fate, call, draft, stamp, now_s)
        prompt_tokens, completion_tokens = _billed(fate.fault, call, draft)
        self._ledger.note(
            LedgerEntry(
                now_s,
                request.path,
                "accepted",
                None if reply.delivery is Delivery.NEVER else reply.status,
                fate.fault.value if fate.fault is not None else None,
                attempt,
                digest.hex(),
                prompt_tokens,
                completion_tokens,
                call.subjects,
                fate.latency_s,
            )
        )
        used = prompt_tokens + completion_tokens
        return reply._replace(ticket=Ticket(call.reserved_tokens, used, digest, fate.fault is None))

    def _fate(self, digest: bytes) -> tuple[int, Fate]:
        if self._die_after is not None and self._ledger.accepted >= self._die_after:
            return 0, Fate(FaultKind.DEAD, 0.0)
        attempt = self._attempts.next_number(digest) if self._fates.depends_on_attempt else 0
        return attempt, self._fates.fate(digest, attempt)

    def _draft(self, call: Call, stamp: Stamp) -> Draft:
        match call.kind:
            case Kind.EMBEDDING:
                return Draft(0, lambda: replies.embedding_body(call, self._model.vectors(call)))
            case Kind.MODERATION:
                body = replies.moderation_body(call, self._model.scores(call), stamp)
                return Draft(0, lambda: body)
            case Kind.CHAT | Kind.COMPLETION:
                answers = self._model.text_answers(call)
                tokens = sum(answer.tokens for answer in answers)
                if call.streams:
                    return Draft(tokens, bytes, text_events(call, answers, stamp))
                return Draft(tokens, partial(text_body, call, answers, stamp))

    def _worded(self, status: int, body: bytes) -> tuple[int, bytes]:
        return (status, body) if self._costume is None else self._costume.word(status, body)

    def _dressed(self, call: Call, request: HttpRequest, draft: Draft) -> Draft:
        costume = self._costume
        if costume is None:
            return draft
        thought = costume.thought_tokens(call, request)
        return Draft(
            draft.completion_tokens + thought,
            lambda: costume.dress(call, draft.make_body(), thought),
            tuple(costume.dress_event(call, event, thought) for event in draft.events),
        )

    def _apply(self, fate: Fate, call: Call, draft: Draft, stamp: Stamp, now_s: float) -> Reply:
        headers = self._limit_headers(now_s)
        if self._costume is not None:
            headers += self._costume.usage_headers(call)
        whole = Reply(200, headers, draft.make_body, draft.events, fate.latency_s)
        match fate.fault:
            case None:
                return typed(whole)
            case FaultKind.STALL:
                return typed(whole._replace(delivery=Delivery.STALLED if draft.events else Delivery.NEVER))
            case FaultKind.CUT:
                return typed(whole._replace(delivery=Delivery.CUT))
            case FaultKind.EMPTY:
                return typed(emptied(whole, call, stamp))
            case FaultKind.OVERLOAD | FaultKind.ERROR | FaultKind.DEAD | FaultKind.HTML:
                return self._broken(fate.fault, headers, fate.latency_s)

    def _broken(self, fault: FaultKind, headers: Headers, latency_s: float) -> Reply:
        """What comes from a server, or from a gateway before it, that did no work."""
        if fault is FaultKind.HTML:
            headers.append(("content-type", "text/html; charset=utf-8"))
            return Reply(200, headers, lambda: replies.HTML_PAGE, delay_s=latency_s)
        if fault is FaultKind.OVERLOAD:
            body = replies.error_body(
                "The engine is currently overloaded, please try again later.",
                "service_unavailable_error",
                code="server_is_overloaded",
            )
            status, body = self._worded(503, body)
            return plain(status, body, headers + self._hints.retry(OVERLOAD_WAIT_S, self._count))
        body = replies.error_body("The server had an error while processing your request.", "server_error")
        status, body = self._worded(500, body)
        return plain(status, body, headers)._replace(delay_s=latency_s)

    def _limit_headers(self, now_s: float) -> Headers:
        return self._hints.limits(self._gate, now_s, self._count)

    def _reject(self, path: str, error: CallError, now_s: float) -> Reply:
        body = replies.error_body(error.message, "invalid_request_error", param=error.param, code=error.code)
        status, body = self._worded(error.status, body)
        self._ledger.note(LedgerEntry(now_s, path, "rejected", status))
        headers = self._limit_headers(now_s)
        if error.allow is not None:
            headers.append(("allow", error.allow))
        return plain(status, body, headers)

    def _authorize(self, request: HttpRequest) -> None:
        if self._authorization is None:
            return
        given = request.headers.get("authorization", "")
        if not given:
            raise CallError(
                "You didn't provide an API key. You need to provide it in an Authorization header using Bearer auth "
                "(i.e. Authorization: Bearer YOUR_KEY).",
                status=401,
            )
        if not hmac.compare_digest(given.encode("latin-1", "replace"), self._authorization):
            raise CallError("Incorrect API key provided.", status=401, code="invalid_api_key")

    def _common_headers(self, stamp: Stamp, delay_s: float) -> Headers:
        if stamp.created != self._date_of_s:
            self._date_of_s = stamp.created
            self._date = http_date(stamp.created)
        return [
            ("date", self._date),
            ("server", "batchllm-simulator"),
            ("x-request-id", f"req_{stamp.number}"),
            ("openai-processing-ms", str(round(delay_s * 1000))),
        ]


def _billed(fault: FaultKind | None, call: Call, draft: Draft) -> tuple[int, int]:
    """Prompt and completion tokens. Work that was done is billed, whether or not the answer arrives."""
    match fault:
        case None | FaultKind.STALL | FaultKind.CUT:
            return call.prompt_tokens, draft.completion_tokens
        case FaultKind.EMPTY:
            return call.prompt_tokens, 0
        case FaultKind.OVERLOAD | FaultKind.ERROR | FaultKind.HTML | FaultKind.DEAD:
            return 0, 0


def _text_digest(call: Call) -> bytes:
    made = blake2b(call.text.encode(), digest_size=16)
    if call.extras:
        made.update(b"\0" + call.extras)
    return made.digest()


def _allow(request: HttpRequest, method: str) -> None:
    if request.method == method:
        return
    raise CallError(
        f"Not allowed to {request.method} on {request.path}. (HINT: Perhaps you meant to make a {method} request?)",
        status=405,
        code="method_not_supported",
        allow=method,
    )


def _check_media(request: HttpRequest) -> None:
    media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media != JSON and not media.endswith("+json"):
        raise CallError(
            f"Unsupported content type: '{media[:80]}'. The body must be JSON, with the header "
            f"Content-Type: {JSON}.",
            status=415,
        )
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise CallError("Compressed bodies are not understood here.", status=415)


def _unknown_model(model: str) -> CallError:
    message = f"The model `{model[:200]}` does not exist or you do not have access to it."
    return CallError(message, status=404, code="model_not_found")
