"""Our metrics and a peer's own code on the same arrays: equal to 1e-6, or the reason why not.

Run it with the Python of an environment that has the peers (prdc, torch-fidelity, imagehash, statsmodels, scikit-image,
scikit-learn, gudhi) beside this project. Peers that are repositories and no packages (geometry-score, cmmd-pytorch,
roc_comparison, MoSo) are looked for in the folder `--sources`, cloned there by their names. What is not there is said.
"""

import argparse
import importlib
import importlib.util
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tigergen import metrics as m

MUST = 1e-6
rng = np.random.default_rng(0)
REAL, FAKE = rng.normal(size=(400, 24)), rng.normal(0.2, 1.1, size=(350, 24))
Y = np.repeat([0, 1], [90, 60])
P = 1 / (1 + np.exp(-np.round(rng.normal(Y, 1.3), 1)))
Q = 1 / (1 + np.exp(-rng.normal(0.6 * Y, 1.0)))
A = rng.integers(0, 256, (120, 150)).astype(np.uint8)
B = np.clip(A + rng.normal(0, 30, A.shape), 0, 255).astype(np.uint8)
LOGITS = rng.normal(0, 2, (500, 10)).astype(np.float32)
RATINGS = rng.integers(0, 4, (40, 6))
# Rows that need not be equal, and why; and what has no row.
REASONS = {
    "cmmd biased (cmmd-pytorch, float32)": "the peer sums in the type of its input; equal on float64 rows above",
}
NOTES = {
    "gradient_similarity (viqa)": "not run: its GSM picks one direction for the whole image and divides by signed "
    "gradients, and calls itself not yet tested; ours is checked against a loop over the formula",
    "expected_calibration_error": "no peer here has it; checked against loops",
    "moso (MoSo, first order)": "theirs leaves out the rate and T and has (N - 1) / N more; compared without these",
    "memorisation": "no peer for images; checked against loops and planted copies",
}


def module_at(folder: Path, file: str, name: str) -> Any:
    """A module of a cloned repository."""
    spec = importlib.util.spec_from_file_location(name, folder / file)
    assert spec and spec.loader
    made = importlib.util.module_from_spec(spec)
    sys.modules[name] = made
    spec.loader.exec_module(made)
    return made


