#!/usr/bin/env python3
"""Networks on the CPU: ichd and PyTorch (channels-last), in turn on the same cores.

    pip install -r tools/requirements-peers.txt
    cargo bench --workspace --no-run
    python tools/peer_networks.py [--threads 2] [--json FILE] [NAME...]

Scoring of batches of 32 and 1 at the network's own side, and for the networks of --steps training steps (forward, backward,
Adam) of batches of 32 at 224 pixels, f32. Without names: mobilenet_v2.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import time

import timm
import torch
import torchvision

from peer_preprocess import bench_program

SIDES = {"inception_v3": 299, "xception": 299, "efficientnet_b2": 260, "efficientnet_b3": 300}


def network(name):
    if name == "xception":
        return timm.create_model("legacy_xception", pretrained=False, num_classes=6)
    if name == "inception_v3":
        return torchvision.models.inception_v3(weights=None, aux_logits=False, init_weights=False, num_classes=6)
    if name == "vgg16":
        model = torchvision.models.vgg16(weights=None)
        model.avgpool = torch.nn.AdaptiveAvgPool2d(1)
        model.classifier = torch.nn.Linear(512, 6)
        return model
    return getattr(torchvision.models, name)(weights=None, num_classes=6)


def pytorch(name, with_step):
    """Case -> function that does it once."""
    model = network(name).to(memory_format=torch.channels_last)
    side = SIDES.get(name, 224)
    batch = lambda n, side: torch.randn(n, 3, side, side).contiguous(memory_format=torch.channels_last)
    many, one = batch(32, side), batch(1, side)

    def forward(x):
        model.eval()
        with torch.inference_mode():
            return model(x).numpy()

    cases = {("forward", 32): lambda: forward(many), ("forward", 1): lambda: forward(one)}
    if with_step:
        images, targets = batch(32, 224), torch.zeros(32, 6)
        optimizer = torch.optim.Adam(model.parameters(), 1e-4)
        loss = torch.nn.BCEWithLogitsLoss()

        def step():
            model.train()
            optimizer.zero_grad()
            value = loss(model(images), targets)
            value.backward()
            optimizer.step()
            return value.item()

        cases[("step", 32)] = step
    return cases


def main():
    args = argparse.ArgumentParser()
    args.add_argument("names", nargs="*", default=["mobilenet_v2"])
    args.add_argument("--steps", nargs="*", default=["mobilenet_v2"])
    args.add_argument("--threads", type=int, default=os.cpu_count())
    args.add_argument("--turns", type=int, default=7)
    args.add_argument("--json")
    args = args.parse_args()
    torch.set_num_threads(args.threads)
    program = bench_program("networks")
    environment = dict(os.environ, RAYON_NUM_THREADS=str(args.threads))
    rows = []
    for name in args.names:
        for (what, batch), run in pytorch(name, name in args.steps).items():
            rounds = 20 if batch == 1 else 3
            ours, theirs = [], []
            run()
            for _ in range(args.turns):
                command = [program, name, what, str(batch), str(rounds)]
                text = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
                ours.append(json.loads(text.stdout)["median"])
                times = []
                for _ in range(rounds):
                    begun = time.perf_counter()
                    run()
                    times.append(time.perf_counter() - begun)
                theirs.append(batch / statistics.median(times))
            row = {"backbone": name, "what": what, "batch": batch, "ichd": statistics.median(ours), "pytorch": statistics.median(theirs), "ichd_best": max(ours), "pytorch_best": max(theirs)}
            rows.append(row)
            print(f"{name} {what} {batch}: ichd {row['ichd']:.1f} images/s, PyTorch {row['pytorch']:.1f} ({row['ichd'] / row['pytorch']:.2f}x; best {row['ichd_best']:.1f} and {row['pytorch_best']:.1f})", flush=True)
    if args.json:
        pathlib.Path(args.json).write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
