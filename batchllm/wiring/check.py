"""Everything that can be known to be wrong before the first call is paid, all of it at once."""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from batchllm.clock import Clock
from batchllm.consensus.motion import Motion
from batchllm.errors import BatchllmError, Fault, JobError
from batchllm.journal import Named, check_names
from batchllm.ports import Source, Task
from batchllm.prompt import Template, TemplateError
from batchllm.provider.catalogue import Catalogue
from batchllm.provider.dialect import Asked
from batchllm.source import frame_source, open_source
from batchllm.source.images import ImageFolder
from batchllm.spec.extras import Image
from batchllm.spec.loading import LoadedJob
from batchllm.spec.models import ChatTask, EmbeddingTask, Job, Params, TaskSpec
from batchllm.task import JsonSchemaError, ToolsError, build_task
from batchllm.tokens import HeadStart, InputCap, Ruler, TokenCounter, counter_for
from batchllm.wiring.entries import SIMULATOR, pinned
from batchllm.wiring.lanes import LanePlan, LanePlanner
from batchllm.wiring.nested import Nested, judge_columns, nested_jobs
from batchllm.wiring.packing import Packing, plan_packing

#: Rows that are looked at to see whether the columns of the templates exist.
PEEK_ROWS = 1_000
#: What an estimate of prompt tokens is multiplied by to be an upper bound: exact counts miss the frame of a chat
#: only, estimates by bytes miss by up to twice on text that is not prose.
EXACT_MARGIN, ESTIMATE_MARGIN = 1.05, 2.0
#: Of 20 MB each at worst, a third more as base64.
IMAGE_ROWS = 4
#: So much text is reserved for by its bytes before a vocabulary is built.
HEAD_START_BYTES = 32 * 1024


