"""How many images each class gets: the same number, up to the largest class, or as a strategy says class by class."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from kb.errors import UsageError, UserError

MATCH = "match:"
BALANCE = "balance"
FORMS = f'a whole number, "{MATCH}CLASS" or "{BALANCE}"'


def read_strategy(text: str) -> dict[str, int | str]:
    """A strategy from its JSON text: class -> number, "match:CLASS" or "balance".

    Raises:
        UsageError: no JSON object, or a value of another form.
    """
    try:
        found = json.loads(text, object_pairs_hook=_once)
    except json.JSONDecodeError as error:
        raise UsageError(
            f'--strategy is not JSON (character {error.pos + 1}); write it as \'{{"FTC": 300, "MTC": "match:PTC"}}\'.'
        ) from error
    if not isinstance(found, dict) or not found:
        raise UsageError(f"--strategy must be a JSON object of classes, each with {FORMS}.")
    for label, wish in found.items():
        _check(label, wish)
    return found


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for name, value in pairs:
        if name in out:
            raise UsageError(f"--strategy names '{name}' twice.")
        out[name] = value
    return out


def _check(label: str, wish: Any) -> None:
    number = isinstance(wish, int) and not isinstance(wish, bool) and wish >= 0
    words = isinstance(wish, str) and (wish == BALANCE or (wish.startswith(MATCH) and len(wish) > len(MATCH)))
    if not number and not words:
        raise UsageError(f"the strategy gives '{label}' {json.dumps(wish)}; it must be {FORMS}.")


def images_per_class(
    real: Mapping[str, int],
    target: str,
    known: Iterable[str],
    n: int | None = None,
    classes: Iterable[str] | None = None,
    strategy: Mapping[str, int | str] | None = None,
    balance: bool = False,
) -> dict[str, int]:
    """Generated images a class, classes sorted by name; a class with 0 is in it where it was named.

    real: real training images a class; known: classes that may be asked for. Exactly one of these decides:

    * `n`: so many for the target and for every other class (or for `classes` and the target only);
    * nothing: as many as the target lacks to the largest class, and the others as many as the target, because images
      in one class alone teach a classifier real-or-generated;
    * `balance`: every class (or only `classes`) up to the largest one, real and generated together;
    * `strategy`: for each class a number, "match:CLASS" (as many images, real and generated together, as that class
      has) or "balance" (as many as the largest class, those with a number and without an entry considered).

    Raises:
        UserError: more than one of them, an unknown class, a circle of matches, or nothing to generate.
    """
    if sum((n is not None, balance, strategy is not None)) > 1:
        raise UsageError("give one of --n, --balance and --strategy, for each says how many images a class gets.")
    if strategy is not None and classes is not None:
        raise UsageError("a strategy names its classes; give it without --class and --target-only.")
    if n is not None and n < 1:
        raise UserError(f"{n} images a class were asked for; ask for 1 or more.")
    wished: dict[str, int | str]
    if strategy is not None:
        wished = dict(strategy)
        if target not in wished:
            raise UserError(f"the strategy does not name the target '{target}'; give it a number or \"{BALANCE}\".")
    else:
        labels = {target, *(real if classes is None else classes)}
        lacking = max(real.values(), default=0) - real.get(target, 0)
        wished = dict.fromkeys(labels, BALANCE if balance else lacking if n is None else n)
    _check_classes(wished, known)
    out = _resolve(real, wished)
    if not any(out.values()):
        sizes = ", ".join(f"{label} {count}" for label, count in sorted(real.items()))
        raise UserError(f"no class lacks an image (real ones: {sizes}); say how many with --n or --strategy.")
    return dict(sorted(out.items()))


def _check_classes(wished: Mapping[str, int | str], known: Iterable[str]) -> None:
    names = sorted(known)
    for label, wish in wished.items():
        _check(label, wish)
        for name in (label, str(wish).removeprefix(MATCH) if str(wish).startswith(MATCH) else label):
            if name not in names:
                raise UserError(
                    f"there is no class '{name}'; the training split and the knowledge base know: {', '.join(names)}."
                )


def _resolve(real: Mapping[str, int], wished: Mapping[str, int | str]) -> dict[str, int]:
    fixed = {label: wish for label, wish in wished.items() if isinstance(wish, int)}
    top = max((real.get(label, 0) + fixed.get(label, 0) for label in {*real, *fixed}), default=0)

    def size(label: str, behind: tuple[str, ...] = ()) -> int:
        """Images of a class, real and generated together."""
        if label in behind:
            raise UserError(
                f"the strategy goes round in a circle: {' matches '.join((*behind, label))}; give a number."
            )
        own, wish = real.get(label, 0), wished.get(label, 0)
        if isinstance(wish, int):
            return own + wish
        if wish == BALANCE:
            return max(own, top)
        return max(own, size(wish.removeprefix(MATCH), (*behind, label)))

    return {label: size(label) - real.get(label, 0) for label in wished}


def warnings(real: Mapping[str, int], images: Mapping[str, int], target: str) -> list[str]:
    """What a person should know before running the plan: classes that get nothing beside classes that get something."""
    made = sorted(label for label, count in images.items() if count)
    without = sorted(label for label, count in real.items() if count and label not in made)
    if not without:
        return []
    if made == [target]:
        return [
            f"Only '{target}' receives generated images: a classifier can then learn 'generated' in place of "
            f"'{target}'. Give every class its share unless you know why not."
        ]
    return [
        f"{', '.join(without)} receive no generated images and {', '.join(made)} do: a classifier can then learn "
        "'generated' in place of the class. Give every class its share unless you know why not."
    ]
