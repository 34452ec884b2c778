"""The methods by name: what each reads, what it costs, where it comes from.

Costs are in gradients of single samples: E epochs, F forget, R retain samples (of the
share that may be read), T steps of the training. A pass forward alone counts a third.
"""

from typing import NamedTuple


class Entry(NamedTuple):
    """One method.

    Attributes:
      title: its name in papers.
      kind: "steps": an `Unlearner` that descends step by step; "one-shot": a function
        of the parameters; "training": from a random start.
      reads: of "forget", "retain", "unseen", "original" (the original model goes on
        being asked, as a teacher or for a mask) and "training" (how, and with which
        seed, the original was trained).
      cost: see above.
      source: where it was published.
      weighs: whether it weights forget samples.
      schedule: whether forget and retain batches can be scheduled at will.
      options: settings that only it, and few others, read.
    """

    title: str
    kind: str
    reads: tuple[str, ...]
    cost: str
    source: str
    weighs: bool = True
    schedule: bool = False
    options: tuple[str, ...] = ()


BOTH = ("forget", "retain")

CATALOG: dict[str, Entry] = {
    "finetune": Entry(
        "Fine-tune (FT)", "steps", ("retain",), "E·R", "arXiv 2310.12508", weighs=False
    ),
    "gradient_ascent": Entry(
        "Gradient ascent (GA)", "steps", ("forget",), "E·F", "arXiv 2109.13398"
    ),
    "random_label": Entry(
        "Random labels (RL)",
        "steps",
        BOTH,
        "E·(R + F)",
        "arXiv 1911.04933",
        schedule=True,
    ),
    "salun": Entry(
        "SalUn",
        "steps",
        (*BOTH, "original"),
        "E·(R + F) + F",
        "arXiv 2310.12508",
        schedule=True,
        options=("keep",),
    ),
    "salun_soft": Entry(
        "SalUn-soft",
        "steps",
        BOTH,
        "E·(R + F)",
        "arXiv 2310.12508",
        schedule=True,
        options=("threshold",),
    ),
    "neggrad_plus": Entry(
        "NegGrad+",
        "steps",
        BOTH,
        "E·(R + F)",
        "arXiv 2302.09880",
        schedule=True,
        options=("alpha",),
    ),
    "l1_sparse": Entry(
        "l1-sparse",
        "steps",
        ("retain",),
        "E·R",
        "arXiv 2304.04934",
        weighs=False,
        options=("penalty",),
    ),
    "endpoint_transport": Entry(
        "Endpoint transport",
        "steps",
        (*BOTH, "unseen", "original"),
        "E·(R + F)",
        "our choice",
        schedule=True,
        options=("ranking",),
    ),
    "ltu": Entry(
        "LTU",
        "steps",
        (*BOTH, "unseen"),
        "at least 4·E·(R + F): second order",
        "arXiv 2407.10494",
        options=(
            "strategies",
            "query_size",
            "attacks",
            "allow_weak",
            "shadows",
            "inner_rate",
            "first_order",
        ),
    ),
    "boundary_shrink": Entry(
        "Boundary shrink (BS)",
        "steps",
        ("forget", "original"),
        "E·F + F",
        "arXiv 2303.11570",
        options=("bound",),
    ),
    "boundary_expand": Entry(
        "Boundary expand (BE)", "steps", ("forget",), "E·F", "arXiv 2303.11570"
    ),
    "sfron": Entry(
        "SFRon",
        "steps",
        (*BOTH, "original"),
        "E·R·(1 + 1/forget_every) + R + F",
        "arXiv 2409.19732",
        options=("forget_every", "peak", "ascent_clip"),
    ),
    "scrub": Entry(
        "SCRUB (+R with rewind)",
        "steps",
        (*BOTH, "original"),
        "4/3·(E·R + forget_epochs·F)",
        "arXiv 2302.09880",
        options=(
            "forget_epochs",
            "rewind",
            "teacher_temperature",
            "distill_share",
            "task_share",
        ),
    ),
    "bad_teacher": Entry(
        "Bad Teacher",
        "steps",
        (*BOTH, "original"),
        "4/3·E·(R + F)",
        "arXiv 2205.08096",
        schedule=True,
        options=("teacher_temperature",),
    ),
    "amnesiac_relabel": Entry(
        "Amnesiac, relabelled",
        "steps",
        BOTH,
        "E·(R + F)",
        "arXiv 2010.10981",
        schedule=True,
    ),
    "unsir": Entry(
        "UNSIR (for whole classes)",
        "steps",
        BOTH,
        "(E + impair_epochs)·R + noise_steps·F",
        "arXiv 2111.08947",
        weighs=False,
        options=("impair_epochs", "noise_steps"),
    ),
    "influence": Entry(
        "Influence (IU, WoodFisher)",
        "one-shot",
        BOTH,
        "R + F + samples",
        "arXiv 2304.04934",
        weighs=False,
        options=("samples", "strength", "form"),
    ),
    "ssd": Entry(
        "Selective synaptic dampening (SSD)",
        "one-shot",
        BOTH,
        "R + 2·F",
        "arXiv 2308.07707",
        weighs=False,
        options=("selection", "dampening"),
    ),
    "fisher_forgetting": Entry(
        "Fisher forgetting",
        "one-shot",
        ("retain",),
        "R",
        "arXiv 1911.04933",
        weighs=False,
        options=("noise",),
    ),
    "amnesiac": Entry(
        "Amnesiac, updates subtracted",
        "one-shot",
        ("forget", "training"),
        "0; every update of the training is kept (here: trained again)",
        "arXiv 2010.10981",
        weighs=False,
    ),
    "deltagrad": Entry(
        "DeltaGrad (linear network, full batches)",
        "one-shot",
        (*BOTH, "training"),
        "T·F + (T/period + burn_in)·R; the path of the training is kept",
        "arXiv 2006.14755",
        weighs=False,
        options=("burn_in", "period", "history"),
    ),
    "retrain": Entry(
        "Retrain", "training", ("retain", "training"), "T·R", "–", weighs=False
    ),
}
"""All methods, by the name that settings and the command line know."""
