#!/usr/bin/env python3
"""Makes the golden file of metrics, calibrations and operating points with scikit-learn and scipy.

    pip install -r tools/requirements-metrics.txt
    python tools/golden_metrics.py  # writes src/measure/golden/metrics.json

Tables come from the integer hash that plugins/api/src/fill.rs documents, so only their rules are stored. For value i (row
i // 6, label i % 6) of a table, with u = uniform(NAME + ".logit")[i] and v = uniform(NAME + ".target")[i]:

    logit  = spread * (2 u - 1)          in f32; then floor(4 logit) / 4 if tied, and 40 times that where i % 37 == 0 if extreme
    target = v < base[label] + gain * u  in f64
    group  = (row * 7919) % patients
"""

import json
import pathlib

import numpy as np
import sklearn
from scipy import optimize
from sklearn import metrics as sk
from sklearn.calibration import calibration_curve
from sklearn.linear_model import LogisticRegression

ROOT = pathlib.Path(__file__).resolve().parent.parent
MASK = (1 << 64) - 1
STEP = 0x9E3779B97F4A7C15
WEIGHTS = np.array([2, 1, 1, 1, 1, 1])
BINS = 15
PRIOR = 0.04
SCALE_MIN = 0.01
POINTS = [0.5, 0.25, 0.75, 0.9, 0.4, 0.6]

# name: rows, spread, tied, extreme, base by label, gain, patients
TABLES = {
    "plain": (1200, 6.0, False, False, [0.1, -0.2, 0.0, 0.05, 0.2, -0.1], 0.5, 40),
    "tied": (900, 3.0, True, False, [0.2, 0.0, 0.0, -0.1, 0.1, 0.3], 0.4, 30),
    "extreme": (700, 9.0, False, True, [0.2, 0.0, 0.1, -0.1, 0.1, 0.3], 0.6, 25),
    # Subdural has no positive slice, intraventricular no negative one.
    "rare": (2000, 8.0, False, False, [0.0, -0.03, -0.02, 1.0, -0.04, -9.0], 0.045, 60),
    # Labels are (nearly) separable; the second falls with its logit.
    "small": (60, 4.0, False, False, [-40.0, 40.0, -25.0, 0.5, -60.0, 0.2], 80.0, 12),
}


def uniform(name, count):
    """ichd_plugin::fill::uniform with seed 0."""
    h = 0xCBF29CE484222325
    for byte in name.encode():
        h = ((h ^ byte) * 0x100000001B3) & MASK
    with np.errstate(over="ignore"):
        z = np.uint64(h) + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(STEP)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z ^= z >> np.uint64(31)
    return (z >> np.uint64(40)).astype(np.float32) / np.float32(1 << 24)


def mix(z):
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


def table(name):
    rows, spread, tied, extreme, base, gain, patients = TABLES[name]
    u, v = uniform(name + ".logit", 6 * rows), uniform(name + ".target", 6 * rows)
    logits = np.float32(spread) * (np.float32(2) * u - np.float32(1))
    if tied:
        logits = np.floor(logits * np.float32(4)) / np.float32(4)
    if extreme:
        logits = np.where(np.arange(6 * rows) % 37 == 0, logits * np.float32(40), logits)
    assert logits.dtype == np.float32
    gains = np.full(6, gain)
    if name == "small":
        gains[1] = -gain
    labels = np.arange(6 * rows) % 6
    targets = v.astype(np.float64) < np.array(base)[labels] + gains[labels] * u.astype(np.float64)
    return logits.reshape(rows, 6), targets.reshape(rows, 6), np.arange(rows) * 7919 % patients


def sigmoid(z):
    with np.errstate(over="ignore"):
        return 1.0 / (1.0 + np.exp(-z.astype(np.float64)))


def number(value):
    return None if value is None or np.isnan(value) else float(value)


def calibration_error(y, p):
    """The definition, by sorting slices into bins; against scikit-learn's reliability curve where no p is on an edge."""
    place = np.minimum((p * BINS).astype(int), BINS - 1)
    gaps = [abs(p[place == k].mean() - y[place == k].mean()) * (place == k).sum() for k in range(BINS) if (place == k).any()]
    observed, predicted = calibration_curve(y, p, n_bins=BINS) if len(set(y)) == 2 else ([], [])
    counts = np.bincount(place, minlength=BINS)
    if len(set(y)) == 2:
        assert abs((np.abs(observed - predicted) * counts[counts > 0]).sum() - sum(gaps)) < 1e-9
    return sum(gaps) / len(y)


