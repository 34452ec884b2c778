"""Settings: flat values find their card, records come back, strangers are refused."""

import dataclasses
import functools
import json
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from jax_unlearn import recipes
from jax_unlearn.cards import Card, WeightingCard
from jax_unlearn.errors import InputError
from jax_unlearn.lab import Unlearning
from jax_unlearn.lab.catalog import METHODS, WEIGHTINGS
from jax_unlearn.lab.modalities import MODALITIES, modality_named
from jax_unlearn.methods.relabel import Relabel
from jax_unlearn.methods.teachers import Scrub
from jax_unlearn.recipes import generation
from jax_unlearn.weights.falw import Falw

AnyCard = Card | WeightingCard
CARDS: tuple[AnyCard, ...] = (*METHODS.values(), *WEIGHTINGS.values())
COMMON = tuple(
    field
    for field in dataclasses.fields(Unlearning)
    if not field.name.endswith("options")
    and field.name not in ("method", "weighting", "modality")
)
OWN = {
    card: {field.name: field.default for field in dataclasses.fields(card.options)}
    for card in CARDS
}
SERVED = [
    (card.name, kind.name)
    for card in METHODS.values()
    for kind in MODALITIES
    if set(card.roles) <= kind.roles
]


def drawn(kind: Any) -> st.SearchStrategy:
    """Return values of a type, of which most make sense."""
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin is Literal:
        return st.sampled_from(inner)
    if origin in (types.UnionType, typing.Union):
        return st.one_of(*map(drawn, inner))
    if origin is tuple:
        return st.lists(drawn(inner[0]), min_size=2, max_size=3).map(tuple)
    known = {
        bool: st.booleans(),
        int: st.integers(2, 80),
        float: st.floats(0.001, 0.999),
        str: st.sampled_from(("random", "next")),
        type(None): st.none(),
    }
    return known[kind]


def some(fields: Any, cls: type) -> st.SearchStrategy[dict[str, Any]]:
    """Return values of some of the fields."""
    hints = typing.get_type_hints(cls)
    return st.fixed_dictionaries(
        {}, optional={f.name: drawn(hints[f.name]) for f in fields}
    )


@pytest.mark.parametrize(("method", "kind"), SERVED, ids="-".join)
@settings(
    max_examples=10,  # of each of 68 methods and kinds
    deadline=None,
    # of one-shot methods, two of three draws name something that these do not read
    suppress_health_check=[HealthCheck.filter_too_much],
)
@given(data=st.data())
def test_every_setting_comes_back_from_what_is_kept_of_it(method, kind, data):
    weightings = ["auto"]
    if METHODS[method].weighs:
        weightings += WEIGHTINGS
    values = {
        "method": method,
        "modality": kind,
        "weighting": data.draw(st.sampled_from(weightings)),
        **data.draw(some(COMMON, Unlearning)),
    }
    classes = [METHODS[method].options, modality_named(kind).options]
    if values["weighting"] != "auto":
        classes.append(WEIGHTINGS[values["weighting"]].options)
    for options in classes:
        values |= data.draw(some(dataclasses.fields(options), options))
    try:
        setting = Unlearning.of(**values)
    except InputError:
        assume(False)  # does not go together
        return
    flat = setting.flat()
    assert {k: v for k, v in flat.items() if k in values and k != "weighting"} == {
        k: v for k, v in values.items() if k != "weighting"
    }
    record = json.loads(json.dumps(setting.record()))
    for found in (
        Unlearning.read(setting.record()),
        Unlearning.read(record),
        Unlearning.of(**flat),
        Unlearning.of(**json.loads(json.dumps(flat))),
        setting.but(),
        Unlearning.of(method=method, modality=kind).but(**flat),
    ):
        assert found == setting
        assert hash(found) == hash(setting)
        assert found.record() == setting.record()
    meant = {"harmonizer": setting.joining}
    meant |= {"freeze_statistics": setting.freezes_statistics}
    meant |= {"schedule": setting.scheduling}
    if hasattr(setting.options, "told"):  # what follows from the values, too
        meant |= setting.options.told()
    for name, value in setting.told().items():
        assert value == (meant[name] if name in meant else flat[name])


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.name)
def test_the_options_of_one_card_are_refused_by_another(card):
    method = card.name if isinstance(card, Card) else "random_label"
    if getattr(card, "tokens", None) is not None:  # of a forget loss that is their sum
        method = "grad_diff"
    weighting = card.name if isinstance(card, WeightingCard) else "auto"
    kind = next(kind for name, kind in SERVED if name == method)
    if getattr(card, "reads", "") == "tokens":
        kind = "language"
    asked = {"method": method, "weighting": weighting, "modality": kind}
    setting = Unlearning.of(**asked)
    own = {*setting.flat()}
    for other in CARDS:
        for name, default in OWN[other].items():
            if name in own:
                continue
            value = _other(other, name)
            words = f"{name}=.*: {method} has no such option, .*{other.name}.* ha"
            with pytest.raises(InputError, match=words) as caught:
                Unlearning.of(**asked, **{name: value})
            assert "\n" not in str(caught.value)
            with pytest.raises(InputError, match=words):
                setting.but(**{name: value})
            defaults = {c.name: OWN[c][name] for c in CARDS if name in OWN[c]}
            for at in (default, *defaults.values()):
                assert Unlearning.of(**asked, **{name: at}) == setting


