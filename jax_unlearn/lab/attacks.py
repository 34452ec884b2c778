"""Membership attacks that a method learns first, and how good they are."""

from collections.abc import Callable, Mapping
from typing import Any

from jax_unlearn import membership
from jax_unlearn.errors import InputError

__all__ = ["checked_attacks", "chosen", "weak_attacks"]


def checked_attacks(infos: Mapping[str, Any], options: Any) -> dict[str, Any]:
    """Return what records say of attacks, refused where all are weak."""
    told = {
        name: {
            "auc": float(info.auc),
            "standard_error": float(info.standard_error),
            "better_than_chance": bool(membership.better_than_chance(info)),
        }
        for name, info in infos.items()
    }
    feedback = any(attack["better_than_chance"] for attack in told.values())
    if not (feedback or options.allow_weak):
        areas = ", ".join(f"{n} {float(info.auc):.3f}" for n, info in infos.items())
        raise InputError(
            f"attacks={options.attacks}: none is better than chance (held-out AUC: "
            f"{areas}), so ltu has no feedback; hold out more unseen samples, raise "
            "rho, or give --allow-weak to go on all the same"
        )
    return {"attacks": told}


def weak_attacks(details: Mapping[str, Any]) -> list[str]:
    """Return a warning for every attack that is no better than chance."""
    return [
        f"attack {name!r} is no better than chance (AUC {attack['auc']:.3f}): "
        "it gives no feedback"
        for name, attack in details.get("attacks", {}).items()
        if not attack["better_than_chance"]
    ]


def chosen(lab: Any, options: Any, **known: Mapping[str, Callable]) -> list[list[Any]]:
    """Return what lists of options name, of known makers; repeats are counted."""
    found: list[list[Any]] = []
    for option, makers in known.items():
        names = getattr(options, option)
        found.append([])
        for number, name in enumerate(names, 1):
            if name not in makers:
                raise InputError(
                    f"{option}={name!r} reads outputs that {lab.modality.name} models "
                    f"do not have; use {', '.join(makers)}"
                )
            count = names[:number].count(name)
            own = name if count == 1 else f"{name} {count}"
            found[-1].append(makers[name]()._replace(name=own))
    return found
