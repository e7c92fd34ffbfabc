#!/usr/bin/env python3
"""Splits by patient: ichd against the package iterative-stratification and against plain chance.

    pip install -r tools/requirements-stratification.txt
    cargo build --release
    python tools/compare_stratification.py [--full] [--seeds 10] [--ichd target/release/ichd]

Makes label tables with the statistics of RSNA 2019 (752,803 slices, 19,500 studies of 17,000 patients, prevalences and
co-occurrence; --full for that size, else a twelfth of it): a study's blood lies on runs of neighboring slices. Each way
splits off a tenth of the patients, and makes ten folds. Printed are deviations of each label's prevalence in the split-off
part (of slices, and of patients that have it anywhere) from that of all, in percent of the latter: mean and worst of all
seeds. iterative-stratification gets what it takes: one row a patient with the labels that occur in any of the patient's slices.
"""

import argparse
import json
import pathlib
import subprocess
import tempfile
import time

import numpy as np
from iterstrat.ml_stratifiers import MultilabelStratifiedKFold, MultilabelStratifiedShuffleSplit

ROOT = pathlib.Path(__file__).resolve().parent.parent
LABELS = ["any", "epidural", "intraparenchymal", "intraventricular", "subarachnoid", "subdural"]
RSNA_SLICES, RSNA_STUDIES, RSNA_PATIENTS = 752_803, 19_500, 17_000
RSNA_POSITIVE = np.array([107_933, 3_145, 36_118, 26_205, 35_675, 47_166])
PREVALENCE = RSNA_POSITIVE / RSNA_SLICES
BLEEDING_STUDIES = 0.41
# Mean length of a run of slices with each subtype.
RUN = np.array([8.0, 10.0, 9.0, 11.0, 14.0])
FRACTION = 0.1


def make(n_slices, seed):
    """Labels [n, 6] and patient [n] of slices."""
    rng = np.random.Generator(np.random.PCG64(seed))
    n_studies = round(RSNA_STUDIES * n_slices / RSNA_SLICES)
    n_patients = round(RSNA_PATIENTS * n_slices / RSNA_SLICES)
    # Every patient has a study; the rest are further studies of some.
    patient = np.concatenate([np.arange(n_patients), rng.integers(0, n_patients, n_studies - n_patients)])
    length = np.clip(np.round(rng.normal(n_slices / n_studies, 6, n_studies)), 20, 60).astype(int)
    study = np.repeat(np.arange(n_studies), length)
    place = np.arange(len(study)) - np.repeat(np.cumsum(length) - length, length)
    bleeds = rng.random(n_studies) < BLEEDING_STUDIES
    chance = rng.random((n_studies, 5))
    run = np.clip(rng.gamma(3.0, RUN / 3.0, (n_studies, 5)), 1, None)
    center = length * rng.uniform(0.25, 0.75, n_studies)
    offset = rng.normal(0, 1, (n_studies, 5)) * run

    def table(rate, spread):
        middle = center[:, None] + spread * offset
        begin, end = middle - run / 2, middle + run / 2
        present = bleeds[:, None] & (chance < rate)
        at = place[:, None] + 0.5
        subtypes = present[study] & (at >= begin[study]) & (at < end[study])
        return np.concatenate([subtypes.any(1, keepdims=True), subtypes], 1)

    # The rates follow from the prevalences, the spread (and so the co-occurrence) from that of `any`.
    rate = PREVALENCE[1:] * n_slices / (RUN * n_studies * BLEEDING_STUDIES)
    low, high = 0.0, 3.0
    for _ in range(8):
        spread = (low + high) / 2
        for _ in range(3):
            labels = table(rate, spread)
            rate = np.minimum(rate * PREVALENCE[1:] / np.maximum(labels[:, 1:].mean(0), 1e-9), 1.0)
        if labels[:, 0].mean() > PREVALENCE[0]:
            high = spread
        else:
            low = spread
    return table(rate, spread), patient[study]


def write(folder, labels, patients):
    names = [f"ID_{(index * 0x9E3779B97) & 0xFFFFFFFFF:09x}" for index in range(len(patients))]
    order = [1, 2, 3, 4, 5, 0]
    with open(folder / "labels.csv", "w") as file:
        file.write("ID,Label\n")
        for name, row in zip(names, labels.astype(int)):
            file.write("".join(f"{name}_{LABELS[label]},{row[label]}\n" for label in order))
    with open(folder / "patients.csv", "w") as file:
        file.write("id,patient\n")
        file.writelines(f"{name},P{patient}\n" for name, patient in zip(names, patients))
    return names


