"""Make the network that finds burned-in text, which TigerData ships: `python benchmarks/make_text_finder.py OUT`.

Ten minutes of one core. Trained on frames with random strings, callipers, ticks and icons drawn on them: half of the
BrEaST frames (CC BY 4.0; folder TIGER_REAL_DATA, required, so that the network is the one that was measured) and
simulated thyroid frames. Two of the benchmark's fonts are kept from it, and all of its strings.
"""

import argparse
import os
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from planted_text import glyphs
from safetensors.numpy import save_file
from torch import nn

from tigerdata.images.frames import read_gray
from tigerdata.phantom.corpus import uniform_frames

SIDE = 192  # of a training crop, in pixels
CELL = 4
SEEN_FONTS = ("uni", "sans", "serif", "italic", "dejavu")
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
SIGNS = "0123456789.:-/%+"


def network() -> nn.Sequential:
    """The layers that `tigerdata.images.burned_in` runs: one logit a cell of 4 x 4 pixels."""
    return nn.Sequential(
        nn.Conv2d(1, 8, 5, 2, 2), nn.ReLU(), nn.Conv2d(8, 12, 3, 2, 1), nn.ReLU(), nn.Conv2d(12, 12, 3, 1, 2, 2),
        nn.ReLU(), nn.Conv2d(12, 12, 3, 1, 4, 4), nn.ReLU(), nn.Conv2d(12, 1, 1),
    )  # fmt: skip


def string(rng: np.random.Generator) -> tuple[str, str]:
    """A random text of 1 to 12 letters and its language."""
    kind, n = rng.integers(3), int(rng.integers(1, 13))
    if kind == 0:
        return "".join(chr(c) for c in rng.integers(0x4E00, 0x9FA0, size=min(n, 8))), "zh"
    pool = SIGNS if kind == 1 else LETTERS + (SIGNS if rng.random() < 0.3 else "")
    letters = rng.choice(list(pool), size=n)
    return "".join(" " if k and rng.random() < 0.1 else c for k, c in enumerate(letters)).strip() or "0", "en"


