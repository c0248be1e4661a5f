"""DICOM: grey levels by the standard's own arithmetic, faults by their codes, nothing personal kept."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kb.errors import UserError
from tests.tigerdata.images.bad_files import texture
from tigerdata.images import dicom
from tigerdata.images.frames import Frame, Refused, read_clean, read_frames
from tigerdata.images.ingest import ingest_images
from tigerdata.rejects import REJECTS
from tigerdata.workspace import Workspace

LEVELS = texture(1)
HEAD = b"\0" * 128 + b"DICM"
NAME, BORN, HOSPITAL = "Wang^Xiaoming", "19610203", "Qinghe Clinic"


def write(path: Path, pixels: np.ndarray = LEVELS, **elements: Any) -> Path:
    """A DICOM file of `pixels` [H, W], [H, W, 3], [N, H, W] or [N, H, W, 3] with much that could name somebody."""
    pydicom = pytest.importorskip("pydicom")
    uid = pydicom.uid
    meta = pydicom.dataset.FileMetaDataset()
    meta.MediaStorageSOPClassUID = uid.UltrasoundImageStorage
    meta.MediaStorageSOPInstanceUID = uid.generate_uid()
    meta.TransferSyntaxUID = elements.pop("syntax", uid.ExplicitVRLittleEndian)
    ds = pydicom.Dataset()
    ds.file_meta = meta
    ds.SOPClassUID, ds.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    ds.PatientName, ds.PatientBirthDate, ds.InstitutionName = NAME, BORN, HOSPITAL
    ds.PatientID, ds.PatientSex, ds.PatientAge = "MRN0001234", "F", "045Y"
    ds.AccessionNumber, ds.StudyInstanceUID = "A77", "1.2.3"
    bits = pixels.dtype.itemsize * 8
    colour = pixels.shape[-1] == 3 and pixels.ndim > 2
    frames = pixels.shape[0] if pixels.ndim == (4 if colour else 3) else 0
    ds.Rows, ds.Columns = pixels.shape[-3:-1] if colour else pixels.shape[-2:]
    if frames:
        ds.NumberOfFrames = frames
    ds.SamplesPerPixel = 3 if colour else 1
    if colour:
        ds.PlanarConfiguration = 0
    ds.PhotometricInterpretation = "RGB" if colour else "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = bits, bits, bits - 1
    ds.PixelRepresentation = int(np.issubdtype(pixels.dtype, np.signedinteger))
    ds.PixelData = pixels.astype(pixels.dtype.newbyteorder("<")).tobytes()
    for name, value in elements.items():
        if value is None:
            delattr(ds, name)
        else:
            setattr(ds, name, value)
    ds.save_as(path, enforce_file_format=True)
    return path


def frames_of(path: Path, **settings: Any) -> list[Frame]:
    return list(read_frames(path, dicom={"every": 1, "exam_id": ["AccessionNumber"], **settings}))


def levels_of(path: Path) -> np.ndarray:
    (frame,) = frames_of(path)
    return frame.levels


def test_without_the_extra_one_sentence_or_one_code(
    ws: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Runs without pydicom too."""
    monkeypatch.setattr(dicom, "available", lambda: False)
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "a.dcm").write_bytes(HEAD + b"\0" * 500)
    with pytest.raises(UserError, match=r"pip install 'tigerdata\[dicom\]'"):
        ingest_images(ws, tmp_path / "set", "dicom")
    result = ingest_images(ws, tmp_path / "set", "imagefolder")
    assert result["rejected_by_code"] == {"DICOM_EXTRA_MISSING": 1}


def test_eight_bits_are_kept_and_monochrome1_is_inverted(tmp_path: Path) -> None:
    np.testing.assert_array_equal(levels_of(write(tmp_path / "a")), LEVELS)
    inverted = write(tmp_path / "b", PhotometricInterpretation="MONOCHROME1")
    np.testing.assert_array_equal(levels_of(inverted), 255 - LEVELS)
    (frame,) = frames_of(inverted)
    assert frame.notes == ("inverted",)


def test_bits_stored_are_the_range_where_there_is_no_window(tmp_path: Path) -> None:
    deep = LEVELS.astype(np.uint16) * 16 + 5
    found = levels_of(write(tmp_path / "a", deep, BitsStored=12, HighBit=11))
    np.testing.assert_array_equal(found, np.rint(deep / 4095 * 255))
    signed = LEVELS.astype(np.int16) * 8 - 1024
    found = levels_of(write(tmp_path / "b", signed, BitsStored=12, HighBit=11))
    np.testing.assert_array_equal(found, np.rint((signed.astype(float) + 2048) / 4095 * 255))


