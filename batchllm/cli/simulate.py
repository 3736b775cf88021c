"""`batchllm simulate`: a simulated provider as a server, until Ctrl-C or SIGTERM."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from batchllm.errors import Fault
    from batchllm.simulate import SimulatedProvider
    from batchllm.spec.faults import Places
    from batchllm.spec.lanes import Simulation

#: Where the configuration stands in the job that it is checked as.
_PREFIX = "providers.0.simulate"
#: As many connections as runners open, within what the system allows.
_OPEN_FILES = 65_536


class _FiniteRange(click.FloatRange):
    """A range that `nan` is outside of, and `inf` too."""

    def convert(self, value: float, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number = float(super().convert(value, param, ctx))
        if not isfinite(number):
            self.fail(f"{value} is no finite number.", param, ctx)
        return number


_SHARE = _FiniteRange(0, 1)
_ABOVE_ZERO = _FiniteRange(0, min_open=True)
_SECONDS = _FiniteRange(0, 3600)


@dataclass(frozen=True, slots=True)
class _Listening:
    host: str
    port: int
    is_quiet: bool
    key_variable: str | None
    provider: str


@click.command("simulate")
@click.option(
    "--config", type=click.Path(path_type=Path), help="YAML with the keys of a job's simulate section."
)
@click.option(
    "--profile", metavar="NAME", help="Behave as this provider does: groq, mistral, deepseek and others."
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port", type=click.IntRange(0, 65_535), default=8080, show_default=True, help="0 takes a free one."
)
@click.option("--allow-remote", is_flag=True, help="Listen on an address that other machines can reach.")
@click.option("--rpm", type=_ABOVE_ZERO, help="Requests a minute, enforced by the second.")
@click.option("--tpm", type=_ABOVE_ZERO, help="Tokens a minute.")
@click.option("--concurrency", type=click.IntRange(1, 100_000), help="Most requests in flight at once.")
@click.option("--rpd", type=_ABOVE_ZERO, help="Requests a day.")
@click.option(
    "--enforcement",
    type=click.Choice(["refill", "second", "minute"]),
    help="How limits are enforced: steadily, or so many in any second or minute.",
)
@click.option(
    "--counts-refused/--forgets-refused", default=None, help="Whether a refused request counts against --rpm."
)
@click.option(
    "--headers",
    type=click.Choice(
        ["openai", "groq", "mistral", "azure", "together", "fireworks", "openrouter", "none", "absurd"]
    ),
    help="Whose words the limits are told in.",
)
@click.option(
    "--retry-after",
    type=click.Choice(["exact", "seconds", "none", "absurd"]),
    help="How a refusal tells the wait.",
)
@click.option("--latency", type=_SECONDS, help="Median time to an answer, in seconds.")
@click.option("--p99", type=_SECONDS, help="All but one in a hundred come within this, in seconds.")
@click.option("--error-rate", type=_SHARE, help="Share of requests that get HTTP 500.")
@click.option("--stall-rate", type=_SHARE, help="Share of requests that are never answered.")
@click.option("--seed", type=int, help="Of answers, faults and latencies.")
@click.option(
    "--model", "models", multiple=True, help="A model that exists; without it any name does. Repeatable."
)
@click.option(
    "--api-key-env", metavar="NAME", help="Environment variable with the key that clients must send."
)
@click.option(
    "--ledger", type=click.Path(path_type=Path), help="Append a JSON line for each request to this file."
)
@click.option("-q", "--quiet", is_flag=True, help="Print the base_url and nothing else.")
def simulate_command(
    *,
    config: Path | None,
    profile: str | None,
    host: str,
    port: int,
    allow_remote: bool,
    rpm: float | None,
    tpm: float | None,
    concurrency: int | None,
    rpd: float | None,
    enforcement: str | None,
    counts_refused: bool | None,
    headers: str | None,
    retry_after: str | None,
    latency: float | None,
    p99: float | None,
    error_rate: float | None,
    stall_rate: float | None,
    seed: int | None,
    models: Sequence[str],
    api_key_env: str | None,
    ledger: Path | None,
    quiet: bool,
) -> None:
    """Serve a simulated provider: OpenAI's endpoints, with limits, latency and faults of your choice.

    Options win over the file given with --config. It listens until Ctrl-C and then says what it has seen.
    Exit code 69: the port is in use.
    """
    if not allow_remote and not _is_loopback(host):
        raise click.UsageError(
            f"{host} can be reached from other machines; give --allow-remote if that is what you want."
        )
    from batchllm.simulate import SimulatedProvider

    if profile is not None:
        _check_profile(profile)
    options: dict[str, dict[str, object] | object | None] = {
        "profile": profile,
        "seed": seed,
        "limits": {"rpm": rpm, "tpm": tpm, "concurrency": concurrency, "rpd": rpd},
        "enforcement": enforcement,
        "counts_refused": counts_refused,
        "headers": headers,
        "retry_after": retry_after,
        "latency": {"median_s": latency, "p99_s": p99},
        "faults": {"error_rate": error_rate, "stall_rate": stall_rate},
    }
    provider = SimulatedProvider(
        _with_options(_configured(config), options),
        api_key=_api_key(api_key_env),
        ledger_path=ledger,
        models=models,
        keeps_details=False,
    )
    _serve(provider, _Listening(host, port, quiet, api_key_env, profile or "custom"))


def _check_profile(name: str) -> None:
    from difflib import get_close_matches

    from batchllm.simulate.profiles import PROFILES

    if name not in PROFILES:
        near = get_close_matches(name, PROFILES, 1)
        meant = f"Did you mean {near[0]}?" if near else f"Known are {', '.join(PROFILES)}."
        raise click.BadParameter(f"there is no profile {name!r}. {meant}", param_hint="--profile")


def _serve(provider: "SimulatedProvider", listening: _Listening) -> None:
    import asyncio

    from batchllm.simulate.embedded import fastest_loop

    _raise_open_files()
    with asyncio.Runner(loop_factory=fastest_loop()) as runner:
        runner.run(_until_signalled(provider, listening))
    if not listening.is_quiet:
        click.echo(f"stopped: {provider.ledger.summary()}")
    if provider.failure is not None:
        raise provider.failure


async def _until_signalled(provider: "SimulatedProvider", listening: _Listening) -> None:
    import asyncio
    import signal

    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopping.set)
    base_url = await provider.start(listening.host, listening.port)
    try:
        click.echo(base_url if listening.is_quiet else _greeting(base_url, listening))
        await stopping.wait()
    finally:
        await provider.stop()


def _greeting(base_url: str, listening: _Listening) -> str:
    key = f', api_key: "${{{listening.key_variable}}}"' if listening.key_variable else ""
    return (
        f"serving {base_url}  in a job: "
        f'{{provider: {listening.provider}, base_url: "{base_url}", model: simulated{key}}}'
    )


def _configured(config: Path | None) -> "Simulation":
    """The file's simulation; raises JobError with all that is wrong in it, InputMissingError."""
    from batchllm.errors import InputMissingError, JobError
    from batchllm.spec.faults import Places, in_order
    from batchllm.spec.lanes import Simulation
    from batchllm.spec.loading import load_mapping
    from batchllm.spec.yaml_source import MAX_BYTES, parse

    if config is None:
        return Simulation()
    try:
        with config.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise InputMissingError(
            f"The configuration {config} cannot be read: {error.strerror}.",
            remedy="Check the path given to --config.",
        ) from error
    document = parse(raw, str(config))
    places = Places(document.places, document.key_places)
    faults = list(document.faults)
    try:
        loaded = load_mapping(_as_job(document.data), folder=Path(), environ={}, file=str(config))
    except JobError as error:
        found = [_moved(fault, places) for fault in error.faults]
        faults += [fault for fault in found if fault.path not in document.blind]
    else:
        simulation = loaded.job.providers[0].simulate
        if not faults and simulation is not None:
            return simulation
    raise JobError(str(config), in_order(faults))


