"""The command line: `selfpos VERB …`.

One file per verb in `selfpos/commands/`; each parses, calls one function of the room it belongs to, prints.
"""

from __future__ import annotations

import atexit
import gc
import re
import signal
import sys
from importlib import import_module
from pathlib import Path
from typing import NoReturn

import click

from selfpos.errors import OperationError, SelfposError, first_line, is_text, nearest, told
from selfpos.signals import ending_signals, ignore_ending_signals, repeated_interrupts
from selfpos.version import __version__

# verb → (module below selfpos, one line for `selfpos --help`). A verb's module is imported only when it is
# called or asked for help.
VERBS = {
    "run": ("commands.run", "Carry out a recipe: specialists, joint rival, merges, scores, report."),
    "quickstart": ("commands.quickstart", "See it all in minutes: the recipe `quickstart`, carried out."),
    "recipes": ("commands.recipes", "List the recipes that come with selfpos, or show one."),
    "finetune": ("commands.finetune", "Fine-tune one specialist from a base model."),
    "merge": ("commands.merge", "Merge specialists into one model."),
    "retain": ("commands.retain", "Keep what a fine-tune learned, without what it forgot."),
    "eval-mteb": ("commands.eval_mteb", "Score a model on MTEB tasks."),
    "compare": ("commands.compare", "Compare scored models: means, ranks, and differences with intervals."),
    "fetch-data": ("commands.fetch_data", "Fetch the data of MTEB tasks for machines without a network."),
    "push": ("commands.push", "Publish a model on the Hugging Face Hub, with its card."),
    "reproduce": ("commands.reproduce", "Repeat the merge that made a model and compare the bytes."),
    "report": ("commands.report", "Write the HTML report of a run."),
    "methods": ("commands.methods", "List the merge methods and what each needs."),
    "imbalance": ("imbalance.command", "The companion study of class imbalance in CNNs."),
    "overlap": ("commands.overlap", "Say which test items training data gives away, and remove them."),
    "analyse": ("commands.analyse", "Measure what drives the tasks of a run apart: conflict and imbalance."),
    "tasks": ("commands.tasks", "List the task types and the columns each reads."),
}

REMOVED = {
    "cluster": "'cluster' was removed in 0.2: no recipe used it; write the tasks into a recipe by hand"
}
"""Verbs of earlier versions, and what to do without them."""

OTHER_NAMES = {
    "--lr": "--learning-rate",
    "--model": "--base",
    "--base-model": "--base",
    "--models": "--vectors",
    "--dataset": "--data",
    "--output": "--out",
    "--output-dir": "--out",
    "--bs": "--batch-size",
}
"""What other tools call our options."""


class LazyGroup(click.Group):
    """A group whose verbs are imported when used, so that `--help` answers at once."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in VERBS:
            return None
        module = import_module(f"selfpos.{VERBS[name][0]}")
        return module.command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] in REMOVED:
            raise click.UsageError(REMOVED[args[0]], ctx)
        if args and args[0] not in VERBS:
            raise click.UsageError(f"there is no verb '{args[0]}'{nearest(args[0], VERBS)}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Verbs"):
            formatter.write_dl([(name, line) for name, (_, line) in VERBS.items()])


@click.group(
    cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120}
)
@click.version_option(__version__, prog_name="selfpos")
def selfpos() -> None:
    """One general text-embedding model out of many specialists."""


def main() -> None:
    """Run the command line.

    Exit status: 0 done, 1 something outside failed, 2 a mistake in what was asked, 130 stopped by Ctrl-C, 143
    by SIGTERM, 129 by SIGHUP.
    """
    # The interpreter collects garbage as it ends, 1.7 s of CPU where torch and transformers are loaded.
    atexit.register(gc.freeze)
    received: list[int] = []
    try:
        with ending_signals() as received:
            _until_stopped(received)
    finally:
        if received:
            ignore_ending_signals()


def _until_stopped(received: list[int]) -> None:
    """Do what the command line says, until it is done or an interrupt comes, of a signal in `received`."""
    try:
        with repeated_interrupts():
            _carry_out(sys.argv[1:], received)
    except (click.Abort, KeyboardInterrupt) as error:
        # click raises its own from the interrupt; empty where nothing was kept
        kept = str(error.__cause__ or error)
        by = f" by {signal.Signals(received[0]).name}" if received and received[0] != signal.SIGINT else ""
        _end(f"stopped{by}{kept and '; '}{kept}", 128 + (received[0] if received else signal.SIGINT))


def _carry_out(words: list[str], received: list[int]) -> None:
    """Do what the command line says, and end with one sentence where it cannot be done.

    An interrupt goes on to the caller, also one that comes while such a sentence is written, and one that a
    library made another error of.
    """
    try:
        _check_names(words)
        selfpos(args=[_expanded(word) for word in words], prog_name="selfpos", standalone_mode=False)
    except click.Abort:
        raise
    except Exception as error:
        if received:
            raise KeyboardInterrupt(f"it ended with {first_line(error)[:300]}") from None
        _fail(error)


def _fail(error: Exception) -> NoReturn:
    """End with the sentence of an error that users are to see; others are raised again."""
    if isinstance(error, SelfposError):
        _end(str(error), error.exit_code)
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        error.show()
        sys.exit(error.exit_code)
    if isinstance(error, click.ClickException):
        _end(_sentence(error), error.exit_code)
    if isinstance(error, OSError):
        name = error.filename2 or error.filename  # of a copy, the second is written
        where = f"{name}: " if name else ""
        _end(f"{where}{error.strerror or error}", OperationError.exit_code)
    raise error


def _end(sentence: str, status: int) -> NoReturn:
    click.echo(f"selfpos: {told(sentence)}", err=True)
    sys.exit(status)


def _check_names(words: list[str]) -> None:
    """Raise SelfposError for names that no manifest or log can hold: better now than after the work."""
    if odd := next((word for word in words if not is_text(word)), None):
        raise SelfposError(f"{odd[:200]!r} is not text in UTF-8; rename the file or folder")
    if len(words) > 1 and not is_text(folder := str(Path.cwd())):
        raise SelfposError(f"the name of the working folder, {folder!r}, is not UTF-8; work in another one")


def _expanded(word: str) -> str:
    """`word` with `~/` as the home folder: a shell does not expand it in quotes and after `--out=`."""
    return re.sub(r"^(--[a-z-]+=)?~(?=/)", lambda match: f"{match[1] or ''}{Path.home()}", word)


def _sentence(error: click.ClickException) -> str:
    """What click says of a mistake, without the usage lines, and where to read on."""
    if isinstance(error, click.NoSuchOption) and error.ctx is not None:
        options = [name for parameter in error.ctx.command.params for name in parameter.opts]
        other = OTHER_NAMES.get(error.option_name)
        hint = f"; did you mean '{other}'?" if other in options else nearest(error.option_name, options)
        return f"there is no option '{error.option_name}'{hint} (see {error.ctx.command_path} --help)"
    said = " ".join(error.format_message().split()).rstrip(".")
    said = said[:1].lower() + said[1:]
    context = error.ctx if isinstance(error, click.UsageError) else None
    return f"{said} (see {context.command_path} --help)" if context else said