def test_rescale_and_window_follow_the_formula_of_the_standard(tmp_path: Path) -> None:
    """PS3.3 C.11.2.1.2.1: y = ((x - (c - 0.5)) / (w - 1) + 0.5) * (ymax - ymin) + ymin, cut to the range."""
    deep = LEVELS.astype(np.uint16) * 16
    centre, width = 900.0, 700.0
    path = write(
        tmp_path / "a", deep, BitsStored=12, HighBit=11, RescaleSlope=0.5, RescaleIntercept=-10,
        WindowCenter=[centre, 40], WindowWidth=[width, 400],
    )  # fmt: skip
    x = deep * 0.5 - 10
    y = np.clip((x - (centre - 0.5)) / (width - 1) + 0.5, 0, 1) * 255
    assert np.abs(levels_of(path).astype(float) - y).max() <= 0.5 + 1e-6
    assert frames_of(path)[0].notes == ("12 bits to 8", "window")


def test_colour_is_luma_in_every_model(tmp_path: Path) -> None:
    pydicom = pytest.importorskip("pydicom")
    rgb = np.dstack([texture(2), texture(3), texture(4)])
    luma = np.rint(rgb @ [0.299, 0.587, 0.114])
    (frame,) = frames_of(write(tmp_path / "a", rgb))
    assert np.abs(frame.levels - luma).max() <= 1 and frame.rgb is not None
    np.testing.assert_array_equal(frame.rgb, rgb)  # cleaning looks for what is coloured
    assert frames_of(write(tmp_path / "g", np.dstack([rgb[:, :, 0]] * 3)))[0].rgb is None
    ybr = pydicom.pixels.convert_color_space(rgb, "RGB", "YBR_FULL")
    found = levels_of(write(tmp_path / "b", ybr, PhotometricInterpretation="YBR_FULL"))
    assert np.abs(found - luma).max() <= 3
    order = np.random.default_rng(0).permutation(256).astype(np.uint8)
    lut = {
        f"{name}PaletteColorLookupTable{part}": value
        for name in ("Red", "Green", "Blue")
        for part, value in (("Descriptor", [256, 0, 8]), ("Data", order.tobytes()))
    }
    found = levels_of(write(tmp_path / "c", PhotometricInterpretation="PALETTE COLOR", **lut))
    np.testing.assert_array_equal(found, order[LEVELS])


@pytest.mark.parametrize("syntax", ["RLELossless", "JPEGLSLossless", "JPEG2000Lossless"])
def test_compressed_pixels_are_read_with_the_codecs_of_the_extra(tmp_path: Path, syntax: str) -> None:
    pydicom = pytest.importorskip("pydicom")
    pytest.importorskip("pylibjpeg")
    path = write(tmp_path / "a")
    ds = pydicom.dcmread(path)
    ds.compress(getattr(pydicom.uid, syntax))
    ds.save_as(tmp_path / "b")
    np.testing.assert_array_equal(levels_of(tmp_path / "b"), LEVELS)


def test_jpeg_in_dicom_is_near_the_original(tmp_path: Path) -> None:
    pydicom = pytest.importorskip("pydicom")
    pytest.importorskip("pylibjpeg")
    cv2 = pytest.importorskip("cv2")
    smooth = cv2.GaussianBlur(LEVELS, (0, 0), 3)
    jpeg = cv2.imencode(".jpg", smooth, [cv2.IMWRITE_JPEG_QUALITY, 98])[1].tobytes()
    path = write(
        tmp_path / "a", smooth, syntax=pydicom.uid.JPEGBaseline8Bit, PixelData=pydicom.encaps.encapsulate([jpeg])
    )
    assert np.abs(levels_of(path).astype(int) - smooth).max() <= 3


def test_each_frame_or_every_nth(tmp_path: Path) -> None:
    loop = np.stack([texture(k) for k in range(7)])
    loop[2] = 9  # a blank frame says nothing
    path = write(tmp_path / "a", loop)
    assert [f.number for f in frames_of(path)] == [0, 1, 3, 4, 5, 6]
    found = frames_of(path, every=3)
    assert [f.number for f in found] == [0, 3, 6]
    for frame in found:
        np.testing.assert_array_equal(frame.levels, loop[frame.number])
    with pytest.raises(Refused, match="CONSTANT_IMAGE"):
        frames_of(write(tmp_path / "b", np.full((3, 48, 64), 7, np.uint8)))