def mark(rng: np.random.Generator) -> NDArray[np.float32]:
    """Coverage of one sign: calliper, dotted line, ruler, arrow, logo, thin box."""
    image = np.zeros((110, 110), np.uint8)
    size, thick = int(rng.integers(3, 9)), int(rng.integers(1, 3))
    kind = rng.integers(7)
    if kind == 0:
        shapes = (cv2.MARKER_CROSS, cv2.MARKER_TILTED_CROSS, cv2.MARKER_STAR, cv2.MARKER_DIAMOND, cv2.MARKER_SQUARE)
        for _ in range(int(rng.integers(1, 3))):
            at = (int(rng.integers(10, 100)), int(rng.integers(10, 100)))
            cv2.drawMarker(image, at, 255, int(rng.choice(shapes)), 2 * size, thick, cv2.LINE_AA)
    elif kind == 1:
        start, stop = rng.uniform(5, 105, 2), rng.uniform(5, 105, 2)
        count = max(2, int(np.hypot(*(stop - start)) / rng.uniform(4, 9)))
        for t in np.linspace(0, 1, count):
            cv2.circle(
                image, np.rint(start + t * (stop - start)).astype(int).tolist(), int(rng.integers(0, 2)), 255, -1
            )
    elif kind == 2:
        step, long = int(rng.integers(9, 34)), int(rng.integers(1, 9))
        for k in range(4, 106, step):
            cv2.line(image, (50, k), (50 + long * (1 + (k // step) % 2), k), 255, thick)
        image = image if rng.random() < 0.5 else np.ascontiguousarray(image.T)
    elif kind == 3:
        at = np.array([55, 55])
        corners = at + np.rint(np.array([[0, 0], [size, size * 0.6], [size, -size * 0.6]])).astype(int)
        corners = corners if rng.random() < 0.5 else corners[:, ::-1]
        cv2.fillPoly(image, [np.ascontiguousarray(corners, dtype=np.int32)], 255, cv2.LINE_AA)
    elif kind == 4:
        cv2.circle(image, (55, 55), 2 * size, 255, thick, cv2.LINE_AA)
        cv2.putText(image, str(rng.choice(list(LETTERS))), (55 - size // 2, 55 + size // 2), 0, size / 16, 255, 1)
    elif kind == 5:
        corner = rng.integers(5, 50, 2).tolist()
        cv2.rectangle(image, corner, rng.integers(60, 106, 2).tolist(), 255, 1)
    else:
        ends = rng.integers(5, 105, (2, 2))
        cv2.line(image, ends[0].tolist(), ends[1].tolist(), 255, 1)
        for end in ends:
            cv2.drawMarker(image, end.tolist(), 255, cv2.MARKER_CROSS, 2 * size, thick)
    x, y, w, h = cv2.boundingRect(image)
    return image[y : y + h, x : x + w].astype(np.float32) / 255


def crop(frame: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.float32]:
    """A square of `SIDE` pixels out of a frame that is scaled, mirrored and toned at random, perhaps beside black."""
    scale = float(np.exp(rng.uniform(np.log(0.3), np.log(1.5))))
    need = round(SIDE / scale) + 1
    y, x = (int(rng.integers(0, max(1, n - need + 1))) for n in frame.shape)
    part = frame[y : y + need, x : x + need]
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    small = cv2.resize(part, None, fx=scale, fy=scale * rng.uniform(0.9, 1.1), interpolation=how)
    pad = int(rng.integers(20, 90)) if rng.random() < 0.3 else 0
    below, right = (max(0, SIDE - n - pad) for n in small.shape)
    surround = int(rng.integers(0, 12))
    small = cv2.copyMakeBorder(small, pad, pad + below, pad, pad + right, cv2.BORDER_CONSTANT, value=surround)
    y, x = (int(rng.integers(0, n - SIDE + 1)) for n in small.shape)
    out = small[y : y + SIDE, x : x + SIDE].astype(np.float32)
    out = out[:, :: int(rng.choice([-1, 1]))]
    if rng.random() < 0.3:  # finer speckle than the display's
        out = out * (1 + 0.15 * cv2.GaussianBlur(rng.normal(size=out.shape).astype(np.float32), (0, 0), 0.7))
    if rng.random() < 0.3:  # edge enhancement, as scanners apply it
        out = out + rng.uniform(0.3, 1.5) * (out - cv2.GaussianBlur(np.ascontiguousarray(out), (0, 0), 1.5))
    return np.clip(255 * (np.clip(out, 0, 255) / 255) ** rng.uniform(0.6, 1.8) * rng.uniform(0.6, 1.6), 0, 255)


def example(frame: NDArray[np.uint8], rng: np.random.Generator) -> tuple[NDArray[np.float32], NDArray, NDArray]:
    """A crop, uint8-valued [s, s], its cells that hold ink [s/4, s/4], and the weight of each cell."""
    image = crop(frame, rng)
    ink = np.zeros_like(image)
    for _ in range(int(rng.choice([0, 1, 2, 3, 4]))):
        if rng.random() < 0.65:
            text, language = string(rng)
            coverage, _ = glyphs(text, int(rng.integers(7, 28)), rng, language, SEEN_FONTS)
        else:
            coverage = mark(rng)
        h, w = (min(n, SIDE) for n in coverage.shape)
        y, x = (int(rng.integers(0, SIDE - n + 1)) for n in (h, w))
        level = float(rng.choice([255, 255, 226, 190, rng.uniform(140, 255)]))
        part = coverage[:h, :w]
        if rng.random() < 0.15:  # a dark outline, as on newer scanners
            dark = cv2.dilate(part, np.ones((3, 3)))
            image[y : y + h, x : x + w] *= 1 - dark
        image[y : y + h, x : x + w] = image[y : y + h, x : x + w] * (1 - part) + level * part
        ink[y : y + h, x : x + w] = np.maximum(ink[y : y + h, x : x + w], part)
    if rng.random() < 0.85:
        quality = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(70, 98))]
        image = cv2.imdecode(cv2.imencode(".jpg", np.rint(image).astype(np.uint8), quality)[1], 0).astype(np.float32)
    cells = ink.reshape(SIDE // CELL, CELL, SIDE // CELL, CELL).max(axis=3).max(axis=1)
    target = (cells >= 0.5).astype(np.float32)
    # A cell that ink only brushes is not judged, and its neighbours hardly.
    weight = np.where((cells > 0.05) & (cells < 0.5), 0, 1).astype(np.float32)
    weight[cv2.dilate(target, np.ones((3, 3))) > target] *= 0.3
    return image, target, weight


def main() -> None:
    """Draw, train, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=4500)
    parser.add_argument("--batch", type=int, default=10)
    parser.add_argument("--phantoms", type=int, default=100)
    options = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    folder = Path(os.environ["TIGER_REAL_DATA"]) / "breast"
    names = sorted(p for p in folder.glob("case*.png") if "_" not in p.stem)[::2]  # the other half is measured
    frames = [read_gray(p) for p in names]
    frames += [f for f in uniform_frames(options.phantoms, 256, seed=7)[0]]
    net = network()
    optimiser = torch.optim.AdamW(net.parameters(), lr=4e-3, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 4e-3, total_steps=options.steps)
    mean = 0.0
    for step in range(1, options.steps + 1):
        # Real frames come first in the list and are drawn more often.
        pools = [len(frames) if rng.random() < 0.4 else len(names) for _ in range(options.batch)]
        drawn = [example(frames[int(rng.integers(pool))], rng) for pool in pools]
        x, t, w = (torch.from_numpy(np.stack(part)).float() for part in zip(*drawn, strict=True))
        logits = net(x[:, None] / 255)[:, 0]
        loss = (nn.functional.binary_cross_entropy_with_logits(logits, t, reduction="none") * w).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        mean = 0.98 * mean + 0.02 * loss.item() if step > 1 else loss.item()
        if step % 100 == 0:
            print(f"step {step}: loss {mean:.4f}", flush=True)
            layers = [m for m in net if isinstance(m, nn.Conv2d)]
            weights = {f"{k}.{n}": p.detach().numpy() for k, m in enumerate(layers) for n, p in m.named_parameters()}
            save_file(weights, options.out)


if __name__ == "__main__":
    main()
