"""Cards: options that check themselves by their types, and what `of` reads off."""

import dataclasses
from typing import Literal

import pytest

from jax_unlearn.cards import (
    Card,
    Count,
    Fraction,
    Job,
    NoOptions,
    NotNegative,
    Options,
    Positive,
    Share,
    WeightingCard,
)
from jax_unlearn.cli import choices, recipe
from jax_unlearn.errors import InputError
from jax_unlearn.lab.catalog import METHODS
from jax_unlearn.lab.modalities import MODALITIES
from jax_unlearn.methods import CARDS
from jax_unlearn.methods.ltu import Ltu


@dataclasses.dataclass(frozen=True)
class Shove(Options):
    """Options of no method."""

    push: Positive = 0.5
    rest: NotNegative = 0.0
    memory: Share = 0.9
    part: Fraction = 1.0
    steps: Count = 3
    bound: Positive | None = None
    way: Literal["up", "down"] = "up"
    ways: tuple[Literal["left", "right"], ...] = ("left",)
    note: str = ""


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"push": 0.0}, "push=0.0 must be positive and finite; try 0.5"),
        ({"push": float("nan")}, "push=nan must be positive"),
        ({"rest": -1.0}, "rest=-1.0 must not be negative or infinite; try 0.0"),
        ({"memory": 1.0}, r"memory=1.0 must lie in \[0, 1\); try 0.9"),
        ({"part": 0.0}, r"part=0.0 must lie in \(0, 1\]; try 1.0"),
        ({"steps": 0}, "steps=0 must be at least 1; try 3"),
        ({"bound": -2.0}, "bound=-2.0 must be positive and finite$"),
        ({"way": "upp"}, "unknown way 'upp'; did you mean 'up'"),
        ({"ways": ("left", "rigt")}, "unknown ways 'rigt'; did you mean 'right'"),
    ],
    ids=str,
)
def test_options_refuse_what_their_types_do_not_admit(given, words):
    with pytest.raises(InputError, match=words):
        Shove(**given)


def test_options_admit_all_else():
    told = {"push": 2.0, "steps": 1, "bound": 0.1, "ways": ("right",), "note": "x"}
    assert dataclasses.asdict(Shove(**told)).items() >= told.items()
    assert Shove().bound is None


def test_options_of_an_heir_are_checked_by_its_own_types_and_the_first_ones():
    with pytest.raises(InputError, match="query_size=0 must be at least 1; try 32"):
        Ltu(query_size=0)
    with pytest.raises(InputError, match="needs 2 or more membership models"):
        Ltu(attacks=("logistic",))


def _shove(lab, options: Shove) -> Job:
    return Job(None, None)


def test_a_card_of_a_build_has_its_name_and_its_options():
    card = Card.of(_shove, "Shove", source="arXiv 1234.56789")
    assert (card.name, card.label, card.title) == ("shove", "Shove", "Shove")
    assert (card.options, card.build, card.source) == (Shove, _shove, card.source)
    assert card.step_reads is None  # promises nothing
    plain = WeightingCard.of(lambda lab, options: None, "none", "no weights")
    assert (plain.title, plain.options, plain.shared) == (
        "no weights",
        NoOptions,
        False,
    )


def test_a_sibling_differs_in_what_is_said_and_leaves_the_first_alone():
    first = Card.of(_shove, "Shove").but(reads=("forget",))
    second = first.but(name="tug", cost="E·F").tries(epochs=(1, 3))
    assert (second.name, second.reads, second.cost) == ("tug", ("forget",), "E·F")
    assert second.search == {"epochs": (1, 3)}
    assert (first.name, first.cost, first.search) == ("shove", "not said", {})
    assert first != first.but()  # one object a card


def test_a_function_of_the_parameters_alone_keeps_the_model_state():
    job = Job.once(lambda params: params + 1)
    assert job.transform is not None
    assert job.transform(1, {"mean": 0}) == (2, {"mean": 0})
    assert job.steps == 1


def test_names_of_cards_are_their_own():
    names = [card.name for card in CARDS]
    assert len(set(names)) == len(names)
    assert len({card.label for card in CARDS}) == len(names)


def test_every_method_says_what_it_is_good_for_in_words_of_its_own(capsys):
    said = {name: card.suits for name, card in METHODS.items()}
    assert len(set(said.values())) == len(said) == len(METHODS)  # none inherited
    for name, words in said.items():
        assert len(words) > 50, name
        assert words.endswith("."), name
    listed = recipe.methods()["methods"]
    assert {name: one["suits"] for name, one in listed.items()} == said
    shown = "".join(capsys.readouterr().out.split())
    for name, words in said.items():
        kind = next(m for m in MODALITIES if set(METHODS[name].roles) <= m.roles)
        groups = choices.Choice(kind, name, "auto").groups()
        assert words in groups["method"].__doc__  # `unlearn METHOD --help`
        for word in words.split():  # cells break lines
            assert word in shown
