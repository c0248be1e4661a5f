"""Which values can be told apart in a frame, and which combinations cannot be drawn so that each is seen.

A judge of attributes is trained and scored on `shown(attributes)`: values that mean the same picture share one
representative, and an attribute that another one hides is left out.
"""

from collections.abc import Mapping, Sequence

# attribute -> canonical value -> representative of the values that look alike.
VISIBLE_VALUES: dict[str, dict[str, str]] = {
    "composition": {
        "solid": "solid",
        # Shares of fluid of 28, 50 and 76 %: one continuum, and the release's prompts call all of them "cystic".
        "predominantly_solid": "mixed_cystic_solid",
        "mixed_cystic_solid": "mixed_cystic_solid",
        "predominantly_cystic": "mixed_cystic_solid",
        "cystic": "cystic",
        "spongiform": "spongiform",
    },
    # "Mixed" is half brighter and half darker than the gland, and looks like the echotextures: it is not judged.
    "echogenicity": {v: v for v in ("hyperechoic", "isoechoic", "hypoechoic", "markedly_hypoechoic", "anechoic")},
    "echotexture": {
        "homogeneous": "homogeneous",
        "heterogeneous": "heterogeneous",
        # Several small cystic spaces, scattered or in a cluster.
        "cystic_change": "cystic_change",
        "botryoid": "cystic_change",
        "nodule_in_nodule": "nodule_in_nodule",
    },
    "calcification": {
        "absent": "absent",
        "microcalcification": "microcalcification",
        "macrocalcification": "macrocalcification",
        "calcification_unspecified": "macrocalcification",
        "rim_calcification": "rim_calcification",
        "comet_tail": "comet_tail",
    },
    "aspect": {
        "taller_than_wide": "taller_than_wide",
        # An oval nodule with a horizontal long axis is wider than tall.
        "wider_than_tall": "wider_than_tall",
        "oval": "wider_than_tall",
        "round": "round",
    },
    "shape": {"regular": "regular", "irregular": "irregular"},
    "margin": {
        # A sharp border is "clear", "smooth" or, where nothing else is to be seen, "without capsule".
        "clear": "clear",
        "smooth": "clear",
        "no_capsule": "clear",
        "unclear": "unclear",
        # One category of two points in ACR TI-RADS ("lobulated or irregular", which includes spiculated).
        "irregular_margin": "irregular_margin",
        "lobulated": "irregular_margin",
        "spiculated": "irregular_margin",
        "encapsulated": "encapsulated",
    },
    "halo": {
        "absent": "absent",
        "thin_even": "thin_even",
        "present": "thin_even",
        "unevenly_thick": "unevenly_thick",
        "interrupted": "interrupted",
    },
    "diameter": {"small": "small", "middle": "middle", "large": "large"},
    "extension": {
        "absent": "absent",
        "abutting_capsule": "abutting_capsule",
        "bulging": "bulging",
        # A gap in the capsule; how deep the muscle is reached is a matter of degree.
        "capsule_disruption": "extrathyroidal",
        "extrathyroidal": "extrathyroidal",
    },
    "sonogram_direction": {"transverse": "transverse", "longitudinal": "longitudinal", "oblique": "longitudinal"},
}

Rule = tuple[dict[str, tuple[str, ...]], dict[str, tuple[str, ...]], str]
HALOS = ("thin_even", "unevenly_thick", "interrupted", "present")
# (if, not, reason): combinations that are possible in a patient but cannot be drawn so that both values are seen.
UNDRAWN: tuple[Rule, ...] = (
    ({"composition": ("cystic",)}, {"halo": HALOS}, "a dark ring cannot be seen around a black cyst"),
    (
        {"composition": ("cystic",)},
        {"margin": ("unclear", "irregular_margin", "spiculated")},
        "a cyst has a sharp wall",
    ),
    ({"margin": ("unclear", "spiculated")}, {"halo": HALOS}, "a blurred or spiculated border shows no ring"),
    (
        {"calcification": ("rim_calcification",)},
        {"margin": ("encapsulated", "unclear", "spiculated")},
        "calcium covers the border",
    ),
    ({"composition": ("spongiform",)}, {"echogenicity": ("markedly_hypoechoic", "mixed_echo")}, "septa set the echo"),
    ({"composition": ("predominantly_cystic",)}, {"echogenicity": ("anechoic",)}, "its solid part has an echo"),
    ({"composition": ("predominantly_cystic",)}, {"halo": HALOS}, "a dark ring cannot be seen around black fluid"),
    ({"echogenicity": ("isoechoic",)}, {"margin": ("unclear",)}, "a blurred border between equal echoes is not seen"),
    ({"nodule_location": ("isthmus",)}, {"diameter": ("large",)}, "the isthmus of a frame does not hold 20 mm"),
    ({"diameter": ("small",)}, {"echotexture": ("nodule_in_nodule",)}, "a nodule below 10 mm has no room for another"),
    ({"diameter": ("small",)}, {"calcification": ("rim_calcification",)}, "a shell below 10 mm looks like a lump"),
    ({"diameter": ("small",)}, {"halo": ("unevenly_thick", "interrupted")}, "the ring is too short to see its course"),
)
# attribute -> values of other attributes that hide it. A nodule below 10 mm is 15 to 17 pixels wide in a frame of 64:
# what its inside and its border look like cannot be read there (a judge is right in .77 to .84, else in .87 to .97).
_SMALL = {"diameter": ("small",)}
_PARTLY_FLUID = ("mixed_cystic_solid", "predominantly_cystic", "predominantly_solid")
_HIDDEN_BY: dict[str, dict[str, tuple[str, ...]]] = {
    "composition": _SMALL,
    "echogenicity": {"composition": _PARTLY_FLUID} | _SMALL,
    "echotexture": {
        "composition": ("cystic", "spongiform", *_PARTLY_FLUID),
        "echogenicity": ("mixed_echo", "anechoic"),
    }
    | _SMALL,
    "shape": _SMALL,
    "margin": _SMALL,
    "halo": _SMALL,
}


def undrawn(attributes: Mapping[str, Sequence[str]]) -> str | None:
    """Reason why a combination cannot be drawn so that every value is seen, or None."""
    for when, never, reason in UNDRAWN:
        if _meets(when, attributes) and _meets(never, attributes):
            return reason
    return None


def shown(attributes: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """What can be seen of an attributes dict: attribute -> representative value; unseen attributes are left out."""
    seen: dict[str, str] = {}
    for name, table in VISIBLE_VALUES.items():
        values = {table[v] for v in attributes.get(name, ()) if v in table}
        hidden = any(set(attributes.get(other, ())) & set(bad) for other, bad in _HIDDEN_BY.get(name, {}).items())
        if len(values) == 1 and not hidden:
            seen[name] = values.pop()
    return seen


def _meets(side: Mapping[str, Sequence[str]], attributes: Mapping[str, Sequence[str]]) -> bool:
    return all(set(values) & set(attributes.get(name, ())) for name, values in side.items())