def package_rows() -> dict[str, Callable[[], tuple[Any, Any]]]:
    """Comparisons with packages: name to a pair of our numbers and theirs."""

    def prdc() -> tuple[Any, Any]:
        theirs = importlib.import_module("prdc").compute_prdc(REAL, FAKE, nearest_k=5)
        ours = m.density_coverage(REAL, FAKE, k=5)
        return [ours[k] for k in sorted(ours)], [theirs[k] for k in sorted(ours)]

    def fid() -> tuple[Any, Any]:
        import torch

        peer = importlib.import_module("torch_fidelity.metric_fid")
        stats = [peer.fid_features_to_statistics(torch.tensor(v)) for v in (REAL, FAKE)]
        made = peer.fid_statistics_to_metric(*stats, verbose=False)
        return m.frechet_distance(REAL, FAKE), next(iter(made.values()))

    def kid() -> tuple[Any, Any]:
        peer = importlib.import_module("torch_fidelity.metric_kid")
        # All rows in one subset: the estimate without the draw of subsets.
        made = peer.kid_features_to_metric(
            *(__import__("torch").tensor(v[:350]) for v in (REAL, FAKE)), kid_subsets=1, kid_subset_size=350,
            kid_degree=3, kid_gamma=None, kid_coef0=1, verbose=False,
        )  # fmt: skip
        return m.kernel_distance(REAL[:350], FAKE[:350]), next(v for k, v in made.items() if "mean" in k)

    def inception() -> tuple[Any, Any]:
        import torch

        peer = importlib.import_module("torch_fidelity.metric_isc")
        made = peer.isc_features_to_metric(torch.tensor(LOGITS), splits=10, shuffle=True, rng_seed=2020)
        ours = m.inception_score(LOGITS, splits=10, seed=2020)
        return [ours["mean"], ours["std"]], [next(v for k, v in made.items() if end in k) for end in ("mean", "std")]

    def ssim() -> tuple[Any, Any]:
        peer = importlib.import_module("skimage.metrics").structural_similarity
        settings = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 255}
        return m.ssim(A, B), peer(A, B, **settings)

    def phash() -> tuple[Any, Any]:
        from PIL import Image

        peer = importlib.import_module("imagehash").phash
        pairs = [(A, B), (A, np.ascontiguousarray(A[::-1])), (A[:90, :70], B), (A, A)]
        return ([m.phash_distance(a, b) for a, b in pairs],
                [peer(Image.fromarray(a)) - peer(Image.fromarray(b)) for a, b in pairs])  # fmt: skip

    def sklearn() -> tuple[Any, Any]:
        peer = importlib.import_module("sklearn.metrics")
        found = m.confusion(Y, P, 0.5)
        ours = [m.auroc(Y, P)["auroc"], m.brier(Y, P)["half"], *(found[k] for k in ("tn", "fp", "fn", "tp"))]
        return ours, [
            peer.roc_auc_score(Y, P),
            peer.brier_score_loss(Y, P),
            *peer.confusion_matrix(Y, P >= 0.5).ravel(),
        ]

    def wilson() -> tuple[Any, Any]:
        peer = importlib.import_module("statsmodels.stats.proportion").proportion_confint
        cases = [(8, 10), (0, 5), (5, 5), (37, 100)]
        return ([v for k, n in cases for v in m.wilson(k, n)],
                [v for k, n in cases for v in peer(k, n, method="wilson")])  # fmt: skip

    def kappa() -> tuple[Any, Any]:
        peer = importlib.import_module("statsmodels.stats.inter_rater")
        return m.fleiss_kappa(RATINGS), peer.fleiss_kappa(peer.aggregate_raters(RATINGS)[0])

    def mcnemar() -> tuple[Any, Any]:
        peer = importlib.import_module("statsmodels.stats.contingency_tables").mcnemar
        cases = [(3, 9), (10, 10), (25, 8)]
        return [m.mcnemar(b, c) for b, c in cases], [peer([[5, b], [c, 7]], exact=True).pvalue for b, c in cases]

    return {
        "density_coverage (prdc)": prdc, "frechet_distance (torch-fidelity)": fid,
        "kernel_distance (torch-fidelity, one subset of all)": kid, "inception_score (torch-fidelity)": inception,
        "ssim (scikit-image)": ssim, "phash_distance (imagehash)": phash,
        "auroc, brier, confusion (scikit-learn)": sklearn, "wilson (statsmodels)": wilson,
        "fleiss_kappa (statsmodels)": kappa, "mcnemar (statsmodels)": mcnemar,
    }  # fmt: skip


