"""What a command's options are: they follow from the method and the kind of model.

`jax-unlearn unlearn scrub --help` shows SCRUB's options and the common ones; so the
words are looked through for the method, the weighting and the model before they are
parsed.
"""

import dataclasses
import functools
import inspect
import itertools
from collections.abc import Callable, Sequence, Set
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, get_args, get_origin
from typing import get_type_hints as hints

import tyro

from jax_unlearn.cards import Card
from jax_unlearn.errors import InputError
from jax_unlearn.lab import catalog
from jax_unlearn.lab.catalog import METHODS, WEIGHTINGS, names_of
from jax_unlearn.lab.modalities import MODALITIES, modality_named
from jax_unlearn.lab.modalities.classification.networks import ARCHITECTURES
from jax_unlearn.lab.modalities.language.foreign import record_at
from jax_unlearn.lab.modality import Modality
from jax_unlearn.lab.refusals import LENGTHS, two_gradients, two_lengths
from jax_unlearn.lab.settings import Unlearning
from jax_unlearn.lab.store import kind_of
from jax_unlearn.methods.auto import AUTO

__all__ = ["GROUPS", "UNLEARNS", "Choice", "Form", "Kind", "chosen", "form", "gathered"]
__all__ += ["one_line_choices", "parsed", "value", "without"]

UNLEARNS = ("unlearn", "forget", "chain", "tune")  # commands that take a method
# commands that read models, whose network's file may have moved or changed since
NETWORKED = (*UNLEARNS, "audit", "ensemble", "export")

GROUPS: dict[str, tuple[str, tuple[str, ...]]] = {
    "step": (
        "What a step reads, and the number of steps.",
        (
            *("schedule", "rho", "epochs", "steps", "batch_size", "freeze_statistics"),
            *("budget", "harmonizer", "per_leaf"),
        ),
    ),
    "optimizer": (
        "How the weights are updated, and which of them.",
        (
            *("optimizer", "learning_rate", "momentum", "weight_decay", "clip"),
            *("salient", "keep", "dual", "dual_rate", "dual_decay"),
        ),
    ),
    "part": (
        "Which part of the network is trained; the rest stays as it is.",
        ("trainable",),
    ),
    "memory": ("Less memory, with the same results.", ("microbatch", "remat")),
    "guard": (
        "When to stop before the last step.",
        ("guard_utility", "guard_endpoint", "guard_every", "guard_roll_back"),
    ),
}
"""The common fields of an unlearning as `--help` groups them."""

_KINDS = tuple(kind.name for kind in MODALITIES)
_CHOICES = {
    "modality": _KINDS,
    "method": (*METHODS, "FILE.py:CARD"),
    "network": (*ARCHITECTURES, "FILE.py:NAME"),
    "weighting": ("auto", *WEIGHTINGS, "FILE.py:CARD"),
}


def _listed(names: Sequence[str]) -> str:
    return f"{{{','.join(names)}}}"


Kind = Annotated[str, tyro.conf.arg(metavar=_listed(_KINDS))]
"""The type of the option that names a kind of model."""


def one_line_choices() -> tyro.constructors.ConstructorRegistry:
    """Return the rules of a `Literal`, left to the settings, and of optional values."""
    registry = tyro.constructors.ConstructorRegistry()

    @registry.primitive_rule
    def choices(info: Any) -> Any:
        if get_origin(info.type) is not Literal:
            return None
        return tyro.constructors.PrimitiveConstructorSpec(
            nargs=1,
            metavar=_listed(get_args(info.type)),
            instance_from_str=lambda words: words[0],
            is_instance=lambda value: isinstance(value, str),
            str_from_instance=lambda value: [value],
        )

    @registry.primitive_rule
    def optional(info: Any) -> Any:
        kind, *none = get_args(info.type) or (None,)
        if none != [type(None)]:
            return None
        kind = get_args(kind)[0] if get_origin(kind) is Annotated else kind
        several = get_args(kind)[1:] == (...,)
        one = get_args(kind)[0] if several else kind
        if one not in (str, int, float, Path):
            return None
        name = one.__name__.upper()

        def read(words: list[str]) -> Any:
            values = None if words == ["None"] else tuple(map(one, words))
            return values if several or values is None else values[0]

        return tyro.constructors.PrimitiveConstructorSpec(
            nargs="*" if several else 1,
            metavar=f"[{name} [{name} ...]]" if several else name,
            instance_from_str=read,
            is_instance=lambda v: v is None or isinstance(v, tuple if several else one),
            str_from_instance=lambda value: [str(value)],
        )

    return registry


