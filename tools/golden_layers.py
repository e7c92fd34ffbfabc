"""Writes kernels/tests/golden/layers.json: what PyTorch computes for a few small layers in f64, gradients included.

    python3 -m venv venv && venv/bin/pip install -r tools/requirements-golden.txt
    venv/bin/python tools/golden_layers.py kernels/tests/golden/layers.json

Inputs follow a rule that every language can repeat exactly: value i of tensor s is ((37 i + 11 s) mod 41) / 16 - 1.25.
"""
import json
import sys

import torch
import torch.nn.functional as F

ACTS = {"linear": lambda x: x, "relu": torch.relu, "relu6": F.relu6, "silu": F.silu}


def tensor(shape, seed):
    count = torch.Size(shape).numel()
    values = [((37 * i + 11 * seed) % 41) / 16 - 1.25 for i in range(count)]
    return torch.tensor(values, dtype=torch.float64).reshape(shape)


def first(x):
    """Channels-last to PyTorch's order."""
    return x.permute(0, 3, 1, 2)


def last(x):
    return x.permute(0, 2, 3, 1)


def flat(x):
    return x.detach().contiguous().reshape(-1).tolist()


def conv(kernel, stride, padding, dims, outputs, act, addend):
    n, h, w, c = dims
    depthwise = outputs is None
    x = tensor(dims, 1).requires_grad_()
    weight = tensor([c, 1, *kernel] if depthwise else [outputs, c, *kernel], 2).requires_grad_()
    bias = tensor([c if depthwise else outputs], 3)
    top, left, bottom, right = padding
    padded = F.pad(first(x), (left, right, top, bottom))
    plain = last(F.conv2d(padded, weight, stride=stride, groups=c if depthwise else 1))
    extra = tensor(list(plain.shape), 5) if addend else 0
    fused = ACTS[act](plain + bias + extra)
    (plain * tensor(list(plain.shape), 4)).sum().backward()
    return dict(kind="depthwise" if depthwise else "dense", kernel=kernel, stride=stride, padding=padding, dims=dims,
                outputs=outputs or c, act=act, addend=addend, plain=flat(plain), fused=flat(fused),
                input_gradient=flat(x.grad), weight_gradient=flat(weight.grad))


def norm(dims, act):
    c = dims[3]
    x = tensor(dims, 1).requires_grad_()
    gamma, beta = tensor([c], 2).requires_grad_(), tensor([c], 3).requires_grad_()
    y = ACTS[act](last(F.batch_norm(first(x), None, None, gamma, beta, training=True, eps=1e-3)))
    (y * tensor(dims, 4)).sum().backward()
    return dict(kind="norm", dims=dims, act=act, output=flat(y), mean=flat(x.mean((0, 1, 2))),
                variance=flat(x.var((0, 1, 2), unbiased=False)), input_gradient=flat(x.grad),
                gamma_gradient=flat(gamma.grad), beta_gradient=flat(beta.grad))


def adam(count, learning_rate, weight_decay, steps):
    w = tensor([count], 1).requires_grad_()
    optimizer = torch.optim.AdamW([w], learning_rate, weight_decay=weight_decay)
    for step in range(steps):
        w.grad = tensor([count], 2 + step)
        optimizer.step()
    return dict(kind="adam", count=count, learning_rate=learning_rate, weight_decay=weight_decay, steps=steps,
                weight=flat(w))


CASES = [
    adam(37, 0.01, 0.0, 3),
    adam(41, 0.1, 0.05, 5),
    conv([3, 3], [1, 1], [1, 1, 1, 1], [2, 5, 6, 17], None, "relu6", False),
    conv([3, 3], [2, 2], [1, 1, 1, 1], [1, 7, 6, 16], None, "relu", False),
    conv([5, 5], [1, 1], [2, 2, 2, 2], [1, 6, 5, 18], None, "linear", False),
    conv([5, 5], [2, 2], [1, 1, 2, 2], [1, 8, 9, 3], None, "relu6", False),
    conv([7, 7], [1, 1], [3, 3, 3, 3], [1, 5, 4, 2], None, "relu", False),
    conv([1, 7], [1, 2], [0, 3, 0, 3], [1, 3, 9, 20], None, "linear", False),
    conv([3, 3], [2, 2], [0, 0, 1, 1], [1, 6, 6, 33], None, "relu6", False),
    conv([1, 1], [1, 1], [0, 0, 0, 0], [2, 3, 4, 5], 7, "relu6", True),
    conv([1, 1], [2, 2], [0, 0, 0, 0], [1, 5, 6, 4], 3, "linear", False),
    conv([3, 3], [1, 1], [1, 1, 1, 1], [2, 4, 5, 3], 6, "relu", True),
    conv([3, 3], [2, 2], [0, 0, 1, 1], [1, 6, 8, 2], 4, "relu", False),
    conv([1, 7], [1, 1], [0, 3, 0, 3], [1, 3, 8, 3], 2, "relu", False),
    conv([7, 7], [2, 2], [3, 3, 3, 3], [1, 9, 9, 3], 5, "linear", False),
    conv([5, 5], [1, 1], [2, 2, 2, 2], [1, 6, 5, 18], None, "silu", False),
    conv([3, 3], [2, 2], [1, 1, 1, 1], [1, 7, 6, 3], 5, "silu", True),
    norm([2, 3, 4, 21], "silu"),
    norm([2, 3, 4, 5], "relu6"),
    norm([1, 5, 5, 19], "relu"),
    norm([3, 2, 2, 4], "linear"),
]

with open(sys.argv[1], "w") as out:
    json.dump({"reference": f"torch {torch.__version__}, f64", "cases": CASES}, out)
    out.write("\n")
