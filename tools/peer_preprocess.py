#!/usr/bin/env python3
"""Windowing and resizing on the CPU: ichd and what Python has, in turn on the same cores.

    pip install -r tools/requirements-peers.txt
    cargo bench --workspace --no-run
    python tools/peer_preprocess.py [--threads 2] [--sides 224 299 300] [--json FILE] [--dicom DIR]

From stored pixels in memory (512 x 512, 16 bit) to three windows of 224, 299 and 300 pixels, f32, batches of 1, 32 and 256.
Peers: numpy with OpenCV (INTER_AREA, its way of antialiasing), PyTorch (bilinear, antialias=True: what ichd computes),
and numba's fused windowing without any resize. Both Python ways are tried with their own threads and with two workers of
one thread each; the better one counts. numpy asks the system for huge pages; glibc is told to do so for ichd. Every case is run in turns, medians are compared. `--dicom DIR` adds pydicom's
reading of uncompressed files, for scale.
"""

import argparse
import glob
import json
import os
import pathlib
import statistics
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor

import cv2
import numba
import numpy as np
import torch

ROOT = pathlib.Path(__file__).resolve().parent.parent
WINDOWS = [(40, 80), (80, 200), (40, 380)]
LOW = np.array([level - width / 2 for level, width in WINDOWS], np.float32)
SCALE = np.array([1 / width for _, width in WINDOWS], np.float32)
MEAN = np.array([0.485, 0.456, 0.406], np.float32)
STD = np.array([0.229, 0.224, 0.225], np.float32)
INTERCEPT = -1024.0


def pixels(batch):
    values = np.arange(batch * 512 * 512, dtype=np.uint32) * np.uint32(2_654_435_761) >> 21
    return values.astype(np.int16).reshape(batch, 512, 512)


def opencv(slice_, side):
    hu = slice_.astype(np.float32)
    np.add(hu, np.float32(INTERCEPT), out=hu)
    out, plane = np.empty((side, side, 3), np.float32), np.empty_like(hu)
    for c in range(3):
        np.subtract(hu, LOW[c], out=plane)
        np.multiply(plane, SCALE[c], out=plane)
        np.clip(plane, 0, 1, out=plane)
        small = cv2.resize(plane, (side, side), interpolation=cv2.INTER_AREA)
        np.subtract(small, MEAN[c], out=small)
        np.divide(small, STD[c], out=out[:, :, c])
    return out


def pytorch(slices, side):
    hu = torch.from_numpy(slices).float().add_(INTERCEPT)
    low, scale, mean, std = (torch.from_numpy(v)[:, None, None] for v in (LOW, SCALE, MEAN, STD))
    x = ((hu[:, None] - low) * scale).clamp_(0, 1)
    x = torch.nn.functional.interpolate(x, (side, side), mode="bilinear", antialias=True, align_corners=False)
    return x.sub_(mean).div_(std)


@numba.njit(parallel=True, fastmath=True)
def fused(slices, out, low, scale):
    n, rows, columns = slices.shape
    for at in numba.prange(n * rows):
        image, row = at // rows, at % rows
        for column in range(columns):
            hu = np.float32(slices[image, row, column]) + np.float32(-1024)
            for c in range(3):
                value = (hu - low[c]) * scale[c]
                out[image, c, row, column] = min(max(value, np.float32(0)), np.float32(1))


def rate(batch, work):
    begun = time.perf_counter()
    work()
    return batch / (time.perf_counter() - begun)


def peers(batch, side, threads, pool):
    """Name -> function that does the batch once."""
    slices = pixels(batch)
    parts = np.array_split(slices, threads)
    windowed = np.empty((batch, 3, 512, 512), np.float32)

    def with_workers(work):
        def run():
            cv2.setNumThreads(1)
            torch.set_num_threads(1)
            list(pool.map(work, parts))
        return run

    def with_own_threads(work):
        def run():
            cv2.setNumThreads(threads)
            torch.set_num_threads(threads)
            work(slices)
        return run

    each = lambda part: [opencv(slice_, side) for slice_ in part]
    blocks = lambda part: [pytorch(part[at:at + 8], side) for at in range(0, len(part), 8)]
    return {
        "numpy + OpenCV": [with_own_threads(each)] + ([with_workers(each)] if batch > 1 else []),
        "PyTorch": [with_own_threads(blocks)] + ([with_workers(blocks)] if batch > 1 else []),
        "numba, no resize": [lambda: fused(slices, windowed, LOW, SCALE)],
    }


def bench_program(name):
    found = [p for p in glob.glob(str(target() / "release" / "deps" / f"{name}-*")) if os.access(p, os.X_OK)]
    if not found:
        raise SystemExit("build the benchmarks first: cargo bench --workspace --no-run")
    return max(found, key=os.path.getmtime)


def target():
    text = subprocess.run(["cargo", "metadata", "--no-deps", "--format-version", "1"], cwd=ROOT, capture_output=True, text=True, check=True)
    return pathlib.Path(json.loads(text.stdout)["target_directory"])


def main():
    args = argparse.ArgumentParser()
    args.add_argument("--threads", type=int, default=os.cpu_count())
    args.add_argument("--turns", type=int, default=7)
    args.add_argument("--sides", type=int, nargs="+", default=[224, 299, 300])
    args.add_argument("--json")
    args.add_argument("--dicom")
    args = args.parse_args()
    program = bench_program("window")
    numba.set_num_threads(args.threads)
    environment = dict(os.environ, RAYON_NUM_THREADS=str(args.threads), GLIBC_TUNABLES="glibc.malloc.hugetlb=1")
    rows = []
    with ThreadPoolExecutor(args.threads) as pool:
        for side in args.sides:
            for batch in (1, 32, 256):
                found = {"ichd": []}
                ways = peers(batch, side, args.threads, pool)
                for runs in ways.values():
                    for run in runs:
                        run()
                for _ in range(args.turns):
                    text = subprocess.run([program, str(batch), str(side), "25" if batch == 1 else "5"], env=environment, capture_output=True, text=True, check=True)
                    found["ichd"].append(json.loads(text.stdout)["median"])
                    for name, runs in ways.items():
                        repeats = max(1, 8 // batch)
                        best = max(rate(batch * repeats, lambda: [run() for _ in range(repeats)]) for run in runs)
                        found.setdefault(name, []).append(best)
                medians = {name: statistics.median(values) for name, values in found.items()}
                row = {"side": side, "batch": batch, **medians}
                rows.append(row)
                ratios = "  ".join(f"{name} {value:.0f} ({medians['ichd'] / value:.1f}x)" for name, value in medians.items() if name != "ichd")
                print(f"{side:4} batch {batch:3}: ichd {medians['ichd']:.0f} slices/s  {ratios}", flush=True)
    if args.dicom:
        import pydicom

        files = sorted(glob.glob(os.path.join(args.dicom, "**", "*.dcm"), recursive=True))
        speed = rate(len(files), lambda: [pydicom.dcmread(path).pixel_array for path in files])
        print(f"pydicom alone reads {speed:.0f} files/s on one thread")
    if args.json:
        pathlib.Path(args.json).write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
