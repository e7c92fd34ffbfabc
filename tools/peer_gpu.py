#!/usr/bin/env python3
"""Networks and training on a GPU: PyTorch in the cases that gpu-check measures, and both in one table.

    python tools/peer_gpu.py --json peer.json --against ichd.json --table table
    python tools/peer_gpu.py --json peer.json --against ichd.json --table table --only none   # the table alone

Needs PyTorch and torchvision; timm for its Xception, else a plain one takes its place. Every case is timed as gpu-check does:
random weights, warm-up until the times hold still, the median of runs that each end with the logits (or the loss of the
steps) in memory. From `pixels` a batch of 512 x 512 stored values goes through pinned memory to the device, is windowed and
resized with antialiasing there, and scored. Ways:

    eager    channels-last, weights and images in the type of number
    amp      channels-last, weights in f32, autocast
    compile  torch.compile of eager (training: of amp), windowing included
    graphs   the same with mode="reduce-overhead" (CUDA graphs); only if asked for with --ways

Training is fused AdamW with autocast for bf16 (so its eager way is amp), moving averages of the weights, and the loss read every
16 steps (or half a second), as in ichd's trainer. cuDNN chooses by trial and f32 may use TF32, as ichd's kernels may. Results are
added to the file of --json after every case. `--device cpu` with small sizes tries it out. Ends with 1 if a case was not done.
"""

import argparse
import json
import math
import os
import pathlib
import statistics
import subprocess
import sys
import time

SCHEMA = "ichd.peer_gpu.v1"
WINDOWS = [(40, 80), (80, 200), (40, 380)]
TYPES = ["f32", "bf16", "f16"]
READ_EVERY = 16
LABEL_WEIGHTS = [2.0, 1.0, 1.0, 1.0, 1.0, 1.0]


class Bench:
    def __init__(self, args, journal):
        self.args, self.journal, self.begun = args, journal, time.perf_counter()
        self.device = torch.device(args.device)
        self.is_cuda = self.device.type == "cuda"

    def is_spent(self):
        return self.args.limit is not None and time.perf_counter() - self.begun >= self.args.limit

    def times(self, work):
        """As gpu-check's measure.rs."""
        begun, last = time.perf_counter(), math.inf
        for run in range(1, 13):
            before, last = last, once(work)
            if run >= 3 and last > before * 0.8:
                break
        warm_up = time.perf_counter() - begun
        rounds = min(max(int(self.args.seconds / max(last, 1e-6)), 3), 500)
        samples = sorted(once(work) for _ in range(rounds))
        return {"milliseconds": statistics.median(samples) * 1e3, "best_milliseconds": samples[0] * 1e3, "rounds": rounds, "warm_up_seconds": warm_up}

    def case(self, part, row, make):
        """Times what `make(batch)` returns, of smaller batches where the memory is short."""
        what = " ".join(str(value) for value in row.values())
        batch = row["batch"]
        while True:
            if self.is_spent():
                return self.journal.not_done(what, "the time is up")
            self.clean()
            try:
                begun = time.perf_counter()
                steps, work = make(batch)
                made = time.perf_counter() - begun
                times = self.times(work)
                times["warm_up_seconds"] += made
            except Exception as error:  # whatever a way cannot do, the others can
                text = f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"
                if is_memory(error) and batch > 1 and part == "networks":
                    batch //= 2
                    continue
                return self.journal.not_done(what, text[:300])
            for key in ("milliseconds", "best_milliseconds"):
                times[key] /= steps
            reserved = torch.cuda.max_memory_reserved() >> 20 if self.is_cuda else None
            rate = batch / times["milliseconds"] * 1e3
            return self.journal.add(part, row | {"batch": batch, "wanted_batch": row["batch"], "devices": 1, "images_per_second": rate, **times, "reserved_mib": reserved})

    def clean(self):
        torch._dynamo.reset()
        if self.is_cuda:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()

    def networks(self, name):
        side = self.args.side or peer_models.SIDES.get(name, 224)
        for precision in self.args.precisions:
            if not self.is_cuda and precision == "f16":
                continue
            for batch in self.args.batches:
                for origin in ("pixels", "images"):
                    for way in self.args.ways:
                        if way == "amp" and precision == "f32":
                            continue
                        row = {"backbone": name, "from": origin, "precision": precision, "batch": batch, "side": side, "way": way}
                        self.case("networks", row, lambda n: (1, self.scoring(name, side, precision, n, origin, way)))

    def scoring(self, name, side, precision, n, origin, way):
        model = peer_models.network(name).to(self.device, memory_format=torch.channels_last).eval()
        number = dtype(precision)
        with_cast = way == "amp"
        if not with_cast:
            model = model.to(number)
        window = Windowing(side, self.device)

        def from_images(images):
            return model(images)

        def from_pixels(stored):
            images = window(stored)
            return model(images if with_cast else images.to(number))

        score = compiled(from_pixels if origin == "pixels" else from_images, way)
        upload = Upload(n, self.device)
        images = window(upload()).to(torch.float32 if with_cast else number).contiguous(memory_format=torch.channels_last)

        def work():
            with torch.inference_mode(), torch.autocast(self.device.type, number, enabled=with_cast):
                logits = score(upload() if origin == "pixels" else images)
                return logits.float().cpu()

        if not torch.isfinite(work()).all() and precision != "f16":
            raise ValueError("a logit is no number")
        return work

    def training(self, name):
        sides = [self.args.side] if self.args.side else sorted({224, peer_models.SIDES.get(name, 224)})
        for precision in self.args.train_precisions:
            for side in sides:
                for origin in ("train_pixels", "train_images"):
                    for way in [way for way in self.args.ways if way != "amp"]:
                        row = {"backbone": name, "from": origin, "precision": precision, "batch": self.args.train_batch, "side": side, "way": way}
                        self.case("training", row, lambda n: self.steps(name, side, precision, n, origin, way))

    def steps(self, name, side, precision, n, origin, way):
        model = peer_models.network(name).to(self.device, memory_format=torch.channels_last).train()
        weights = [weight for weight in model.parameters()]
        averages = [weight.detach().clone() for weight in weights]
        optimizer = torch.optim.AdamW(weights, 3e-4, weight_decay=0.01, fused=True)
        shares = torch.tensor([LABEL_WEIGHTS], device=self.device) * 6 / sum(LABEL_WEIGHTS)
        loss_of = torch.nn.BCEWithLogitsLoss(weight=shares)
        number, window, upload = dtype(precision), Windowing(side, self.device), Upload(n, self.device)
        targets = (torch.arange(n * 6).reshape(n, 6) % 3 == 0).float()
        images = window(upload()).contiguous(memory_format=torch.channels_last)
        forward = compiled(lambda images, targets: loss_of(model(images), targets), way)

        def work(steps=1):
            total = 0.0
            for _ in range(steps):
                batch = window(upload()) if origin == "train_pixels" else images
                with torch.autocast(self.device.type, number, enabled=precision != "f32"):
                    loss = forward(batch, targets.to(self.device, non_blocking=True))
                loss.backward()
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
                with torch.no_grad():
                    torch._foreach_lerp_(averages, weights, 0.002)
                total = total + loss.detach()
            if not math.isfinite(total.item()):
                raise ValueError("the loss is no number")

        work()
        work()
        steps = min(max(int(0.5 / max(once(work), 1e-6)), 1), READ_EVERY if self.is_cuda else 1)
        return steps, lambda: work(steps)