@functools.cache
def _other(card: AnyCard, name: str) -> Any:
    """Return a value of an option that is no card's default."""
    hints, defaults = typing.get_type_hints(card.options), []
    for other in CARDS:
        defaults += [OWN[other][name]] if name in OWN[other] else []
    kind = hints[name]
    known: dict[Any, tuple[Any, ...]] = {int: (3, 5), float: (0.37,), str: ("x",)}
    known[bool] = (True, False)
    found = known.get(kind, typing.get_args(kind))
    if typing.get_origin(kind) is tuple:
        found = (("logistic", "logistic"), ("hard",))
    elif typing.get_origin(kind) is types.UnionType:
        found = (0.37,)
    return next(value for value in found if value not in defaults)


def test_what_no_card_knows_is_refused_with_the_nearest_name():
    for values, words in (
        ({"epoch": 3}, "unknown setting 'epoch'; did you mean 'epochs'"),
        ({"method": "scrub", "rewinds": 1}, "'rewinds'; did you mean 'rewind'"),
        ({"method": "scrubs"}, "unknown method 'scrubs'; did you mean 'scrub'"),
        ({"weighting": "flaw"}, "unknown weighting 'flaw'; did you mean 'falw'"),
        ({"modality": "difusion"}, "unknown modality 'difusion'; did you mean 'diff"),
        ({"harmonizer": "oneway"}, "unknown harmonizer 'oneway'; did you mean 'one_"),
    ):
        with pytest.raises(InputError, match=words):
            Unlearning.of(**values)
    nested = Unlearning().record()
    with pytest.raises(InputError, match="unknown field 'epoch'"):
        Unlearning.read({**nested, "epoch": 3})
    scrub = Unlearning.of(method="scrub").record()
    scrub["options"]["rewinds"] = True
    with pytest.raises(InputError, match="unknown field of options 'rewinds'"):
        Unlearning.read(scrub)


def test_a_change_of_the_method_takes_its_own_defaults_and_leaves_the_rest():
    scrub = Unlearning.of(
        method="scrub", forget_epochs=7, weighting="falw", tau=0.4, learning_rate=0.2
    )
    found = scrub.but(method="salun", keep=0.3)
    assert (found.method, found.keep, found.options) == ("salun", 0.3, Relabel())
    assert (found.weighting_options.tau, found.learning_rate) == (0.4, 0.2)
    assert found.but(method="scrub").options.forget_epochs == 2
    assert scrub.but(weighting="loreun").weighting_options.temperature == 1.0
    assert scrub.but(forget_epochs=3).weighting_options.tau == 0.4
    sfron = Unlearning.of(method="sfron", power=2.0)
    assert sfron.weighting == "sfron"
    assert sfron.but(peak=1.0).weighting_options.power == 2.0
    assert sfron.but(method="random_label").weighting == "uniform"
    assert sfron.but(weighting="falw").but(method="random_label").weighting == "falw"
    assert scrub.but(method="scrub").options.forget_epochs == 7  # no other one
    assert scrub.but(weighting="falw").weighting_options.tau == 0.4
    given = scrub.but(options=Scrub(forget_epochs=3), weighting_options=Falw(tau=0.1))
    assert (given.options.forget_epochs, given.weighting_options.tau) == (3, 0.1)
    assert given.options.rewind is False
    ltu = Unlearning.of(method="ltu")
    assert (ltu.joining, ltu.but(method="random_label").joining) == ("one_way", "none")
    assert scrub.learning_rate == 0.2  # as it was


