#!/usr/bin/env python3
"""Writes the weights of a Keras model as a safetensors file that `ichd models import` takes.

    pip install -r tools/requirements-reference.txt
    python tools/keras_to_safetensors.py MODEL.keras OUT.safetensors
    python tools/keras_to_safetensors.py --application ResNet50 OUT.safetensors       # ImageNet weights, downloaded by Keras

Names are `<layer>/<variable>` as tools/keras_names.py says; layouts stay TensorFlow's, the import turns them. Keras runs on
PyTorch here, so TensorFlow is not needed. `.keras` and `.h5` files are read by Keras itself, with safe_mode on.
"""

import argparse
import os

os.environ.setdefault("KERAS_BACKEND", "torch")

import keras
import numpy as np
from keras_names import variables
from safetensors.numpy import save_file


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", nargs="?", help="a .keras or .h5 file")
    parser.add_argument("out")
    parser.add_argument("--application", help="a class of keras.applications, such as ResNet50")
    parser.add_argument("--weights", default="imagenet", help="with --application: imagenet, or none for arbitrary ones")
    args = parser.parse_args()
    if bool(args.model) == bool(args.application):
        parser.error("give a model file or --application")
    if args.application:
        weights = None if args.weights == "none" else args.weights
        model = getattr(keras.applications, args.application)(weights=weights)
    else:
        model = keras.models.load_model(args.model, compile=False)
    found = {n: np.ascontiguousarray(keras.ops.convert_to_numpy(v).astype(np.float32)) for n, v in variables(model).items()}
    save_file(found, args.out, metadata={"format": "keras", "keras": keras.__version__, "model": model.name})
    print(f"{args.out}: {len(found)} tensors of {model.name}")


if __name__ == "__main__":
    main()
