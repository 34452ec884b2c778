"""Messages speak of options that exist; completion; what is shown while it runs."""

import ast
import io
import re
import subprocess
import warnings
from pathlib import Path

import pytest
from rich.console import Console
from small import refused

import jax_unlearn
from jax_unlearn import cli
from jax_unlearn.cli import console as consoles
from jax_unlearn.cli import main
from jax_unlearn.cli.habits import option_names
from jax_unlearn.cli.messages import spoken, warnings_as_lines
from jax_unlearn.lab.catalog import METHODS, WEIGHTINGS, names_of
from jax_unlearn.lab.modalities import MODALITIES
from jax_unlearn.lab.modalities.diffusion.settings import Sampling

PACKAGE = Path(jax_unlearn.__file__).parent
ELSEWHERE = {  # options of other programs, and of this one's parser
    *("--help", "--version", "--file_format", "--print-completion"),
    *("--tyro-print-completion", "--slow"),
}


@pytest.fixture(scope="module")
def options():
    """Return the options of all commands, methods, weightings and kinds of model."""
    known = cli._commands(["methods"], [])[1]
    found = set().union(*map(option_names, known.values()))
    kinds = [c.options for c in (*METHODS.values(), *WEIGHTINGS.values(), *MODALITIES)]
    kinds += [kind.training for kind in MODALITIES] + [Sampling]
    for kind in kinds:
        found |= {name.replace("_", "-") for name in names_of(kind)}
    for modality in MODALITIES:
        for command in ("train", "unlearn", "audit"):
            words = [command, "--modality", modality.name]
            found |= cli._commands(words, [])[2]
    return found


def said_in(path):
    """Yield the texts of errors that a file raises."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "InputError":
            for part in ast.walk(node):
                if isinstance(part, ast.Constant) and isinstance(part.value, str):
                    yield part.value


def test_every_option_that_a_message_names_exists(options):
    named = {
        (flag, path.name)
        for path in PACKAGE.rglob("*.py")
        for text in said_in(path)
        for flag in re.findall(r"(?<![\w-])--[a-z][a-z_-]+", text)
    }
    assert len(named) > 20
    strange = {
        (flag, file)
        for flag, file in named
        if flag not in ELSEWHERE and flag[2:] not in options
    }
    assert not strange


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("train --data D --retrain", "--retrain needs the request: give --split"),
        ("split --data D --seed -1", "--seed=-1 must be a whole number"),
        ("split --dataset cifar10 --data-dir D", "pass --download, or run once"),
        ("split", "no --dataset, no --data: give --dataset NAME"),
        ("audit --data D", "no --original, no --forget, no --unlearned: give all"),
        ("demo --resume --overwrite", "--resume goes on with a run: leave --overwrite"),
        ("unlearn --checkpoint C --forget F --keep 2", "--keep=2.0 must lie in (0, 1]"),
        ("train --data D --learning-rate 0", "--learning-rate=0.0 must be positive"),
    ],
)
def test_messages_speak_of_options(job, tmp_path, capsys, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    paths = {"D": job.data, "C": job.original, "F": job.split}
    if "--data-dir D" in words:
        paths["D"] = tmp_path
    line = refused(capsys, [paths.get(word, word) for word in words.split()])
    assert message in line
    assert not re.search(r"\w=(True|False|None)\b", line)
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_option_stays_as_it_is():
    text = "x.seed=1, /a/out=3, 'out=2', model_state=5 and --out=1"
    assert spoken(text, {"seed", "out"}) == text


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_of_a_shell(capsys, tmp_path, shell):
    with pytest.raises(SystemExit) as caught:
        main(["--print-completion", shell])
    assert not caught.value.code
    script = capsys.readouterr().out
    assert "jax-unlearn" in script
    for word in ("unlearn", "learning-rate", "overwrite", "config"):
        assert word in script
    if shell == "bash":
        path = tmp_path / "complete.bash"
        path.write_text(script)
        told = ["bash", "-c", f"source '{path}' && complete -p jax-unlearn"]
        done = subprocess.run(told, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith("complete -F ")


def test_the_completion_of_no_shell(capsys):
    assert "unknown shell 'tcsh'" in refused(capsys, ["--print-completion", "tcsh"])
    assert "unknown shell ''" in refused(capsys, ["--print-completion"])


def followed(monkeypatch, *, terminal):
    """Return what is shown of ten steps, of which the first takes long."""
    clock = iter([0.0, 0.0, 100.0, *(100.0 + 20.0 * n for n in range(1, 10))])
    monkeypatch.setattr(consoles.time, "perf_counter", lambda: next(clock, 300.0))
    file = io.StringIO()
    console = Console(file=file, force_terminal=terminal, width=100)
    shown = []
    with consoles.Reporter(console, 1) as progress:
        for done in range(11):
            progress("training", done, 10)
            task = progress._bars.tasks[-1]
            shown.append((task.description, task.fields["left"]))
    return shown, file.getvalue()


def test_a_terminal_shows_compiling_then_the_time_left(monkeypatch):
    shown, _ = followed(monkeypatch, terminal=True)
    assert shown[0] == ("training: compiling", "")
    assert shown[1] == ("training", "")  # its time is the compilation's
    assert shown[2][1] == "3 min left"  # eight steps of 20 s
    assert shown[9][1] == "20 s left"
    assert shown[10] == ("training", "")


def test_a_pipe_has_a_line_now_and_then(monkeypatch):
    _, text = followed(monkeypatch, terminal=False)
    lines = text.splitlines()
    assert lines[0].startswith("[1/1] training: 10 steps")
    assert 2 <= len(lines) - 1 <= 5  # not one a step
    assert re.fullmatch(r"training: \d of 10 steps, \d+ (s|min) left", lines[1])
    assert "\x1b" not in text


def test_warnings_are_one_line_of_options():
    before = warnings.formatwarning
    with warnings_as_lines({"batch-size"}):
        said = UserWarning("batch_size=1 is\n  few")
        line = warnings.formatwarning(said, UserWarning, "a.py", 1)
    assert line == "jax-unlearn: warning: --batch-size=1 is few\n"
    assert warnings.formatwarning is before
