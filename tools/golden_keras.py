#!/usr/bin/env python3
"""Makes the golden files of networks in Keras' arithmetic: plugins/<family>/tests/golden/keras_<backbone>.json.

    pip install -r tools/requirements-reference.txt
    python tools/golden_keras.py [BACKBONE ...]

The network is that of keras.applications with include_top=False and pooling="avg", and a Dense layer of six units called
`predictions`. Every variable is filled by the integer hash of tools/golden_backbones.py over its name `<layer>/<variable>`
(tools/keras_names.py): kernels in +-sqrt(4.5 / fan in), where the fan in is what one output sees (height * width * in of a
convolution, height * width of a depthwise one, in of a dense layer); moving_variance in 0.5..2, gamma in 0.5..1.5, all else
in +-0.5. `plugins/testkit/src/keras.rs` makes the same numbers. Images are those of golden_backbones.py, turned to
channels-last. Logits are stored twice: computed in f32 and in f64 (keras.config.set_floatx). Without TensorFlow, Keras takes
means and matrix products of f64 tensors in f32; `allow_f64` turns that off.

EfficientNet's own Rescaling and Normalization are put out of action (scale 1, mean 0, variance 1): images go to its first
convolution as they are, like everywhere else.
"""

import json
import os
import pathlib
import sys

os.environ.setdefault("KERAS_BACKEND", "torch")

import keras
import numpy as np
import torch
from golden_backbones import symmetric, uniform
from keras_names import variables

ROOT = pathlib.Path(__file__).resolve().parent.parent
N_LABELS = 6

# backbone: (family, keras.applications, native side, odd side)
BACKBONES = {
    "vgg16": ("vgg", "VGG16", 224, 97),
    "resnet50": ("resnet", "ResNet50", 224, 97),
    "inception_v3": ("inception", "InceptionV3", 299, 107),
    "mobilenet_v2": ("mobilenet", "MobileNetV2", 224, 97),
    "xception": ("xception", "Xception", 299, 97),
    "efficientnet_b0": ("efficientnet", "EfficientNetB0", 224, 97),
    "efficientnet_b2": ("efficientnet", "EfficientNetB2", 260, 97),
    "efficientnet_b3": ("efficientnet", "EfficientNetB3", 300, 97),
    "densenet121": ("densenet", "DenseNet121", 224, 97),
}
BATCH = 2


def fan_in(name, shape):
    if name.endswith("depthwise_kernel"):
        return shape[0] * shape[1]
    return int(np.prod(shape[:-1]))


def fill(name, shape):
    count, last = int(np.prod(shape)), name.rpartition("/")[2]
    if last.endswith("kernel"):
        values = symmetric(name, count, np.sqrt(4.5 / fan_in(name, shape)))
    elif last == "moving_variance":
        values = uniform(name, count) * np.float32(1.5) + np.float32(0.5)
    elif last == "gamma":
        values = uniform(name, count) + np.float32(0.5)
    else:
        values = symmetric(name, count, 0.5)
    return values.reshape(shape)


def allow_f64():
    """Keras' table of result types makes f32 of f64 with every backend but TensorFlow."""
    from keras.src.backend.common import dtypes

    dtypes.BIT64_TO_BIT32_DTYPE["float64"] = "float64"
    mean = keras.ops.mean(keras.ops.convert_to_tensor(np.array([1.0, 1.0 + 2.0**-40])))
    assert float(mean) == 1.0 + 2.0**-41, "the mean of f64 numbers was taken in f32"


def make(application, side):
    """The network for one side: Keras decides paddings while it builds."""
    keras.utils.clear_session()
    base = getattr(keras.applications, application)(weights=None, include_top=False, pooling="avg", input_shape=(side, side, 3))
    outputs = keras.layers.Dense(N_LABELS, name="predictions")(base.output)
    model = keras.Model(base.input, outputs)
    tensors = []
    for name, variable in variables(model).items():
        if name.startswith("normalization/"):
            continue
        shape = tuple(variable.shape)
        variable.assign(fill(name, shape))
        tensors.append((name, shape))
    for layer in model.layers:
        if isinstance(layer, keras.layers.Rescaling):
            layer.scale = 1.0
        if isinstance(layer, keras.layers.Normalization):
            layer.mean, layer.variance = keras.ops.zeros((1, 1, 1, 3)), keras.ops.ones((1, 1, 1, 3))
    return model, tensors


def images(side):
    values = np.float32(4) * uniform("images", BATCH * 3 * side * side) - np.float32(2)
    return np.ascontiguousarray(values.reshape(BATCH, 3, side, side).transpose(0, 2, 3, 1))


def facts(model):
    norms = {layer.epsilon for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)}
    return sorted(norms)


def main():
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))
    for name in sys.argv[1:] or BACKBONES:
        family, application, *sides = BACKBONES[name]
        logits, tensors = {}, None
        for floats in ("float32", "float64"):
            keras.config.set_floatx(floats)
            if floats == "float64":
                allow_f64()
            for side in sides:
                model, tensors = make(application, side)
                with torch.no_grad():
                    found = model(keras.ops.convert_to_tensor(images(side).astype(floats)), training=False)
                assert keras.backend.standardize_dtype(found.dtype) == floats
                logits[side, floats] = keras.ops.convert_to_numpy(found).astype(np.float64).flatten().tolist()
        document = {
            "backbone": name,
            "keras": keras.__version__,
            "torch": torch.__version__,
            "epsilons": facts(model),
            "tensors": [[n, list(shape)] for n, shape in tensors],
            "eval": [
                {"side": side, "batch": BATCH, "logits": {"f32": logits[side, "float32"], "f64": logits[side, "float64"]}}
                for side in sides
            ],
        }
        path = ROOT / "plugins" / family / "tests" / "golden" / f"keras_{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(compact(document) + "\n")
        errors = [np.abs(np.subtract(logits[s, "float32"], logits[s, "float64"])).max() for s in sides]
        shown = [round(v, 3) for v in logits[sides[0], "float64"][:6]]
        print(path.relative_to(ROOT), len(tensors), "tensors, logits", shown, "f32 off by", errors, "epsilons", facts(model), flush=True)


def compact(document):
    """One tensor a line, so that a change shows."""
    parts = []
    for key, value in document.items():
        if key in ("tensors", "eval"):
            rows = ",\n  ".join(json.dumps(row) for row in value)
            parts.append(f' "{key}": [\n  {rows}\n ]')
        else:
            parts.append(f' "{key}": {json.dumps(value)}')
    return "{\n" + ",\n".join(parts) + "\n}"


if __name__ == "__main__":
    main()
