"""Where a lane sends, and with which key.

A key goes to the host that it was given for and to no other: the provider's own variable is not sent to an address
that the job put in the catalogue's place, unless the job says so with `api_key`.
"""

from collections.abc import Callable, Mapping
from typing import Protocol
from urllib.parse import urlsplit

from batchllm.provider.catalogue import Catalogue, ProviderEntry
from batchllm.spec.env import ExpansionError, address_faults, expand
from batchllm.spec.lanes import LaneSpec
from batchllm.wiring.entries import SIMULATOR


class FaultNote(Protocol):
    """Takes note of what is wrong with a key of a lane."""

    def __call__(self, index: int, key: str, message: str, remedy: str = "", /) -> None: ...


class Addresses:
    """Finds address and key of one lane after the other; what is wrong goes to `fault`, what is odd to `note`."""

    def __init__(
        self,
        catalogue: Catalogue,
        environ: Mapping[str, str],
        *,
        fault: FaultNote,
        note: Callable[[str], None],
    ) -> None:
        self._catalogue = catalogue
        self._environ = environ
        self._fault = fault
        self._note = note

    def base_url(self, index: int, spec: LaneSpec, entry: ProviderEntry) -> str:
        if entry.name == SIMULATOR:
            return ""
        if spec.base_url is not None:
            try:
                return expand(spec.base_url, self._environ).rstrip("/")
            except ExpansionError as error:
                self._fault(index, "base_url", error.message, error.remedy)
                return ""
        return entry.base_url or self._base_url_of_environment(index, spec, entry)

    def _base_url_of_environment(self, index: int, spec: LaneSpec, entry: ProviderEntry) -> str:
        variable = next((name for name in entry.base_url_env if self._environ.get(name)), None)
        if variable is None:
            self._fault(index, "base_url", f"{entry.title} needs a base_url", entry.base_url_note)
            return ""
        url = self._environ[variable].strip().rstrip("/")
        faults = list(address_faults("base_url", url, allows_http=spec.allow_http or entry.allow_http))
        for fault in faults:
            self._fault(index, "base_url", f"{variable}: {fault.message}", fault.remedy)
        if faults:
            return ""
        return url if urlsplit(url).path else url + entry.base_url_path

    def key(self, index: int, spec: LaneSpec, entry: ProviderEntry, base_url: str) -> str | None:
        is_home = entry.owns_host(host_of(base_url))
        if spec.api_key is not None:
            try:
                key = expand(spec.api_key, self._environ)
            except ExpansionError as error:
                self._fault(index, "api_key", error.message, error.remedy)
                return None
            return self._checked_key(index, entry, key, "this key") if is_home else key
        if not entry.env or entry.name == SIMULATOR:
            return None
        if not is_home:
            self._note_foreign_key(index, entry, base_url)
            return None
        for variable in entry.env:
            if self._environ.get(variable):
                return self._checked_key(index, entry, self._environ[variable], f"the key in {variable}")
        self._fault(
            index,
            "api_key",
            f"{entry.title} needs a key, and {entry.env[0]} is not set",
            f"export {entry.env[0]}=..., or give the lane an api_key",
        )
        return None

    def _checked_key(self, index: int, entry: ProviderEntry, key: str, what: str) -> str | None:
        """A key that is plainly another provider's is refused before that one's secret is sent here."""
        others = [other for other in self._catalogue if other.name != entry.name and other.key_prefixes]
        owner = next((other for other in others if key.startswith(other.key_prefixes)), None)
        if owner is None or key.startswith(entry.key_prefixes) or entry.overlaid:
            return key
        self._fault(
            index,
            "api_key",
            f"{what} begins as those of {owner.title} do, and the lane is {entry.title}'s",
            f"set a key of {entry.title}: export {entry.env[0]}=...",
        )
        return None

    def _note_foreign_key(self, index: int, entry: ProviderEntry, base_url: str) -> None:
        if base_url:
            self._note(
                f"lane {index}: {entry.env[0]} is not sent to {host_of(base_url)}, which is not {entry.title};"
                " name a key with api_key if that host needs one"
            )


def host_of(url: str) -> str:
    return urlsplit(url).netloc.lower()
