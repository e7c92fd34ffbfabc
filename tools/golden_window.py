#!/usr/bin/env python3
"""Makes kernels/tests/golden/window.json with torchvision: windowed slices, resized with antialias=True, normalized.

    pip install -r tools/requirements-golden.txt
    python tools/golden_window.py
"""

import json
import pathlib

import numpy as np
import torch
import torchvision
from torchvision.transforms.v2 import functional as F

ROOT = pathlib.Path(__file__).resolve().parent.parent
WINDOWS = [(40, 80), (80, 200), (40, 380)]
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
# rows, columns, side, slope, intercept
CASES = [(37, 53, 24, 1.0, -1024.0), (20, 16, 21, 1.0, -1024.0), (31, 31, 31, 2.0002442, -4047.0), (96, 80, 7, 0.5, -600.0)]


def main():
    rng = np.random.Generator(np.random.PCG64(2019))
    cases = []
    for rows, columns, side, slope, intercept in CASES:
        # Smooth shapes across the windows, with noise, as a slice has.
        y, x = np.mgrid[0:rows, 0:columns]
        hu = 60 * np.sin(x / 5.1) * np.cos(y / 3.7) + 40 + rng.normal(0, 60, (rows, columns)) - 900 * ((x + y) % 11 == 0)
        stored = np.round((hu - intercept) / slope).astype(np.int64).clip(0, 32767)
        outputs = {}
        for name, dtype in (("f32", torch.float32), ("f64", torch.float64)):
            value = torch.from_numpy(stored).to(torch.float64) * slope + intercept
            channels = [((value - (level - width / 2)) / width).clamp(0, 1) for level, width in WINDOWS]
            image = torch.stack(channels).to(dtype)
            image = F.resize(image, [side, side], interpolation=F.InterpolationMode.BILINEAR, antialias=True)
            image = F.normalize(image, MEAN, STD)
            outputs[name] = image.permute(1, 2, 0).double().flatten()
        cases.append({
            "rows": rows, "columns": columns, "side": side, "slope": slope, "intercept": intercept,
            "stored": stored.flatten().tolist(),
            "f64": [round(v, 9) for v in outputs["f64"].tolist()],
            "f32_error": (outputs["f32"] - outputs["f64"]).abs().max().item(),
        })
    document = {"torchvision": torchvision.__version__, "windows": WINDOWS, "mean": MEAN, "std": STD, "cases": cases}
    path = ROOT / "kernels" / "tests" / "golden" / "window.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document) + "\n")
    print(path.relative_to(ROOT), path.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
