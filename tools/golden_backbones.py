#!/usr/bin/env python3
"""Makes the golden files of the backbones with torchvision, and timm for Xception.

    pip install -r tools/requirements-golden.txt
    python tools/golden_backbones.py [NAME...]  # writes plugins/*/tests/golden/*.json

Weights and inputs come from an integer hash that plugins/api/src/fill.rs documents and computes in the same way, so no
weights are shipped. Every number is stored twice: computed in f32 and in f64.
"""

import json
import pathlib
import sys

import numpy as np
import timm
import torch
import torchvision

ROOT = pathlib.Path(__file__).resolve().parent.parent
STEP = 0x9E3779B97F4A7C15
N_LABELS = 6
KEEP = 24  # values kept of each tensor

# name: folder, ImageNet classifier, native side, tensors whose gradients are kept, BatchNorms whose statistics are kept
BACKBONES = {
    "vgg16": (
        "vgg", "classifier", 224,
        ["features.0.weight", "features.0.bias", "features.7.weight", "features.17.bias", "features.28.weight",
         "classifier.weight", "classifier.bias"],
        [],
    ),
    "resnet50": (
        "resnet", "fc", 224,
        ["conv1.weight", "bn1.weight", "layer1.0.downsample.0.weight", "layer2.0.conv2.weight", "layer3.5.bn3.bias",
         "layer4.2.conv3.weight", "fc.weight", "fc.bias"],
        ["bn1", "layer2.0.downsample.1", "layer4.2.bn3"],
    ),
    "inception_v3": (
        "inception", "fc", 299,
        ["Conv2d_1a_3x3.conv.weight", "Conv2d_4a_3x3.bn.weight", "Mixed_5b.branch5x5_2.conv.weight",
         "Mixed_6a.branch3x3.conv.weight", "Mixed_6c.branch7x7dbl_4.conv.weight", "Mixed_6e.branch_pool.bn.bias",
         "Mixed_7a.branch7x7x3_4.conv.weight", "Mixed_7c.branch3x3dbl_3b.conv.weight", "fc.weight", "fc.bias"],
        ["Conv2d_2b_3x3.bn", "Mixed_6b.branch7x7_2.bn", "Mixed_7b.branch3x3_2a.bn"],
    ),
    "mobilenet_v2": (
        "mobilenet", "classifier.1", 224,
        ["features.0.0.weight", "features.1.conv.0.0.weight", "features.2.conv.1.0.weight", "features.7.conv.2.weight",
         "features.14.conv.1.1.weight", "features.18.0.weight", "classifier.1.weight", "classifier.1.bias"],
        ["features.0.1", "features.3.conv.1.1", "features.18.1"],
    ),
    "xception": (
        "xception", "fc", 299,
        ["conv1.weight", "block1.rep.0.conv1.weight", "block1.rep.3.pointwise.weight", "block2.skip.weight",
         "block5.rep.4.conv1.weight", "block8.rep.8.bias", "block12.rep.4.pointwise.weight", "conv4.conv1.weight",
         "bn4.weight", "fc.weight", "fc.bias"],
        ["bn2", "block3.skipbn", "block9.rep.5", "bn4"],
    ),
    **{
        name: (
            "efficientnet", "classifier.1", side,
            ["features.0.0.weight", "features.1.0.block.0.0.weight", "features.1.0.block.1.fc1.weight",
             "features.2.0.block.1.0.weight", "features.3.1.block.2.fc2.bias", "features.5.0.block.1.1.weight",
             "features.6.1.block.3.0.weight", "features.7.0.block.3.1.weight", "features.8.0.weight",
             "classifier.1.weight", "classifier.1.bias"],
            ["features.0.1", "features.4.0.block.1.1", "features.8.1"],
        )
        for name, side in (("efficientnet_b0", 224), ("efficientnet_b2", 260), ("efficientnet_b3", 300))
    },
    "densenet121": (
        "densenet", "classifier", 224,
        ["features.conv0.weight", "features.norm0.weight", "features.denseblock1.denselayer1.norm1.weight",
         "features.denseblock2.denselayer7.conv1.weight", "features.transition2.conv.weight",
         "features.denseblock4.denselayer16.norm2.bias", "features.denseblock4.denselayer16.conv2.weight",
         "features.norm5.weight", "classifier.weight", "classifier.bias"],
        ["features.norm0", "features.transition1.norm", "features.denseblock3.denselayer5.norm2", "features.norm5"],
    ),
}
ODD_SIDE = 97
EVAL_BATCH = 2
TRAIN = (128, 4)  # side, batch


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


def published(name):
    """The reference without weights, its ImageNet classifier included."""
    if name == "xception":
        return timm.create_model("legacy_xception", pretrained=False)
    if name == "inception_v3":
        return torchvision.models.inception_v3(weights=None, aux_logits=False, init_weights=False)
    return getattr(torchvision.models, name)(weights=None)


