"""Processes that are killed or stopped, and the same command with --resume."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from small import refused, small_data

from jax_unlearn.cli import main
from jax_unlearn.drivers.series import Series, locked
from jax_unlearn.lab.store import load_model, partial_of

NETWORK = ["--network", "mlp", "--width", "8", "--batch-size", "32", "--epochs", "5"]
RUN = "import jax_unlearn.cli; jax_unlearn.cli.main()"


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return small_data(tmp_path_factory.mktemp("data") / "data.npz")


def bits(folder: Path) -> list[bytes]:
    leaves = jax.tree.leaves(load_model(folder).trained[:2])
    return [np.asarray(leaf).tobytes() for leaf in leaves]


def train(data: Path, out: Path, *more: str) -> list[str]:
    return ["train", "--data", str(data), *NETWORK, "--out", str(out), *more]


class Killed(BaseException):
    """What a test raises where a process would be gone."""


def killed(monkeypatch, command, step: int) -> None:
    """Run a command that is gone after the save of a step."""
    save = Series.save

    def last(self, at, state):
        path = save(self, at, state)
        if at == step:
            raise Killed
        return path

    with monkeypatch.context() as patch:
        patch.setattr(Series, "save", last)
        with pytest.raises(Killed):
            main([*command, "--save-every", "0"])


def test_train_and_unlearn_resume_bit_for_bit(data, tmp_path, monkeypatch, capsys):
    whole, part = tmp_path / "whole", tmp_path / "part"
    main(train(data, whole))
    killed(monkeypatch, train(data, part), 7)
    assert not part.exists()
    assert "give --resume" in refused(capsys, train(data, part))
    assert "another setting, seed" in refused(
        capsys, train(data, part, "--resume", "--seed", "1")
    )
    main(train(data, part, "--resume"))
    assert bits(part) == bits(whole)
    assert not partial_of(part).exists()
    main(train(data, part, "--resume"))
    assert "is complete; nothing to resume" in capsys.readouterr().out
    assert "made with another setting" in refused(
        capsys, train(data, part, "--resume", "--seed", "1")
    )
    ids = tmp_path / "ids.json"
    ids.write_text(json.dumps(load_model(whole).ids[:12].tolist()))
    command = ["unlearn", "--data", str(data), "--checkpoint", str(whole)]
    command += ["--forget", str(ids), "--method", "scrub", "--rewind", "--epochs", "2"]
    command += ["--learning-rate", "0.01", "--batch-size", "16", "--out"]
    main([*command, str(tmp_path / "forgot")])
    killed(monkeypatch, [*command, str(tmp_path / "forgot-2")], 8)
    main([*command, str(tmp_path / "forgot-2"), "--resume"])
    assert bits(tmp_path / "forgot-2") == bits(tmp_path / "forgot")


def test_a_second_run_is_refused(data, tmp_path, capsys):
    with locked(partial_of(tmp_path / "out")):
        line = refused(capsys, train(data, tmp_path / "out"))
    assert f"in use by another run (process {os.getpid()})" in line


def stopped(
    command, number: int, when: int, folder: Path
) -> subprocess.CompletedProcess:
    """Send a signal to a process when its series has that many steps."""
    process = subprocess.Popen(
        [sys.executable, "-c", RUN, *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "JAX_NUMPY_DTYPE_PROMOTION": "strict"},
    )
    while process.poll() is None:
        steps = sorted(folder.glob("step-*"))
        if steps and int(steps[-1].name[5:]) >= when:
            process.send_signal(number)
            break
    out, error = process.communicate(timeout=100)
    return subprocess.CompletedProcess(command, process.returncode, out, error)


def test_real_signals(data, tmp_path):
    long = ["--epochs", "40"]
    whole, part = tmp_path / "whole", tmp_path / "part"
    main(train(data, whole, *long))
    command = train(data, part, *long, "--resume", "--save-every", "0")
    done = stopped(command, signal.SIGKILL, 9, partial_of(part))
    assert done.returncode == -signal.SIGKILL
    assert not part.exists()
    done = stopped(command, signal.SIGTERM, 20, partial_of(part))
    assert done.returncode == 143
    assert (
        done.stderr.strip()
        .splitlines()[-1]
        .startswith("jax-unlearn: stopped by SIGTERM; what was made is saved")
    )
    main(train(data, part, *long, "--resume"))
    assert bits(part) == bits(whole)
