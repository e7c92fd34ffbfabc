"""Names of Keras variables that do not depend on what else a process built. Shared by the scripts beside it.

A variable is called `<layer>/<variable>`. Two things make that the same everywhere:

* Keras numbers layers without a name of their own (`conv2d_17`) through the whole process, in the order of their creation.
  Here they are numbered within the model, in that order: `conv2d`, `conv2d_1`, and so on, as in a fresh process.
* The kernel of a DepthwiseConv2D is called `depthwise_kernel` (Keras 2's word; Keras 3 says `kernel`).

Nested models count as the layers that they are made of.
"""

import re


def _leaves(layer):
    inner = getattr(layer, "layers", None)
    if inner:
        for child in inner:
            yield from _leaves(child)
    else:
        yield layer


def _snake(name):
    """The word that Keras makes of a class for layers without a name: Conv2D becomes conv2d."""
    name = re.sub(r"\W+", "", name)
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()


def layer_names(model):
    """A name for every layer that holds variables, by the layer's id."""
    names, numbered = {}, {}
    for layer in _leaves(model):
        if not layer.weights:
            continue
        base = _snake(type(layer).__name__)
        match = re.fullmatch(re.escape(base) + r"(?:_(\d+))?", layer.name)
        if match:
            numbered.setdefault(base, {})[id(layer)] = int(match.group(1) or 0)
        else:
            names[id(layer)] = layer.name
    for base, layers in numbered.items():
        for number, key in enumerate(sorted(layers, key=layers.get)):
            names[key] = base if number == 0 else f"{base}_{number}"
    if len(set(names.values())) != len(names):
        raise SystemExit("two layers have the same name: give them different ones")
    return names


def variables(model):
    """Names and Keras variables, in the order of the model."""
    names, found, seen = layer_names(model), {}, set()
    for layer in _leaves(model):
        if id(layer) in seen:
            continue
        seen.add(id(layer))
        for variable in layer.weights:
            last = variable.path.rpartition("/")[2]
            if type(layer).__name__ == "DepthwiseConv2D" and last == "kernel":
                last = "depthwise_kernel"
            found[f"{names[id(layer)]}/{last}"] = variable
    return found
