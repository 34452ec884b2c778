"""The cards by name, and cards of one's own by path: all the lab knows of methods."""

import contextlib
import dataclasses
import functools
import hashlib
import importlib.util
import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from jax_unlearn import methods, oneshot, weights
from jax_unlearn._validate import one_of
from jax_unlearn.cards import Card, WeightingCard
from jax_unlearn.errors import InputError, one_line, unknown_name

__all__ = ["METHODS", "TRUST", "WEIGHTINGS", "check_named", "check_options"]
__all__ += ["check_strays", "digest_of", "instead", "load", "method_card", "named"]
__all__ += ["names_of", "options_of", "trust", "trusted", "weighting_card"]
__all__ += ["weighting_of", "with_network"]

AnyCard = TypeVar("AnyCard", Card, WeightingCard)

METHODS: dict[str, Card] = {
    card.name: card for card in (*methods.CARDS, *oneshot.CARDS)
}
"""All methods, by the name that settings and the command line know."""

WEIGHTINGS: dict[str, WeightingCard] = {card.name: card for card in weights.CARDS}
"""All weightings of forget samples, by name."""


def method_card(method: Card | str) -> Card:
    """Return the card of a method, by its name in the library or `FILE.py:NAME`."""
    return _card(method, METHODS, Card, "method")


def weighting_card(weighting: WeightingCard | str) -> WeightingCard:
    """Return the card of a weighting; see `method_card`."""
    return _card(weighting, WEIGHTINGS, WeightingCard, "weighting")


def weighting_of(method: Card, asked: WeightingCard | str) -> WeightingCard:
    """Return the card of the weighting asked for; "auto" is the method's own."""
    return weighting_card(method.weighting if asked == "auto" else asked)


def _card(
    asked: AnyCard | str, known: dict[str, AnyCard], kind: type[AnyCard], word: str
) -> AnyCard:
    if isinstance(asked, kind):
        if known.get(asked.name, asked) is not asked:  # a record would say the other
            raise InputError(
                f"{word} card {asked.name!r} has the name of one of the library's; "
                "give it another name"
            )
        return asked
    return named(str(asked), known, kind, word)


def named(name: str, known: Mapping[str, Any], kind: type, word: str) -> Any:
    """Return what has a name here, or of a file, `FILE.py:NAME`."""
    if ".py:" not in name:
        one_of(word, name, known)
        return known[name]
    found = load(name)
    if not isinstance(found, kind):
        wanted = f"{kind.__module__}.{kind.__name__}".replace("jax_unlearn", "ju")
        raise InputError(
            f"{word}={name!r} is a {type(found).__name__}, no {wanted}; name one of "
            "the file"
        )
    return found


def names_of(options: type) -> set[str]:
    """Return the names of the fields of a dataclass."""
    return {field.name for field in dataclasses.fields(options)}


def check_options(common: Iterable[str], *cards: Any) -> None:
    """Refuse cards whose options share a name, or have a default that may change.

    Flat values cannot tell options of one name apart, and settings are compared and
    hashed by theirs.
    """
    owners = dict.fromkeys(common, "all methods")
    for card in cards:
        for field in dataclasses.fields(card.options):
            if owner := owners.get(field.name):
                raise InputError(
                    f"option {field.name!r} of {card.name} is one of {owner} too; give "
                    "it another name"
                )
            if field.default_factory is not dataclasses.MISSING:
                raise InputError(
                    f"option {field.name!r} of {card.name} has a default_factory; give "
                    "it a default that cannot change, such as a tuple"
                )
            owners[field.name] = card.name


def options_of(name: str, given: Any, kind: type) -> Any:
    """Return options of a card's class, made of what was given, if anything."""
    if isinstance(given, kind):
        return given
    if given is not None and not isinstance(given, Mapping):
        raise InputError(
            f"{name} is a {type(given).__name__}, not a {kind.__name__}; give one, or "
            "leave it out"
        )
    values, known = dict(given or {}), names_of(kind)
    if strange := sorted(values.keys() - known):
        raise unknown_name(f"field of {name}", strange[0], known)
    lists = {k: tuple(v) for k, v in values.items() if isinstance(v, list)}  # of JSON
    return kind(**{**values, **lists})


