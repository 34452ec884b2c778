"""Processes that run a command beside each other on this machine."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax

from jax_unlearn.errors import InputError

__all__ = ["run"]

POLL, PATIENCE = 0.5, 20.0  # seconds between two looks, and of a worker to end in


def run(words: Sequence[str], count: int, look: Callable[[], Any]) -> None:
    """Run a command in so many processes; `look` is called while they run.

    Raises:
      InputError: one of them failed; the others are ended, and it is said what it said.
    """
    environments = [_environment(number, count) for number in range(count)]
    command = [sys.executable, "-m", "jax_unlearn", *words]
    with tempfile.TemporaryFile("w+") as said:
        options: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": said}
        made: list[subprocess.Popen] = []
        try:
            for own in environments:
                made.append(subprocess.Popen(command, env=own, **options))
            while any(one.poll() is None for one in made):
                look()
                if any(one.poll() for one in made):
                    break
                time.sleep(POLL)
            failed = next((one for one in made if one.poll()), None)
        finally:
            _end(made)
        if failed is not None:
            said.seek(0)
            lines = said.read().strip().splitlines() or ["it said nothing"]
            flaw = lines[-1].removeprefix("jax-unlearn: ")
            raise InputError(f"a worker ended with status {failed.returncode}: {flaw}")


def _end(made: Sequence[subprocess.Popen]) -> None:
    """End the processes that still run, and let them save what they have."""
    running = [one for one in made if one.poll() is None]
    for one in running:
        one.send_signal(signal.SIGTERM)
    for one in running:
        try:
            one.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            one.kill()
            one.wait()


def _environment(number: int, count: int) -> dict[str, str]:
    """Return the environment of a worker, with its share of the accelerators."""
    # who starts the workers computes nothing, and is to leave them the memory
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    found = dict(os.environ)
    if jax.default_backend() == "tpu" and count > 1:
        raise InputError(
            f"workers={count}: a TPU serves one process; give --workers 1 here, and "
            "the same command with --study on other machines"
        )
    if jax.default_backend() == "gpu":
        devices = len(jax.local_devices())
        seen = os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(
            map(str, range(devices))
        )
        names = seen.split(",")
        found["CUDA_VISIBLE_DEVICES"] = names[number % len(names)]
        sharing = -(-count // len(names))
        found["XLA_PYTHON_CLIENT_PREALLOCATE"] = "true"
        found["XLA_PYTHON_CLIENT_MEM_FRACTION"] = f"{0.85 / sharing:.3f}"
    return found
