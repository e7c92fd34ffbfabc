#!/usr/bin/env python3
"""Lists the tensors of the reference networks, and holds an exported model against them.

    pip install -r tools/requirements-reference.txt
    python tools/reference_names.py                  # writes plugins/api/tests/reference/<backbone>.{torch,timm,keras}.tsv
    python tools/reference_names.py --check FILE --backbone resnet50 [--logits plugins/resnet/tests/golden/resnet50.json]

`torch` is torchvision, or timm's legacy_xception for xception, which torchvision lacks. No weights are downloaded. A line is
name, shape and type, separated by tabs. `--check` loads a file of `ichd models export` with strict=True into the reference
with a head of six units in place of the ImageNet classifier, and into timm where it has the network under the same names.
With `--logits` (a file of tools/golden_backbones.py, for a model with those weights) it compares logits too.
"""

import argparse
import json
import os
import pathlib

os.environ.setdefault("KERAS_BACKEND", "torch")

import numpy as np
import timm
import torch
import torchvision
from golden_backbones import images
from safetensors.torch import load_file

ROOT = pathlib.Path(__file__).resolve().parent.parent
FOLDER = ROOT / "plugins" / "api" / "tests" / "reference"
N_LABELS = 6

# backbone: (torchvision, timm, keras.applications, classifier in the torch names)
BACKBONES = {
    "vgg16": ("vgg16", "vgg16", "VGG16", "classifier"),
    "resnet50": ("resnet50", "resnet50", "ResNet50", "fc"),
    "inception_v3": ("inception_v3", "inception_v3", "InceptionV3", "fc"),
    "mobilenet_v2": ("mobilenet_v2", "mobilenetv2_100", "MobileNetV2", "classifier.1"),
    "xception": (None, "legacy_xception", "Xception", "fc"),
    "efficientnet_b0": ("efficientnet_b0", "efficientnet_b0", "EfficientNetB0", "classifier.1"),
    "efficientnet_b2": ("efficientnet_b2", "efficientnet_b2", "EfficientNetB2", "classifier.1"),
    "efficientnet_b3": ("efficientnet_b3", "efficientnet_b3", "EfficientNetB3", "classifier.1"),
    "densenet121": ("densenet121", "densenet121", "DenseNet121", "classifier"),
}
TYPES = {torch.float32: "F32", torch.int64: "I64"}


def torch_model(name, aux=True):
    vision, timm_name, _, _ = BACKBONES[name]
    if vision is None:
        return timm.create_model(timm_name, pretrained=False)
    more = {"aux_logits": aux, "init_weights": False} if name == "inception_v3" else {}
    return getattr(torchvision.models, vision)(weights=None, **more)


def write(name, program, rows):
    FOLDER.mkdir(parents=True, exist_ok=True)
    path = FOLDER / f"{name}.{program}.tsv"
    path.write_text("".join(f"{n}\t{','.join(map(str, shape))}\t{kind}\n" for n, shape, kind in rows))
    print(path.relative_to(ROOT), len(rows))


def torch_rows(model):
    return [(n, tuple(t.shape), TYPES[t.dtype]) for n, t in model.state_dict().items()]


def write_lists():
    import keras
    from keras_names import variables

    for name, (_, timm_name, keras_name, _) in BACKBONES.items():
        write(name, "torch", torch_rows(torch_model(name)))
        if name != "xception":
            write(name, "timm", torch_rows(timm.create_model(timm_name, pretrained=False)))
        keras.utils.clear_session()
        found = variables(getattr(keras.applications, keras_name)(weights=None))
        write(name, "keras", [(n, tuple(v.shape), "F32") for n, v in found.items()])


def with_small_head(name):
    """The reference with our head under our names."""
    model, classifier = torch_model(name, aux=False), BACKBONES[name][3]
    if name == "vgg16":
        model.avgpool, model.classifier = torch.nn.AdaptiveAvgPool2d(1), torch.nn.Linear(512, N_LABELS)
        return model
    parent, _, last = classifier.rpartition(".")
    old = model.get_submodule(classifier)
    setattr(model.get_submodule(parent), last, torch.nn.Linear(old.in_features, N_LABELS))
    return model


def check(file, name, logits):
    state = load_file(file)
    model = with_small_head(name)
    model.load_state_dict(state, strict=True)
    expected = {n: (s, k) for n, s, k in torch_rows(model)}
    found = {n: (tuple(t.shape), TYPES[t.dtype]) for n, t in state.items()}
    if expected != found:
        raise SystemExit(f"types or shapes differ: {sorted(set(expected.items()) ^ set(found.items()))}")
    print(f"{file}: {len(state)} tensors, loaded with strict=True into {type(model).__name__}")
    classifier = BACKBONES[name][3]
    body = {n: t for n, t in state.items() if not n.startswith(classifier + ".")}
    other = timm.create_model(BACKBONES[name][1], pretrained=False, num_classes=0)
    if set(body) == set(other.state_dict()):
        other.load_state_dict(body, strict=True)
        print(f"{file}: loaded with strict=True into timm's {BACKBONES[name][1]} without its head")
    if logits:
        compare(model.eval(), json.loads(pathlib.Path(logits).read_text()))


def compare(model, golden):
    for case in golden["eval"]:
        with torch.no_grad():
            found = model(images(case["batch"], case["side"], torch.float32)).double().flatten().numpy()
        expected = np.array(case["logits"]["f64"])
        worst = np.abs(found - expected).max() / np.abs(expected).max()
        print(f"logits at side {case['side']}: off by {worst:.2e} of the largest")
        if worst > 1e-3:
            raise SystemExit("the logits differ")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", metavar="FILE")
    parser.add_argument("--backbone", choices=BACKBONES)
    parser.add_argument("--logits", metavar="FILE")
    args = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))
    if not args.check:
        write_lists()
    elif not args.backbone:
        parser.error("--check needs --backbone")
    else:
        check(args.check, args.backbone, args.logits)


if __name__ == "__main__":
    main()
