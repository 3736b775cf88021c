"""What a lane asks for beside its rows: the job's parameters in the words of its provider and its API."""

from dataclasses import replace

from batchllm.provider.catalogue import Api, ProviderEntry
from batchllm.provider.dialect import Asked, Translation, translate
from batchllm.provider.responses_body import as_responses, form_of
from batchllm.provider.streaming import stream_fields
from batchllm.spec.lanes import LaneSpec


def translated(
    asked: Asked,
    spec: LaneSpec,
    entry: ProviderEntry,
    model: str,
    api: Api,
    *,
    streams: bool,
    drops: bool,
) -> Translation:
    """`model` is the real one, not a tier. `drops`: what is not taken is left out and does not refuse the job."""
    extra_body = dict(spec.extra_body)
    made = translate(asked, entry=entry, model=model, omit=spec.omit, extra_body=extra_body, drops=drops)
    if api == "responses":
        form = form_of(entry.dialect)
        made = as_responses(made, form, omit=spec.omit, extra_body=extra_body, drops=drops)
    return streamed(made, spec, entry, api) if streams else made


def streamed(made: Translation, spec: LaneSpec, entry: ProviderEntry, api: Api) -> Translation:
    """The same, answered by events.

    `omit` takes away what the server does not know, but not the stream itself, which is read as one.
    """
    asked = stream_fields(entry.dialect, api)
    kept = {name: value for name, value in asked.items() if name == "stream" or name not in spec.omit}
    return replace(made, fields={**kept, **made.fields})
