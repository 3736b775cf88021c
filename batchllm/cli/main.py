"""The entry point: which commands there are, and how whatever happens becomes an exit code and a line on stderr.

Commands are imported when they are called: `batchllm --help` loads click and nothing heavy.
"""

import faulthandler
import gc
import os
import signal
import sys
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from types import FrameType

import click

from batchllm.errors import BatchllmError, ExitCode, OutOfMemoryError, is_out_of_memory

#: New containers between two looks of the garbage collector: more than a command loads. A run sets fewer
#: (`engine.collecting`).
_CONTAINERS = 250_000
_COMMANDS = {
    "run": "batchllm.cli.run:run_command",
    "status": "batchllm.cli.status:status_command",
    "check": "batchllm.cli.check:check_command",
    "ask": "batchllm.cli.ask:ask_command",
    "verify": "batchllm.cli.verify:verify_command",
    "rebuild": "batchllm.cli.rebuild:rebuild_command",
    "reparse": "batchllm.cli.reparse:reparse_command",
    "consensus": "batchllm.cli.consensus:consensus_command",
    "providers": "batchllm.cli.providers:providers_command",
    "schema": "batchllm.cli.schema:schema_command",
    "simulate": "batchllm.cli.simulate:simulate_command",
}
_ABOUT = {
    "run": "Run a job: rows in, answers out as Parquet.",
    "status": "How a run is: rows, time left, money, lanes.",
    "check": "Ask each lane of a job whether it would answer: key, model, limits.",
    "ask": "Ask one question; the answer comes as it is written.",
    "verify": "Check an output: parts, checksums, counts, journal.",
    "rebuild": "Make a lost or damaged journal anew from the parts.",
    "reparse": "Read kept answers again, by a changed schema, for nothing.",
    "consensus": "What kept answers, or files of votes, agree on.",
    "providers": "Show the providers that are known, or one in detail.",
    "schema": "Print the JSON Schema of job files.",
    "simulate": "Serve a simulated provider for rehearsals and tests.",
}


class LazyCommands(click.Group):
    """Lists commands without importing them."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        target = _COMMANDS.get(cmd_name)
        if target is None:
            return None
        module, attribute = target.split(":")
        command = getattr(import_module(module), attribute)
        if not isinstance(command, click.Command):
            raise TypeError(f"{target} is no command")
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in _COMMANDS:
            import difflib

            near = difflib.get_close_matches(args[0], _COMMANDS, 1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            ctx.fail(f"No such command {args[0]!r}.{hint}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl(list(_ABOUT.items()))


@click.group(cls=LazyCommands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="batchllm")
def cli() -> None:
    """Run a table of prompts through LLM providers."""


def main(args: list[str] | None = None) -> None:
    """Never returns; never shows a traceback unless BATCHLLM_TRACEBACK is set."""
    # The process is ours: nothing that is loaded is garbage, and looking for some takes a tenth of the start.
    gc.set_threshold(_CONTAINERS)
    _open_closed_streams()
    _tell_crashes()
    _end_by_signals()
    code = invoke(args)
    gc.freeze()  # it ends: the interpreter need not look for cycles among all that was loaded, which takes 0.15 s
    sys.exit(code)


class _AskedToEnd(KeyboardInterrupt):
    """SIGTERM or SIGHUP, where no run has its own way to end: what was opened is closed, as after Ctrl-C."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = signal.Signals(number)


def _asked_number(error: BaseException) -> signal.Signals:
    """Click wraps what ends it."""
    asked = error if isinstance(error, _AskedToEnd) else error.__cause__
    return asked.number if isinstance(asked, _AskedToEnd) else signal.SIGINT


def _end_by_signals() -> None:
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:  # nohup ignores SIGHUP, and so do we then
            signal.signal(number, _raise_asked)


def _raise_asked(number: int, _frame: FrameType | None) -> None:
    raise _AskedToEnd(number)


def _tell_crashes() -> None:
    """What ends the process from within a library says so, and where: SIGBUS, SIGSEGV, SIGABRT.

    The one to expect is SIGBUS out of SQLite, which maps `journal.db-shm`: a disk that takes a page of it away, or
    refuses to write one, can tell it in no other way. No code of ours may run then, so there is no sentence.
    """
    with suppress(OSError, ValueError):  # a stream without a descriptor: nobody would read it
        faulthandler.enable(file=sys.stderr, all_threads=False)


def _open_closed_streams() -> None:
    """A daemon's parent may have closed stdout or stderr: what is printed then goes nowhere, and hurts nothing.

    Opening also takes the free descriptor, which otherwise the next file would get, and be printed into.
    """
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:
            stream = Path(os.devnull).open("r" if name == "stdin" else "w", encoding="utf-8")  # noqa: SIM115
            setattr(sys, name, stream)


def invoke(args: list[str] | None = None) -> int:
    """Run a command line and return its exit code."""
    try:
        result = cli.main(args, prog_name="batchllm", standalone_mode=False)
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - the last door: a user gets a line, not a traceback
        return _ended_by(error)
    return result if isinstance(result, int) else ExitCode.OK


def _ended_by(error: BaseException) -> int:
    code = ExitCode.OK
    match error:
        case click.ClickException():
            error.show()
            code = ExitCode.USAGE
        case click.Abort() | KeyboardInterrupt():
            number = _asked_number(error)
            _say("interrupted" if number is signal.SIGINT else f"ended by {number.name}")
            code = ExitCode(128 + number)
        case BatchllmError():
            _say(str(error))
            code = error.exit_code
        case _ if is_out_of_memory(error):
            _say(str(OutOfMemoryError()))
            code = ExitCode.SYSTEM
        case BrokenPipeError():
            _leave_quietly()
        case OSError():
            place = f" ({error.filename})" if error.filename else ""
            reason = error.strerror or error
            _say(f"the system refused: {reason}{place}\n  mend that and start again: what was paid is kept")
            code = ExitCode.IO
        case _:
            _report_bug(error)
            code = ExitCode.BUG
    return code


def _report_bug(error: BaseException) -> None:
    if os.environ.get("BATCHLLM_TRACEBACK"):
        import traceback

        traceback.print_exception(error)
    else:
        _say(
            f"bug in batchllm: {type(error).__name__}: {error}\n"
            "  set BATCHLLM_TRACEBACK=1 and run again to see where; what was paid for is kept"
        )


def _say(text: str) -> None:
    with suppress(OSError):  # a terminal that has gone: the exit code says it too
        click.echo(f"batchllm: {text}", err=True)


def _leave_quietly() -> None:
    """The reader of our output has gone (`| head`): nothing more can be written, and that is no error."""
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, sys.stdout.fileno())
    os.close(devnull)
