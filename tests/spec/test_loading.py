"""The job file → a job with resolved paths, or every fault of it at once."""

import os
import re
import threading
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from types import MappingProxyType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchllm.errors import BatchllmError, ExitCode, Fault, InputMissingError, JobError
from batchllm.spec.lanes import LaneSpec, Limits
from batchllm.spec.loading import LoadedJob, load_job, load_mapping
from batchllm.spec.models import Job, Params
from batchllm.spec.paths import absolute_path

JOB = """\
name: label
input:
  path: data/*.jsonl
task:
  type: chat
  prompt: "{{ text }}"
providers:
  - provider: groq
    model: fast
    limits: {rpm: 10}
"""
ENVIRON = {"HOME": "/home/u", "KEY": "secret", "DATA": "/data"}


def write(folder: Path, text: str | bytes = JOB, name: str = "job.yaml") -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def load(
    folder: Path, text: str | bytes = JOB, *overrides: str, environ: Mapping[str, str] = ENVIRON
) -> LoadedJob:
    return load_job(write(folder, text), overrides=overrides, environ=environ)


def faults(folder: Path, text: str | bytes = JOB, *overrides: str) -> list[Fault]:
    with pytest.raises(JobError) as caught:
        load(folder, text, *overrides)
    return caught.value.faults


def minimal(**changes: object) -> dict[str, object]:
    base: dict[str, object] = {
        "name": "a",
        "input": {"path": "x.jsonl"},
        "task": {"type": "chat", "prompt": "p"},
        "providers": [{"provider": "groq", "model": "fast"}],
    }
    return {**base, **changes}


def mapped(**changes: object) -> LoadedJob:
    return load_mapping(minimal(**changes), folder=Path("/jobs"), environ=ENVIRON)


def map_faults(**changes: object) -> list[Fault]:
    with pytest.raises(JobError) as caught:
        mapped(**changes)
    return caught.value.faults


def lane_faults(**lane: object) -> list[str]:
    found = map_faults(providers=[{"provider": "groq", "model": "fast", **lane}])
    return [f"{fault.path}: {fault.message}" for fault in found]


def test_a_job_is_loaded_with_its_places(tmp_path: Path) -> None:
    loaded = load(tmp_path)
    assert isinstance(loaded.job, Job)
    assert loaded.job.providers == [LaneSpec(provider="groq", model="fast", limits=Limits(rpm=10))]
    assert loaded.file == str(tmp_path / "job.yaml")
    assert loaded.places["providers.0.limits.rpm"] == (10, 19)


def test_a_job_as_json_is_loaded(tmp_path: Path) -> None:
    text = '{"name": "a", "input": {"path": "x"}, "task": {"type": "embedding", "text": "\\ud83d\\ude00"},\n'
    loaded = load(tmp_path, text + ' "providers": [{"provider": "groq", "model": "m"}]}')
    assert loaded.job.task.type == "embedding"
    assert loaded.job.task.text == "😀"


def test_ten_faults_come_at_once_in_the_order_of_the_file(tmp_path: Path) -> None:
    text = """\
name: bad name
input:
  path: 3
  colums: {gold: int}
task:
  type: chat
  prompt: {{ text }}
  params: {temperature: 3}
providers:
  - provider: groq
    model: fast
    limits: {rpm: -3, rpm: 5}
    api_key: ${GROQ_API_KEY}
  - provider: groq
    model: fast
    base_url: http://api.example.com/v1
routing: fallbak
"""
    with pytest.raises(JobError) as caught:
        load(tmp_path, text, "drain_timeout_s=0")
    file = re.escape(str(tmp_path / "job.yaml"))
    expected = [
        rf"{file}:1:7: name: expected a name .*, found text \"bad name\"",
        rf"{file}:3:9: input\.path: expected text or a list of text, found 3 .*",
        rf"{file}:4:3: input\.colums: unknown key \(did you mean columns\?\)",
        rf"{file}:7:12: task\.prompt: a mapping cannot be a key \(a template goes into quotes: .*",
        rf"{file}:8:25: task\.params\.temperature: expected a number from 0 to 2, found 3",
        rf"{file}:12:19: providers\.0\.limits\.rpm: expected a number of at least 0\.01, found -3 \(.*\)",
        rf"{file}:12:23: providers\.0\.limits\.rpm: this key is given twice, first at line 12, column 14 .*",
        rf"{file}:13:14: providers\.0\.api_key: the environment variable GROQ_API_KEY is not set \(set .*\)",
        rf"{file}:14:15: providers\.1\.provider: two lanes are called groq: .* \(give each a name:\)",
        rf"{file}:16:15: providers\.1\.base_url: http:// .* \(use https, .*\)",
        rf"{file}:17:10: routing: .* \(did you mean fallback\?\)",
        r"--set: drain_timeout_s: expected a number above 0, found 0 \(How long .*\)",
    ]
    lines = str(caught.value).splitlines()
    assert len(lines) == len(expected)
    for line, pattern in zip(lines, expected, strict=True):
        assert re.fullmatch(pattern, line), line
    assert caught.value.exit_code == ExitCode.CONFIG


