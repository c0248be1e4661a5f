"""TI-RADS categories of drawn nodules, so that a report's impression agrees with its findings."""

from tigerdata.phantom.nodule import Attributes

_ACR_COMPOSITION = {"solid": 2, "predominantly_solid": 2, "mixed_cystic_solid": 1, "predominantly_cystic": 1}
_ACR_ECHO = {"hyperechoic": 1, "isoechoic": 1, "mixed_echo": 1, "hypoechoic": 2, "markedly_hypoechoic": 3}
_ACR_MARGIN = {"lobulated": 2, "irregular_margin": 2, "spiculated": 2}
_ACR_FOCI = {"macrocalcification": 1, "rim_calcification": 2, "microcalcification": 3}


def c_tirads(attributes: Attributes) -> str:
    """C-TIRADS 2020 category by counting (Zhou et al., Endocrine 2020;70:256): one point a suspicious sign."""
    has = {name: set(values) for name, values in attributes.items()}

    def meets(name: str, *values: str) -> bool:
        return bool(has.get(name, set()) & set(values))

    score = meets("aspect", "taller_than_wide") + meets("composition", "solid")
    score += meets("echogenicity", "markedly_hypoechoic") + meets("calcification", "microcalcification")
    blurred = meets("margin", "unclear", "irregular_margin", "lobulated", "spiculated")
    score += blurred or meets("extension", "capsule_disruption", "extrathyroidal")
    score -= meets("calcification", "comet_tail")
    return {-1: "2", 0: "3", 1: "4A", 2: "4B", 3: "4C", 4: "4C", 5: "5"}[int(score)]


def acr_tirads(attributes: Attributes) -> str:
    """ACR TI-RADS 2017 level by points (Tessler et al., J Am Coll Radiol 2017;14:587, table 1)."""
    if {"cystic", "spongiform"} & set(attributes.get("composition", [])):
        return "1"
    points = 0
    for name, table in (
        ("composition", _ACR_COMPOSITION),
        ("echogenicity", _ACR_ECHO),
        ("margin", _ACR_MARGIN),
        ("calcification", _ACR_FOCI),
    ):
        points += max((table.get(v, 0) for v in attributes.get(name, [])), default=0)
    points += 3 * ("taller_than_wide" in attributes.get("aspect", []))
    points += 3 * bool({"capsule_disruption", "extrathyroidal"} & set(attributes.get("extension", [])))
    if points >= 7:
        return "5"
    return {0: "1", 1: "1", 2: "2", 3: "3"}.get(points, "4")