def area(x0: int, y0: int, x1: int, y1: int, form: int = 1, kind: int = 1) -> Any:
    ds = pytest.importorskip("pydicom").Dataset()
    ds.RegionLocationMinX0, ds.RegionLocationMinY0, ds.RegionLocationMaxX1, ds.RegionLocationMaxY1 = x0, y0, x1, y1
    ds.RegionSpatialFormat, ds.RegionDataType = form, kind
    return ds


def test_stated_regions_are_offered_and_used_to_crop(ws: Workspace, tmp_path: Path) -> None:
    two = [
        area(33, 4, 63, 40), area(0, 4, 29, 40), area(5, 10, 20, 30, kind=2), area(0, 41, 63, 47, form=3, kind=0x12),
    ]  # fmt: skip
    (tmp_path / "set").mkdir()
    path = write(tmp_path / "set" / "a.dcm", SequenceOfUltrasoundRegions=two)
    assert frames_of(path)[0].boxes == ((0, 4, 30, 41), (33, 4, 64, 41))
    result = ingest_images(ws, tmp_path / "set", "dicom")
    assert (result["images"], result["panels_split"]) == (2, 1)
    with ws.connect(read_only=True) as con:
        found = con.execute("SELECT image_id FROM images ORDER BY width").fetchall()
    np.testing.assert_array_equal(read_clean(ws, found[0][0]), LEVELS[4:41, 0:30])
    np.testing.assert_array_equal(read_clean(ws, found[1][0]), LEVELS[4:41, 33:64])
    beyond = write(tmp_path / "b", SequenceOfUltrasoundRegions=[area(0, 10, 900, 30)])
    assert frames_of(beyond)[0].boxes == ((0, 10, 64, 31),)


@pytest.mark.parametrize(
    "sides, spacing, side",
    [
        ([(0.01, 0.01)], None, 0.1),  # centimetres
        ([(0.01, 0.01)], [0.3, 0.3], 0.1),  # the areas go before the spacing
        ([], [0.3, 0.3], 0.3),
        ([], [0.3, 0.2], None),  # no squares
        ([(0.01, 0.01), (0.02, 0.02)], None, None),  # two depths
        ([], [5, 5], None),  # no ultrasound
        ([], None, None),
    ],
)
def test_the_side_of_a_pixel_is_what_the_header_says(
    ws: Workspace, tmp_path: Path, sides: list[tuple[float, float]], spacing: list[float] | None, side: float | None
) -> None:
    areas = [area(0, 4, 29, 40), area(33, 4, 63, 40)][: len(sides)]
    for ds, (x, y) in zip(areas, sides, strict=True):
        ds.PhysicalUnitsXDirection = ds.PhysicalUnitsYDirection = 3
        ds.PhysicalDeltaX, ds.PhysicalDeltaY = x, -y  # upwards
    stated = ({"SequenceOfUltrasoundRegions": areas} if areas else {}) | ({"PixelSpacing": spacing} if spacing else {})
    (tmp_path / "set").mkdir()
    write(tmp_path / "set" / "a.dcm", **stated)
    ingest_images(ws, tmp_path / "set", "dicom")
    with ws.connect(read_only=True) as con:
        found = [row[0] for row in con.execute("SELECT mm_per_pixel FROM images").fetchall()]
    assert found == [side if side is None else pytest.approx(side)] * max(1, len(sides))


def film_bytes(path: Path) -> None:
    pydicom = pytest.importorskip("pydicom")
    write(path, syntax="1.2.840.10008.1.2.4.102", PixelData=pydicom.encaps.encapsulate([b"\0" * 64]))


FAULTS: dict[str, tuple[str, Any]] = {
    "cut": ("TRUNCATED_IMAGE", lambda p: p.write_bytes(write(p).read_bytes()[:-500])),
    "head only": ("NO_PIXEL_DATA", lambda p: p.write_bytes(HEAD + b"\x02\x00\x00\x00UL")),
    "noise": ("NO_PIXEL_DATA", lambda p: p.write_bytes(HEAD + texture(9).tobytes())),
    "no pixels": ("NO_PIXEL_DATA", lambda p: write(p, PixelData=None)),
    "no rows": ("DICOM_HEADER", lambda p: write(p, Rows=None)),
    "no model": ("DICOM_HEADER", lambda p: write(p, PhotometricInterpretation=None)),
    "too many frames": ("TRUNCATED_IMAGE", lambda p: write(p, NumberOfFrames=9999)),
    "bomb": ("TOO_LARGE", lambda p: write(p, Rows=20000, Columns=20000)),
    "other model": ("UNSUPPORTED_COLOUR", lambda p: write(p, PhotometricInterpretation="HSV")),
    "film": ("CODEC_MISSING", film_bytes),
    "constant": ("CONSTANT_IMAGE", lambda p: write(p, np.zeros((48, 64), np.uint8))),
    "small": ("TOO_SMALL", lambda p: write(p, LEVELS[:4])),
}