def test_a_stand_in_for_unreadable_yaml_causes_no_further_fault(tmp_path: Path) -> None:
    text = (
        JOB.replace("rpm: 10", "rpm: .inf")
        .replace('"{{ text }}"', "{{ text }}")
        .replace("model: fast", "model: !x 5")
    )
    assert [fault.path for fault in faults(tmp_path, text)] == [
        "task.prompt",
        "providers.0.model",
        "providers.0.limits.rpm",
    ]


def test_a_merge_key_hides_what_would_be_missing_without_it(tmp_path: Path) -> None:
    (fault,) = faults(tmp_path, JOB + "  - <<: {model: fast}\n    provider: openai\n")
    assert (fault.path, fault.line) == ("providers.1", 11)


def test_a_missing_key_has_the_place_of_what_should_hold_it(tmp_path: Path) -> None:
    (fault,) = faults(tmp_path, JOB.replace('  prompt: "{{ text }}"\n', "").replace("chat", "completion"))
    assert (fault.path, fault.line, fault.column) == ("task.prompt", 4, 1)


def test_an_unknown_key_has_the_place_of_the_key(tmp_path: Path) -> None:
    (fault,) = faults(tmp_path, JOB.replace("{rpm: 10}", "{rpm: 10, tps: 3}"))
    assert (fault.path, fault.line, fault.column) == ("providers.0.limits.tps", 10, 23)


@pytest.mark.parametrize("text", ["- a\n", "5\n", "text\n", "---\n", "[]\n"])
def test_a_file_that_is_no_mapping_is_told_the_keys_of_a_job(tmp_path: Path, text: str) -> None:
    (fault,) = faults(tmp_path, text)
    assert "mapping" in fault.message
    assert "name, input, task, providers" in fault.remedy


def test_faults_of_the_text_have_the_name_of_the_file(tmp_path: Path) -> None:
    with pytest.raises(JobError, match=r"job\.yaml:1:8: a colon"):
        load(tmp_path, "name: a: b\n")


# Paths


@pytest.mark.parametrize(
    ("path", "resolved"),
    [
        ("x.jsonl", "/jobs/x.jsonl"),
        ("../data/*.jsonl", "/data/*.jsonl"),
        ("./a//b/", "/jobs/a/b"),
        ("/abs/x.jsonl", "/abs/x.jsonl"),
        ("~/x.jsonl", "/home/u/x.jsonl"),
        ("~", "/home/u"),
        ("~bob/x", "/jobs/~bob/x"),
        ("${DATA}/x", "/data/x"),
        ("$${DATA}/x", "/jobs/${DATA}/x"),
        ("$DATA/x", "/jobs/$DATA/x"),
        ("s3://bucket/${KEY}/../*.parquet", "s3://bucket/secret/../*.parquet"),
        ("hf://datasets/x", "hf://datasets/x"),
        ("https://example.com/x.csv?a=b", "https://example.com/x.csv?a=b"),
    ],
)
def test_a_path_is_expanded_and_seen_from_the_folder_of_the_job(path: str, resolved: str) -> None:
    job = mapped(input={"path": path}, output={"path": path}).job
    assert job.input.path == resolved
    assert job.output.path == resolved