def test_what_is_told_is_what_is_read():
    told = Unlearning.of(method="scrub", rewind=True, clip=1.0).told()
    assert told["rewind"] is True
    assert told["clip"] == 1.0
    assert "schedule" not in told  # its own
    assert "teacher_temperature" not in told  # as published
    assert "every" not in Unlearning.of(weighting="falw").told()
    every = Unlearning.of(weighting="falw", estimator="every", every=7)
    assert every.told()["every"] == 7
    assert "decay" not in every.told()
    assert "keep" not in Unlearning().told()
    assert Unlearning.of(salient=True).told()["keep"] == 0.5
    assert Unlearning.of(method="salun").told()["keep"] == 0.5
    adam = Unlearning.of(optimizer="adam").told()
    assert adam["optimizer"] == "adam"
    assert "momentum" not in adam
    ltu = Unlearning.of(method="ltu").told()
    assert (ltu["harmonizer"], ltu["freeze_statistics"]) == ("one_way", True)
    assert "guard_every" not in ltu
    guarded = Unlearning.of(guard_utility=80.0).told()
    assert (guarded["guard_utility"], guarded["guard_every"]) == (80.0, 10)
    for name, card in METHODS.items():
        if card.kind == "one-shot":
            usual = vars(card.options())  # flags are told where they are set
            own = {option for option, value in usual.items() if value is not False}
            assert set(Unlearning.of(method=name).told()) == {"rho", *own}


STORED = [
    file
    for folder in ("results", "settings")
    for file in sorted((Path(recipes.__file__).parent / folder).glob("*.json"))
]


def records(value: Any) -> Iterator[dict[str, Any]]:
    """Yield the settings of methods in a file, wherever they stand."""
    if isinstance(value, dict):
        if {"method", "weighting"} <= value.keys():
            yield value
        else:
            for inner in value.values():
                yield from records(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from records(inner)


@pytest.mark.parametrize("file", STORED, ids=lambda file: file.stem)
def test_stored_settings_are_read_as_they_were_meant(file):
    stored = list(records(json.loads(file.read_text())))
    without = ("learned", "proxies", "collectives", "frontier_ideas")
    if file.stem.startswith((*without, "frontier_ensembles")):
        assert not stored  # they have no settings of methods
        return
    assert len(stored) >= 6
    for record in stored:
        # settings say what differs from today's defaults, and are read so
        short = file.parent.name == "settings"
        found = Unlearning.of(**record) if short else Unlearning.read(record)
        if short:
            own = {**found.flat(), "weighting": found.weighting}
            said = {
                k: tuple(v) if isinstance(v, list) else v for k, v in record.items()
            }
            assert said.items() <= own.items()
            continue
        # options that it did not have then are at their defaults
        for name, card in (
            ("options", found.card),
            ("weighting_options", found.weighting_card),
        ):
            usual = json.loads(json.dumps(vars(card.options())))
            record[name] = usual | record[name]
        usual = json.loads(json.dumps(vars(found.modality_options)))
        record["modality_options"] = usual | record["modality_options"]
        assert json.loads(json.dumps(found.record())) == record


TODAYS = generation.GENERATION_DIGITS, generation.GENERATION_FASHION
TODAYS += generation.GENERATION_CIFAR10, generation.IMAGES_DIGITS


@pytest.mark.parametrize("recipe", TODAYS, ids=lambda recipe: recipe.name)
def test_stored_settings_of_diffusion_models_are_todays(recipe):
    (file,) = (file for file in STORED if file.stem == recipe.stem)
    stored = json.loads(file.read_text())["plan"]["methods"]
    own = recipe.study.methods
    assert {label: Unlearning.read(told) for label, told in stored.items()} == own


def test_diffusion_models_have_the_defaults_of_cards_where_none_is_told():
    esd = Unlearning.of(modality="diffusion", method="esd", guidance=2.0, keep=0.3)
    assert (esd.salient, esd.keep) == (False, 0.3)
    sfron = Unlearning.of(modality="diffusion", method="sfron", forget_every=3)
    assert (sfron.options.forget_rate, sfron.options.forget_every) == (None, 3)
    assert not Unlearning.of(modality="diffusion", method="ltu").options.allow_weak