class Form(NamedTuple):
    """How a parameter is parsed: a class of words, and what is made of it."""

    values: Any
    make: Callable[[Any], Any]


class Choice(NamedTuple):
    """What the words of a command line ask for; cards by name or path."""

    modality: Modality
    method: str
    weighting: str
    helping: bool = False  # whether common fields that are not read are left out
    methods: tuple[str, ...] = ()  # of a search, which may be told several

    def groups(self) -> dict[str, type]:
        """Return dataclasses of the options by title, with this choice's defaults."""
        card, kind = catalog.method_card(self.method), self.modality.name
        own = catalog.weighting_of(card, self.weighting)
        named = {"modality": kind, "method": self.method, "weighting": self.weighting}
        usual = Unlearning.of(**named)
        described = (
            f"{card.title}, {card.source}: reads {', '.join(card.reads)}; costs "
            f"{card.cost}. `jax-unlearn methods` explains that and lists all. "
        ) + card.suits
        for other in MODALITIES if kind == MODALITIES[0].name else ():
            if names := sorted(names_of(other.options)):
                flags = ", ".join(f"--{name.replace('_', '-')}" for name in names)
                described += f" With --modality {other.name} there are {flags}, too."
        every = {**named, "method": self.methods or self.method}
        groups = {"method": _group(described, (*every.items(),), Unlearning)}
        weighted = f"Forget samples are weighted {own.title}."
        for title, text, options in (
            (card.name, f"Options of {card.label} alone.", usual.options),
            (f"weighting {own.name}", weighted, usual.weighting_options),
            (f"{kind} model", f"Options of {kind} models.", usual.modality_options),
        ):
            if dataclasses.fields(options):
                groups[title] = _group(text, (*vars(options).items(),), type(options))
        unread = frozenset(_unread(card, self.modality) if self.helping else ())
        for other in self.methods[1:]:
            options = Unlearning.of(**{**named, "method": other}).options
            known = set().union(*map(names_of, groups.values()))
            values = tuple((k, v) for k, v in vars(options).items() if k not in known)
            title = catalog.method_card(other).label
            if values:
                told = f"Options of {title} alone."
                groups[f"{title} too"] = _group(told, values, type(options))
        for title, (text, names) in GROUPS.items():
            values = tuple((name, getattr(usual, name)) for name in names)
            groups[title] = _group(text, values, Unlearning, unread)
        return groups

    def form(self) -> Form:
        """Return how the setting is parsed: its groups, one inside the other."""
        fields = []
        for number, (title, group) in enumerate(self.groups().items()):
            # without, tyro looks for comments in source files at every command
            said = (group.__doc__ or "").partition("\n\n")[0]
            named = Annotated[group, tyro.conf.arg(name=title, help=said)]
            fields.append((f"group_{number}", named, group()))
        kind = dataclasses.make_dataclass("Options", fields, frozen=True)
        make = _settings if self.methods else _setting
        return Form(Annotated[kind, tyro.conf.arg(name="")], make)


def form(kind: type, usual: Any = None) -> Form:
    """Return how a class that checks itself is parsed, with other defaults if given."""
    at = kind() if usual is None else usual
    shown = tuple((f.name, getattr(at, f.name)) for f in dataclasses.fields(kind))
    return Form(_group("", shown, kind), lambda given: kind(**vars(given)))