def test_several_paths_stay_several() -> None:
    assert mapped(input={"path": ["a", "/b", "s3://c"]}).job.input.path == ["/jobs/a", "/b", "s3://c"]


def test_the_output_goes_beside_the_job_by_default(tmp_path: Path) -> None:
    assert load(tmp_path).job.output.path == str(tmp_path / "out" / "label")
    assert mapped(output={"carry": "all"}).job.output.path == "/jobs/out/a"


def test_a_relative_job_path_gives_absolute_paths(tmp_path: Path) -> None:
    path = Path(os.path.relpath(write(tmp_path)))
    loaded = load_job(path, environ=ENVIRON)
    assert loaded.file == str(path)
    assert loaded.job.input.path == str(tmp_path / "data" / "*.jsonl")


def test_the_way_up_from_a_linked_folder_is_that_of_the_real_one(tmp_path: Path) -> None:
    real = tmp_path / "real" / "jobs"
    real.mkdir(parents=True)
    write(real, JOB.replace("data/*", "../x"))
    (tmp_path / "link").symlink_to(real)
    loaded = load_job(tmp_path / "link" / "job.yaml", environ=ENVIRON)
    assert loaded.job.input.path == str(tmp_path / "real" / "x.jsonl")


def test_a_pattern_does_not_make_a_pattern_of_the_folder() -> None:
    folder = Path("/jobs [2024]")
    assert absolute_path("*.jsonl", folder, is_pattern=True) == "/jobs [[]2024]/*.jsonl"
    assert absolute_path("x.jsonl", folder, is_pattern=True) == "/jobs [2024]/x.jsonl"
    assert absolute_path("*", folder, is_pattern=False) == "/jobs [2024]/*"


@pytest.mark.parametrize("key", ["input", "output"])
@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("${ABSENT}/x", "ABSENT is not set"),
        ("${ABSENT:-/x}/x", "names no variable"),
        ("${DATA", "names no variable"),
        ("a\0b", "control character"),
        ("a\nb", "control character"),
    ],
)
def test_a_path_that_cannot_be_is_a_fault(key: str, path: str, said: str) -> None:
    changes: dict[str, object] = {"input": {"path": "x"}, key: {"path": path}}
    (fault,) = map_faults(**changes)
    assert fault.path == f"{key}.path"
    assert said in fault.message


def test_each_of_several_paths_has_its_own_fault() -> None:
    assert [fault.path for fault in map_faults(input={"path": ["${A}", "x", "~"]})] == ["input.path.0"]


def test_a_home_that_is_not_known_is_a_fault() -> None:
    with pytest.raises(JobError, match="HOME is not set"):
        load_mapping(minimal(input={"path": "~/x"}), folder=Path("/jobs"), environ={})


# The environment


def test_keys_addresses_and_headers_stay_as_they_are_written() -> None:
    lane = {"provider": "custom", "model": "m", "api_key": "${KEY}", "base_url": "https://${KEY}.example/v1"}
    loaded = mapped(providers=[{**lane, "headers": {"X": "Bearer ${KEY}"}}])
    assert loaded.job.providers[0].api_key == "${KEY}"
    assert loaded.job.providers[0].base_url == "https://${KEY}.example/v1"
    assert loaded.job.providers[0].headers == {"X": "Bearer ${KEY}"}
    assert "secret" not in repr(loaded)


def test_variables_elsewhere_are_plain_text() -> None:
    task = {"type": "chat", "system": "${ABSENT}", "prompt": "${KEY} ${}", "params": {"user": "${ABSENT:-x}"}}
    job = mapped(
        task=task, providers=[{"provider": "groq", "model": "${ABSENT}", "extra_body": {"a": "${KEY}"}}]
    ).job
    assert job.task.model_dump(exclude_unset=True) == task
    assert job.providers[0].model == "${ABSENT}"
    assert job.providers[0].extra_body == {"a": "${KEY}"}


def test_missing_variables_are_told_beside_faults_of_types() -> None:
    assert lane_faults(api_key="${A}", limits=5, base_url="${B}", headers={"X": "${C}", "Y": 5}) == [
        "providers.0.headers.Y: expected text, found a number",
        "providers.0.limits: expected a mapping, found 5",
        "providers.0.api_key: the environment variable A is not set",
        "providers.0.base_url: the environment variable B is not set",
        "providers.0.headers.X: the environment variable C is not set",
    ]