@dataclass(frozen=True, slots=True)
class CheckedJob:
    """A job that can run, with what reads its rows and knows its task; its lanes are plans still.

    `motion`: what its answers are to agree on; `nested`: the jobs of the lanes that are asked for that beside voters.
    """

    loaded: LoadedJob
    task: Task
    source: Source
    lanes: tuple[LanePlan, ...]
    counter: TokenCounter | None
    max_inputs: int
    max_tokens: int | None
    notes: tuple[str, ...]
    motion: Motion | None = None
    nested: tuple[Nested, ...] = ()

    @property
    def job(self) -> Job:
        return self.loaded.job

    @property
    def keeps_bodies(self) -> bool:
        return self.job.output.keep == "bodies"

    @property
    def rows_at_once(self) -> int | None:
        """How many rows are rendered together; few where each brings images, which lie in memory."""
        return IMAGE_ROWS if _images(self.job.task) else None

    @property
    def prompt_margin(self) -> float:
        return EXACT_MARGIN if self.counter is not None and self.counter.is_exact else ESTIMATE_MARGIN

    def starting_counter(self) -> HeadStart | None:
        """What a run counts with: it need not wait for the vocabulary.

        None of the texts that are only estimated may look too large for a lane that it would fit.
        """
        if self.counter is None:
            return None
        most_bytes = HEAD_START_BYTES
        if self.most_tokens is not None:
            most_bytes = min(most_bytes, int(self.most_tokens) // 2)
        return HeadStart(self.counter, most_bytes=most_bytes, margin=ESTIMATE_MARGIN / self.prompt_margin)

    @property
    def ruler(self) -> Ruler:
        """What counts in a row beside its texts. Of tools the vocabulary is built at once, where there is one."""
        return Ruler(
            tuple(dict.fromkeys(lane.info.model for lane in self.lanes)), self.counter, self._input_cap()
        )

    def _input_cap(self) -> InputCap | None:
        """Of the lane that reads the longest texts; None where that is not known of one of them."""
        if self.job.task.type != "embedding":
            return None
        known = [lane.entry.embedding_model(lane.info.model) for lane in self.lanes]
        caps = [(model.max_tokens_per_input, model.name) for model in known if model is not None]
        told = [(cap, name) for cap, name in caps if cap is not None]
        if not told or len(told) < len(self.lanes):
            return None
        most, name = max(told)
        return InputCap(name, most, partial(counter_for, name))

    @property
    def most_tokens(self) -> float | None:
        """The largest minute's budget of a lane: a row above it can be sent nowhere. None: a lane has no limit."""
        limits = [lane.spec.limits.tpm for lane in self.lanes]
        told = [limit for limit in limits if limit is not None]
        return max(told) if len(told) == len(limits) else None


def check(
    loaded: LoadedJob,
    *,
    catalogue: Catalogue,
    environ: Mapping[str, str],
    clock: Clock,
    frame: object | None = None,
    source: Source | None = None,
) -> CheckedJob:
    """Raises JobError with all faults, InputMissingError, InputDataError. Touches nothing.

    `frame` or `source` takes the place of the job's input.
    """
    job = loaded.job
    planner = LanePlanner(loaded, catalogue=catalogue, environ=environ, wall_s=clock.wall_s())
    faults: list[Fault] = []
    dimensions = _dimensions(loaded, catalogue, faults)
    asked = _asked(job.task, dimensions)
    plans = [planner.plan(index, asked) for index in range(len(job.providers))]
    lanes = [plan for plan in plans if plan is not None]
    task = _task(loaded, dimensions, faults)
    faults += planner.faults
    faults += _lane_faults(loaded, lanes)
    nested = nested_jobs(loaded)
    notes = list(planner.notes)
    for one in nested:
        faults += _nested_faults(one, loaded, notes, catalogue=catalogue, environ=environ, clock=clock)
    if task is None:
        raise JobError(loaded.file, _in_order(faults))
    try:
        source = source or _source(job, task, frame)
    except BatchllmError as error:
        if not faults:
            raise
        faults.append(loaded.fault("input.path", error.message, error.remedy))
        raise JobError(loaded.file, _in_order(faults)) from None
    faults += _column_faults(loaded, task, source)
    motion = _motion(loaded, task, source, faults, notes)
    if faults:
        raise JobError(loaded.file, _in_order(faults))
    counter = _counter(job, lanes)
    packing = _packing(job, lanes, dimensions, counter)
    return CheckedJob(
        loaded=pinned(loaded, lanes),
        task=task,
        source=source,
        lanes=tuple(
            replace(lane, window=window) for lane, window in zip(lanes, packing.windows, strict=True)
        ),
        counter=counter,
        max_inputs=packing.max_inputs,
        max_tokens=packing.max_tokens,
        notes=(*notes, *_sample_notes(job)),
        motion=motion,
        nested=tuple(nested),
    )


def _motion(
    loaded: LoadedJob, task: Task, source: Source, faults: list[Fault], notes: list[str]
) -> Motion | None:
    if loaded.job.consensus is None:
        return None
    from batchllm.wiring.consensus import check_consensus  # which other jobs do not need

    found = check_consensus(loaded, task.answer_fields, source)
    faults += found.faults
    notes += found.notes
    return found.motion


def _asked(task: TaskSpec, dimensions: int | None) -> Asked:
    return Asked(
        task.type,
        getattr(task, "params", Params()),
        task.answer_schema if isinstance(task, ChatTask) else None,
        dimensions=dimensions,
        tools=_tool_fields(task),
        has_images=bool(_images(task)),
    )


def _nested_faults(
    nested: Nested,
    loaded: LoadedJob,
    notes: list[str],
    *,
    catalogue: Catalogue,
    environ: Mapping[str, str],
    clock: Clock,
) -> list[Fault]:
    """Of a lane that is asked beside the voters: key, model, parameters and price, as of the job's other lanes."""
    nothing: list[object] = []
    source = frame_source(nothing, key=None, carry=(), needed=None)
    try:
        checked = check(nested.loaded, catalogue=catalogue, environ=environ, clock=clock, source=source)
    except JobError as error:
        return [nested.at_home(fault, loaded) for fault in error.faults]
    notes += checked.notes
    return []


def _sample_notes(job: Job) -> list[str]:
    """Samples are worth their money where they can differ."""
    params = getattr(job.task, "params", None)
    if job.samples == 1 or params is None or (params.temperature != 0 and params.seed is None):
        return []
    why = "temperature: 0" if params.temperature == 0 else f"seed: {params.seed}"
    return [f"with {why} the {job.samples} samples of a row are likely to be the same answer"]


def _dimensions(loaded: LoadedJob, catalogue: Catalogue, faults: list[Fault]) -> int | None:
    """The width of the vectors, which the output's type needs before the first answer."""
    task = loaded.job.task
    if not isinstance(task, EmbeddingTask) or task.dimensions is not None:
        return getattr(task, "dimensions", None)
    widths: dict[int, str] = {}
    # Its faults are not kept: the lanes are planned, and their faults told, by the caller.
    quiet = LanePlanner(loaded, catalogue=catalogue, environ={}, wall_s=0.0)
    for index, lane in enumerate(loaded.job.providers):
        entry = quiet.entry(index)
        model = None if entry is None else quiet.model(index, entry, "embedding")
        if entry is None or model is None:
            continue
        known = entry.embedding_model(model)
        if known is not None:
            widths[known.dimensions] = model
        elif entry.name == SIMULATOR:
            widths[lane.simulate.dimensions if lane.simulate is not None else 8] = model
        else:
            faults.append(
                loaded.fault(
                    "task.dimensions",
                    f"the width of {model}'s vectors is not known",
                    "set task.dimensions to it",
                )
            )
            return None
    if len(widths) > 1:
        said = ", ".join(f"{model}: {width}" for width, model in widths.items())
        faults.append(
            loaded.fault("providers", f"the lanes answer with vectors of different widths ({said})")
        )
    return next(iter(widths), None)


def _task(loaded: LoadedJob, dimensions: int | None, faults: list[Fault]) -> Task | None:
    try:
        files = ImageFolder(loaded.folder)
        return build_task(loaded.job.task, dimensions=dimensions or 1, files=files)
    except TemplateError as error:
        where = getattr(error, "where", "") or "task"
        faults.append(loaded.fault(where, f"the template is wrong in its line {error.line}: {error}"))
    except JsonSchemaError as error:
        path = ".".join(["task.schema", *map(str, error.path)])
        faults.append(loaded.fault(path, error.message))
    except ToolsError as error:
        faults.append(loaded.fault(".".join(["task.tools", *map(str, error.path)]), error.message))
    return None


def _tool_fields(task: TaskSpec) -> Mapping[str, object]:
    """The fields of a body that speak of tools."""
    if not isinstance(task, ChatTask) or task.tools is None:
        return {}
    names = {"tools", "tool_choice", "parallel_tool_calls"}
    return task.model_dump(mode="json", include=names, exclude_none=True)


def _images(task: TaskSpec) -> Sequence[Image]:
    return getattr(task, "images", None) or ()


def _source(job: Job, task: Task, frame: object | None) -> Source:
    needed = task.template_columns | judge_columns(job.consensus)
    if frame is not None:
        return frame_source(
            frame,
            key=job.input.key,
            carry=job.output.carry,
            needed=needed,
            columns=job.input.columns if isinstance(frame, list) else None,
        )
    return open_source(job.input, carry=job.output.carry, needed=needed)


def _column_faults(loaded: LoadedJob, task: Task, source: Source) -> Iterable[Fault]:
    names = source.column_names
    if names is None:
        seen = source.peek(PEEK_ROWS)
        if not seen:
            return
        names = tuple(dict.fromkeys(name for row in seen for name in row.values))
    read = task.template_columns - _optional_columns(loaded.job)
    judged = judge_columns(loaded.job.consensus)
    for column in sorted((read | judged) - set(names)):
        near = difflib.get_close_matches(column, names, 1)
        hint = f"did you mean {near[0]}? " if near else ""
        yield loaded.fault(
            _template_place(loaded.job, column) if column in read else "consensus.judge.prompt",
            f"the input has no column {column!r}",
            f"{hint}columns: {', '.join(names[:30])}",
        )
    shape = source.shape
    key = None if shape.key is None else shape.key.name
    for named, clash in check_names(
        key,
        [field.name for field in shape.carry],
        [field.name for field in task.answer_fields],
        keeps_bodies=loaded.job.output.keep == "bodies",
        has_samples=loaded.job.samples > 1,
    ):
        yield _name_fault(loaded, named, clash)


def _name_fault(loaded: LoadedJob, named: Named, clash: str) -> Fault:
    """At the setting that brings the column."""
    match named:
        case "key":
            return loaded.fault("input.key", clash, "rename it in the input")
        case "carried":
            return loaded.fault("output.carry", clash, "rename it in the input, or leave it out")
        case "answer":
            has_schema = getattr(loaded.job.task, "answer_schema", None) is not None
            return loaded.fault(
                "task.schema" if has_schema else "input.key",
                clash,
                "rename it in the schema, or in the input",
            )


def _optional_columns(job: Job) -> frozenset[str]:
    """What every template that reads it can do without: such a column may come late, or never."""
    said = job.task.model_dump(exclude_none=True)
    texts = [said.get(name) for name in ("prompt", "text", "system")]
    texts += [message["content"] for message in said.get("messages", ())]
    texts += [image.url or image.path for image in _images(job.task)]
    templates = [Template(text, where="task") for text in texts if isinstance(text, str)]
    needed = [template.columns - template.optional for template in templates]
    optional = [template.optional for template in templates]
    return frozenset().union(*optional) - frozenset().union(*needed)


def _template_place(job: Job, column: str) -> str:
    for name in ("prompt", "text", "system", "messages_column"):
        text = getattr(job.task, name, None)
        if isinstance(text, str) and column in text:
            return f"task.{name}"
    for at, image in enumerate(_images(job.task)):
        if any(column in (text or "") for text in (image.url, image.path, image.column)):
            return f"task.images.{at}"
    return "task"


def _lane_faults(loaded: LoadedJob, lanes: Sequence[LanePlan]) -> Iterable[Fault]:
    job = loaded.job
    if job.task.type == "embedding" and job.routing != "all":
        models = {_identity(lane.info.model): lane.info.model for lane in lanes}
        if len(models) > 1:
            yield loaded.fault(
                "providers",
                f"embeddings of different models do not mix ({', '.join(models.values())})",
                "use one model on all lanes, or routing: all, which keeps them apart",
            )
    if getattr(job.task, "truncated", None) == "grow":
        for lane in lanes:
            if lane.translation.max_output_tokens is None:
                yield loaded.fault(
                    "task.truncated",
                    f"grow doubles the output cap, and the lane {lane.info.name} has none",
                    "set params.max_tokens",
                )
    if job.budget is None:
        return
    for lane in lanes:
        if lane.price is None:
            yield loaded.fault(
                f"providers.{lane.index}.model",
                f"no price is known for {lane.info.model}, and the job has a budget",
                "give the lane a price: {input: USD, output: USD} for a million tokens",
            )
        elif job.task.type in ("chat", "completion") and lane.translation.max_output_tokens is None:
            yield loaded.fault(
                "task.params",
                "a budget needs to know the longest answer",
                "set params.max_tokens",
            )
            return


def _identity(model: str) -> str:
    """`openai/text-embedding-3-small` at a reseller is the same model."""
    return model.rsplit("/", 1)[-1].lower()


def _counter(job: Job, lanes: Sequence[LanePlan]) -> TokenCounter | None:
    """Counting costs more than all else that is done for a row; without a use for it, bytes tell enough."""
    if job.budget is None and all(lane.spec.limits.tpm is None for lane in lanes):
        return None
    counter = counter_for(lanes[0].info.model)
    return None if counter.encoding is None else counter


def _packing(
    job: Job, lanes: Sequence[LanePlan], dimensions: int | None, counter: TokenCounter | None
) -> Packing:
    return plan_packing(
        job.task.type,
        lanes,
        asked_inputs=getattr(job.task, "inputs_per_request", None),
        dimensions=dimensions,
        is_exact=counter is not None and counter.is_exact,
    )


def _in_order(faults: Sequence[Fault]) -> list[Fault]:
    return sorted(dict.fromkeys(faults), key=lambda fault: (fault.line, fault.column, fault.path))