def binary(y, p, found=None, point=None):
    found = p.astype(np.float32) >= np.float32(point) if found is None else found
    both = 0 < y.sum() < len(y)
    tn, fp, fn, tp = sk.confusion_matrix(y, found, labels=[False, True]).ravel()
    nan = {"zero_division": np.nan}
    return {
        "slices": len(y),
        "positives": int(y.sum()),
        "accuracy": number(sk.accuracy_score(y, p >= 0.5)),
        "auroc": number(sk.roc_auc_score(y, p)) if both else None,
        "average_precision": number(sk.average_precision_score(y, p)) if y.any() else None,
        "log_loss": number(sk.log_loss(y, p, labels=[False, True])),
        "brier": number(sk.brier_score_loss(y, p, labels=[False, True], pos_label=True)),
        "calibration_error": number(calibration_error(y, p)),
        "confusion": [int(tp), int(fp), int(tn), int(fn)],
        "sensitivity": number(sk.recall_score(y, found, **nan)),
        "specificity": number(sk.recall_score(~y, ~found, **nan)),
        "ppv": number(sk.precision_score(y, found, **nan)),
        "npv": number(sk.precision_score(~y, ~found, **nan)),
        "f1": number(sk.f1_score(y, found, **nan)),
    }


def contest(y, p):
    """Clipped at 1e-15 on either side, the sides apart, as scikit-learn did when the contest ran."""
    p = p.astype(np.longdouble)
    of_truth = np.where(y, p, 1 - p)
    losses = -np.log(np.clip(of_truth, np.longdouble(1e-15), 1 - np.longdouble(1e-15))).mean(axis=0)
    return float((losses * WEIGHTS).sum() / WEIGHTS.sum())


def evaluation(logits, targets):
    p = sigmoid(logits)
    labels = [binary(targets[:, k], p[:, k], point=POINTS[k]) for k in range(6)]
    found = p.astype(np.float32) >= np.array(POINTS, dtype=np.float32)
    pooled = binary(targets.T.ravel(), p.T.ravel(), found=found.T.ravel())
    means = {}
    for key in labels[0]:
        if key not in ("slices", "positives", "confusion"):
            known = [label[key] for label in labels if label[key] is not None]
            means[key] = [float(np.mean(known)) if known else None, len(known)]
    return {"labels": labels, "pooled": pooled, "means": means, "weighted_log_loss": contest(targets, p)}


def softplus(z):
    return np.logaddexp(0, z)


def fit_line(x, y, prior):
    """Scale and shift by scipy's exact trust region, in f64."""
    sign = np.where(y, -1.0, 1.0)
    n = len(x)

    def value(w):
        return softplus(sign * (w[0] * x + w[1])).sum() / n + prior / (2 * n) * ((w[0] - 1) ** 2 + w[1] ** 2)

    def gradient(w):
        error = sigmoid(w[0] * x + w[1]) - y
        return np.array([(error * x).sum() + prior * (w[0] - 1), error.sum() + prior * w[1]]) / n

    def hessian(w):
        weight = sigmoid(w[0] * x + w[1]) * sigmoid(-(w[0] * x + w[1]))
        cross = (weight * x).sum()
        return np.array([[(weight * x * x).sum() + prior, cross], [cross, weight.sum() + prior]]) / n

    start = optimize.minimize(value, [1.0, 0.0], jac=gradient, hess=hessian, method="trust-exact", options={"gtol": 1e-8}).x
    # The last digits by a root of the gradient.
    found = optimize.root(gradient, start, jac=hessian, tol=1e-15)
    assert np.abs(gradient(found.x)).max() < 1e-12, found
    return [float(w) for w in found.x]


def fit_platt(x, y, prior):
    """The same with a scale of at least the floor, where only the shift is free."""
    scale, shift = fit_line(x, y, prior)
    if scale >= SCALE_MIN:
        return [scale, shift]
    slope = lambda b: (sigmoid(SCALE_MIN * x + b) - y).sum() + prior * b
    return [SCALE_MIN, float(optimize.brentq(slope, -100, 100, xtol=1e-14, rtol=1e-14))]


def fit_scale(x, y, prior):
    sign = np.where(y, 1.0, 0.0)
    slope = lambda a: ((sigmoid(a * x) - sign) * x).sum() + prior * (a - 1)
    if slope(SCALE_MIN) > 0:
        return SCALE_MIN
    return float(optimize.brentq(slope, SCALE_MIN, 100, xtol=1e-14, rtol=1e-14))


