"""The beats by which this process keeps its shares: one transaction for all members that it has.

All of it runs on one thread (`SharedLimits` has it). Why the shares never add up to more than the limit, whatever is
killed or stopped at whatever point:

- A transaction reads all lines, and writes for its own members grants that fit beside the others' (`next_grant`).
- A lower share is told to the loop before the commit, a higher one and a longer lease after it.
- A lease counts from a moment inside the transaction, so it cannot outlive what the table says. A line whose lease is
  over, or whose process is gone, is removed by whoever sees it, and a member whose lease is over does not send.
- A file that takes another's place grants nothing before the last lease of the other is over, and a beat in a file
  that is no longer the current one counts for nothing but lowering.

When the file cannot be used at all there is no sharing: each member goes on with what it had, and that is said. Who
removes the file by hand while runs go on gets up to two shares' worth until their next beat, half a second later.
"""

import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from batchllm.clock import Clock
from batchllm.errors import BatchllmError, StorageError
from batchllm.limit.exchange import Moment, Turn, exchange
from batchllm.limit.limits_file import (
    FileBusyError,
    FileDamagedError,
    LimitsFile,
    fill_limits_file,
    open_limits_file,
)
from batchllm.limit.member import Member
from batchllm.limit.processes import Process
from batchllm.limit.sharing import NOT_YET, Standing
from batchllm.limit.state_folder import (
    Generation,
    cannot_use,
    create,
    newest,
    prepare_folder,
    read_secret,
    tidy,
)

_OPEN_TRIES = 5
_ERASE_TRIES = 5
#: A disk on which one file after the other is damaged is left alone.
_MOST_REPLACED = 5


@dataclass(frozen=True, slots=True)
class Pace:
    """`lease_s` is six beats: a locked file, or a machine that stumbles, costs no member its share.

    `hungry_s` is the pause while a member waits for others to make room, or after a beat that found the file locked;
    `retry_s` that after the file could not be used.
    """

    beat_s: float = 0.5
    hungry_s: float = 0.1
    lease_s: float = 3.0
    retry_s: float = 30.0


@dataclass(frozen=True, slots=True)
class Surroundings:
    """The world of a registry. `folder` may raise StorageError; `is_network` judges a resolved folder."""

    folder: Callable[[], Path]
    is_network: Callable[[Path], bool]
    process: Process
    clock: Clock
    say: Callable[[str], None]
    post: Callable[[Callable[[], None]], None]  # runs it on the loop's thread


