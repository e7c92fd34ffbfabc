#!/usr/bin/env python3
"""What people put together in Python today: watchdog, pydicom, OpenCV, a runtime, one JSON a slice.

    peer_daemon.py IN OUT --network mobilenet_v2 --runtime torch|onnx|openvino --weights WEIGHTS.pth

Two threads decode, window (brain, subdural, soft tissue) and resize; batches of up to 32 are scored as soon as nothing more is
waiting; a result is written beside its place and renamed. Prints READY once it watches. `bench_path.py` runs it.
"""

import argparse
import json
import os
import pathlib
import queue
import sys
import threading

import cv2
import numpy as np
import pydicom
import torch
from watchdog.events import FileSystemEventHandler
from watchdog.observers import Observer

from peer_networks import SIDES, network

LABELS = ["any", "epidural", "intraparenchymal", "intraventricular", "subarachnoid", "subdural"]
WINDOWS = [(40.0, 80.0), (80.0, 200.0), (40.0, 380.0)]
MEAN = np.float32([0.485, 0.456, 0.406])
STD = np.float32([0.229, 0.224, 0.225])
BATCH = 32


def image(path, side):
    """[side, side, 3], windowed and normalized."""
    data = pydicom.dcmread(path)
    hu = data.pixel_array.astype(np.float32) * float(data.RescaleSlope) + float(data.RescaleIntercept)
    channels = [np.clip((hu - (level - width / 2)) / width, 0, 1) for level, width in WINDOWS]
    small = cv2.resize(np.stack(channels, axis=-1), (side, side), interpolation=cv2.INTER_AREA)
    return (small - MEAN) / STD


def scorer(runtime, name, weights, side):
    """Images [n, side, side, 3] to logits [n, 6]."""
    model = network(name)
    model.load_state_dict(torch.load(weights, weights_only=True))
    model.eval()
    if runtime == "torch":
        model = model.to(memory_format=torch.channels_last)

        def score(batch):
            with torch.inference_mode():
                images = torch.from_numpy(batch).permute(0, 3, 1, 2)
                return model(images.contiguous(memory_format=torch.channels_last)).numpy()

        return score
    path = str(pathlib.Path(weights).with_suffix(".onnx"))
    if not os.path.exists(path):
        torch.onnx.export(model, torch.zeros(2, 3, side, side), path + ".part", input_names=["x"], dynamo=False,
                          dynamic_axes={"x": {0: "n"}})
        os.replace(path + ".part", path)
    if runtime == "onnx":
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = os.cpu_count()
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        return lambda batch: session.run(None, {"x": np.ascontiguousarray(batch.transpose(0, 3, 1, 2))})[0]
    import openvino

    # It would compute in bfloat16 otherwise.
    compiled = openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda batch: compiled(np.ascontiguousarray(batch.transpose(0, 3, 1, 2)))[0]


class Inbox(FileSystemEventHandler):
    """Files that were closed after writing, or renamed into the folder."""

    def __init__(self, paths):
        self.paths = paths

    def take(self, path):
        if path.endswith(".dcm") and not os.path.basename(path).startswith("."):
            self.paths.put(path)

    def on_closed(self, event):
        self.take(event.src_path)

    def on_moved(self, event):
        self.take(event.dest_path)

    def on_created(self, event):
        # A rename from another folder shows as one that was created and is never closed.
        if os.path.getsize(event.src_path):
            self.take(event.src_path)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("inbox")
    parser.add_argument("out")
    parser.add_argument("--network", required=True)
    parser.add_argument("--runtime", choices=["torch", "onnx", "openvino"], required=True)
    parser.add_argument("--weights", required=True)
    args = parser.parse_args()
    cv2.setNumThreads(1)
    side = SIDES.get(args.network, 224)
    score = scorer(args.runtime, args.network, args.weights, side)
    for n in (1, BATCH):
        score(np.zeros((n, side, side, 3), np.float32))
    paths, images = queue.Queue(), queue.Queue(4 * BATCH)

    def decode():
        while True:
            path = paths.get()
            try:
                images.put((path, image(path, side)))
            except Exception as error:  # one bad file must not end the thread
                print(f"{os.path.basename(path)}: {error}", file=sys.stderr)

    observer = Observer()
    observer.schedule(Inbox(paths), args.inbox)
    observer.start()
    for _ in range(2):
        threading.Thread(target=decode, daemon=True).start()
    print("READY", flush=True)
    while True:
        items = [images.get()]
        while len(items) < BATCH:
            try:
                items.append(images.get(timeout=0.0 if paths.empty() else 0.05))
            except queue.Empty:
                break
        logits = score(np.stack([item for _, item in items]))
        for (path, _), row in zip(items, 1 / (1 + np.exp(-logits))):
            name = os.path.basename(path).removesuffix(".dcm")
            partial = os.path.join(args.out, f".{name}.tmp")
            with open(partial, "w", encoding="utf-8") as file:
                json.dump({"file": os.path.basename(path), "probabilities": dict(zip(LABELS, map(float, row)))}, file)
            os.replace(partial, os.path.join(args.out, name + ".json"))


if __name__ == "__main__":
    main()