# What needs several keys


def test_two_lanes_of_one_provider_need_names() -> None:
    lane = {"provider": "groq", "model": "m"}
    (fault,) = map_faults(providers=[lane, {**lane, "provider": "openai"}, lane])
    assert (fault.path, fault.remedy) == ("providers.2.provider", "give each a name:")
    assert "groq" in fault.message
    assert "providers.0" in fault.message
    assert len(mapped(providers=[{**lane, "name": "a"}, {**lane, "name": "b"}, lane]).job.providers) == 3


def test_a_name_given_twice_is_a_fault_also_when_one_is_a_provider() -> None:
    lane = {"provider": "groq", "model": "m"}
    (fault,) = map_faults(providers=[lane, {"provider": "openai", "model": "m", "name": "groq"}])
    assert (fault.path, fault.remedy) == ("providers.1.name", "give it another name")


@pytest.mark.parametrize("name", ["-a", ".a", "a b", "a/b", "../a", "é", "a" * 65, "a\n"])
def test_a_lane_has_a_plain_name(name: str) -> None:
    (line,) = lane_faults(name=name)
    assert line.startswith("providers.0.name: a lane's name is")
    (line,) = lane_faults(provider=name)
    assert line.startswith("providers.0.provider: a lane's name is")


def test_a_custom_provider_needs_its_address() -> None:
    assert lane_faults(provider="custom") == ["providers.0.base_url: provider: custom needs a base_url"]


@pytest.mark.parametrize(
    ("price", "said"),
    [
        ({"input": -1}, "expected a number of at least 0, found -1"),
        ({"output": 1}, "missing"),
        ({"input": 1.5e-7}, "1.5e-07 looks like the price of one token"),
        ({"input": 1, "output": 6e-5}, "6e-05 looks like the price of one token"),
        ({"input": 1e6}, "no model costs 1e+06 USD"),
        ({"input": "1"}, "expected a number of at least 0"),
    ],
)
def test_a_price_is_in_its_range(price: dict[str, object], said: str) -> None:
    (line,) = lane_faults(price=price)
    assert said in line


@pytest.mark.parametrize("price", [{"input": 0}, {"input": 0.0001, "output": 600}])
def test_free_and_dear_models_have_prices(price: dict[str, object]) -> None:
    assert mapped(providers=[{"provider": "groq", "model": "m", "price": price}]).job.providers[0].price


def test_a_column_carried_twice_is_a_fault() -> None:
    (fault,) = map_faults(output={"carry": ["a", "b", "a"]})
    assert (fault.path, fault.message) == ("output.carry.2", '"a" is carried twice')


def test_the_key_may_be_carried_though_it_always_is() -> None:
    job = mapped(input={"path": "x", "key": "id"}, output={"carry": ["id"]}).job
    assert job.output.carry == ["id"]


@pytest.mark.parametrize("pattern", ["(", "[", "a{99999999999}", "(?P<a>x)(?P<a>y)", "(?z)"])
def test_a_simulated_answer_has_a_pattern_that_compiles(pattern: str) -> None:
    (line,) = lane_faults(provider="simulator", simulate={"answers": [{"pattern": pattern, "reply": "x"}]})
    assert line.startswith("providers.0.simulate.answers.0.pattern: no regular expression:")


def test_the_slow_end_of_a_latency_is_not_faster_than_its_middle() -> None:
    (line,) = lane_faults(provider="simulator", simulate={"latency": {"median_s": 2, "p99_s": 1}})
    assert line == "providers.0.simulate.latency.p99_s: 1 is less than median_s (2)"


def test_a_latency_of_zero_has_no_slow_end() -> None:
    (line,) = lane_faults(provider="simulator", simulate={"latency": {"median_s": 0.0, "p99_s": 1.0}})
    assert line.startswith("providers.0.simulate.latency.median_s: ")


# Overrides


def test_values_set_on_the_command_line_are_in_the_job(tmp_path: Path) -> None:
    job = load(
        tmp_path, JOB, "providers.groq.limits.rpm=5", "output.path=there", "task.params.temperature=0"
    ).job
    assert job.providers[0].limits.rpm == 5
    assert job.output.path == str(tmp_path / "there")
    assert job.task.type == "chat"
    assert job.task.params == Params(temperature=0)


