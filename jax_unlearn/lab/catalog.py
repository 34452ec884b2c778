"""The cards by name, and cards of one's own by path: all the lab knows of methods."""

import functools
import importlib.util
import os
import sys
from pathlib import Path
from typing import Any, TypeVar

from jax_unlearn import methods, oneshot, weights
from jax_unlearn.cards import Card, WeightingCard
from jax_unlearn.errors import InputError, unknown_name

AnyCard = TypeVar("AnyCard", Card, WeightingCard)

METHODS: dict[str, Card] = {
    card.name: card for card in (*methods.CARDS, *oneshot.CARDS)
}
"""All methods, by the name that settings and the command line know."""

WEIGHTINGS: dict[str, WeightingCard] = {card.name: card for card in weights.CARDS}
"""All weightings of forget samples, by name."""


def method_card(method: Card | str) -> Card:
    """Return the card of a method.

    Args:
      method: a card, the name of one of the library's, or `FILE.py:NAME` for a card
        that a file of yours holds.

    Raises:
      InputError: no such method, file, or card in it.

    >>> method_card("scrub").options(rewind=True).forget_epochs
    2
    """
    return _card(method, METHODS, Card, "method")


def weighting_card(weighting: WeightingCard | str) -> WeightingCard:
    """Return the card of a weighting; see `method_card`.

    >>> weighting_card("falw").compares
    'unseen classes'
    """
    return _card(weighting, WEIGHTINGS, WeightingCard, "weighting")


def weighting_of(method: Card, asked: WeightingCard | str) -> WeightingCard:
    """Return the card of the weighting asked for; "auto" is the method's own.

    >>> weighting_of(method_card("sfron"), "auto").name
    'sfron'
    """
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
    name = str(asked)
    if ".py:" in name:
        found = load(name)
        if not isinstance(found, kind):
            raise InputError(
                f"{word}={name!r} is a {type(found).__name__}, no ju.cards."
                f"{kind.__name__}; name a card of the file"
            )
        return found
    if name not in known:
        raise unknown_name(word, name, known)
    return known[name]


TRUST = "JAX_UNLEARN_RUN_FILES"
_ran: set[str] = set()  # what this process was asked to run


def check_named(path: Any) -> None:
    """Refuse to run a file because a record names it: the record may be anybody's.

    A file that this process was asked to run before, by name, may be run again.

    Raises:
      InputError: it was not; says how to ask for it.

    >>> check_named("theirs.py:CARD")
    Traceback (most recent call last):
    jax_unlearn.errors.InputError: 'theirs.py:CARD' is named by a record, not by you: \
its file is not run; name it yourself, or set JAX_UNLEARN_RUN_FILES=1 to run such files
    """
    named = isinstance(path, str) and ".py:" in path
    if named and path not in _ran and os.environ.get(TRUST) != "1":
        raise InputError(
            f"{path!r} is named by a record, not by you: its file is not run; name it "
            f"yourself, or set {TRUST}=1 to run such files"
        )


@functools.lru_cache(maxsize=64)
def load(path: str) -> Any:
    """Return what a file of Python code holds under a name; the file is run once.

    Args:
      path: `FILE.py:NAME`, given by the user; of a record, see `check_named`.

    Raises:
      InputError: no such file, it does not run, or it holds no such name.
    """
    file, _, name = path.rpartition(":")
    if not Path(file).is_file():
        raise InputError(f"{path!r}: there is no file {file}; check the path")
    own = f"_cards_of_{Path(file).stem}"
    spec = importlib.util.spec_from_file_location(own, file)
    if spec is None or spec.loader is None:
        raise InputError(f"{path!r}: {file} is no file of Python code")
    module = importlib.util.module_from_spec(spec)
    sys.modules[own] = module  # where dataclasses look their annotations up
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise InputError(
            f"{path!r}: {file} does not run ({type(error).__name__}: {error}); mend it"
        ) from error
    if not hasattr(module, name):
        raise unknown_name(f"name in {file}", name, dir(module))
    _ran.add(path)
    return getattr(module, name)