class Windowing:
    """Stored values on a device to three windows, resized and normalized, as ichd computes them."""

    def __init__(self, side, device):
        values = [[level - width / 2 for level, width in WINDOWS], [1 / width for _, width in WINDOWS], [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]]
        self.low, self.scale, self.mean, self.std = (torch.tensor(row, device=device)[:, None, None] for row in values)
        self.side = side

    def __call__(self, stored):
        x = ((stored.float()[:, None] - self.low) * self.scale).clamp_(0, 1).contiguous(memory_format=torch.channels_last)
        x = torch.nn.functional.interpolate(x, (self.side, self.side), mode="bilinear", antialias=True, align_corners=False)
        return x.sub_(self.mean).div_(self.std)


class Upload:
    """Slices in memory, each its own, to a device: gathered in pinned memory, then moved."""

    def __init__(self, n, device):
        generator = torch.Generator().manual_seed(0)
        self.slices = [torch.randint(-1000, 1000, (512, 512), generator=generator, dtype=torch.int16) for _ in range(min(n, 8))]
        self.n, self.device = n, device
        self.staged = torch.empty(n, 512, 512, dtype=torch.int16, pin_memory=device.type == "cuda")

    def __call__(self):
        for at in range(self.n):
            self.staged[at].copy_(self.slices[at % len(self.slices)])
        return self.staged.to(self.device, non_blocking=True)


def dtype(precision):
    return {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}[precision]


def compiled(function, way):
    modes = {"compile": None, "graphs": "reduce-overhead"}
    return torch.compile(function, mode=modes[way], dynamic=False) if way in modes else function


def is_memory(error):
    return isinstance(error, torch.OutOfMemoryError) or "out of memory" in str(error).lower()


def once(work):
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