def test_a_fault_of_a_set_value_is_not_placed_in_the_file(tmp_path: Path) -> None:
    overrides = ("providers.0.limits.rpm=-3", "providers.0.lmits.rpm=3", "providers.0.api_key=${ABSENT}", "x")
    with pytest.raises(JobError) as caught:
        load(tmp_path, JOB, *overrides)
    lines = str(caught.value).splitlines()
    assert len(lines) == 4
    assert all(line.startswith("--set: ") for line in lines)


def test_what_a_set_value_replaces_has_no_place_any_more(tmp_path: Path) -> None:
    (fault,) = faults(tmp_path, JOB, "providers.0.limits={rpm: -3}")
    assert fault.text("job.yaml").startswith("--set: providers.0.limits.rpm:")


def test_an_unknown_key_that_the_file_and_a_set_value_have_is_that_of_the_set_value(tmp_path: Path) -> None:
    (fault,) = faults(tmp_path, JOB.replace("rpm: 10", "rmp: 10"), "providers.0.limits={rmp: 3}")
    assert fault.text("job.yaml").startswith("--set: providers.0.limits.rmp: unknown key")


def test_a_fault_found_later_of_a_set_value_is_not_placed_in_the_file(tmp_path: Path) -> None:
    loaded = load(tmp_path, JOB, "task.prompt=x")
    assert loaded.fault("task.prompt", "m").text("job.yaml") == "--set: task.prompt: m"
    assert loaded.fault("task.params", "m").text("job.yaml") == "job.yaml:4:1: task.params: m"


def test_a_set_value_can_mend_the_file(tmp_path: Path) -> None:
    job = load(tmp_path, JOB.replace("rpm: 10", "rpm: x"), "providers.0.limits.rpm=1").job
    assert job.providers[0].limits.rpm == 1


# Files that cannot be read


def missing(path: Path) -> InputMissingError:
    with pytest.raises(InputMissingError) as caught:
        load_job(path, environ=ENVIRON)
    assert caught.value.exit_code == ExitCode.NO_INPUT
    assert str(path) in caught.value.message
    return caught.value


def test_a_missing_file_is_told_the_nearest(tmp_path: Path) -> None:
    write(tmp_path, name="classify.yaml")
    write(tmp_path, name="notes.txt")
    assert missing(tmp_path / "clasify.yml").remedy == f"did you mean {tmp_path / 'classify.yaml'}?"
    assert missing(tmp_path / "classify").remedy == f"did you mean {tmp_path / 'classify.yaml'}?"
    assert missing(tmp_path / "zzz").remedy == f"jobs in {tmp_path}: classify.yaml"


def test_a_missing_file_in_an_empty_or_missing_folder_says_so(tmp_path: Path) -> None:
    assert "no .yaml file" in missing(tmp_path / "a.yaml").remedy
    assert missing(tmp_path / "no" / "a.yaml").remedy == f"there is no folder {tmp_path / 'no'}"


def test_a_folder_is_told_from_a_file(tmp_path: Path) -> None:
    write(tmp_path, name="a.yaml")
    error = missing(tmp_path)
    assert "is a folder" in error.message
    assert error.remedy == f"jobs in {tmp_path}: a.yaml"


def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert "no regular file" in missing(tmp_path / "pipe").message


@pytest.mark.parametrize("name", ["x" * 300, "a\0b"])
def test_a_name_that_no_file_can_have_is_refused(tmp_path: Path, name: str) -> None:
    assert "cannot be read" in missing(tmp_path / name).message


def test_a_loop_of_links_is_refused(tmp_path: Path) -> None:
    (tmp_path / "loop.yaml").symlink_to(tmp_path / "loop.yaml")
    assert "cannot be read" in missing(tmp_path / "loop.yaml").message


def test_a_path_through_a_file_is_refused(tmp_path: Path) -> None:
    assert "cannot be read" in missing(write(tmp_path) / "job.yaml").message


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path)
    path.chmod(0)
    assert "cannot be read" in missing(path).message


# Jobs built in Python