def check_strays(card: Card, values: Mapping[str, Any], known: Iterable[str]) -> None:
    """Accept options of other cards at their defaults alone."""
    for name, value in values.items():
        owners = {
            other.name: field.default
            for other in (*METHODS.values(), *WEIGHTINGS.values())
            for field in dataclasses.fields(other.options)
            if field.name == name
        }
        if not owners:
            raise unknown_name("setting", name, known)
        usual = tuple(value) if isinstance(value, list) else value
        if usual not in owners.values():
            has = f"{' and '.join(owners)} {'has' if len(owners) == 1 else 'have'}"
            raise InputError(
                f"{name}={usual}: {card.name} has no such option, {has}; leave it out"
            )


TRUST = "JAX_UNLEARN_RUN_FILES"
_ran: set[str] = set()  # what this process was asked to run
instead: list[str] = []  # the network to take in place of that of records, if given


def check_named(path: Any) -> None:
    """Refuse to run a file because a record names it: the record may be anybody's."""
    named = isinstance(path, str) and ".py:" in path
    if named and path not in _ran and os.environ.get(TRUST) != "1":
        raise InputError(
            f"{path!r} is named by a record, not by you: its file is not run; name it "
            f"yourself, or set {TRUST}=1 to run such files"
        )


def with_network(record: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a record of a training, its network one that may be run."""
    name = record.get("network")
    if not isinstance(name, str) or ".py:" not in name:
        return record
    if instead:
        return {**record, "network": instead[-1]}
    if not trusted(name):
        check_named(name)
    return record


def trust(path: str) -> None:
    """Note for later commands of this user that a file may be run, as it is now."""
    file, digest = _trust_file(), digest_of(path)
    with contextlib.suppress(OSError):  # without a home each command is told anew
        if not file.is_file() or digest not in file.read_text().split():
            file.parent.mkdir(parents=True, exist_ok=True)
            with file.open("a") as stream:
                stream.write(f"{digest}\n")


def trusted(path: str) -> bool:
    """Return whether the user named this file, here or to an earlier command."""
    if path in _ran or os.environ.get(TRUST) == "1":
        return True
    try:
        return digest_of(path) in _trust_file().read_text().split()
    except OSError:
        return False


def _trust_file() -> Path:
    base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(base) / "jax-unlearn" / "files"


def digest_of(path: str) -> str:
    """Return the SHA-256 of the file of `FILE.py:NAME`."""
    file = path.rpartition(":")[0]
    try:
        return hashlib.sha256(Path(file).read_bytes()).hexdigest()
    except OSError as error:
        raise InputError(
            f"{path!r}: there is no file {file}; check the path"
        ) from error


def load(path: str) -> Any:
    """Return what `FILE.py:NAME` names, given by the user; the file is run once.

    What stands beside the file can be imported by it.
    """
    file, _, name = path.rpartition(":")
    module = _module(file, str(Path(file).resolve()), digest_of(path))
    one_of(f"name in {file}", name, dir(module))
    _ran.add(path)
    return getattr(module, name)


@functools.lru_cache(maxsize=64)
def _module(file: str, whole: str, digest: str) -> Any:
    """Run a file, once for what it holds."""
    own = f"_cards_of_{Path(file).stem}"
    spec = importlib.util.spec_from_file_location(own, whole)
    if spec is None or spec.loader is None:
        raise InputError(f"{file} is no file of Python code")
    module = importlib.util.module_from_spec(spec)
    sys.modules[own] = module  # where dataclasses look their annotations up
    if (folder := str(Path(whole).parent)) not in sys.path:
        sys.path.append(folder)
    writes = sys.dont_write_bytecode
    sys.dont_write_bytecode = True  # no folder of bytecode beside the user's file
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise InputError(
            f"{file} does not run ({type(error).__name__}: {one_line(error)}); mend it"
        ) from error
    finally:
        sys.dont_write_bytecode = writes
    return module