def multiply_adds(model, side):
    """Of all convolutions and linear layers, for one image."""
    total = 0

    def count(module, _, output):
        nonlocal total
        per_value = module.weight[0].numel()
        total += output.numel() * per_value

    hooks = [m.register_forward_hook(count) for m in model.modules() if isinstance(m, (torch.nn.Conv2d, torch.nn.Linear))]
    with torch.no_grad():
        model.eval()(torch.zeros(1, 3, side, side))
    for hook in hooks:
        hook.remove()
    return total


def replace(model, path, module):
    parent, _, last = path.rpartition(".")
    setattr(model.get_submodule(parent), last, module)


def make(name, classifier, dtype):
    model = published(name)
    # The report's head: the mean over all pixels, and one layer.
    features = 512 if name == "vgg16" else model.get_submodule(classifier).in_features
    if name == "vgg16":
        model.avgpool = torch.nn.AdaptiveAvgPool2d(1)
    replace(model, classifier, torch.nn.Linear(features, N_LABELS))
    for module in model.modules():
        if isinstance(module, (torch.nn.Dropout, torchvision.ops.StochasticDepth)):
            module.p = 0.0
    base = sum(p.numel() for n, p in model.named_parameters() if not n.startswith(classifier + "."))
    state = {k: v if k.endswith("num_batches_tracked") else golden(k, tuple(v.shape)) for k, v in model.state_dict().items()}
    model.load_state_dict(state, strict=True)
    return model.to(dtype), base


def images(batch, side, dtype):
    values = np.float32(4) * uniform("images", batch * 3 * side * side) - np.float32(2)
    return torch.from_numpy(values.reshape(batch, 3, side, side)).to(dtype)


def keep(tensor):
    flat = tensor.detach().double().flatten()
    n = min(KEEP, flat.numel())
    return [flat[k * flat.numel() // n].item() for k in range(n)]


def evaluate(model, dtype, sides):
    model.eval()
    with torch.no_grad():
        return [model(images(EVAL_BATCH, side, dtype)).double().flatten().tolist() for side in sides]


def train(model, dtype, gradients, norms):
    model.train()
    side, batch = TRAIN
    targets = torch.from_numpy((uniform("targets", batch * N_LABELS) >= 0.5).reshape(batch, N_LABELS)).to(dtype)
    logits = model(images(batch, side, dtype))
    loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, targets)
    loss.backward()
    parameters = dict(model.named_parameters())
    state = model.state_dict()
    running = [f"{norm}.{kind}" for norm in norms for kind in ("running_mean", "running_var")]
    return [loss.item()], {n: keep(parameters[n].grad) for n in gradients}, {n: keep(state[n]) for n in running}, logits.double().flatten().tolist()


def both(f32, f64):
    return {"f32": f32, "f64": f64}


def main():
    torch.set_num_threads(2)
    print("first hashes of conv1.weight:", (uniform("conv1.weight", 4) * 2**24).astype(int).tolist())
    wanted = sys.argv[1:] or BACKBONES
    for name in wanted:
        folder, classifier, native, gradients, norms = BACKBONES[name]
        whole = published(name)
        imagenet = sum(p.numel() for p in whole.parameters())
        sides = (native, ODD_SIDE)
        results = {}
        for dtype in (torch.float32, torch.float64):
            model, base = make(name, classifier, dtype)
            results[dtype] = (evaluate(model, dtype, sides), train(model, dtype, gradients, norms))
        (eval32, train32), (eval64, train64) = results[torch.float32], results[torch.float64]
        document = {
            "backbone": name,
            "torchvision": torchvision.__version__,
            "torch": torch.__version__,
            "timm": timm.__version__,
            "parameters": base,
            "parameters_imagenet": imagenet,
            "multiply_adds": multiply_adds(whole, native),
            "eval": [
                {"side": side, "batch": EVAL_BATCH, "logits": both(a, b)} for side, a, b in zip(sides, eval32, eval64)
            ],
            "train": {
                "side": TRAIN[0],
                "batch": TRAIN[1],
                "logits": both(train32[3], train64[3]),
                "loss": both(train32[0], train64[0]),
                "gradients": {n: both(train32[1][n], train64[1][n]) for n in gradients},
                "running": {n: both(train32[2][n], train64[2][n]) for n in train64[2]},
            },
        }
        path = ROOT / "plugins" / folder / "tests" / "golden" / f"{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(document, indent=1) + "\n")
        print(path.relative_to(ROOT), document["multiply_adds"], base, imagenet, "logits", [round(v, 3) for v in eval64[0][:6]], "loss", train64[0])


if __name__ == "__main__":
    main()