def parsed(command: Callable[..., Any], **told: Any) -> Callable[..., Any]:
    """Return a command with forms for some parameters, new defaults for others."""
    forms = {name: one for name, one in told.items() if isinstance(one, Form)}

    @functools.wraps(command)
    def made(**given: Any) -> Any:
        # after the parsing, so that what is refused is told like all bad input
        values = {k: forms[k].make(v) if k in forms else v for k, v in given.items()}
        return command(**values)

    signature = inspect.signature(command)
    parameters = [
        p if p.name in forms or p.name not in told else p.replace(default=told[p.name])
        for p in signature.parameters.values()
    ]
    made.__signature__ = signature.replace(parameters=parameters)  # type: ignore
    del made.__wrapped__  # the parser would read the annotations there
    boxes = {name: one.values for name, one in forms.items()}
    made.__annotations__ = command.__annotations__ | boxes
    return made


def gathered(arguments: Sequence[str]) -> list[str]:
    """Return the words of a search, its methods, one or more, behind one option.

    >>> gathered(["tune", "finetune", "salun", "--trials", "9"])
    ['tune', '--trials', '9', '--method', 'finetune', 'salun']
    """
    command, *words = arguments
    methods, rest, taking = [], [], True
    for word in words:
        name, equals, first = word.partition("=")
        if name == "--method":
            taking = True
            methods += [first] if equals else []
        elif word.startswith("-"):
            taking = False
            rest.append(word)
        else:
            (methods if taking else rest).append(word)
    return [command, *rest, *(["--method", *methods] if methods else [])]


def chosen(arguments: Sequence[str]) -> tuple[list[str], Choice]:
    """Return a command's words, the method as an option, and what they ask for."""
    command, *words = arguments
    catalog.instead.clear()
    if command in NETWORKED and ".py:" in (network := value(words, "--network") or ""):
        words = without(words, "--network")
        catalog.load(network)
        catalog.trust(network)
        catalog.instead.append(network)
    methods: tuple[str, ...] = ()
    if command == "tune" and "--method" in words:
        methods = tuple(words[words.index("--method") + 1 :])
        if len(set(methods)) < len(methods):
            raise InputError(f"method={list(methods)}: give each method once")
    if command in UNLEARNS and words and not words[0].startswith("-"):
        if other := value(words, "--method"):
            raise InputError(
                f"{words[0]} --method {other}: two methods; leave one of them out"
            )
        words = [*words[1:], "--method", words[0]]
    asked, path = value(words, "--modality"), value(words, "--checkpoint", "--original")
    helping, at = bool({"-h", "--help"} & set(words)), Path(path or "")
    # as `record_at` says; other commands have more to say first
    absent = command in (*UNLEARNS, "export") and not (helping or at.exists())
    known = ("record.json", "config.json")
    there = any((at / name).is_file() for name in known)
    if not asked and path is not None and (there or absent):
        asked = kind_of(path, record_at(path)).name
    modality = modality_named(asked or MODALITIES[0].name)
    served = [c.name for c in METHODS.values() if set(c.roles) <= modality.roles]
    first = Unlearning.method if Unlearning.method in served else next(iter(served), "")
    usual = modality.defaults.get("method", first or Unlearning.method)
    if command == "forget" and (modality.texts or "logits" in modality.roles):
        usual = AUTO.name  # no study has asked what suits the others
    method = value(words, "--method") or usual
    weighting = value(words, "--weighting") or Unlearning.weighting
    if command == "tune":
        for name in (methods := methods or (method,)):
            catalog.method_card(name)
    choice = Choice(modality, method, weighting, helping, methods)
    if command in UNLEARNS:
        catalog.method_card(method)
        if weighting != "auto":
            catalog.weighting_card(weighting)
        _check_flags(words, set().union(*map(names_of, choice.groups().values())))
        budget = value(words, "--budget")
        for name in LENGTHS if budget is not None else ():
            if (own := value(words, f"--{name.replace('_', '-')}")) is not None:
                raise two_lengths(budget, name, own)
    elif command in ("train", "import"):
        _check_flags(words, names_of(modality.training))
    return [command, *words], choice


def value(words: Sequence[str], *options: str) -> str | None:
    """Return the last value given to an option, if one is."""
    found = None
    for word, following in itertools.zip_longest(words, words[1:]):
        name, equals, value = word.partition("=")
        if name in options:
            found = value if equals else following or found
    return found


