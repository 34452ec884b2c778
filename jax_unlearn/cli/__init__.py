"""The command line: `jax-unlearn`, the main job, and each of its steps on files."""

import signal
import sys
from collections.abc import Sequence

from jax_unlearn.drivers import signals
from jax_unlearn.errors import InputError, NonFiniteError, unknown_name

SUMMARY = """Machine unlearning for JAX.

Without a command: forget a long-tailed request on scikit-learn's digits with ten
methods, compare each with retraining, and write a report (`jax-unlearn demo`). The
other commands do the same job step by step on your own data."""


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line; exits with 2 and one line where the input is at fault.

    Args:
      argv: arguments; default those of the process.
    """
    import tyro

    from jax_unlearn.cli import (
        audit,
        chain,
        commands,
        demo,
        ensemble,
        generate,
        methods,
    )
    from jax_unlearn.cli.recipe import recipe

    known = {
        "demo": demo.demo,
        "split": commands.split,
        "train": commands.train,
        "unlearn": commands.unlearn,
        "chain": chain.chain,
        "audit": audit.audit,
        "ensemble": ensemble.ensemble,
        "generate": generate.generate,
        "methods": methods.methods,
        "report": commands.report,
        "recipe": recipe,
        "tune": demo.tune,
    }
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or (arguments[0][0:1] == "-" and arguments[0] not in _HELP):
        arguments.insert(0, "demo")
    prog, summary = "jax-unlearn", SUMMARY
    if arguments[0] == "generate":
        known, prog, summary = generate.COMMANDS, f"{prog} generate", generate.SUMMARY
        arguments = arguments[1:] or ["--help"]
    try:
        if arguments[0] not in (*known, *_HELP):
            raise unknown_name("command", arguments[0], known)
        with signals.handled():
            tyro.extras.subcommand_cli_from_dict(
                known,
                prog=prog,
                description=summary,
                args=arguments,
                config=(tyro.conf.OmitArgPrefixes, tyro.conf.FlagCreatePairsOff),
            )
    except (InputError, NonFiniteError) as error:
        sys.stdout.flush()
        print(f"jax-unlearn: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)
    except signals.Stopped as stopped:
        print(
            f"jax-unlearn: stopped by {signal.Signals(stopped.signal).name}; what was "
            "made is saved: give the command again, with --resume where it has that",
            file=sys.stderr,
        )
        sys.exit(128 + stopped.signal)
    except KeyboardInterrupt:
        print("jax-unlearn: interrupted; what was written stays", file=sys.stderr)
        sys.exit(130)


_HELP = ("-h", "--help")
