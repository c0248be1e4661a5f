"""Write a simulated corpus to disk, and draw frames with uniform attributes for a judge.

Everything is drawn from `seed`: patients from a stream of their own each, and each frame from a stream of its own, so
that the result depends neither on the number of processes nor on the order in which frames are rendered.
"""

import csv
import io
import json
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

import kb
from kb.errors import UserError
from kb.files import atomic_write, write_json
from tigerdata.phantom.cases import Patient, Visit, draw_patient, uniform_attributes
from tigerdata.phantom.nodule import Attributes
from tigerdata.phantom.render import Frame, render
from tigerdata.phantom.reporting import pathology_text, write_report
from tigerdata.phantom.speckle import Machine, draw_machine
from tigerdata.phantom.visible import shown
from tigerdata.progress import Progress

Array = np.ndarray
COHORTS = ("train", "val", "test", "pool")
PATIENTS, FRAMES, TEXTS, UNIFORM = 11, 12, 13, 14  # streams of random numbers
CHUNK = 32


def _default_counts() -> dict[str, dict[str, int]]:
    return {
        "train": {"benign": 1000, "PTC": 1000, "FTC": 30},
        "val": {"benign": 300, "FTC": 100},
        "test": {"benign": 600, "FTC": 600},
        "pool": {"FTC": 970},
    }


@dataclass(frozen=True)
class CorpusSettings:
    """Settings of a corpus; `counts` are images by cohort and class.

    annotated_fraction: share of images with a nodule mask file; languages: of the reports, by turns at random;
    stated_fraction: chance that a report states an attribute of its nodule; size: side of a frame in pixels.
    """

    counts: dict[str, dict[str, int]] = field(default_factory=_default_counts)
    annotated_fraction: float = 0.7
    stated_fraction: float = 0.85
    languages: tuple[str, ...] = ("zh", "en")
    max_visits: int = 2
    max_frames: int = 3
    size: int = 256
    seed: int = 0


@dataclass(frozen=True)
class FrameJob:
    """One frame to render: its index, file name, and everything that the picture depends on."""

    index: int
    file: str
    attributes: Attributes
    plane: str
    side: str
    identity: int
    machine: int


def read_settings(settings: Mapping[str, Any] | CorpusSettings | None) -> CorpusSettings:
    """Check a mapping of settings; UserError names an unknown key, cohort or class, or a value out of range."""
    if isinstance(settings, CorpusSettings):
        given: dict[str, Any] = asdict(settings)
    else:
        given = dict(settings or {})
    unknown = sorted(set(given) - set(CorpusSettings.__dataclass_fields__))
    if unknown:
        known = ", ".join(CorpusSettings.__dataclass_fields__)
        raise UserError(f"unknown corpus setting '{unknown[0]}'; use {known}.")
    if "languages" in given:
        given["languages"] = tuple(given["languages"])
    checked = CorpusSettings(**given)
    subtypes = kb.load("thyroid").subtypes
    for cohort, classes in checked.counts.items():
        if cohort not in COHORTS:
            raise UserError(f"unknown cohort '{cohort}' in the corpus settings; use one of {', '.join(COHORTS)}.")
        for label, count in classes.items():
            if label not in subtypes or count < 0:
                known = ", ".join(subtypes)
                raise UserError(f"cohort '{cohort}' asks for {count} images of '{label}'; use counts >= 0 of {known}.")
    for name in ("annotated_fraction", "stated_fraction"):
        if not 0.0 <= getattr(checked, name) <= 1.0:
            raise UserError(f"the corpus setting '{name}' must lie between 0 and 1; correct it.")
    if not checked.languages or set(checked.languages) - {"zh", "en"}:
        raise UserError("the corpus setting 'languages' takes zh and en; name at least one of them.")
    if checked.size < 64 or checked.max_visits < 1 or checked.max_frames < 1:
        raise UserError("a corpus needs size >= 64, max_visits >= 1 and max_frames >= 1; correct the settings.")
    return checked


