"""An audit in plain words, for a person who has to answer a deletion request."""

from collections.abc import Mapping, Sequence
from typing import Any

from jax_unlearn.audit.figures import GROUPS, KINDS, cards_of
from jax_unlearn.report.table import number
from jax_unlearn.report.words import SPACE

TRACES = (*GROUPS["u_lira"], *GROUPS["forgetting"], *GROUPS["klom"])
ATTACKS = ("mia", "mia_entropy", "mia_loss", *GROUPS["rmia"])
GAPS = ("avg_gap", "tow", "tow_mia")
FEW = 6  # figures that are named one by one


def summary(record: Mapping[str, Any], labels: Mapping[str, str]) -> list[str]:
    """Return the summary of an audit: what was compared, and how each method ended.

    Args:
      record: a checked audit.
      labels: of the methods, by name.

    Returns:
      Plain text, a paragraph an entry.
    """
    count = record["forgotten"]
    samples = f"{count:,} sample{'s' * (count > 1)}"
    paragraphs = [
        f"The audit asks: can a model that {samples} were removed from by an "
        "unlearning method be told from one that never saw them? The measure is "
        f"Retrain, the same training without them, done anew {_times(record)}; a "
        f"method is not good for high or low numbers, but for those that Retrain gets. "
        f"{compared(record)}"
    ]
    for name, label in labels.items():
        counted, outside, count = _counted(record, name)
        if not count:
            continue
        text = f"{label}: {counted[0].lower()}{counted[1:]}"
        if 0 < len(outside) <= FEW:
            text += f" Outside: {_listed(record, outside, brief=True)}."
        elif set(TRACES) & set(outside):
            text += " Among those outside are attacks that find traces of the samples."
        paragraphs.append(text)
    paragraphs.append(
        "None of this shows that the samples have left no trace: see “What these "
        "numbers can and cannot prove”."
    )
    return [typeset(text) for text in paragraphs]


def typeset(text: str) -> str:
    """Return a text with proper minus signs and percent signs that keep their number.

    >>> typeset("|p - p*| of 5 %")
    '|p − p*| of 5\N{NO-BREAK SPACE}%'
    """
    return text.replace(" - ", " − ").replace(" %", f"{SPACE}%")


def compared(record: Mapping[str, Any]) -> str:
    """Return how the null was had, in a sentence or two.

    Args:
      record: a checked audit.
    """
    if not judged(record):
        return (
            "There is only one Retrain, so that it is unknown how far two of them are "
            "apart: no figure can be called inside or outside."
        )
    half = record["half"]
    return typeset(
        f"Beside each figure stands the null: what Retrains show beside other "
        f"Retrains, in the middle {100 * record['level']:g} % of the cases, from the "
        f"spread of {record['retrained']} Retrains or from {record['resamples']} "
        f"divisions of them into groups of {half}."
    )


def judged(record: Mapping[str, Any]) -> bool:
    """Whether any figure has an interval of the null.

    Args:
      record: a checked audit.
    """
    return any(
        figure["verdict"] for of in record["figures"].values() for figure in of.values()
    )


def verdict(record: Mapping[str, Any], name: str) -> list[str]:
    """Return two to four sentences on a method.

    Args:
      record: a checked audit.
      name: of the method.

    Returns:
      Plain text, a sentence or two an entry.
    """
    counted, outside, count = _counted(record, name)
    if not count:
        return [
            "Nothing can be called inside or outside: there is one Retrain, and so no "
            "null.",
            "In plain words: the table shows how far this method is from that one "
            "model, and not whether another training would have been as far.",
        ]
    sentences = [counted]
    if outside:
        if len(outside) <= FEW:
            sentences.append(f"Outside: {_listed(record, outside)}.")
        elif len(outside) < count:
            sentences.append(f"Outside are the {len(outside)} marked ○ below.")
        sentences.append(f"In plain words: {'; '.join(_plainly(record, name))}.")
    else:
        sentences.append(
            "In plain words: with this many models, none of these figures tells this "
            "method from training again without the samples."
        )
    sentences.append(_caution(record, len(outside), count))
    return [typeset(sentence) for sentence in sentences]


