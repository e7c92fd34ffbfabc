#!/usr/bin/env python3
"""Makes the tiny PyTorch files that the reader's tests read: plugins/api/tests/pth/*.

    pip install -r tools/requirements-reference.txt
    python tools/make_pth_fixtures.py

`hostile.pth` names os.system in its pickle; PyTorch's own loader runs it unless weights_only is set. Ours must refuse it.
"""

import collections
import pathlib
import pickle
import zipfile

import torch

FOLDER = pathlib.Path(__file__).resolve().parent.parent / "plugins" / "api" / "tests" / "pth"


def state():
    whole = torch.arange(6, dtype=torch.float32)
    return collections.OrderedDict(
        [
            ("a.weight", torch.nn.Parameter(torch.arange(6, dtype=torch.float32).reshape(2, 3) - 2.5)),
            ("a.double", torch.tensor([0.1, -1e-3], dtype=torch.float64)),
            ("a.half", torch.tensor([1.5, -2.0], dtype=torch.float16)),
            ("a.brain", torch.tensor([1.5, -2.0], dtype=torch.bfloat16)),
            ("a.turned", torch.arange(6, dtype=torch.float32).reshape(2, 3).t()),
            ("a.part", whole[2:4]),
            ("bn.num_batches_tracked", torch.tensor(7)),
        ]
    )


class Hostile:
    def __reduce__(self):
        import os

        return os.system, ("touch /tmp/ichd-was-here",)


def main():
    FOLDER.mkdir(parents=True, exist_ok=True)
    model = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 1), torch.nn.BatchNorm2d(2))
    with torch.no_grad():
        for n, parameter in enumerate(model.parameters()):
            parameter.fill_(n + 1)
    torch.save(state(), FOLDER / "plain.pth")
    torch.save(state(), FOLDER / "old.pth", _use_new_zipfile_serialization=False)
    torch.save({"epoch": 3, "best": 0.5, "optimizer": {"state": {}}, "state_dict": model.state_dict()}, FOLDER / "wrapped.pth")
    torch.save(model, FOLDER / "module.pth")
    with zipfile.ZipFile(FOLDER / "hostile.pth", "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({"a.weight": Hostile()}, protocol=2))
        archive.writestr("archive/version", "3\n")
    with zipfile.ZipFile(FOLDER / "packed.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({"a": 1} | {f"k{n}": 0 for n in range(99)}, protocol=2))
    for file in sorted(FOLDER.iterdir()):
        print(file.name, file.stat().st_size)


if __name__ == "__main__":
    main()