class Journal:
    """What was found, kept in a file after every case."""

    def __init__(self, path, run):
        self.path = pathlib.Path(path) if path else None
        self.runs = runs_of([path], SCHEMA) if path and os.path.exists(path) else []
        self.run = run
        self.runs.append(run)

    def add(self, part, row):
        self.run[part].append(row)
        short = f" (of {row['wanted_batch']}: memory)" if row["batch"] < row["wanted_batch"] else ""
        print(f"{row['backbone']:<16} {row['from']:<12} {row['precision']:<4} batch {row['batch']:>3}{short} side {row['side']} {row['way']:<7} {row['images_per_second']:>9.1f} images/s, {row['milliseconds']:.3f} ms, warm-up {row['warm_up_seconds']:.1f} s", flush=True)
        self.save()

    def not_done(self, what, why):
        print(f"not done: {what}: {why}", flush=True)
        self.run["not_done"].append({"what": what, "why": why})
        self.save()

    def save(self):
        if self.path:
            temporary = self.path.with_name(self.path.name + ".tmp")
            temporary.write_text(json.dumps({"runs": self.runs}, indent=1) + "\n")
            temporary.replace(self.path)


def runs_of(paths, schema):
    """Runs of files, of which one that is not there holds none."""
    runs = []
    for path in paths:
        if not os.path.exists(path):
            continue
        found = json.loads(pathlib.Path(path).read_text())
        if not isinstance(found, dict) or any(run.get("schema") != schema for run in found.get("runs", [{}])):
            raise SystemExit(f"{path} holds something else than {schema}")
        runs += found["runs"]
    return runs


