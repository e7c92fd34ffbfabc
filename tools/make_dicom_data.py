"""Makes tests/data/dicom: one small phantom slice in every transfer syntax and storage form that the daemon reads.

expected.csv holds what a reader must find. Stored values come from the phantom itself, and each lossless file is read
back with pydicom and compared with it; values of lossy files come from pydicom. Needs requirements-dicom.txt, DCMTK
(dcmcjpeg, dcmcjpls, dcmcrle, dcmconv) and GDCM (gdcmconv). Never needed to build, test or run.

    python tools/make_dicom_data.py [FOLDER]
"""

import csv
import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.uid import (
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    EnhancedCTImageStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
)

ROWS, COLUMNS = 48, 40
ROOT = "1.2.826.0.1.3680043.8.498.31415926"
PADDING = -2000


def phantom():
    """HU of a head-like slice: air, skull, brain, a bright lens and a dense clip; deterministic."""
    y, x = np.mgrid[0:ROWS, 0:COLUMNS]
    radius = np.hypot((y - 23.5) / 22, (x - 19.5) / 18)
    hu = np.full((ROWS, COLUMNS), -1000, np.int32)
    hu[radius < 1.0] = 1200
    hu[radius < 0.88] = 34
    hu[np.hypot(y - 23, x - 19) < 4] = 6
    hu[np.hypot(y - 14, x - 28) < 4] = 68
    hu += np.random.default_rng(20190901).integers(-6, 7, hu.shape)
    hu[10:12, 10:12] = 3071
    hu[2, 3] = -1024
    return hu


def base(stored, *, signed, bits, intercept, high_bit=None, transfer_syntax=ExplicitVRLittleEndian):
    """A CT slice with the given stored values."""
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = transfer_syntax
    ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    ds.SOPClassUID = CTImageStorage
    ds.SOPInstanceUID = f"{ROOT}.3"
    ds.Modality = "CT"
    ds.SliceThickness = "5.0"
    ds.StudyInstanceUID = f"{ROOT}.1"
    ds.SeriesInstanceUID = f"{ROOT}.2"
    ds.InstanceNumber = "7"
    ds.ImagePositionPatient = ["-10.5", "-20.25", "33.5"]
    ds.ImageOrientationPatient = ["1", "0", "0", "0", "1", "0"]
    ds.SamplesPerPixel = 1
    ds.PhotometricInterpretation = "MONOCHROME2"
    ds.Rows, ds.Columns = ROWS, COLUMNS
    ds.PixelSpacing = ["0.5", "0.75"]
    ds.BitsAllocated = 8 if bits == 8 else 16
    ds.BitsStored = bits
    ds.HighBit = bits - 1 if high_bit is None else high_bit
    ds.PixelRepresentation = int(signed)
    ds.WindowCenter, ds.WindowWidth = "40", "80"
    ds.RescaleIntercept = str(intercept)
    ds.RescaleSlope = "1"
    ds.RescaleType = "HU"
    set_cells(ds, stored)
    return ds


def set_cells(ds, cells, dtype=None):
    little = dtype or ("u1" if ds.BitsAllocated == 8 else "<i2" if ds.PixelRepresentation else "<u2")
    big = ds.file_meta.TransferSyntaxUID == ExplicitVRBigEndian
    ds.PixelData = np.asarray(cells).astype(little.replace("<", ">") if big else little).tobytes()
    ds["PixelData"].VR = "OB" if ds.BitsAllocated == 8 else "OW"