class Registry:
    def __init__(self, world: Surroundings, pace: Pace) -> None:
        self._world = world
        self._pace = pace
        self._members: list[Member] = []
        self._file: LimitsFile | None = None
        self._secret = b""
        self._retry_at_s = -math.inf
        self._busy_since_s: float | None = None
        self._replaced = 0
        self._said: set[str] = set()
        self.skipped = 0  # beats that found the file locked

    @property
    def pause_s(self) -> float:
        """How long until the next beat."""
        if not self._members:
            return math.inf
        is_hungry = self._busy_since_s is not None or any(member.is_short for member in self._members)
        return self._pace.hungry_s if is_hungry else self._pace.beat_s

    def join(self, member: Member) -> None:
        """The first beat of `member`; when the file is locked, a later one brings the answer."""
        self._members.append(member)
        self.beat()

    def leave(self, member: Member) -> None:
        if member in self._members:
            self._members.remove(member)
            member.stand(NOT_YET)  # before others may take what it held
            self._erase([member])

    def close(self) -> None:
        members, self._members = self._members, []
        self._erase(members)
        self._put_away()

    def beat(self) -> None:
        """Keep the leases, give and take; a file that cannot be used ends in a message and no sharing."""
        if not self._members:
            return
        try:
            for _ in range(_OPEN_TRIES):
                file = self._opened()
                if file is None:
                    self._go_alone()  # also for those who came since it was found unusable
                    break
                if self._exchange(file):
                    break
                self._put_away()
        except FileBusyError:
            self._skip()
        except FileDamagedError as error:
            self._replace(f"is damaged ({error})")
        except BatchllmError as error:
            self.stop_sharing(error)
        except OSError as error:
            self.stop_sharing(cannot_use(self._world.folder(), error))
        else:
            self._busy_since_s = None

    def stop_sharing(self, error: BatchllmError) -> None:
        """For a while: every member goes on with what it had, and it is tried again later."""
        self._put_away()
        self._busy_since_s = None
        self._retry_at_s = self._world.clock.monotonic_s() + self._pace.retry_s
        self._say_once(f"limits are not shared with other runs on this machine: {error}")
        self._go_alone()

    def _go_alone(self) -> None:
        for member in self._members:
            member.is_short = False
            self._stand(member, _unshared(member.standing))

    def _exchange(self, file: LimitsFile) -> bool:
        """False when the file is not the current one: nothing that was granted in it counts."""
        clock = self._world.clock
        members = {member: member.pool.name(self._secret) for member in self._members}
        with file.transaction():
            moment = Moment(clock.monotonic_s(), clock.wall_s(), self._world.process, self._pace.lease_s)
            turns = exchange(file, members, moment)
        if not file.is_current():
            return False
        for member, turn in turns.items():
            self._hear(member, turn)
        return True

    def _hear(self, member: Member, turn: Turn) -> None:
        if not member.was_heard:
            member.was_heard, member.learned = True, turn.learned
        member.stored_learned = turn.told
        member.is_short = turn.is_short
        self._stand(member, turn.standing)

    def _stand(self, member: Member, standing: Standing) -> None:
        if member.stand(standing) and member.told is not None:
            self._world.post(member.told)

    def _erase(self, members: list[Member]) -> None:
        """Lines that stay because the file cannot be written are removed by others, once the process is gone."""
        numbers = [member.number for member in members if member.number is not None]
        if self._file is None or not numbers:
            return
        for _ in range(_ERASE_TRIES):
            with suppress(FileBusyError, FileDamagedError, BatchllmError):
                with self._file.transaction():
                    self._file.remove(numbers)
                return

    def _opened(self) -> LimitsFile | None:
        if self._file is None and self._world.clock.monotonic_s() >= self._retry_at_s:
            self._file = self._open()
        return self._file

    def _open(self) -> LimitsFile:
        folder = self._world.folder()
        prepare_folder(folder, self._world.is_network)
        self._secret = read_secret(folder)
        tidy(folder, self._world.clock.wall_s())
        for _ in range(_OPEN_TRIES):
            current = newest(folder)
            if current is None:
                create(folder, None, fill_limits_file)
                continue
            try:
                return open_limits_file(current)
            except FileDamagedError as error:
                create(folder, current, fill_limits_file)
                self._say_replaced(current, f"is damaged ({error})")
            except FileNotFoundError:
                continue
        raise StorageError(
            f"the files in {folder} are damaged or removed again and again",
            remedy="find the program that does that",
        )

    def _put_away(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
        for member in self._members:
            member.number = None

    def _skip(self) -> None:
        """The file is locked. If it stays so until every lease is over, its owner will not move any more."""
        self.skipped += 1
        now_s = self._world.clock.monotonic_s()
        if self._busy_since_s is None:
            self._busy_since_s = now_s
        if now_s - self._busy_since_s >= self._pace.lease_s and not self._is_in_use(now_s):
            self._replace("is locked by a program that does not move")

    def _is_in_use(self, now_s: float) -> bool:
        if self._file is not None:
            with suppress(FileBusyError, FileDamagedError, BatchllmError):  # not even to be read: no
                return self._file.last_lease_s(self._world.process.boot) > now_s
        return False

    def _replace(self, why: str) -> None:
        """Go on in the next file from the next beat."""
        self._busy_since_s = None
        current = None if self._file is None else self._file.generation
        self._put_away()
        try:
            folder = self._world.folder()
            current = current or newest(folder)
            if current != newest(folder):
                return  # somebody else was faster
            self._replaced += 1
            if self._replaced > _MOST_REPLACED:
                raise StorageError(
                    f"the files in {folder} are damaged or locked again and again",
                    remedy="check the disk, and find the program that locks them",
                )
            create(folder, current, fill_limits_file)
        except BatchllmError as error:
            self.stop_sharing(error)
        except OSError as error:
            self.stop_sharing(cannot_use(self._world.folder(), error))
        else:
            if current is not None:
                self._say_replaced(current, why)

    def _say_replaced(self, generation: Generation, why: str) -> None:
        self._say_once(f"{generation.path} {why}; limits are shared in a new file beside it")

    def _say_once(self, text: str) -> None:
        if text not in self._said:
            self._said.add(text)
            self._world.post(lambda: self._world.say(text))


def _unshared(standing: Standing) -> Standing:
    """What it had; who was never given anything takes an equal part of what it has heard of."""
    share = standing.share or 1.0 / (1 + standing.others)
    return replace(standing, share=share, lease_until_s=math.inf)