def versions():
    import importlib.metadata as metadata

    found = {}
    for package in ("torch", "torchvision", "timm", "triton"):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = None
    found |= {"cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()}
    return found


def rates(runs, with_way):
    """Case -> median of the rates of all runs, and case -> way -> the same for the peer."""
    found = {}
    for run in runs:
        for row in run["networks"] + run["training"]:
            key = (row["backbone"], row["from"], row["precision"], row["batch"], row["side"], row["devices"])
            way = row["way"] if with_way else "ichd"
            found.setdefault(key, {}).setdefault(way, []).append(row["images_per_second"])
    return {key: {way: statistics.median(all) for way, all in ways.items()} for key, ways in found.items()}


def compare(ours, theirs):
    """Head and rows of the table of all cases that either has."""
    ours, theirs = rates(ours, False), rates(theirs, True)
    ways = [way for way in ("eager", "amp", "compile", "graphs") if any(way in row for row in theirs.values())]
    head = ["backbone", "from", "type", "batch", "side", "GPUs", "ichd"] + [f"torch {way}" for way in ways] + [f"ichd/{way}" for way in ways]
    # The peer has no forms of its own of these cases.
    theirs |= {key: theirs[base] for key in ours if (base := (key[0], key[1].split(" ")[0], *key[2:])) in theirs and key not in theirs}
    order = {name: at for at, name in enumerate(("train_images", "train_pixels", "images", "images graph", "pixels", "pixels ahead", "pixels filled up"))}
    keys = sorted(set(ours) | set(theirs), key=lambda key: (-order.get(key[1], 9), key[2], key[3], key[0], key[4], key[5]))
    rows = []
    for key in keys:
        own, peers = ours.get(key, {}).get("ichd"), theirs.get(key, {})
        number = lambda value: "-" if value is None else f"{value:.0f}" if value >= 100 else f"{value:.1f}"
        ratio = lambda value: "-" if value is None or own is None else f"{own / value:.2f}x"
        rows.append([str(part) for part in key] + [number(own)] + [number(peers.get(way)) for way in ways] + [ratio(peers.get(way)) for way in ways])
    return head, rows


def kernel_table(runs):
    head = ["kernel", "ms", "GB/s", "of copy", "of floor", "bar", "met"]
    rows = []
    for run in runs:
        for row in run["kernels"]:
            bar, is_met = row["bar"], row["is_met"]
            rows.append([row["name"], f"{row['milliseconds']:.4f}", f"{row['gigabytes_per_second']:.0f}", f"{row['share_of_copy']:.0%}", f"{row['of_floor']:.2f}", "-" if bar is None else f"{bar:.2f}", "-" if is_met is None else "yes" if is_met else "NO"])
    return head, rows


def plain(head, rows):
    widths = [max(len(row[at]) for row in [head, *rows]) for at in range(len(head))]
    line = lambda row: "  ".join(cell.ljust(width) if at < 3 else cell.rjust(width) for at, (cell, width) in enumerate(zip(row, widths))).rstrip()
    return "\n".join(line(row) for row in [head, *rows])


def markdown(head, rows):
    line = lambda row: "| " + " | ".join(row) + " |"
    return "\n".join([line(head), line(["---"] * len(head)), *map(line, rows)])


def tables(ours, theirs):
    """The whole page, as text and as Markdown."""
    pages = {}
    for style, heading, table in ((".txt", "\n{}\n", plain), (".md", "\n## {}\n", markdown)):
        page = [f"ichd {run['program']} ({run['commit']}), {run['date']}, {run['machine'].get('gpu') or run['device']}, driver {run['machine'].get('driver')}, {run['machine'].get('nvrtc')}, copy {run['copy_gigabytes_per_second']} GB/s" for run in ours[:1]]
        page += [", ".join(f"{name} {version}" for name, version in run["versions"].items()) + f", {run['date']}" for run in theirs[:1]]
        # What is no number is null in JSON.
        wrong = [finding for run in ours for finding in run["findings"] if finding["error"] is None or finding["error"] > finding["allowed"]]
        page.append(f"{sum(len(run['findings']) for run in ours)} comparisons with the CPU, {len(wrong)} wrong")
        page += [f"WRONG: {finding['name']}: {finding['error']}, allowed {finding['allowed']}" for finding in wrong]
        page += [heading.format("Images a second"), table(*compare(ours, theirs))]
        if any(run["kernels"] for run in ours):
            page += [heading.format("Kernels"), table(*kernel_table(ours))]
        not_done = [f"{who}: {row['what']}: {row['why']}" for who, runs in (("ichd", ours), ("torch", theirs)) for run in runs for row in run["not_done"]]
        if not_done:
            page += [heading.format("Not done"), "\n".join(f"- {line}" for line in not_done)]
        pages[style] = "\n".join(page) + "\n"
    return pages


def words(allowed):
    def read(text):
        found = [word for word in text.split(",") if word]
        if unknown := [word for word in found if word not in allowed]:
            raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: {', '.join(allowed)} would be right")
        return found

    return read


def numbers(text):
    return [int(word) for word in text.split(",")]


def arguments(names):
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("--device", default="cuda:0")
    args.add_argument("--only", type=words(["networks", "training", "none"]), default=["networks", "training"])
    args.add_argument("--backbones", type=words(names), default=names)
    args.add_argument("--precisions", type=words(TYPES), default=TYPES)
    args.add_argument("--train-precisions", type=words(["bf16", "f32"]), default=["bf16", "f32"])
    args.add_argument("--batches", type=numbers, default=[32, 1, 256])
    args.add_argument("--train-batch", type=int, default=32)
    args.add_argument("--side", type=int, help="of all networks, instead of their own")
    args.add_argument("--ways", type=words(["eager", "amp", "compile", "graphs"]), default=["eager", "amp", "compile"])
    args.add_argument("--seconds", type=float, default=2.0, help="that each measurement lasts")
    args.add_argument("--limit", type=float, help="begins nothing new after so many seconds")
    args.add_argument("--json", help="adds what is found to this file")
    args.add_argument("--against", nargs="*", default=[], help="files of gpu-check")
    args.add_argument("--table", help="writes the tables to this name with .txt and .md")
    return args.parse_args()


def driver():
    try:
        text = subprocess.run(["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"], capture_output=True, text=True, check=True)
        return text.stdout.strip().splitlines()[0]
    except (OSError, subprocess.CalledProcessError, IndexError):
        return None


def measure(args):
    torch.backends.cudnn.benchmark = True
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    date = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    run = {"schema": SCHEMA, "date": date, "arguments": sys.argv[1:], "device": args.device, "gpu": driver(), "versions": versions(), "networks": [], "training": [], "not_done": []}
    journal = Journal(args.json, run)
    bench = Bench(args, journal)
    if run["versions"]["timm"] is None and "xception" in args.backbones:
        print("timm is not here: Xception is the paper's, with timm's shapes")
    for name in args.backbones:
        for part in args.only:
            getattr(bench, part)(name)
    journal.save()
    return journal.runs


if __name__ == "__main__":
    try:
        import torch
        import peer_models
    except ImportError as missing:
        raise SystemExit(f"{missing}: PyTorch and torchvision are needed")
    args = arguments(peer_models.NAMES)
    theirs = runs_of([args.json], SCHEMA) if args.only == ["none"] and args.json else measure(args) if args.only != ["none"] else []
    if args.against:
        pages = tables(runs_of(args.against, "ichd.gpu_check.v1"), theirs)
        print("\n" + pages[".txt"])
        for style, page in pages.items() if args.table else ():
            pathlib.Path(args.table + style).write_text(page)
    if args.only != ["none"] and theirs[-1]["not_done"]:
        sys.exit(1)
