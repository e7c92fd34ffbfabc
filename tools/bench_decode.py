#!/usr/bin/env python3
"""Decoding of CT slices in every transfer syntax on one core: ichd, GDCM and pylibjpeg, in turn on the same files.

    pip install -r tools/requirements-decode.txt
    cargo bench --workspace --no-run && cargo build --release
    python tools/bench_decode.py [--slices 12] [--turns 5] [--core N] [--json FILE] [--heads FOLDER]

Files lie in memory. All run on the same core: GDCM starts threads of its own for JPEG 2000, which elsewhere would count as
one. All keep memory that they freed, as the daemon comes to by itself (glibc). Measured is what every reader does: from a
file's bytes to its stored values. ichd's part includes its bounded walk ahead and the rules of admission, the peers' that of
pydicom, which they are read with. All must find the same values.
"""

import argparse
import io
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

import gdcm
import numpy
import pydicom
from pydicom.pixels import get_decoder, pixel_array

from peer_preprocess import bench_program

KINDS = {
    "uncompressed": None,
    "RLE": gdcm.TransferSyntax.RLELossless,
    "JPEG lossless": gdcm.TransferSyntax.JPEGLosslessProcess14_1,
    "JPEG-LS": gdcm.TransferSyntax.JPEGLSLossless,
    "JPEG 2000": gdcm.TransferSyntax.JPEG2000Lossless,
}


# A program that has freed a large block once has glibc keep blocks up to that size; one that does nothing but decode has not,
# and spends up to a twentieth of its time on getting the same pages anew for every slice.
HEAP = {"MALLOC_MMAP_THRESHOLD_": str(32 << 20), "MALLOC_TRIM_THRESHOLD_": str(256 << 20)}


def recode(source, target, kind):
    reader = gdcm.ImageReader()
    reader.SetFileName(str(source))
    change = gdcm.ImageChangeTransferSyntax()
    change.SetTransferSyntax(gdcm.TransferSyntax(kind))
    if not reader.Read():
        raise SystemExit(f"GDCM cannot read {source}")
    change.SetInput(reader.GetImage())
    writer = gdcm.ImageWriter()
    if not change.Change():
        raise SystemExit(f"GDCM cannot recode {source}")
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    writer.SetFileName(str(target))
    if not writer.Write():
        raise SystemExit(f"GDCM cannot write {target}")


def peer(files, plugin):
    begun, total = time.perf_counter(), 0
    arrays = [pixel_array(pydicom.dcmread(io.BytesIO(data)), decoding_plugin=plugin) for data in files]
    rate = len(files) / (time.perf_counter() - begun)
    for array in arrays:
        total += int(array.astype(numpy.int64).sum())
    return rate, total


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ichd", default="target/release/ichd")
    parser.add_argument("--slices", type=int, default=12)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--core", type=int, help="the one that all run on; else the last of those that are allowed")
    parser.add_argument("--heads", type=pathlib.Path, help="folder with slices to take instead of new phantoms")
    parser.add_argument("--json")
    args = parser.parse_args()
    if any(os.environ.get(name) != value for name, value in HEAP.items()):
        # Read when a process starts, so by this one, too.
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | HEAP)
    # Threads and processes that are started from here on stay there, too.
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0)) if args.core is None else args.core})
    program, rows = bench_program("decode"), []
    with tempfile.TemporaryDirectory() as temporary:
        heads = args.heads or pathlib.Path(temporary) / "heads"
        if args.heads is None:
            make = [args.ichd, "phantom", "--out", str(heads), "--studies", "1", "--seed", "12"]
            subprocess.run(make, check=True, stdout=subprocess.DEVNULL)
        slices = sorted(heads.rglob("*.dcm"))
        # From all heights of the head.
        slices = slices[:: max(1, len(slices) // args.slices)][: args.slices]
        for name, kind in KINDS.items():
            folder = pathlib.Path(temporary) / name.replace(" ", "-")
            folder.mkdir()
            paths = [folder / path.name for path in slices]
            for path, target in zip(slices, paths):
                target.write_bytes(path.read_bytes()) if kind is None else recode(path, target, kind)
            files = [path.read_bytes() for path in paths]
            syntax = pydicom.dcmread(paths[0], stop_before_pixels=True).file_meta.TransferSyntaxUID
            plugins = [""] if kind is None else [one for one in get_decoder(syntax).available_plugins if one in ("gdcm", "pylibjpeg")]
            rates = {"ichd": []} | {plugin or "pydicom": [] for plugin in plugins}
            for _ in range(args.turns):
                command = [program, "3", *map(str, paths)]
                text = subprocess.run(command, env=dict(os.environ, RAYON_NUM_THREADS="1"), capture_output=True, text=True, check=True)
                ours = json.loads(text.stdout)
                rates["ichd"].append(ours["median"])
                for plugin in plugins:
                    rate, total = peer(files, plugin)
                    if total != ours["sum"]:
                        raise SystemExit(f"{name}: {plugin or 'pydicom'} finds other values than ichd")
                    rates[plugin or "pydicom"].append(rate)
            medians = {who: statistics.median(all) for who, all in rates.items()}
            rows.append({"syntax": name, "bytes": sum(map(len, files)) / len(files), "medians": medians})
            peers = ", ".join(f"{who} {rate:.0f} ({medians['ichd'] / rate:.2f}x)" for who, rate in medians.items() if who != "ichd")
            print(f"{name:<15} {rows[-1]['bytes'] / 1024:6.0f} KiB: ichd {medians['ichd']:.0f} slices/s; {peers}", flush=True)
    if args.json:
        pathlib.Path(args.json).write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