def test_models_and_other_plain_values_may_stand_in_a_mapping() -> None:
    lanes = (
        {"provider": "groq", "model": "fast", "limits": Limits(rpm=5)},
        LaneSpec(provider="openai", model="m"),
    )
    loaded = mapped(input=MappingProxyType({"path": PurePosixPath("x.jsonl")}), providers=lanes)
    assert loaded.job.input.path == "/jobs/x.jsonl"
    assert loaded.job.providers[0].limits.rpm == 5
    assert loaded.job.providers[1].provider == "openai"


def test_a_schema_in_a_model_keeps_its_name() -> None:
    task = Job.model_validate(
        minimal(task={"type": "chat", "prompt": "p", "schema": {"type": "object"}})
    ).task
    job = mapped(task=task).job
    assert job.task.type == "chat"
    assert job.task.answer_schema == {"type": "object"}


def test_a_fault_of_a_mapping_has_no_place() -> None:
    (fault,) = map_faults(routing="x")
    assert (fault.line, fault.column) == (0, 0)
    with pytest.raises(JobError, match=r"^<job>: routing: "):
        mapped(routing="x")
    with pytest.raises(JobError, match=r"^nightly: routing: "):
        load_mapping(minimal(routing="x"), folder=Path("/jobs"), environ={}, file="nightly")


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({1, 2}, "found set"),
        (object(), "found object"),
        (b"x", "found bytes"),
        (threading.Lock(), "found _thread.lock"),
        (float("nan"), "JSON"),
        (2**70, "64 bits"),
        ("\ud800", "surrogate"),
        ({1: 2}, "not text"),
    ],
)
def test_what_no_file_could_hold_is_refused_at_its_key(value: object, said: str) -> None:
    (fault,) = map_faults(task={"type": "chat", "prompt": "p", "schema": {"a": [value]}})
    assert fault.path == "task.schema.a.0"
    assert said in fault.message


def test_a_mapping_that_holds_itself_is_refused() -> None:
    loop: dict[str, object] = {}
    loop["a"] = loop
    (fault,) = map_faults(task={"type": "chat", "prompt": "p", "schema": loop})
    assert "64 levels" in fault.message
    loop["b"] = loop
    assert (
        "does it hold itself?" in map_faults(task={"type": "chat", "prompt": "p", "schema": loop})[0].message
    )


def test_the_mapping_given_is_left_as_it_is() -> None:
    data = minimal(input={"path": "x"})
    load_mapping(data, folder=Path("/jobs"), environ=ENVIRON)
    assert data == minimal(input={"path": "x"})


# Anything at all

_TREES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text("${}~/:a.\0\n", max_size=8)
    | st.binary(),
    lambda tree: (
        st.lists(tree, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["path", "type", "api_key", "base_url", "headers", "price", "input", "name", "provider", "x"]
            ),
            tree,
            max_size=5,
        )
    ),
    max_leaves=15,
)


_CHANGES = st.dictionaries(st.sampled_from([*minimal(), "output", "x"]), _TREES)


@settings(deadline=None)
@given(_CHANGES)
def test_any_mapping_is_loaded_or_refused(changes: dict[str, object]) -> None:
    try:
        mapped(**changes)
    except BatchllmError as error:
        exit_code = error.exit_code
    else:
        exit_code = ExitCode.OK
    assert exit_code in (ExitCode.OK, ExitCode.CONFIG)


def _slip(at: int, typed: str) -> bytes:
    return (JOB[:at] + typed + JOB[at + 1 :]).encode()


_SLIPS = st.builds(_slip, st.integers(0, len(JOB)), st.text("{}[]:-*&!|>'\"#,~$ \n\ta0", max_size=4))


@settings(deadline=None)
@given(st.binary(max_size=80) | _SLIPS)
def test_any_file_is_loaded_or_refused_with_places_in_it(
    tmp_path_factory: pytest.TempPathFactory, raw: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_bytes(raw)
    try:
        lines = [line for line, _ in load_job(path, environ=ENVIRON).places.values()]
    except JobError as error:
        lines = [fault.line for fault in error.faults]
    assert all(0 <= line <= len(re.split(b"\r\n|\r|\n", raw)) for line in lines)