def without(words: Sequence[str], option: str) -> list[str]:
    """Return words without an option and its value."""
    left: list[str] = []
    skips = False
    for word in words:
        if not skips and word != option and not word.startswith(f"{option}="):
            left.append(word)
        skips = word == option
    return left


def _check_flags(words: Sequence[str], known: set[str]) -> None:
    """Refuse an option of another card or kind of model, and say whose it is."""
    owned = {
        "--method": {card.name: names_of(card.options) for card in METHODS.values()},
        "--weighting": {c.name: names_of(c.options) for c in WEIGHTINGS.values()},
        "--modality": {
            k.name: names_of(k.training) | names_of(k.options) for k in MODALITIES
        },
    }
    for word in words:
        flag = word.partition("=")[0]
        name = flag.removeprefix("--").removeprefix("no-").replace("-", "_")
        if not word.startswith("--") or name in known:
            continue
        for option, cards in owned.items():
            if owners := [card for card, names in cards.items() if name in names]:
                raise InputError(
                    f"{flag} is read with {option} {' or '.join(owners)}; give that, "
                    f"or leave {flag} out"
                )


def _setting(groups: Any) -> Unlearning:
    """Return the setting that parsed groups say."""
    values = [vars(group).items() for group in vars(groups).values()]
    return Unlearning.of(**dict(itertools.chain(*values)))


def _settings(groups: Any) -> tuple[Unlearning, ...]:
    """Return the settings of several methods: each is told what it has, if given."""
    values = dict(itertools.chain(*(vars(g).items() for g in vars(groups).values())))
    shared = {name: values[name] for name in ("weighting", "modality")}
    usual = [Unlearning.of(method=m, **shared).flat() for m in values["method"]]
    shown = {k: v for own in reversed(usual) for k, v in own.items()}
    given = {k: v for k, v in values.items() if k in shown and v != shown[k]}
    given = {k: v for k, v in given.items() if k not in ("method", *shared)}
    return tuple(
        Unlearning.of(
            method=method, **shared, **{k: v for k, v in given.items() if k in own}
        )
        for method, own in zip(values["method"], usual, strict=True)
    )


def _unread(card: Card, kind: Modality) -> set[str]:
    """Return the common fields that a method does not read."""
    if card.kind != "steps":  # which may read six of them
        read = {"budget", "rho", "batch_size", "microbatch", "remat", "trainable"}
        return {name for _, group in GROUPS.values() for name in group} - read
    unread = set() if card.schedule else {"schedule"}
    if not (card.schedule or card.joins):
        unread |= {"harmonizer", "per_leaf"}
    if not two_gradients(card):
        unread |= {"dual", "dual_rate", "dual_decay"}
    if card.by_epochs:
        unread |= {"steps"}
    if not kind.stateful:
        unread |= {"freeze_statistics"}
    if "logits" not in kind.roles:
        unread |= set(GROUPS["guard"][1])
    return unread


@functools.lru_cache(maxsize=256)  # a class takes some ms to make
def _group(
    text: str, values: tuple[Any, ...], of: type, hidden: Set[str] = frozenset()
) -> type:
    """Return a dataclass of fields and new defaults, with their types and help."""
    kinds, fields = hints(of, include_extras=True), []
    for name, value in values:
        kind = kinds[name]
        if name in _CHOICES:
            kind = tuple[str, ...] if isinstance(value, tuple) else kind
            kind = Annotated[kind, tyro.conf.arg(metavar=_listed(_CHOICES[name]))]
        if name in hidden:
            kind = Annotated[kind, tyro.conf.Suppress]
        fields.append((name, kind, dataclasses.field(default=value)))
    made = dataclasses.make_dataclass(of.__name__, fields, frozen=True)
    # of two that describe a field the parser reads the last, the class's own
    told = ((c.__doc__ or "").partition("Attributes:\n")[2] for c in of.__mro__[::-1])
    described = "\n".join(text.partition("\n\n")[0] for text in told)
    made.__doc__ = f"{text}\n\nAttributes:\n{described}\n"
    return made