def source_rows(folder: Path) -> dict[str, Callable[[], tuple[Any, Any]]]:
    """Comparisons with cloned repositories."""

    def cmmd(kind: type) -> tuple[Any, Any]:
        peer = module_at(folder / "cmmd-pytorch", "distance.py", "cmmd_distance")
        x, y = (REAL / 3).astype(kind), (FAKE / 3).astype(kind)
        return m.cmmd(x, y)["biased"], float(peer.mmd(x, y))

    def delong() -> tuple[Any, Any]:
        peer = module_at(folder / "roc_comparison", "compare_auc_delong_xu.py", "delong_xu")
        area, variance = peer.delong_roc_variance(Y, P)
        ours = m.auroc(Y, P)
        return ([ours["auroc"], ours["variance"], np.log10(m.delong_test(Y, P, Q))],
                [area, float(variance), peer.delong_roc_test(Y, P, Q).item()])  # fmt: skip

    def geometry() -> tuple[Any, Any]:
        for name in ("matplotlib", "matplotlib.pyplot"):  # it only draws with it
            if importlib.util.find_spec(name.split(".")[0]) is None:
                sys.modules[name] = types.ModuleType(name)
        sys.path.insert(0, str(folder / "geometry-score"))
        importlib.import_module("gs")
        peer = sys.modules["gs.geom_score"]
        ring = rng.normal(1, 0.05, (600, 1)) * (lambda t: np.stack([np.cos(t), np.sin(t)], 1))(rng.uniform(0, 7, 600))
        disc = rng.uniform(-1, 1, (600, 2))
        place = np.random.default_rng(3)
        draws = [place.permutation(600)[:64] for _ in range(5)]
        order, chosen = iter([*draws, *draws]), np.random.choice
        np.random.choice = lambda *_: next(order)  # the same landmarks as ours
        try:
            means = [np.stack([peer.rlt(points, 64, 1 / 128) for _ in draws]) for points in (ring, disc)]
        finally:
            np.random.choice = chosen
        return m.geometry_score(ring, disc, gamma=1 / 128, n=5, seed=3), peer.geom_score(*means)

    def moso() -> tuple[Any, Any]:
        import torch

        code = (folder / "MoSo" / "scoring.py").read_text(encoding="utf-8")
        part = code[code.index("def MoSo_scoring(") : code.index("def MoSo_scoring_exact(")]
        names: dict[str, Any] = {"copy": __import__("copy"), "torch": torch, "grad": torch.autograd.grad,
                                 "tqdm": lambda v: v}  # fmt: skip
        exec(part, names)  # the peer's own function, cut from a script that trains when imported
        torch.manual_seed(0)
        layer = torch.nn.Linear(6, 3).double()
        x, y = torch.randn(12, 6, dtype=torch.float64), torch.randint(0, 3, (12,))
        keep, torch.Tensor.cuda = torch.Tensor.cuda, lambda self: self  # type: ignore[method-assign]
        try:
            rows = [(x[i : i + 1], y[i : i + 1]) for i in range(12)]
            theirs = names["MoSo_scoring"](layer, rows, torch.nn.functional.cross_entropy).numpy()
        finally:
            torch.Tensor.cuda = keep  # type: ignore[method-assign]
        p = torch.softmax(layer(x), 1).detach().numpy()
        ours = m.moso([m.linear_head_gradients(x.numpy(), p, y.numpy())], [1.0])
        return ours * 12, theirs * 12 / 11

    return {
        "cmmd biased (cmmd-pytorch)": lambda: cmmd(np.float64),
        "cmmd biased (cmmd-pytorch, float32)": lambda: cmmd(np.float32),
        "auroc variance, delong_test log10 p (fast DeLong)": delong,
        "geometry_score (geometry-score on GUDHI)": geometry, "moso (MoSo, first order)": moso,
    }  # fmt: skip


def main() -> None:
    """Print the table and whether every number is equal or explained."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sources", type=Path, help="folder of cloned repositories")
    args = parser.parse_args()
    rows = package_rows() | (source_rows(args.sources) if args.sources else {})
    print(f"{'metric (peer)':<52} {'ours':>14} {'theirs':>14} {'apart':>9}")
    failed = []
    for name, compare in rows.items():
        try:
            ours, theirs = (np.atleast_1d(np.asarray(v, float)) for v in compare())
        except (ImportError, FileNotFoundError) as error:
            print(f"{name:<52} not compared: {error}")
            failed.append(name)
            continue
        apart = float(np.max(np.abs(ours - theirs) / np.maximum(1.0, np.abs(theirs))))
        print(f"{name:<52} {ours[0]:>14.9g} {theirs[0]:>14.9g} {apart:>9.1e}")
        if apart > MUST and name not in REASONS:
            failed.append(name)
    for name, reason in (REASONS | NOTES).items():
        print(f"{name}: {reason}")
    if not args.sources:
        print("no --sources: geometry-score, cmmd-pytorch, roc_comparison and MoSo are not compared")
    verdict = f"NOT EQUAL and no reason: {', '.join(failed)}" if failed else "enough"
    print(f"must: equal to {MUST} (relative above 1), or the reason: {verdict}")
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
