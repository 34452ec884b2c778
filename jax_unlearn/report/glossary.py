"""What terms mean: one list, of which each page shows those that it uses."""

import html
import re
from collections.abc import Iterable, Mapping

__all__ = ["IMAGES", "TERMS", "used"]

TERMS = {
    "UA": "unlearning accuracy: share of the samples to forget that the model gets "
    "wrong",
    "RA": "retain accuracy, on the samples that stay",
    "TA": "test accuracy, on samples new to every model; where whole classes are "
    "forgotten, without these",
    "MIA": "membership inference attack, which guesses what a model was trained on: "
    "share of the samples to forget that it takes for unseen",
    "Avg. Gap": "mean distance of UA, RA, TA and MIA from Retrain's, in percentage "
    "points, seed by seed; 0 for Retrain itself",
    "|p − p*|": "distance from Retrain's confidence in the true class, sample by "
    "sample, in the mean over the samples to forget; 0 for Retrain itself",
    "ToW": "tug of war: product of 1 − distance over the accuracies on forget, retain "
    "and test samples; 1 for Retrain itself, less the farther away",
    "vs. nothing": "the figure less that of the original, which is what doing nothing "
    "leaves; negative is nearer to Retrain. p: how often chance alone would make such "
    "a difference (paired t-test over the seeds); “nearer” or “farther” where p is "
    "below 0.05",
    "Cost": "share of Retrain's cost, counted in gradients of samples; a second number "
    "below is the share by the clock of the run, preparation apart (median of the "
    "seeds, since the first compiles)",
    "RTE": "running time in seconds; numbers below are compilation and preparation, "
    "the longest of any seed (seeds share programs)",
    "time": "running time in seconds",
    "figures outside": "how many figures lie outside of where Retrains lie",
    "SVC": "support vector classifier, by which the attack decides",
    "AUC": "how often an attack picks the right one of two; guessing is 0.5",
    "TPR": "true positive rate: share found of what is there to find",
    "FPR": "false positive rate: share of false alarms",
    "ROC": "true against false positives of an attack, at every threshold",
    "U-LiRA": "likelihood-ratio attack with many models, and a rule for each sample",
    "LiRA": "likelihood-ratio attack: compares a sample with models that never saw it",
    "RMIA": "robust membership inference attack, which compares with other models",
    "KLoM": "KL divergence of margins: how differently models are sure of a sample",
    "epsilon": "how surely the best attack on a sample tells; 0 is not at all",
    "F": "forgetting quality: the more samples no attack can tell, the higher",
}
"""Headings and abbreviations in the names of figures, in plain words."""

SIGNS = {
    "Target": (
        r"\bTarget\b",
        "Retrain's mean; of figures that compare models with models, what Retrains "
        "show beside other Retrains; where there is one Retrain, what two models have "
        "that are alike",
    ),
    "Δ": ("Δ", "difference from Retrain's value, of percentages in points"),
    "× null": (
        "× null",
        "how many times as far from Retrain as the null is, a second Retrain from "
        "another seed: about 1 where nothing but chance is left",
    ),
    "±": ("±", "standard deviation over the seeds, or over the models of a method"),
    "[low, high]": (
        r"\[[−\d.]+, [−\d.]+\]",
        "the null's interval, where another Retrain would lie. Of figures that are "
        "distances from Retrain (Avg. Gap, |p − p*|, U-LiRA, epsilon, KLoM) less than "
        "that is inside, too: nearer than another Retrain. Of ToW, ToW-MIA and the "
        "forgetting quality more than that is",
    ),
    "(±)": (r"\(±", "in the null's row, half the width of its interval"),
    "●": (r'class="hidden"> inside', "inside the null's interval"),
    "○": (r'class="hidden"> outside', "outside the null's interval"),
}
"""Signs beside the numbers, each with the pattern by which a page is seen to use it."""

IMAGES = {
    "UA": "share of the images asked to be of the forgotten class that a classifier "
    "does not take for it",
    "other classes": "share of the images of other classes that the classifier takes "
    "for what was asked",
    "recognised": "share of drawn images recognised as the class asked for",
    "returned at": "distance (root mean square over pixels in [−1, 1]) from a "
    "forgotten image, noised to a quarter of the timesteps, to what the model makes of "
    "it; a memorised one comes back nearer",
    "unseen at": "the same of unseen images of their classes",
    "nearer": "share of the forgotten images that come back nearer than from Retrain; "
    "50 % where nothing tells the two apart",
    "Fréchet": "distance from drawn images to real ones of the classes that stay, in "
    "the features of the classifier trained here. It is not FID, depends on the number "
    "of images, and compares only within this page",
    "FID": "the same in the features of the standard Inception network. It is biased "
    "upwards for few images: compare within this page, not with published values of "
    "10,000 or more images",
    "error": "mean squared denoising error on real images: of what is forgotten, of "
    "unseen images, and of what stays",
}
"""Figures of diffusion models; UA there is another than a classifier's."""


def base(heading: str) -> str:
    """Return a heading as terms have it: without its unit, with proper minus signs.

    >>> base("UA %"), base("RTE s"), base("|p - p*|"), base("error, forget")
    ('UA', 'RTE', '|p − p*|', 'error')
    """
    name = heading.replace(" - ", " − ").removesuffix(" %").removesuffix(" s")
    return name.partition(", ")[0] if name.startswith("error") else name


def meaning(heading: str, own: Mapping[str, str]) -> str:
    """Return what a heading means, "" where nothing says; `own` is of the page."""
    name = base(heading)
    known = {**TERMS, **own}
    tested = "vs. nothing" if heading.endswith(" vs. nothing") else name
    return known.get(name, known.get(tested, ""))


def words(names: Iterable[str], terms: Mapping[str, str]) -> list[str]:
    """Return the terms that names contain as whole words, in their order."""
    text = "\n".join(names)
    return [
        term
        for term in terms
        if re.search(rf"(?<![\w-]){re.escape(term)}(?![\w-])", text)
    ]


def used(page: str, own: Mapping[str, str]) -> list[tuple[str, str]]:
    """Return the terms and signs that the tables of a page use, with their meanings.

    >>> page = "<th>UA %</th><td>3 <span>Δ +1</span></td>"
    >>> [term for term, _ in used(page, {})]
    ['UA', 'Δ']
    """
    heads = re.findall(r"<th\b.*?</th>", page, re.DOTALL)
    names = [html.unescape(re.sub(r"<[^>]*>", " ", head)) for head in heads]
    names = [base(name.replace("\N{NO-BREAK SPACE}", " ").strip()) for name in names]
    known = {**own, **{k: v for k, v in TERMS.items() if k not in own}}
    found = [(term, known[term]) for term in words(names, known)]
    text = re.sub(r"<(style|script)\b.*?</\1>", "", page, flags=re.DOTALL)
    return found + [(k, v) for k, (at, v) in SIGNS.items() if re.search(at, text)]
