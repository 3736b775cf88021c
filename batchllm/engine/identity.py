"""Whose record a job's is: for a run, and for the commands that mend one."""

from collections.abc import Mapping

from batchllm.journal import Identity
from batchllm.spec.fingerprint import differs_in_reading_only, fingerprint, semantic_sections
from batchllm.spec.models import Job


def package_version() -> str:
    from importlib.metadata import version

    return version("batchllm")


def identity_of(job: Job) -> Identity:
    sections = semantic_sections(job)
    return Identity(
        job.name,
        sections,
        fingerprint(sections),
        package_version(),
        keeps_bodies=job.output.keep == "bodies",
    )


def slots_of(job: Job) -> int:
    """How many answers a row gets."""
    return (len(job.providers) if job.routing == "all" else 1) * job.samples


def way_of_reading(before: Mapping[str, str], now: Mapping[str, str]) -> str:
    """The beginning of a remedy, where no more than the reading of answers differs; else nothing."""
    if differs_in_reading_only(before, now):
        return "run `batchllm reparse JOB`, which reads the kept answers anew for nothing; or "
    return ""