def calibration(logits, targets):
    x = logits.astype(np.float64)
    both = [0 < targets[:, k].sum() < len(targets) for k in range(6)]
    overlap = lambda k: both[k] and x[targets[:, k], k].min() < x[~targets[:, k], k].max() and x[~targets[:, k], k].min() < x[targets[:, k], k].max()
    unpenalized = []
    for k in range(6):
        if not overlap(k):
            unpenalized.append(None)
            continue
        plain = LogisticRegression(C=np.inf, solver="newton-cholesky", tol=1e-14, max_iter=1000).fit(x[:, [k]], targets[:, k])
        ours = fit_line(x[:, k], targets[:, k], 0.0)
        assert abs(plain.coef_[0, 0] - ours[0]) < 1e-8 and abs(plain.intercept_[0] - ours[1]) < 1e-8
        unpenalized.append([float(plain.coef_[0, 0]), float(plain.intercept_[0])])
    some = [k for k in range(6) if both[k]]
    return {
        "unpenalized": unpenalized,
        "platt": [fit_platt(x[:, k], targets[:, k], PRIOR) if both[k] else None for k in range(6)],
        "temperature": fit_scale(x[:, some].T.ravel(), targets[:, some].T.ravel(), PRIOR),
    }


def operating_point(y, p, wanted):
    """Point and counts by scikit-learn's ROC curve of the f32 probabilities; `wanted` None stands for Youden's J."""
    if not 0 < y.sum() < len(y):
        return None
    p = p.astype(np.float32)
    fpr, tpr, thresholds = sk.roc_curve(y, p, drop_intermediate=False)
    tp, fp = np.rint(tpr * y.sum()).astype(int)[1:], np.rint(fpr * (~y).sum()).astype(int)[1:]
    thresholds = thresholds[1:]
    if wanted is None:
        j = tp * int((~y).sum()) - fp * int(y.sum())
        best = int(np.flatnonzero(j == j.max())[-1])
    else:
        first = int(np.flatnonzero(tp / y.sum() >= wanted)[0])
        best = int(np.flatnonzero(fp == fp[first])[-1])
    point = np.float32(thresholds[best])
    if best + 1 < len(thresholds):
        middle = np.float32((float(thresholds[best + 1]) + float(point)) / 2)
        point = middle if middle > np.float32(thresholds[best + 1]) else point
    return [float(point), int(tp[best]), int(fp[best])]


def intervals(p, targets, groups, replicates, seed):
    names = np.unique(groups)
    place = np.searchsorted(names, groups)
    areas = [[] for _ in range(6)]
    for r in range(replicates):
        key = mix((seed + (r + 1) * STEP) & MASK)
        drawn = [(mix((key + (k + 1) * STEP) & MASK) >> 32) * len(names) >> 32 for k in range(len(names))]
        weight = np.bincount(drawn, minlength=len(names))[place]
        for k in range(6):
            y = targets[:, k]
            if weight[y].sum() and weight[~y].sum():
                areas[k].append(sk.roc_auc_score(y, p[:, k], sample_weight=weight))
    ends = lambda found: [float(np.percentile(found, q)) for q in (2.5, 97.5)] + [len(found)]
    return [ends(found) if len(found) >= 0.9 * replicates else None for found in areas]


def curves(y, p):
    fpr, tpr, at = sk.roc_curve(y, p, drop_intermediate=False)
    precision, recall, pr_at = sk.precision_recall_curve(y, p)
    return {
        "roc": [[float(a), float(b), float(c) if np.isfinite(c) else None] for a, b, c in zip(fpr, tpr, at)],
        "precision_recall": [[float(a), float(b), float(c)] for a, b, c in zip(recall[-2::-1], precision[-2::-1], pr_at[::-1])],
    }


def main():
    out = {"scikit_learn": sklearn.__version__, "points": POINTS, "prior": PRIOR, "bootstrap": [100, 2019], "tables": []}
    for name, (rows, spread, tied, extreme, base, gain, patients) in TABLES.items():
        logits, targets, groups = table(name)
        p = sigmoid(logits)
        gains = [-gain if name == "small" and k == 1 else gain for k in range(6)]
        rule = {"name": name, "rows": rows, "spread": spread, "tied": tied, "extreme": extreme, "base": base, "gain": gains, "patients": patients}
        out["tables"].append({
            **rule,
            "evaluation": evaluation(logits, targets),
            "calibration": calibration(logits, targets),
            "youden": [operating_point(targets[:, k], p[:, k], None) for k in range(6)],
            "sensitivity_0.9": [operating_point(targets[:, k], p[:, k], 0.9) for k in range(6)],
            "intervals": intervals(p, targets, groups, *out["bootstrap"]),
            "curves": curves(targets[:, 3], p[:, 3]) if rows <= 100 else None,
        })
        print(name, targets.sum(axis=0), [round(m, 4) if m else m for m in (l["auroc"] for l in out["tables"][-1]["evaluation"]["labels"])])
    path = ROOT / "src/measure/golden/metrics.json"
    path.write_text(json.dumps(out, separators=(",", ":"), allow_nan=False) + "\n")
    print(path.relative_to(ROOT), path.stat().st_size)


if __name__ == "__main__":
    main()
