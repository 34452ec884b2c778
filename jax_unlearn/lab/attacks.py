"""Membership attacks that a method learns first, and how good they are."""

from collections.abc import Mapping, Sequence
from typing import Any

from jax_unlearn import membership
from jax_unlearn.errors import InputError


def checked_attacks(infos: Mapping[str, Any], options: Any) -> dict[str, Any]:
    """Return what records say of attacks, refused where none tells anything.

    Args:
      infos: of `membership.train_attacks`, by name.
      options: of the method: `attacks`, `allow_weak`.

    Raises:
      InputError: no attack is better than chance, and that is not allowed.
    """
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
    """Return a warning for every attack that is no better than chance.

    >>> weak_attacks(
    ...     {"attacks": {"logistic": {"auc": 0.5, "better_than_chance": False}}}
    ... )
    ["attack 'logistic' is no better than chance (AUC 0.500): it gives no feedback"]
    """
    return [
        f"attack {name!r} is no better than chance (AUC {attack['auc']:.3f}): "
        "it gives no feedback"
        for name, attack in details.get("attacks", {}).items()
        if not attack["better_than_chance"]
    ]


def numbered(names: Sequence[str], number: int) -> str:
    """Return a name of a list, with its count from the second time on.

    >>> [numbered(["hard", "hard"], number) for number in (0, 1)]
    ['hard', 'hard 2']
    """
    earlier = list(names[:number]).count(names[number])
    return f"{names[number]} {earlier + 1}" if earlier else names[number]
