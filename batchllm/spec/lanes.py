"""A lane as the job file says it: its provider, account and model, its limits, and how a simulated one behaves."""

from typing import Annotated, Literal

from pydantic import Field, JsonValue, model_validator

from batchllm.spec.strict import Positive, Share, Strict, Text

#: Less than one in a hundred minutes is a mistake, and not a limit.
PerMinute = Annotated[float, Field(ge=0.01, allow_inf_nan=False)]


class Limits(Strict):
    rpm: PerMinute | None = Field(None, description="Requests a minute.")
    tpm: PerMinute | None = Field(None, description="Tokens a minute, prompt and answer together.")
    concurrency: Annotated[int, Field(gt=0, le=100_000)] | None = Field(
        None, description="Most requests in flight at once."
    )


class Price(Strict):
    """USD for a million tokens."""

    input: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    output: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0


class Latency(Strict):
    """Log-normal: half of the answers come within `median_s`, all but one in a hundred within `p99_s`."""

    median_s: Annotated[float, Field(ge=0, le=3600, allow_inf_nan=False)] = 0.1
    p99_s: Annotated[float, Field(ge=0, le=3600, allow_inf_nan=False)] | None = Field(
        None, description="Default: always the median."
    )


class Faults(Strict):
    """Shares of requests that go wrong. Drawn by seed, request and attempt, so a rerun meets the same ones."""

    error_rate: Share = Field(0.0, description="HTTP 500.")
    overload_rate: Share = Field(0.0, description="HTTP 503 with Retry-After.")
    stall_rate: Share = Field(0.0, description="Accepted and never answered; a stream stands still half-way.")
    cut_rate: Share = Field(0.0, description="The connection is cut inside the body.")
    html_rate: Share = Field(0.0, description="A web page with status 200.")
    empty_rate: Share = Field(0.0, description="Status 200 with no choices (or vectors) in it.")
    die_after: Annotated[int, Field(ge=0)] | None = Field(
        None, description="After so many requests every further one gets HTTP 500."
    )


class SimulatedLimits(Limits):
    rpd: Positive | None = Field(None, description="Requests a day; what the headers of `groq` count.")


class ScheduledChange(Strict):
    """What is other from a moment on. Only the keys that are given change; null lifts a limit."""

    at_s: Annotated[float, Field(ge=0, allow_inf_nan=False)] = Field(
        description="Seconds since the first call that came; ascending."
    )
    limits: SimulatedLimits | None = None
    latency: Latency | None = None
    faults: Faults | None = None


class AnswerRule(Strict):
    pattern: Text = Field(description="Regular expression, searched in the text of the request.")
    reply: str | dict[str, JsonValue] = Field(description="The answer; a mapping is sent as JSON text.")


#: Whose dialect, headers and refusals a simulated provider has.
ProfileName = Literal[
    "openai", "together", "perplexity", "groq", "mistral", "deepseek", "xai", "fireworks", "openrouter", "azure",
    "gemini", "anthropic", "vllm", "sglang", "llamacpp", "lmstudio", "ollama", "tgi",
]  # fmt: skip
HeaderStyle = Literal[
    "openai", "groq", "mistral", "azure", "together", "fireworks", "openrouter", "none", "absurd"
]


class Simulation(Strict):
    """A simulated provider: real HTTP on loopback, with limits, latency, faults and answers of your choice."""

    profile: ProfileName | None = Field(
        None,
        description="Behave as this provider does: its endpoints, strictness, headers, refusals and usage; and the lane"
        " speaks its dialect. headers, retry_after and counts_refused have its values unless they are given.",
    )
    seed: int = 0
    limits: SimulatedLimits = SimulatedLimits()
    enforcement: Literal["refill", "second", "minute"] = Field(
        "refill",
        description=(
            "refill: steadily, a second's worth of requests and a minute's of tokens at once; second: at most rpm/60 "
            "in any second; minute: at most rpm in any minute. Of tokens at most tpm in any minute in both."
        ),
    )
    counts_refused: bool = Field(False, description="A refused request counts against rpm, as at OpenAI.")
    headers: HeaderStyle = Field(
        "openai",
        description="Whose words the limits are told in; none: not at all; absurd: numbers that no limit can be.",
    )
    retry_after: Literal["exact", "seconds", "none", "absurd"] = Field(
        "exact",
        description="How a refusal tells the wait: in milliseconds too, in whole seconds, not at all, or as nonsense.",
    )
    latency: Latency = Latency()
    faults: Faults = Faults()
    schedule: list[ScheduledChange] = Field(
        default_factory=list, description="Changes of limits, latency and faults over time."
    )
    answers: list[AnswerRule] = Field(
        default_factory=list,
        description="First match answers; else the request's JSON Schema, else text made from its hash.",
    )
    noise: Share = Field(
        0.0,
        description="This share of the answers (chat, completion) is another one that fits the request's schema, or"
        " another rule's: drawn by seed and text, and unless temperature is 0 also by how often the text was asked.",
    )
    dimensions: Annotated[int, Field(gt=0, le=65536)] = Field(8, description="Width of simulated vectors.")


class LaneSpec(Strict):
    """One lane: a provider, an account, a model, and its limits."""

    provider: Text = Field(description="A name from `batchllm providers`, `custom`, or `simulator`.")
    model: Text
    api: Literal["chat", "responses"] | None = Field(
        None,
        description="With a chat task: which of the provider's APIs is called, chat completions or Responses"
        " (default: the first that `batchllm providers NAME` lists).",
    )
    name: Text | None = Field(None, description="How the lane is called in the output (default: provider).")
    api_key: Text | None = Field(
        None, repr=False, description="Usually ${NAME}; default: the provider's own variable."
    )
    base_url: Text | None = Field(None, description="Needed for custom; overrides the catalogue's elsewhere.")
    allow_http: bool = Field(
        False, description="base_url may be http:// to another machine: key and prompts travel in the clear."
    )
    headers: dict[str, str] = Field(default_factory=dict, repr=False, description="Sent with each request.")
    extra_body: dict[str, JsonValue] = Field(
        default_factory=dict,
        description="Fields added to each request body, as they are. With embeddings, encoding_format: base64 makes"
        " replies a quarter as long where the server knows it (default at openai: base64, elsewhere: float).",
    )
    omit: list[Text] = Field(
        default_factory=list, description="Body fields that this server does not take, such as seed."
    )
    catalogue: dict[str, JsonValue] = Field(
        default_factory=dict,
        description="What this server does otherwise than its catalogue entry says: dialect, endpoints, schema, tiers,"
        " embeddings, vector_form, sends_dimensions, reasoning_models, plain_models (as `batchllm providers --json`).",
    )
    limits: Limits = Limits()
    price: Price | None = Field(
        None, description="Wins over the catalogue's price; USD for a million tokens."
    )
    timeout_s: Positive | None = Field(
        None,
        description="One call from first byte sent to last byte read (default: ten times the longest answer so far,"
        " between 30 and 600 seconds).",
    )
    connect_timeout_s: Positive = 10.0
    stream: bool | None = Field(None, description="As the job's stream, for this lane alone.")
    stall_timeout_s: Positive = Field(
        60.0, description="With stream: the longest silence once the text of an answer has begun."
    )
    simulate: Simulation | None = Field(None, description="Only with provider: simulator.")

    @model_validator(mode="after")
    def _simulation_fits(self) -> "LaneSpec":
        if self.simulate is not None and self.provider != "simulator":
            raise ValueError("simulate goes with provider: simulator only")
        return self