def test_faulty_files_are_refused_with_their_codes_and_the_rest_goes_on(ws: Workspace, tmp_path: Path) -> None:
    root = tmp_path / "set"
    root.mkdir()
    for name, (_, make) in FAULTS.items():
        make(root / name)
    (root / "DICOMDIR").write_bytes(HEAD)
    (root / "readme.txt").write_text("no image")
    write(root / "good")
    result = ingest_images(ws, root, "dicom")
    codes = {row["where"]: row["code"] for row in result["rejected"]}
    assert codes == {name: code for name, (code, _) in FAULTS.items()} | {"readme.txt": "UNSUPPORTED_FORMAT"}
    assert (result["files"], result["taken"]) == (len(FAULTS) + 2, 1)
    listed = (ws.path / REJECTS).read_text(encoding="utf-8")
    assert NAME not in listed and "MRN" not in listed


def test_a_codec_that_is_not_there_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pydicom = pytest.importorskip("pydicom")

    class Missing:
        is_available = False

    monkeypatch.setattr(pydicom.pixels, "get_decoder", lambda syntax: Missing())
    with pytest.raises(Refused, match="CODEC_MISSING"):
        frames_of(write(tmp_path / "a"))


def test_a_damaged_late_frame_takes_the_file_back(ws: Workspace, tmp_path: Path) -> None:
    pydicom = pytest.importorskip("pydicom")
    cv2 = pytest.importorskip("cv2")
    pytest.importorskip("pylibjpeg")
    good = cv2.imencode(".jpg", LEVELS)[1].tobytes()
    data = pydicom.encaps.encapsulate([good, good, b"\xff\xd8\xff" + b"\0" * 31])
    root = tmp_path / "set"
    root.mkdir()
    write(root / "a", syntax=pydicom.uid.JPEGBaseline8Bit, NumberOfFrames=3, PixelData=data)
    result = ingest_images(ws, root, "dicom")
    assert result["rejected_by_code"] == {"TRUNCATED_IMAGE": 1} and not list((ws.path / "images").iterdir())


def test_only_pseudonyms_sex_and_age_are_kept(tmp_path: Path) -> None:
    ws = Workspace.create(tmp_path / "ws")  # keyed
    root = tmp_path / "set"
    root.mkdir()
    write(root / "a.dcm", BurnedInAnnotation="YES")
    write(root / "b.dcm", texture(5), BurnedInAnnotation="NO", PatientAge="102Y", PatientID="Q", AccessionNumber="")
    result = ingest_images(ws, root, "dicom")
    assert result["burned_in_text_stated"] == 1
    assert result["rejected"] == [{"where": "a.dcm", "code": "BURNED_IN_TEXT"}]  # noise: there is nothing to mask
    with ws.connect(read_only=True) as con:
        images = con.execute("SELECT patient_id, exam_id, burned_in FROM images ORDER BY path").fetchall()
        patients = con.execute("SELECT sex, age FROM patients ORDER BY age").fetchall()
        names = [row[0] for row in con.execute("SELECT table_name FROM duckdb_tables()").fetchall()]
        everything = "".join(str(con.execute(f'FROM "{name}"').fetchall()) for name in names)
    from tigerdata.identity import pseudonyms

    known = pseudonyms(ws)
    assert images == [
        (known.of("patient", "MRN0001234"), known.of("exam", "A77"), True),
        (known.of("patient", "Q"), known.of("exam", "1.2.3"), False),
    ]
    assert patients == [("female", 45.0), ("female", 90.0)]
    for secret in ("Wang", "MRN0001234", BORN, "Qinghe", "A77", "1.2.3"):
        assert secret not in everything
        assert all(secret.encode() not in p.read_bytes() for p in (ws.path / "images").iterdir())


def test_a_table_comes_before_the_header(ws: Workspace, tmp_path: Path) -> None:
    write(tmp_path / "a.dcm")
    (tmp_path / "images.csv").write_text("file,patient_id,report_id\na.dcm,P5,R5\n", encoding="utf-8")
    ingest_images(ws, tmp_path)
    with ws.connect(read_only=True) as con:
        assert con.execute("SELECT patient_id, exam_id, report_id, frame FROM images").fetchall() == [
            ("P5", "A77", "R5", 0)
        ]