def _as_job(data: object) -> Mapping[str, object]:
    """The least job around a simulation: so that a file of it is checked, and its faults are told, as a job's are."""
    return {
        "name": "simulation",
        "input": {"path": "rows.jsonl"},
        "task": {"type": "completion", "prompt": "text"},
        "providers": [{"provider": "simulator", "model": "simulated", "simulate": data}],
    }


def _moved(fault: "Fault", places: "Places") -> "Fault":
    path = fault.path.removeprefix(_PREFIX).removeprefix(".")
    return places.fault(path, fault.message, fault.remedy, is_at_key=fault.message == "unknown key")


def _with_options(simulation: "Simulation", options: Mapping[str, object]) -> "Simulation":
    """Options that were given, in place of what the file says."""
    from batchllm.spec.lanes import Simulation

    data = simulation.model_dump(exclude_unset=True)  # a change of the schedule says only what changes
    for name, value in options.items():
        if isinstance(value, Mapping):
            data.setdefault(name, {}).update({key: item for key, item in value.items() if item is not None})
        elif value is not None:
            data[name] = value
    return Simulation.model_validate(data)


def _api_key(variable: str | None) -> str | None:
    import os

    from batchllm.errors import CredentialsError

    if variable is None:
        return None
    key = os.environ.get(variable)
    if not key:
        raise CredentialsError(
            f"The environment variable {variable} is not set.",
            remedy=f"Set it to the key that clients must send: export {variable}=...",
        )
    return key


def _is_loopback(host: str) -> bool:
    from ipaddress import ip_address

    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _raise_open_files() -> None:
    """A connection is an open file; the usual soft limit of 1,024 is less than one runner opens."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, _OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
