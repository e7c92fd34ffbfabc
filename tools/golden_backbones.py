#!/usr/bin/env python3
"""Makes the golden files of the backbones with torchvision.

    pip install -r tools/requirements-golden.txt
    python tools/golden_backbones.py            # writes plugins/*/tests/golden/*.json

Weights and inputs come from an integer hash that plugins/api/src/fill.rs documents and computes in the same way, so no
weights are shipped. Every number is stored twice: computed in f32 and in f64.
"""

import json
import pathlib

import numpy as np
import torch
import torchvision

ROOT = pathlib.Path(__file__).resolve().parent.parent
STEP = 0x9E3779B97F4A7C15
N_LABELS = 6
KEEP = 24  # values kept of each tensor

# name: (folder, classifier, tensors whose gradients are kept, BatchNorms whose statistics are kept)
BACKBONES = {
    "resnet50": (
        "resnet",
        "fc",
        ["conv1.weight", "bn1.weight", "layer1.0.downsample.0.weight", "layer2.0.conv2.weight", "layer3.5.bn3.bias",
         "layer4.2.conv3.weight", "fc.weight", "fc.bias"],
        ["bn1", "layer2.0.downsample.1", "layer4.2.bn3"],
    ),
    "mobilenet_v2": (
        "mobilenet",
        "classifier.1",
        ["features.0.0.weight", "features.1.conv.0.0.weight", "features.2.conv.1.0.weight", "features.7.conv.2.weight",
         "features.14.conv.1.1.weight", "features.18.0.weight", "classifier.1.weight", "classifier.1.bias"],
        ["features.0.1", "features.3.conv.1.1", "features.18.1"],
    ),
}
EVAL = [(224, 2), (97, 2)]  # side, batch
TRAIN = (128, 4)


def uniform(name, count):
    """`count` numbers in [0, 1), exact in f32."""
    h = 0xCBF29CE484222325
    for byte in name.encode():
        h = ((h ^ byte) * 0x100000001B3) % 2**64
    with np.errstate(over="ignore"):
        z = np.uint64(h) + (np.arange(1, count + 1, dtype=np.uint64) * np.uint64(STEP))
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    return (z >> np.uint64(40)).astype(np.float32) / np.float32(2**24)


def symmetric(name, count, scale):
    return (np.float32(2) * uniform(name, count) - np.float32(1)) * np.float32(scale)


def golden(name, shape):
    count = int(np.prod(shape))
    if len(shape) > 1:
        values = symmetric(name, count, np.sqrt(4.5 / np.prod(shape[1:])))
    elif name.endswith("running_var"):
        values = uniform(name, count) * np.float32(1.5) + np.float32(0.5)
    elif name.endswith("weight"):
        values = uniform(name, count) + np.float32(0.5)
    else:
        values = symmetric(name, count, 0.5)
    return torch.from_numpy(values.reshape(shape))


def make(name, classifier, dtype):
    model = getattr(torchvision.models, name)(weights=None)
    imagenet = sum(p.numel() for p in model.parameters())
    parent = model.get_submodule(classifier.rpartition(".")[0])
    last = classifier.rpartition(".")[2]
    old = model.get_submodule(classifier)
    new = torch.nn.Linear(old.in_features, N_LABELS)
    if last.isdigit():
        parent[int(last)] = new
    else:
        setattr(parent, last, new)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0  # the report's head has none
    base = sum(p.numel() for n, p in model.named_parameters() if not n.startswith(classifier + "."))
    state = {k: v if k.endswith("num_batches_tracked") else golden(k, tuple(v.shape)) for k, v in model.state_dict().items()}
    model.load_state_dict(state, strict=True)
    return model.to(dtype), base, imagenet


def images(batch, side, dtype):
    values = np.float32(4) * uniform("images", batch * 3 * side * side) - np.float32(2)
    return torch.from_numpy(values.reshape(batch, 3, side, side)).to(dtype)


def keep(tensor):
    flat = tensor.detach().double().flatten()
    n = min(KEEP, flat.numel())
    return [flat[k * flat.numel() // n].item() for k in range(n)]


def evaluate(model, dtype):
    model.eval()
    with torch.no_grad():
        return [model(images(batch, side, dtype)).double().flatten().tolist() for side, batch in EVAL]


def train(model, dtype, gradients, norms):
    model.train()
    side, batch = TRAIN
    targets = torch.from_numpy((uniform("targets", batch * N_LABELS) >= 0.5).reshape(batch, N_LABELS)).to(dtype)
    loss = torch.nn.functional.binary_cross_entropy_with_logits(model(images(batch, side, dtype)), targets)
    loss.backward()
    parameters = dict(model.named_parameters())
    state = model.state_dict()
    running = [f"{norm}.{kind}" for norm in norms for kind in ("running_mean", "running_var")]
    return [loss.item()], {n: keep(parameters[n].grad) for n in gradients}, {n: keep(state[n]) for n in running}


def both(f32, f64):
    return {"f32": f32, "f64": f64}


def main():
    torch.set_num_threads(2)
    print("first hashes of conv1.weight:", (uniform("conv1.weight", 4) * 2**24).astype(int).tolist())
    for name, (folder, classifier, gradients, norms) in BACKBONES.items():
        results = {}
        for dtype in (torch.float32, torch.float64):
            model, base, imagenet = make(name, classifier, dtype)
            results[dtype] = (evaluate(model, dtype), train(model, dtype, gradients, norms))
        (eval32, train32), (eval64, train64) = results[torch.float32], results[torch.float64]
        document = {
            "backbone": name,
            "torchvision": torchvision.__version__,
            "torch": torch.__version__,
            "parameters": base,
            "parameters_imagenet": imagenet,
            "eval": [
                {"side": side, "batch": batch, "logits": both(a, b)}
                for (side, batch), a, b in zip(EVAL, eval32, eval64)
            ],
            "train": {
                "side": TRAIN[0],
                "batch": TRAIN[1],
                "loss": both(train32[0], train64[0]),
                "gradients": {n: both(train32[1][n], train64[1][n]) for n in gradients},
                "running": {n: both(train32[2][n], train64[2][n]) for n in train64[2]},
            },
        }
        path = ROOT / "plugins" / folder / "tests" / "golden" / f"{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(document, indent=1) + "\n")
        print(path.relative_to(ROOT), "logits", [round(v, 3) for v in eval64[0][:6]], "loss", train64[0])


if __name__ == "__main__":
    main()