def limits(record: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return what the numbers cannot prove, as headings and sentences.

    Args:
      record: a checked audit.
    """
    half, forgotten = record["half"], record["forgotten"]
    found = []
    if judged(record):
        counts = {_counted(record, name)[2] for name in record["figures"]}
        count = max(counts)
        by_chance = number((1 - record["level"]) * count, 1)
        found += [
            (
                "The number of models is finite.",
                f"Of each kind {half} {_are(half)} compared at a time; more would see "
                "more. Figures of whole ensembles depend on that number and do not "
                "reach 0 or 1 for perfect unlearning: two ensembles of the very same "
                "training have an epsilon of about 1.6 in a sample and a forgetting "
                "quality F of about 0.17, however many models (with under 16 both are "
                "coarser), and the KLoM of a few models is large even then. Read each "
                "of them beside its null, never beside 0 or 1.",
            ),
            (
                "Inside is not equal.",
                "It says that so many models do not tell the method from Retrain. With "
                "few of them the intervals are wide, and much can hide inside.",
            ),
            (
                "Some figures fall outside by chance.",
                f"Each of {count} figures is judged at a level of "
                f"{100 * record['level']:g} %, so that about {by_chance} of them "
                "would lie outside even of another Retrain. Many measure nearly the "
                "same: they fall outside together.",
            ),
        ]
    else:
        found.append(
            (
                "There is no null.",
                "With one Retrain nobody knows how far two honest retrainings are "
                "apart; a small distance cannot be told from none, nor a large one "
                "from chance. Train a second, and audit again.",
            )
        )
    found += [
        (
            "The attacks tried are not all attacks.",
            "That these find no trace does not show that no other would: one that "
            "looks at the weights, asks in another way, or has more models.",
        ),
        (
            "An average is not a person.",
            f"Most figures are means or medians over {forgotten:,} samples. A single "
            "sample may be told apart where the average is not; the histogram of "
            "epsilon on the page of a method shows how far samples differ.",
        ),
        (
            "One request, one data set.",
            "Everything here was measured on this request, these data and this "
            "training. Another request, of other samples or another size, may end "
            "otherwise.",
        ),
        (
            "Samples share their models.",
            "Rates such as the TPR pool every sample of every model. Such trials are "
            "not independent: exact intervals for a share of independent trials "
            "(Clopper and Pearson's) would be too narrow, and are not shown. The null "
            "is what these rates are to be read beside.",
        ),
        (
            "Only these models were looked at.",
            "Copies, backups, logs, caches, and models trained on the outputs of the "
            "original are out of sight, and so are the data themselves.",
        ),
        (
            "This is no legal finding.",
            "Software compared the outputs of models and says how they differ. Whether "
            "a request was answered as the law demands is for people to decide.",
        ),
    ]
    return [(heading, typeset(text)) for heading, text in found]


def may_say(record: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """Return what the audit supports saying to the person who asked, and what not.

    Args:
      record: a checked audit.

    Returns:
      Sentences that may be said, and those that may not.
    """
    count = max(len(of) for of in record["figures"].values())
    supported = [
        "which method was applied, to which samples, and when;",
        f"that the outcome was compared, by {count} figure{'s' * (count > 1)}, with "
        f"{record['retrained']} model{'s' * (record['retrained'] > 1)} trained without "
        "these samples;",
    ]
    if judged(record):
        supported.append(
            "which figures lie inside what two such models show between each other, "
            "and which do not: those that do not are to be named too."
        )
    else:
        supported.append("how far it is from that model, figure by figure.")
    return supported, [
        "that the data are gone from the model, or that nobody can find a trace;",
        "that the model is the one that training without them would have given;",
        "that this holds for other samples, other models, or another request.",
    ]


def _counted(
    record: Mapping[str, Any], name: str
) -> tuple[str, dict[str, Mapping[str, Any]], int]:
    """Return how many figures are inside, as a sentence; those outside; all judged."""
    figures = record["figures"][name]
    known = {key: figure for key, figure in figures.items() if figure["verdict"]}
    outside = {
        k: figure for k, figure in known.items() if figure["verdict"] != "inside"
    }
    count, inside = len(known), len(known) - len(outside)
    verb = "lies" if inside == 1 else "lie"
    if not outside:
        text = f"All {count} figures lie" if count > 1 else "The one figure lies"
    elif not inside:
        text = (
            f"None of {count} figures lies"
            if count > 1
            else "The one figure does not lie"
        )
    else:
        text = f"Of {count} figures {inside} {verb}"
    return f"{text} inside what retraining with another seed gives.", outside, count


def _listed(
    record: Mapping[str, Any],
    outside: Mapping[str, Mapping[str, Any]],
    *,
    brief: bool = False,
) -> str:
    """Name the figures outside, with their values and targets where not brief."""
    said, cards = [], cards_of(record)
    for key, figure in outside.items():
        card = cards[key]
        text = card.label
        if not brief:
            value, goal = (number(figure[n], card.digits) for n in ("value", "target"))
            text += f" ({value}; target {goal})"
        said.append(text)
    return "; ".join(said)


def _plainly(record: Mapping[str, Any], name: str) -> list[str]:
    """Return what the figures outside mean, strongest first."""
    figures, half = record["figures"][name], record["half"]

    def outside(keys: Sequence[str]) -> list[str]:
        return [k for k in keys if k in figures and figures[k]["verdict"] == "outside"]

    said = []
    if outside(TRACES):
        said.append(
            f"an auditor with {half} models of either kind can still tell those of "
            "this method from retrained ones, better than retrained ones from each "
            "other, and so that these samples were once trained on"
        )
    if outside(ATTACKS):
        said.append(
            "a membership attack on a single model answers otherwise than it does for "
            "Retrain"
        )
    if outside(("ua", "deviation")):
        said.append(
            "on these samples the models answer otherwise than models that never saw "
            "them"
        )
    kept = outside(("ra", "ta"))
    if kept:
        below = [k for k in kept if figures[k]["value"] < figures[k]["target"]]
        how = "less often" if len(below) == len(kept) else "more often"
        how = "more or less often" if 0 < len(below) < len(kept) else how
        said.append(
            f"on data that were to be kept or are new they are right {how} than Retrain"
        )
    if not said and outside(GAPS):
        said.append(
            "taken together, the accuracies are farther from Retrain's than those of "
            "another Retrain"
        )
    own = outside([key for key in figures if key not in KINDS])
    if own:
        found = {key: figures[key] for key in own}
        named = _listed(record, found, brief=True)
        said.append(f"by {named} the models are not as other Retrains are")
    return said


def _caution(record: Mapping[str, Any], outside: int, count: int) -> str:
    by_chance = (1 - record["level"]) * count
    if outside and outside <= max(by_chance, 1):
        return (
            f"So few may be chance: about {number(by_chance, 1)} of {count} figures "
            "would lie outside even of another Retrain."
        )
    if outside:
        return (
            f"By chance alone about {number(by_chance, 1)} of {count} figures would "
            "lie outside."
        )
    figures = next(iter(record["figures"].values()))
    if not set(TRACES) & set(figures):
        return (
            "No attack that compares many models was tried, so this says little: see "
            "what was left out, and why."
        )
    return (
        "That is no proof that no trace is left: other attacks, or more models, may "
        "find one."
    )


def _times(record: Mapping[str, Any]) -> str:
    count = record["retrained"]
    return "once" if count == 1 else f"{count:,} times from other seeds"


def _are(count: int) -> str:
    return "was" if count == 1 else "were"
