"""The command line: `jax-unlearn`, the main job, and each of its steps on files."""

import contextlib
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jax_unlearn import __version__
from jax_unlearn._validate import one_of
from jax_unlearn.drivers import signals
from jax_unlearn.errors import InputError, NonFiniteError

__all__ = ["COMMANDS", "OF_DIFFUSION", "OF_MODALITY", "SUMMARY", "main"]

SUMMARY = """Machine unlearning for JAX.

Without a command it runs `demo`: twelve methods forget a long-tailed request on
scikit-learn's digits, each is compared with retraining, and a report is written. The
other commands do the same job step by step on your own data.

`jax-unlearn COMMAND --help` shows the options of a command, with an example.
`--version` prints the version. `--print-completion bash`, `zsh` or `fish` writes a
script that completes commands and options: `source <(jax-unlearn --print-completion
bash)`."""


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line; exits with 2 and one line where the input is at fault."""
    options: set[str] = {"config"}
    try:
        with signals.handled():  # from here on, imports included
            _run(list(sys.argv[1:] if argv is None else argv), options)
        return
    except BrokenPipeError:  # who reads has closed, as `head` does: nothing to tell
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)  # 128 + SIGPIPE, as of any command
    except (InputError, NonFiniteError) as error:
        from jax_unlearn.cli.messages import spoken

        code, said = 2, spoken(" ".join(str(error).split()), options)
    except signals.Stopped as stopped:
        code, name = 128 + stopped.signal, signal.Signals(stopped.signal).name
        again = "again, with --resume" if "resume" in options else "again"
        said = f"stopped by {name}; what was made is saved: give the command {again}"
    except KeyboardInterrupt:
        code, said = 130, "interrupted; what was written stays"
    sys.stdout.flush()
    print(f"jax-unlearn: {said}", file=sys.stderr)
    sys.exit(code)


def _run(arguments: list[str], options: set[str]) -> None:
    """Run a command; the names of its options are added once they are known."""
    import tyro

    from jax_unlearn.cli import config
    from jax_unlearn.cli.choices import one_line_choices
    from jax_unlearn.cli.messages import (
        headed,
        parsing_as_lines,
        warnings_as_lines,
        write_everywhere,
    )

    write_everywhere()
    arguments, files = config.taken(_completion(arguments))
    if not arguments or (arguments[0][0:1] == "-" and arguments[0] not in _HELP):
        arguments.insert(0, config.made_by(files) or "demo")
    if arguments[0] == "--version":
        print(f"jax-unlearn {__version__}")
        return
    arguments, known, own = _commands(arguments, files)
    options |= own
    try:
        lines = parsing_as_lines(arguments[0], options)
        title = headed() if arguments[0] in _HELP else contextlib.nullcontext()
        with one_line_choices(), warnings_as_lines(options), lines, title:
            tyro.extras.subcommand_cli_from_dict(
                known,
                prog="jax-unlearn",
                description=SUMMARY,
                args=arguments,
                config=(tyro.conf.OmitArgPrefixes, tyro.conf.FlagCreatePairsOff),
            )
    finally:
        sys.stdout.flush()


COMPLETION, SHELLS = "--print-completion", ("bash", "zsh", "fish")


def _completion(arguments: list[str]) -> list[str]:
    """Return the words by which the parser writes a shell's completion, if asked."""
    flag, _, shell = (arguments or [""])[0].partition("=")
    if flag != COMPLETION:
        return arguments
    shell = shell or (arguments[1:] or [""])[0]
    one_of("shell", shell, SHELLS)
    return [_COMPLETION, shell]


_COMPLETION = "--tyro-print-completion"
_HELP = ("-h", "--help", "--version", _COMPLETION)
COMMANDS = (  # whose names are tables in a file of options
    *("demo", "split", "train", "unlearn", "forget", "chain", "sample", "audit"),
    *("ensemble", "methods", "report", "recipe", "tune", "import", "export"),
    *("ask", "score"),
)
OF_MODALITY = ("train", "unlearn", "forget", "audit")  # commands for any kind of model
OF_DIFFUSION = (*OF_MODALITY, "sample")  # what `generate` may stand before


def _commands(
    arguments: list[str], files: Sequence[Path]
) -> tuple[list[str], dict[str, Any], set[str]]:
    """Return the words, the commands, whose options follow from them, and these."""
    from jax_unlearn.cli import (
        asking,
        audit,
        choices,
        commands,
        config,
        drawn,
        ensemble,
        forget,
        recipe,
        sources,
        splitting,
        texts,
        transfer,
        tune,
    )
    from jax_unlearn.cli.choices import form, parsed
    from jax_unlearn.cli.habits import option_names, with_habits
    from jax_unlearn.lab.modalities.classification.networks import Training
    from jax_unlearn.lab.modalities.diffusion.settings import Sampling

    if arguments[0] == "generate":  # what diffusion models were asked for with
        arguments = arguments[1:] or ["--help"]
        if arguments[0] not in _HELP:
            one_of("command", arguments[0], OF_DIFFUSION)
        if arguments[0] in OF_MODALITY and not choices.value(arguments, "--modality"):
            arguments += ["--modality", "diffusion"]
    if arguments[0] == "tune":  # or the file's would be taken for more of them
        arguments = choices.gathered(arguments)
    if arguments[0] == "audit":
        arguments = ["audit", *ensemble.asked_of_parts(arguments[1:])]
    given, stated = arguments, {}
    for file in reversed(files):  # the last one's words come first, and win
        command, *words = arguments
        stated[file] = config.options_in(file, command, COMMANDS)
        placed = command in choices.UNLEARNS
        arguments = [command, *config.merged(words, stated[file], command, placed)]
    if arguments[0] == "tune":  # the methods of a file too
        arguments = choices.gathered(arguments)
    arguments, choice = choices.chosen(arguments)
    kind, setting = choice.modality, choice.form()
    like = sources.trained_like(arguments)
    training, drawing = form(kind.training, like), form(Sampling)
    images = parsed(drawn.audit_images, judge=form(Training), sampling=drawing)
    audits = {"diffusion": images, "language": texts.audit_texts}
    known = {
        "demo": recipe.demo,
        "split": splitting.split,
        "train": parsed(commands.train, training=training, modality=kind.name),
        "import": parsed(transfer.import_model, training=training, modality=kind.name),
        "export": transfer.export_model,
        "unlearn": parsed(commands.unlearn, setting=setting),
        "forget": parsed(forget.forget, setting=setting),
        "chain": parsed(forget.chain, setting=setting),
        "sample": parsed(drawn.sample, sampling=drawing),
        "audit": audits.get(kind.name, audit.audit),
        "ensemble": ensemble.ensemble,
        "methods": recipe.methods,
        "report": commands.report,
        "recipe": recipe.recipe,
        "tune": parsed(tune.tune, setting=setting),
        "ask": asking.ask,
        "score": asking.score,
    }
    if arguments[0] not in _HELP:
        one_of("command", arguments[0], (*known, "generate"))
    listed = arguments[0] in _HELP
    for name in [*known] if listed else arguments[:1]:  # the parser opens no other
        known[name] = with_habits(name, known[name], brief=listed)
    own = set() if listed else option_names(known[arguments[0]])
    for file, options in stated.items():
        config.check_known(file, options, own)
    return config.switched(arguments, given, stated.values(), own), known, own