def patients(settings: CorpusSettings) -> Iterator[tuple[Patient, list[tuple[Visit, int]]]]:
    """Yield each patient with the frames to keep, as (visit, plane index); cohorts share no patient.

    Patients are added until a cohort has its number of images of a class; the last one is cut to fit.
    """
    base = kb.load("thyroid")
    number = 0
    for cohort in COHORTS:
        for label, count in settings.counts.get(cohort, {}).items():
            left = count
            while left > 0:
                number += 1
                rng = np.random.default_rng([settings.seed, PATIENTS, number])
                name = f"P{number:05d}"
                patient = draw_patient(base, name, label, cohort, rng, settings.max_visits, settings.max_frames)
                frames = [(visit, k) for visit in patient.visits for k in range(len(visit.planes))][:left]
                left -= len(frames)
                yield patient, frames


def write_corpus(
    out: str | Path,
    settings: Mapping[str, Any] | CorpusSettings | None = None,
    workers: int = 1,
    progress: Progress | None = None,
) -> dict[str, int]:
    """Write images/, masks/, glands/, images.csv, reports.csv, pathology.csv, truth.jsonl and corpus.json into `out`.

    The bytes depend on the settings alone, not on `workers` (processes). Frames that are there already are rendered
    again: the files are either absent, old or complete. Returns counts. Raises UserError for wrong settings.
    """
    checked = read_settings(settings)
    folder = Path(out)
    tables = _Tables(checked)
    jobs: list[FrameJob] = []
    for patient, frames in patients(checked):
        jobs += tables.add(patient, frames, len(jobs))
    for name in ("images", "masks", "glands"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    chunks = [jobs[i : i + CHUNK] for i in range(0, len(jobs), CHUNK)]
    done = 0
    for count in _map(chunks, folder, checked, workers):
        done += count
        if progress:
            progress({"stage": "simulate", "step": done, "steps": len(jobs)})
    tables.write(folder)
    return {
        "images": len(jobs),
        "annotated": sum(1 for row in tables.images if row["mask_file"]),
        "patients": len({row["patient_id"] for row in tables.images}),
        "reports": len(tables.reports),
        "pathology": len(tables.pathology),
    }


def _map(chunks: list[list[FrameJob]], folder: Path, settings: CorpusSettings, workers: int) -> Iterator[int]:
    arguments = [(chunk, str(folder), settings.size, settings.seed) for chunk in chunks]
    if workers <= 1:
        yield from map(_render_chunk, arguments)
        return
    with ProcessPoolExecutor(workers) as pool:
        yield from pool.map(_render_chunk, arguments)


def _render_chunk(argument: tuple[list[FrameJob], str, int, int]) -> int:
    jobs, folder, size, seed = argument
    for job in jobs:
        frame = render_job(job, size, seed)
        for name, pixels in (
            ("images", frame.image),
            ("masks", frame.mask.astype(np.uint8) * np.uint8(255)),
            ("glands", frame.gland.astype(np.uint8) * np.uint8(255)),
        ):
            with atomic_write(Path(folder) / name / job.file) as temporary:
                temporary.write_bytes(cv2.imencode(".png", pixels, [cv2.IMWRITE_PNG_COMPRESSION, 3])[1].tobytes())
    return len(jobs)


def render_job(job: FrameJob, size: int, seed: int) -> Frame:
    """Render one frame of a corpus; the picture depends on the job, the size and the corpus seed alone."""
    machine = _machine(job.machine)
    rng = np.random.default_rng([seed, FRAMES, job.index])
    return render(job.attributes, job.plane, job.side, rng, size, job.identity, machine)


def _machine(seed: int) -> Machine:
    """The scanner of a visit."""
    return draw_machine(np.random.default_rng([seed, 3]))


class _Tables:
    """Rows of the corpus's tables, collected patient by patient."""

    def __init__(self, settings: CorpusSettings) -> None:
        self.settings = settings
        self.images: list[dict[str, Any]] = []
        self.reports: list[dict[str, Any]] = []
        self.pathology: list[dict[str, Any]] = []
        self.truth: list[dict[str, Any]] = []

    def add(self, patient: Patient, frames: list[tuple[Visit, int]], first: int) -> list[FrameJob]:
        """Add a patient's rows; returns the jobs of the kept frames, whose indices start at `first`."""
        settings = self.settings
        rng = np.random.default_rng([settings.seed, TEXTS, int(patient.patient_id[1:])])
        nodule = patient.nodule
        jobs: list[FrameJob] = []
        for visit in dict.fromkeys(visit for visit, _ in frames):
            planes = [visit.planes[k] for v, k in frames if v is visit]
            report = write_report(patient, visit, planes, settings.languages, settings.stated_fraction, rng)
            self.reports.append(
                {
                    "report_id": f"R-{visit.exam_id}",
                    "patient_id": patient.patient_id,
                    "exam_id": visit.exam_id,
                    "exam_date": visit.date,
                    "sex": patient.sex,
                    "age": patient.age,
                    "findings": report.findings,
                    "impression": report.impression,
                }
            )
            for plane in planes:
                index = first + len(jobs)
                file = f"{index:06d}.png"
                attributes = nodule.attributes | {"sonogram_direction": [plane]}
                jobs.append(FrameJob(index, file, attributes, plane, nodule.side, nodule.identity, visit.machine))
                annotated = rng.uniform() < settings.annotated_fraction
                self.images.append(
                    {
                        "file": f"images/{file}",
                        "patient_id": patient.patient_id,
                        "exam_id": visit.exam_id,
                        "plane": plane,
                        "mm_per_pixel": round(_machine(visit.machine).depth_mm / settings.size, 5),
                        "cohort": patient.cohort,
                        "nodule_location": nodule.side,
                        "mask_file": f"masks/{file}" if annotated else "",
                        "gland_file": f"glands/{file}",
                    }
                )
                self.truth.append(
                    {
                        "file": f"images/{file}",
                        "mask_file": f"masks/{file}",
                        "patient_id": patient.patient_id,
                        "exam_id": visit.exam_id,
                        "cohort": patient.cohort,
                        "label": patient.label,
                        "attributes": attributes,
                        "size_mm": [round(v, 2) for v in nodule.size_mm],
                        "language": report.language,
                        "expected": report.expected,
                    }
                )
        last = frames[-1][0]
        text = pathology_text(patient, settings.languages, rng)
        self.pathology.append({"patient_id": patient.patient_id, "exam_id": last.exam_id, "text": text})
        return jobs

    def write(self, folder: Path) -> None:
        """Write the tables, corpus.json last: a folder with that file is complete."""
        for name, rows in (("images", self.images), ("reports", self.reports), ("pathology", self.pathology)):
            buffer = io.StringIO(newline="")
            columns = list(rows[0]) if rows else ["patient_id"]
            writer = csv.DictWriter(buffer, columns, lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
            with atomic_write(folder / f"{name}.csv") as temporary:
                temporary.write_text(buffer.getvalue(), encoding="utf-8", newline="")
        lines = "".join(json.dumps(row, ensure_ascii=False, sort_keys=True) + "\n" for row in self.truth)
        with atomic_write(folder / "truth.jsonl") as temporary:
            temporary.write_text(lines, encoding="utf-8")
        write_json(folder / "corpus.json", asdict(self.settings))


def uniform_frames(n: int, size: int = 64, seed: int = 0) -> tuple[Array, Array, list[Attributes]]:
    """Frames whose attributes are uniform over visible values: the training set of a judge.

    Returns images uint8 [n, size, size], masks uint8 of 0 and 1 of the same shape, and the attributes of each (keys
    and values that can be seen, see `visible.shown`). Frames are rendered at 256 pixels and reduced by area, as
    training images are. Frame k depends on `seed` and k alone.
    """
    base = kb.load("thyroid")
    images = np.empty((n, size, size), np.uint8)
    masks = np.empty((n, size, size), np.uint8)
    labels: list[Attributes] = []
    for k in range(n):
        rng = np.random.default_rng([seed, UNIFORM, k])
        attributes, side, plane = uniform_attributes(base, rng)
        frame = render(attributes, plane, side, rng, 256)
        images[k] = cv2.resize(frame.image, (size, size), interpolation=cv2.INTER_AREA)
        masks[k] = cv2.resize(frame.mask.astype(np.float32), (size, size), interpolation=cv2.INTER_AREA) >= 0.5
        labels.append({name: [value] for name, value in shown(attributes).items()})
    return images, masks, labels