def ours(folder, names, ichd, seed, folds):
    """Part of each slice, 0 being the part of a tenth or fold 0; and the seconds that it took."""
    what = ["--folds", str(folds)] if folds else ["--fraction", str(FRACTION), "--names", "part-0,part-1"]
    command = [ichd, "split", "--labels", folder / "labels.csv", "--groups", folder / "patients.csv",
               "--seed", str(seed), "--out", folder / "out.csv", "--json", *what]
    begun = time.perf_counter()
    answer = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    took = time.perf_counter() - begun
    assert answer["leaking_patients"] == 0
    part_of = {}
    with open(folder / "out.csv") as file:
        for line in file:
            if line.startswith("ID_"):
                instance, _, part = line.rstrip().split(",")
                part_of[instance] = int(part.rsplit("-", 1)[1])
    return np.array([part_of[name] for name in names]), took


def peer(matrix, patients, seed, folds):
    begun = time.perf_counter()
    part = np.ones(len(matrix), int)
    if folds:
        splitter = MultilabelStratifiedKFold(folds, shuffle=True, random_state=seed)
        for fold, (_, inside) in enumerate(splitter.split(matrix, matrix)):
            part[inside] = fold
    else:
        splitter = MultilabelStratifiedShuffleSplit(1, test_size=FRACTION, random_state=seed)
        part[next(splitter.split(matrix, matrix))[1]] = 0
    return part[patients], time.perf_counter() - begun


def by_chance(n_patients, patients, seed, folds):
    order = np.random.Generator(np.random.PCG64(seed)).permutation(n_patients)
    part = order * folds // n_patients if folds else (order >= FRACTION * n_patients).astype(int)
    return part[patients], 0.0


def deviations(part, labels, patients, matrix, n_parts, share):
    """Of each part: percent by which slices, prevalences of slices and prevalences of patients are off."""
    part_of_patient = np.zeros(len(matrix), int)
    part_of_patient[patients] = part
    for index in range(n_parts):
        inside, patients_inside = part == index, part_of_patient == index
        yield 100 * np.abs(np.concatenate([
            [inside.sum() / (share * len(part)) - 1],
            labels[inside].mean(0) / labels.mean(0) - 1,
            matrix[patients_inside].mean(0) / matrix.mean(0) - 1,
        ]))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="RSNA's size")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--ichd", default=ROOT / "target/release/ichd", type=pathlib.Path)
    args = parser.parse_args()
    n_slices = RSNA_SLICES if args.full else RSNA_SLICES // 12
    labels, patients = make(n_slices, 2019)
    matrix = np.zeros((patients.max() + 1, 6), int)
    np.maximum.at(matrix, patients, labels.astype(int))
    print(f"{len(labels)} slices, {len(matrix)} patients; percent of slices: "
          + ", ".join(f"{name} {100 * share:.2f}" for name, share in zip(LABELS, labels.mean(0)))
          + f"; {labels[:, 1:].sum() / labels[:, 0].sum():.2f} subtypes a positive slice (RSNA: "
          + ", ".join(f"{100 * share:.2f}" for share in PREVALENCE)
          + f"; {RSNA_POSITIVE[1:].sum() / RSNA_POSITIVE[0]:.2f})")
    worse = []
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        names = write(folder, labels, patients)
        for folds in (0, 10):
            ways = {
                "ichd": lambda seed: ours(folder, names, args.ichd, seed, folds),
                "iterative-stratification": lambda seed: peer(matrix, patients, seed, folds),
                "chance": lambda seed: by_chance(len(matrix), patients, seed, folds),
            }
            means = {}
            n_parts, title = (folds, "10 folds") if folds else (1, "a tenth split off")
            print(f"\n{title}, {args.seeds} seeds: percent that prevalences are off, mean (worst)\n")
            print("| of slices | " + " | ".join(ways) + " |\n|---|" + "---|" * len(ways))
            rows, took = {}, {}
            for name, way in ways.items():
                found, seconds = [], []
                for seed in range(args.seeds):
                    part, spent = way(seed)
                    seconds.append(spent)
                    found.extend(deviations(part, labels, patients, matrix, n_parts, FRACTION))
                rows[name], took[name] = np.array(found), np.median(seconds)
                means[name] = rows[name].mean(0)
            heads = ["(number of slices)", *LABELS, *(f"{label}, of patients" for label in LABELS)]
            for index, head in enumerate(heads):
                cells = [f"{rows[name][:, index].mean():.2f} ({rows[name][:, index].max():.2f})" for name in ways]
                print(f"| {head} | " + " | ".join(cells) + " |")
            print("| seconds | " + " | ".join(f"{took[name]:.2f}" for name in ways) + " |")
            mine, theirs = means["ichd"], means["iterative-stratification"]
            worse += [f"{title}: {head}" for head, a, b in zip(heads[:7], mine, theirs) if a > b]
    print("\nichd is worse on: " + (", ".join(worse) if worse else "nothing that counts slices"))
    return 1 if worse else 0


if __name__ == "__main__":
    raise SystemExit(main())
