#!/usr/bin/env python3
"""MobileNetV2 on the CPU: ichd and PyTorch (channels-last), in turn on the same cores.

    pip install -r tools/requirements-peers.txt
    cargo bench --workspace --no-run
    python tools/peer_networks.py [--threads 2] [--json FILE]

Scoring of batches of 32 and 1, and training steps (forward, backward, Adam) of batches of 32, f32, 224 pixels.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import time

import torch
import torchvision

from peer_preprocess import bench_program


def pytorch():
    """Case -> function that does it once."""
    network = torchvision.models.mobilenet_v2(weights=None)
    network.classifier[1] = torch.nn.Linear(1280, 6)
    network = network.to(memory_format=torch.channels_last)
    images = torch.randn(32, 3, 224, 224).contiguous(memory_format=torch.channels_last)
    one = images[:1].contiguous(memory_format=torch.channels_last)
    targets = torch.zeros(32, 6)
    optimizer = torch.optim.Adam(network.parameters(), 1e-4)
    loss = torch.nn.BCEWithLogitsLoss()

    def forward(x):
        network.eval()
        with torch.inference_mode():
            return network(x).numpy()

    def step():
        network.train()
        optimizer.zero_grad()
        value = loss(network(images), targets)
        value.backward()
        optimizer.step()
        return value.item()

    return {("forward", 32): lambda: forward(images), ("forward", 1): lambda: forward(one), ("step", 32): step}


def main():
    args = argparse.ArgumentParser()
    args.add_argument("--threads", type=int, default=os.cpu_count())
    args.add_argument("--turns", type=int, default=7)
    args.add_argument("--json")
    args = args.parse_args()
    torch.set_num_threads(args.threads)
    program = bench_program("mobilenet")
    environment = dict(os.environ, RAYON_NUM_THREADS=str(args.threads))
    rows = []
    for (what, batch), run in pytorch().items():
        rounds = 20 if batch == 1 else 3
        ours, theirs = [], []
        run()
        for _ in range(args.turns):
            text = subprocess.run([program, what, str(batch), str(rounds)], env=environment, capture_output=True, text=True, check=True)
            ours.append(json.loads(text.stdout)["median"])
            times = []
            for _ in range(rounds):
                begun = time.perf_counter()
                run()
                times.append(time.perf_counter() - begun)
            theirs.append(batch / statistics.median(times))
        row = {"what": what, "batch": batch, "ichd": statistics.median(ours), "pytorch": statistics.median(theirs), "ichd_best": max(ours), "pytorch_best": max(theirs)}
        rows.append(row)
        print(f"{what} {batch}: ichd {row['ichd']:.1f} images/s, PyTorch {row['pytorch']:.1f} ({row['ichd'] / row['pytorch']:.2f}x; best {row['ichd_best']:.1f} and {row['pytorch_best']:.1f})", flush=True)
    if args.json:
        pathlib.Path(args.json).write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