class Maker:
    def __init__(self, folder):
        self.folder = folder
        self.rows = []
        for old in folder.glob("*.dcm"):
            old.unlink()

    def path(self, name):
        return self.folder / f"{name}.dcm"

    def write(self, name, ds):
        implicit = ds.file_meta.TransferSyntaxUID == ImplicitVRLittleEndian
        little = ds.file_meta.TransferSyntaxUID != ExplicitVRBigEndian
        ds.file_meta.MediaStorageSOPClassUID = getattr(ds, "SOPClassUID", CTImageStorage)
        ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
        ds.save_as(self.path(name), enforce_file_format=True, implicit_vr=implicit, little_endian=little)
        return self.path(name)

    def tool(self, name, source, *command):
        program, *options = command
        places = ["-i", str(source), "-o", str(self.path(name))] if program == "gdcmconv" else [str(source), str(self.path(name))]
        subprocess.run([program, *options, *places], check=True, capture_output=True)
        return self.path(name)

    def expect(self, name, stored, *, slope=1.0, intercept=0.0, frame=0, hu=None, tolerance=0, warnings=""):
        """One line: stored values as the daemon must hold them, and their HU."""
        stored = np.asarray(stored)
        hu = stored * slope + intercept if hu is None else hu
        signed = stored.dtype.kind == "i"
        digest = hashlib.sha256(stored.astype("<i2" if signed else "<u2").tobytes()).hexdigest()
        syntax = pydicom.dcmread(self.path(name), stop_before_pixels=True).file_meta.TransferSyntaxUID
        rows, columns = stored.shape
        figures = [f"{value:.6f}" for value in (hu.min(), hu.max(), hu.mean(), hu[rows // 2, columns // 2])]
        self.rows.append([f"{name}.dcm", frame, str(syntax), rows, columns, int(signed), digest, *figures, tolerance, warnings])

    def finish(self):
        head = "file frame transfer_syntax rows columns signed stored_sha256 hu_min hu_max hu_mean hu_centre tolerance warnings"
        with open(self.folder / "expected.csv", "w", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(head.split())
            writer.writerows(self.rows)


def encodings(maker, kind, source, stored, intercept):
    """Every lossless and lossy encoding of one native file."""
    lossless = {
        "rle": ["dcmcrle"],
        "jpeg_lossless_sv1": ["dcmcjpeg", "+e1", "+un"],
        **{f"jpeg_lossless_sv{n}": ["dcmcjpeg", "+el", "+sv", str(n), "+un"] for n in range(2, 8) if kind == "signed16" or n == 6},
        "jpegls_lossless": ["dcmcjpls", "+el", "+un"],
        "jpegls_lossless_gdcm": ["gdcmconv", "-L"],
        "j2k_lossless": ["gdcmconv", "-K"],
    }
    for word, command in lossless.items():
        name = f"{kind}_{word}"
        back = pydicom.dcmread(maker.tool(name, source, *command)).pixel_array
        if not np.array_equal(back, stored):
            raise SystemExit(f"{name}: {command} is not lossless: {np.abs(back.astype(int) - stored).max()}")
        maker.expect(name, stored, intercept=intercept)
    lossy = {
        "jpegls_near": (["gdcmconv", "-L", "-Y", "-e", "3"], 0),
        "j2k_lossy": (["gdcmconv", "-K", "-Y", "--irreversible", "-r", "4"], 1),
    }
    if kind == "unsigned12":
        lossy["jpegls_near_dcmtk"] = (["dcmcjpls", "+en", "+md", "3", "+un"], 0)
        lossy["jpeg_extended"] = (["dcmcjpeg", "+ee", "+bt", "+un", "+q", "95"], 1)
        lossy["jpeg_baseline"] = (["dcmcjpeg", "+eb", "+un", "+q", "95"], 1)
    for word, (command, tolerance) in lossy.items():
        name = f"{kind}_{word}"
        ds = pydicom.dcmread(maker.tool(name, source, *command))
        # GDCM gives lossy files a UID by chance; the same bytes shall come out every time.
        ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = f"{ROOT}.5"
        ds.save_as(maker.path(name))
        # Overshoot past the stored bits stops at the end of their range.
        back = ds.pixel_array if kind == "signed16" else ds.pixel_array.clip(0, 2**ds.BitsStored - 1)
        worst = np.abs(back * float(ds.RescaleSlope) + float(ds.RescaleIntercept) - stored - intercept).max()
        print(f"{name}: off by at most {worst:.2f} HU")
        slope, offset = float(ds.RescaleSlope), float(ds.RescaleIntercept)
        maker.expect(name, back, slope=slope, intercept=offset, tolerance=tolerance, warnings="lossy-compression")


def enhanced(hu):
    """Three frames: shared orientation and spacing, own positions, own rescale in the last two."""
    frames = [np.roll(hu, shift, axis=0) for shift in (0, 5, 9)]
    rescale = [(1.0, -1024.0), (0.5, -1024.0), (2.0, 10.0)]
    stored = [np.round((frame - b) / a).astype(np.int16) for frame, (a, b) in zip(frames, rescale)]
    ds = base(np.stack(stored), signed=True, bits=16, intercept=0)
    ds.SOPClassUID = EnhancedCTImageStorage
    ds.SOPInstanceUID = f"{ROOT}.4"
    ds.ImageType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    ds.NumberOfFrames = "3"
    names = "ImagePositionPatient ImageOrientationPatient PixelSpacing SliceThickness RescaleIntercept RescaleSlope RescaleType"
    for keyword in names.split():
        delattr(ds, keyword)

    def group(**values):
        item = Dataset()
        for keyword, value in values.items():
            setattr(item, keyword, value)
        return Sequence([item])

    shared = Dataset()
    shared.PlaneOrientationSequence = group(ImageOrientationPatient=["1", "0", "0", "0", "0.9", "-0.4"])
    shared.PixelMeasuresSequence = group(PixelSpacing=["0.5", "0.75"], SliceThickness="2.5")
    shared.CTAcquisitionDetailsSequence = group(GantryDetectorTilt=12.5)
    shared.PixelValueTransformationSequence = group(RescaleIntercept="-1024", RescaleSlope="1", RescaleType="HU")
    ds.SharedFunctionalGroupsSequence = Sequence([shared])
    own = []
    for index, (slope, intercept) in enumerate(rescale):
        item = Dataset()
        item.PlanePositionSequence = group(ImagePositionPatient=["0", "0", str(2.5 * index)])
        item.CTImageFrameTypeSequence = group(FrameType=["ORIGINAL", "PRIMARY", "VOLUME", "NONE"])
        if index > 0:
            item.PixelValueTransformationSequence = group(
                RescaleIntercept=str(intercept), RescaleSlope=str(slope), RescaleType="HU"
            )
        own.append(item)
    ds.PerFrameFunctionalGroupsSequence = Sequence(own)
    return ds, stored, rescale


def make_enhanced(maker, hu):
    ds, stored, rescale = enhanced(hu)
    source = maker.write("enhanced_native", ds)
    names = ["enhanced_native"]
    maker.tool("enhanced_rle", source, "dcmcrle")
    maker.tool("enhanced_jpeg_lossless_fragmented", source, "dcmcjpeg", "+e1", "+un", "+fs", "1")
    names += ["enhanced_rle", "enhanced_jpeg_lossless_fragmented"]
    # The same fragments without an offset table.
    again = pydicom.dcmread(maker.path("enhanced_jpeg_lossless_fragmented"))
    frames = list(pydicom.encaps.generate_frames(again.PixelData, number_of_frames=3))
    again.PixelData = encapsulate(frames, fragments_per_frame=2, has_bot=False)
    again.save_as(maker.path("enhanced_jpeg_lossless_no_table"))
    names.append("enhanced_jpeg_lossless_no_table")
    ds.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    maker.write("enhanced_implicit", ds)
    names.append("enhanced_implicit")
    for name in names:
        back = pydicom.dcmread(maker.path(name)).pixel_array
        assert all(np.array_equal(a, b) for a, b in zip(back, stored)), name
        for index, (frame, (slope, intercept)) in enumerate(zip(stored, rescale)):
            maker.expect(name, frame, slope=slope, intercept=intercept, frame=index + 1, warnings="gantry-tilt")


def make_odd_forms(maker, hu):
    """Storage forms apart from transfer syntaxes. HU are those of the phantom in all of them but the 8-bit one."""
    unsigned = (hu + 1024).astype(np.uint16)
    kind = dict(signed=False, bits=12, intercept=-1024)

    ds = base(4095 - unsigned, **kind)
    ds.PhotometricInterpretation = "MONOCHROME1"
    maker.write("monochrome1", ds)
    maker.expect("monochrome1", (4095 - unsigned).astype(np.uint16), hu=hu)

    overlay = np.indices(hu.shape).sum(axis=0) % 2
    ds = base(unsigned, **kind)
    set_cells(ds, unsigned | overlay << 12 | overlay << 15)
    maker.write("overlay_bits_above", ds)
    maker.expect("overlay_bits_above", unsigned, intercept=-1024)

    ds = base(unsigned, high_bit=15, **kind)
    set_cells(ds, unsigned << 4 | overlay)
    maker.write("high_bit_15_of_12", ds)
    maker.expect("high_bit_15_of_12", unsigned, intercept=-1024)

    centred = (hu - 1024).clip(-2048, 2047).astype(np.int16)
    ds = base(centred, signed=True, bits=12, intercept=1024)
    set_cells(ds, centred & 0xFFF, "<u2")
    maker.write("signed12_zero_above", ds)
    maker.expect("signed12_zero_above", centred, intercept=1024)

    # Such files hold nothing below -1000 HU: it would come out as metal.
    wrapped = (hu.clip(-1000, 3071) & 0xFFF).astype(np.uint16)
    maker.write("wrapped12", base(wrapped, signed=False, bits=12, intercept=0))
    repaired = ((wrapped + 1000) & 0xFFF).astype(np.uint16)
    maker.expect("wrapped12", repaired, intercept=-1000, warnings="wrap-12bit-repaired")

    byte = ((hu + 1024) // 16).clip(0, 255).astype(np.uint8)
    ds = base(byte, signed=False, bits=8, intercept=-1024)
    ds.RescaleSlope = "16"
    maker.write("unsigned8", ds)
    maker.expect("unsigned8", byte.astype(np.uint16), slope=16.0, intercept=-1024)

    ds = base(hu.astype(np.int16), signed=True, bits=16, intercept=0)
    for keyword in ("RescaleSlope", "RescaleIntercept", "RescaleType"):
        delattr(ds, keyword)
    ds.GantryDetectorTilt = "-17.5"
    maker.write("no_rescale_tilted", ds)
    maker.expect("no_rescale_tilted", hu.astype(np.int16), warnings="gantry-tilt")


def make_rsna(maker, padded):
    """The element set of the RSNA 2019 files: no SOP class, no legal UID, windows stored twice."""
    ds = base(padded, signed=True, bits=16, intercept=-1024, transfer_syntax=ImplicitVRLittleEndian)
    for keyword in ("SOPClassUID", "InstanceNumber", "ImageType", "SliceThickness", "RescaleType"):
        delattr(ds, keyword)
    pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
    pydicom.config.settings.writing_validation_mode = pydicom.config.IGNORE
    ds.SOPInstanceUID = "ID_0123456ab"
    ds.StudyInstanceUID = "ID_1123456ab"
    ds.SeriesInstanceUID = "ID_2123456ab"
    ds.WindowCenter, ds.WindowWidth = ["00036", "00036"], ["00080", "00080"]
    maker.write("rsna_style", ds)
    maker.expect("rsna_style", padded, intercept=-1024)


def main():
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parents[1] / "tests/data/dicom")
    folder.mkdir(parents=True, exist_ok=True)
    maker = Maker(folder)
    hu = phantom()
    padded = (hu + 1024).astype(np.int16)
    y, x = np.mgrid[0:ROWS, 0:COLUMNS]
    padded[np.hypot((y - 23.5) / 27, (x - 19.5) / 22) > 1] = PADDING
    signed = dict(signed=True, bits=16, intercept=-1024)

    ds = base(padded, **signed)
    ds.PixelPaddingValue = PADDING
    source = maker.write("signed16_explicit_le", ds)
    maker.expect("signed16_explicit_le", padded, intercept=-1024)
    encodings(maker, "signed16", source, padded, -1024)
    for word, uid in [
        ("implicit_le", ImplicitVRLittleEndian),
        ("explicit_be", ExplicitVRBigEndian),
        ("deflated", DeflatedExplicitVRLittleEndian),
    ]:
        ds = base(padded, transfer_syntax=uid, **signed)
        ds.PixelPaddingValue = PADDING
        maker.write(f"signed16_{word}", ds)
        maker.expect(f"signed16_{word}", padded, intercept=-1024)
    ds = base(padded, **signed)
    ds.PixelPaddingValue, ds.PixelPaddingRangeLimit = PADDING, -1900
    ds["PixelPaddingRangeLimit"].VR = "SS"
    maker.write("signed16_padding_range", ds)
    maker.expect("signed16_padding_range", padded, intercept=-1024)
    # Sequences without lengths, as dcmconv writes them.
    maker.tool("signed16_undefined_lengths", source, "dcmconv", "-e", "+te")
    maker.expect("signed16_undefined_lengths", padded, intercept=-1024)

    unsigned = (hu + 1024).astype(np.uint16)
    source = maker.write("unsigned12_explicit_le", base(unsigned, signed=False, bits=12, intercept=-1024))
    maker.expect("unsigned12_explicit_le", unsigned, intercept=-1024)
    encodings(maker, "unsigned12", source, unsigned, -1024)

    make_odd_forms(maker, hu)
    make_enhanced(maker, hu)
    make_rsna(maker, padded)
    maker.finish()


if __name__ == "__main__":
    main()
