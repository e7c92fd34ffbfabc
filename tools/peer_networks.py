#!/usr/bin/env python3
"""Networks on the CPU: ichd, PyTorch (channels-last), ONNX Runtime and OpenVINO (told to compute in f32), in turn on the same cores.
With --bf16 scoring in bfloat16 instead: ichd, PyTorch (autocast) and OpenVINO, on a CPU that multiplies in it.

    pip install -r tools/requirements-peers.txt
    cargo bench --workspace --no-run
    python tools/peer_networks.py [--threads 2] [--bf16] [--json FILE] [--onnx FOLDER] [NAME...]

Scoring of batches of 32 and 1 at the network's own side, and for the networks of --steps training steps (forward, backward,
Adam; against PyTorch alone) of batches of 32 at 224 pixels, f32. Without names: mobilenet_v2. Exported networks are kept in
the folder of --onnx.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import tempfile
import time

import onnxruntime
import openvino
import torch

from peer_models import SIDES, network
from peer_preprocess import bench_program


def batch_of(n, side):
    return torch.randn(n, 3, side, side).contiguous(memory_format=torch.channels_last)


def pytorch(model, images, bf16):
    def forward():
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            return model(images).float().numpy()

    return forward


def exported(model, name, folder):
    """The network as an ONNX file for batches of any size."""
    path = pathlib.Path(folder) / f"{name}.onnx"
    if not path.exists():
        example = batch_of(2, SIDES.get(name, 224)).contiguous()
        sizes = ({0: torch.export.Dim("n", min=1, max=1024)},)
        torch.onnx.export(model, (example,), str(path), input_names=["x"], output_names=["y"], dynamo=True, external_data=False, dynamic_shapes=sizes, verbose=False)
    return path


def onnx_runtime(path, images, threads):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    values = images.contiguous().numpy()
    return lambda: session.run(None, {"x": values})[0]


def open_vino(path, images, threads, bf16):
    core = openvino.Core()
    model = core.read_model(str(path))
    model.reshape(list(images.shape))
    # Left alone it takes bfloat16 where the CPU has it.
    rules = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "bf16" if bf16 else "f32"}
    request = core.compile_model(model, "CPU", rules).create_infer_request()
    values = images.contiguous().numpy()
    return lambda: request.infer({0: values}, share_inputs=True)[0]


def training_step(model):
    images, targets = batch_of(32, 224), torch.zeros(32, 6)
    optimizer = torch.optim.Adam(model.parameters(), 1e-4)
    loss = torch.nn.BCEWithLogitsLoss()

    def step():
        model.train()
        optimizer.zero_grad()
        value = loss(model(images), targets)
        value.backward()
        optimizer.step()
        return value.item()

    return step


def cases(args, name, folder):
    """(what, batch, {peer: function that does it once})."""
    model = network(name).to(memory_format=torch.channels_last).eval()
    if args.batches:
        path = exported(model, name, folder)
    for n in args.batches:
        images = batch_of(n, SIDES.get(name, 224))
        peers = {"PyTorch": pytorch(model, images, args.bf16), "OpenVINO": open_vino(path, images, args.threads, args.bf16)}
        if not args.bf16:
            peers["ONNX Runtime"] = onnx_runtime(path, images, args.threads)
        results = {peer: run() for peer, run in peers.items()}
        off = max(abs(result - results["PyTorch"]).max() for result in results.values())
        # In bfloat16 nobody computes the same.
        if not args.bf16 and off > 1e-2 * max(1.0, abs(results["PyTorch"]).max()):
            raise SystemExit(f"{name}: the peers do not compute the same, off by {off}")
        yield "forward-bf16" if args.bf16 else "forward", n, peers
    if name in args.steps and not args.bf16:
        yield "step", 32, {"PyTorch": training_step(model)}


def rate(run, batch, rounds):
    run()
    times = []
    for _ in range(rounds):
        begun = time.perf_counter()
        run()
        times.append(time.perf_counter() - begun)
    return batch / statistics.median(times)


def main():
    args = argparse.ArgumentParser()
    args.add_argument("names", nargs="*", default=["mobilenet_v2"])
    args.add_argument("--steps", nargs="*", default=["mobilenet_v2"])
    args.add_argument("--batches", nargs="*", type=int, default=[32, 1])
    args.add_argument("--bf16", action="store_true")
    args.add_argument("--threads", type=int, default=os.cpu_count())
    args.add_argument("--turns", type=int, default=7)
    args.add_argument("--rounds", type=int, help="runs a turn; default 20 of single images and 3 of batches")
    args.add_argument("--onnx")
    args.add_argument("--json")
    args = args.parse_args()
    torch.set_num_threads(args.threads)
    program = bench_program("networks")
    environment = dict(os.environ, RAYON_NUM_THREADS=str(args.threads))
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        for name in args.names:
            for what, batch, peers in cases(args, name, args.onnx or temporary):
                rounds = args.rounds or (20 if batch == 1 else 3)
                rates = {"ichd": []} | {peer: [] for peer in peers}
                for _ in range(args.turns):
                    # Threads of the peer before must have gone to sleep.
                    time.sleep(0.3)
                    command = [program, name, what, str(batch), str(rounds)]
                    text = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
                    rates["ichd"].append(json.loads(text.stdout)["median"])
                    for peer, run in peers.items():
                        time.sleep(0.3)
                        rates[peer].append(rate(run, batch, rounds))
                row = {"backbone": name, "what": what, "batch": batch, "medians": {who: statistics.median(all) for who, all in rates.items()}, "best": {who: max(all) for who, all in rates.items()}}
                rows.append(row)
                ours = row["medians"]["ichd"]
                ratios = ", ".join(f"{peer} {row['medians'][peer]:.1f} ({ours / row['medians'][peer]:.2f}x)" for peer in peers)
                print(f"{name} {what} {batch}: ichd {ours:.1f} images/s, best {row['best']['ichd']:.1f}; {ratios}", flush=True)
    if args.json:
        pathlib.Path(args.json).write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
