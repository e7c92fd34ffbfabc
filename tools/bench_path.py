#!/usr/bin/env python3
"""The whole path, from a file that drops into the inbox to its result: ichd and daemons as people write them in Python.

    pip install -r tools/requirements-peers.txt
    cargo build --release
    python tools/bench_path.py [--networks mobilenet_v2 resnet50] [--peers torch onnx openvino] [--turns 3] [--json FILE]

All run on the same files in turn, each in folders and a process of its own, with the same weights. Measured are slices a second
when all files drop at once, the time from drop to result when they come one by one (median, 99th percentile), the process's
largest memory, its processor time a slice, and the time from its start until it is ready. Ratios: ichd against each peer, above 1
where ichd is better.

With --growth, tables instead: how slices a second, processor time a slice and memory grow with the number of files that drop
at once (1,000, 10,000; --large: 100,000), with bursts of 1 to 64, and with slices of 128 to 1024 pixels; for ichd also how long
a restart takes to find a new file among those on record. Each row is a process of its own. A peer's row that would take longer
than --row-seconds, as the row before it foretells, is left out.

    python tools/bench_path.py --growth files bursts sides --networks mobilenet_v2 --peers onnx --json growth.json

ichd tells nothing of a file before it has been quiet for `settle_ms`, through which it works, and the Python daemons do not wait;
its times from drop to result include that second or so, and a second figure leaves it out. --settle sets it. --precision bf16 lets ichd
multiply in bfloat16, where the CPU has it, which is another comparison than that of equals.
"""

import argparse
import json
import os
import pathlib
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time

import safetensors.torch
import torch

from peer_networks import network

HERE = pathlib.Path(__file__).resolve().parent
PATIENCE = 600.0


def family(pid):
    """A process and its descendants."""
    try:
        children = pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
    return [pid] + [one for child in children for one in family(int(child))]


def cpu_seconds(pid):
    ticks = 0
    for one in family(pid):
        fields = pathlib.Path(f"/proc/{one}/stat").read_text().rsplit(")", 1)[1].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def peak_megabytes(pid):
    def peak(one):
        status = pathlib.Path(f"/proc/{one}/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) / 1024

    return max(peak(one) for one in family(pid))


class Contender:
    """One daemon on folders of its own."""

    def __init__(self, folder):
        self.folder = folder
        self.inbox, self.out = folder / "inbox", folder / "results"
        for path in (self.inbox, self.out):
            path.mkdir(parents=True)

    def start(self, command, ready, stream):
        begun = time.perf_counter()
        log = open(self.folder / "log", "w", encoding="utf-8")
        pipes = {stream: subprocess.PIPE, "stderr" if stream == "stdout" else "stdout": log}
        self.process = subprocess.Popen(command, text=True, **pipes)
        lines = getattr(self.process, stream)
        for line in lines:
            log.write(line)
            if ready in line:
                break
        else:
            raise SystemExit(f"{command[0]} ended before it was ready; see {self.folder}/log")
        threading.Thread(target=lambda: [log.write(line) for line in lines], daemon=True).start()
        return time.perf_counter() - begun

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(60)


class Ichd(Contender):
    name = "ichd"

    def __init__(self, folder, args, models, name):
        super().__init__(folder)
        self.settle, self.program = args.settle / 1000, args.ichd
        (folder / "daemon.yaml").write_text(
            f"inbox: {{ path: inbox, settle_ms: {args.settle}, after: keep, done_path: done, rejected_path: rejected }}\n"
            f"results: {{ path: results }}\nledger: {{ path: ledger.sqlite }}\nmodel: {{ path: {models}, name: {name} }}\n"
            f"device: cpu\nprecision: {args.precision}\n"
        )
        self.again()

    def again(self):
        self.ready = self.start([self.program, "run", "--config", str(self.folder / "daemon.yaml")], "Ready.", "stderr")

    def result(self, file):
        return self.out / file.study / f"{file.instance}.json"


class Peer(Contender):
    settle = 0.0

    def __init__(self, folder, runtime, weights, name):
        super().__init__(folder)
        self.name = runtime
        command = [sys.executable, str(HERE / "peer_daemon.py"), str(self.inbox), str(self.out), "--network", name]
        self.ready = self.start(command + ["--runtime", runtime, "--weights", str(weights)], "READY", "stdout")

    def result(self, file):
        return self.out / f"{file.instance}.json"


class File:
    def __init__(self, path):
        self.path, self.study, self.instance = path, path.parent.name, path.stem


def drop(contender, file):
    """Copied beside the inbox beforehand; the rename is what a receiver does last."""
    os.rename(contender.folder / "stage" / f"{file.instance}.dcm", contender.inbox / f"{file.instance}.dcm")


def wait_for(contender, file, pause):
    end = time.perf_counter() + PATIENCE
    while not contender.result(file).exists():
        if time.perf_counter() > end:
            raise SystemExit(f"{contender.name}: no result of {file.instance} after {PATIENCE} s")
        time.sleep(pause)


def put_ready(contender, files):
    stage = contender.folder / "stage"
    stage.mkdir(exist_ok=True)
    for file in files:
        shutil.copy(file.path, stage / f"{file.instance}.dcm")
    os.sync()


def burst(contender, files, pause=0.005):
    """Seconds from the first drop to the last result, and processor time."""
    pid = contender.process.pid
    cpu, begun = cpu_seconds(pid), time.perf_counter()
    for file in files:
        drop(contender, file)
    for file in reversed(files):
        wait_for(contender, file, pause)
    return time.perf_counter() - begun, cpu_seconds(pid) - cpu


def measure(contender, many, singles, rate):
    put_ready(contender, many + singles)
    pid = contender.process.pid
    try:
        seconds, cpu = burst(contender, many)
        waits, begun = [], time.perf_counter() + 0.5
        for at, file in enumerate(singles):
            time.sleep(max(0.0, begun + at / rate - time.perf_counter()))
            dropped = time.perf_counter()
            drop(contender, file)
            threading.Thread(target=lambda f=file, d=dropped: (wait_for(contender, f, 0.001), waits.append(time.perf_counter() - d))).start()
        while len(waits) < len(singles):
            time.sleep(0.01)
        waits = sorted(waits)
        return {
            "slices_per_second": len(many) / seconds,
            "median_ms": statistics.median(waits) * 1e3,
            "p99_ms": waits[min(len(waits) - 1, int(0.99 * len(waits)))] * 1e3,
            "settle_ms": contender.settle * 1e3,
            "memory_mb": peak_megabytes(pid),
            "cpu_ms_per_slice": cpu / len(many) * 1e3,
            "ready_s": contender.ready,
        }
    finally:
        contender.stop()


def grown(contender, bursts):
    """One row of a growth table: equal bursts, one after the other. `work_s` leaves settling out."""
    n_files = sum(map(len, bursts))
    put_ready(contender, [file for files in bursts for file in files])
    try:
        times = [burst(contender, files, 0.001) for files in bursts]
        seconds = [seconds - contender.settle for seconds, _ in times]
        return {
            "slices_per_second": n_files / sum(seconds),
            "work_s": statistics.median(seconds),
            "work_most_s": max(seconds),
            "memory_mb": peak_megabytes(contender.process.pid),
            "cpu_ms_per_slice": sum(cpu for _, cpu in times) / n_files * 1e3,
        }
    finally:
        contender.stop()


def restart(contender, file):
    """Seconds from the start of a daemon whose inbox is on record to the result of one new file, settling left out."""
    put_ready(contender, [file])
    begun = time.perf_counter()
    drop(contender, file)
    contender.again()
    try:
        wait_for(contender, file, 0.001)
        return time.perf_counter() - begun - contender.settle
    finally:
        contender.stop()


def phantoms(args, work, side, wanted):
    heads = work / f"heads-{side}"
    make = [args.ichd, "phantom", "--out", str(heads), "--studies", str(wanted // 28 + 1), "--side", str(side)]
    subprocess.run(make, check=True, stdout=subprocess.DEVNULL)
    files = [File(path) for path in sorted(heads.glob("*/*.dcm"))]
    if len(files) < wanted:
        raise SystemExit(f"{heads} has {len(files)} slices, {wanted} are needed")
    return files


def rows_of(args, table):
    """What grows: its name, the pixels of a side, slices a burst, bursts."""
    if table == "files":
        return [(str(n), args.small_side, n, 1) for n in args.counts + ([100_000] if args.large else [])]
    if table == "bursts":
        return [(str(n), args.side, n, args.rounds) for n in (1, 2, 4, 8, 16, 32, 64)]
    return [(str(side), side, args.side_files, 1) for side in (128, 256, 512, 768, 1024)]


def growth(args, work, name):
    weights = prepare(args, work, name)
    tables = {}
    for table in args.growth:
        rows = rows_of(args, table)
        rates, found = {}, {}
        for label, side, size, rounds in rows:
            files = phantoms(args, work, side, size * rounds + 1)
            bursts = [files[at * size : (at + 1) * size] for at in range(rounds)]
            for who in ["ichd", *args.peers]:
                row = found.setdefault(who, {})
                if who != "ichd" and who in rates and size * rounds / rates[who] > args.row_seconds:
                    row[label] = None
                    continue
                folder = work / f"{name}-{who}-{table}-{label}"
                contender = Ichd(folder, args, work / "models", name) if who == "ichd" else Peer(folder, who, weights, name)
                row[label] = grown(contender, bursts)
                rates[who] = row[label]["slices_per_second"]
                if who == "ichd" and table == "files":
                    row[label]["restart_s"] = restart(contender, files[size * rounds])
                shutil.rmtree(folder)
            shutil.rmtree(work / f"heads-{side}")
        tables[table] = found
        show_growth(name, table, found)
    return tables


def show_growth(name, table, found):
    columns = ["slices_per_second", "work_s", "work_most_s", "cpu_ms_per_slice", "memory_mb", "restart_s"]
    print(f"\n{name}, {table:<10}" + "".join(f"{column:>19}" for column in columns))
    for who, rows in found.items():
        for label, row in rows.items():
            figures = ["too slow"] if row is None else [f"{row[column]:.3f}" if column in row else "" for column in columns]
            print(f"{who:<12}{label:>10}" + "".join(f"{figure:>19}" for figure in figures), flush=True)


def prepare(args, work, name):
    """The same random weights for all; BatchNorm statistics as they are at the start."""
    weights = work / f"{name}.pth"
    torch.manual_seed(1)
    state = network(name).state_dict()
    torch.save(state, weights)
    tensors = work / f"{name}.safetensors"
    safetensors.torch.save_file({key: value.contiguous() for key, value in state.items()}, tensors)
    (work / "import.yaml").write_text(f"model: {{ path: {work}/models }}\n")
    command = [args.ichd, "models", "import", "--config", str(work / "import.yaml"), "--backbone", name, "--weights", str(tensors)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return weights


def ratios(ours, theirs):
    more, less = ["slices_per_second"], ["median_ms", "p99_ms", "memory_mb", "cpu_ms_per_slice", "ready_s"]
    found = {key: ours[key] / theirs[key] for key in more}
    found.update({key: theirs[key] / ours[key] for key in less})
    found["p99_without_settling"] = theirs["p99_ms"] / max(ours["p99_ms"] - ours["settle_ms"], 1e-3)
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ichd", default="target/release/ichd")
    parser.add_argument("--networks", nargs="+", default=["mobilenet_v2", "resnet50"])
    parser.add_argument("--peers", nargs="*", default=["torch", "onnx", "openvino"])
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--files", type=int, default=512, help="dropped at once")
    parser.add_argument("--singles", type=int, default=60, help="dropped one by one")
    parser.add_argument("--rate", type=float, default=5.0, help="of the singles, a second")
    parser.add_argument("--settle", type=int, default=1000, help="ichd's inbox.settle_ms")
    parser.add_argument("--precision", default="f32", help="of ichd alone; the Python daemons compute in f32")
    parser.add_argument("--side", type=int, default=512, help="pixels of a slice's side")
    parser.add_argument("--heads", type=pathlib.Path, help="folder of phantoms to use again")
    parser.add_argument("--growth", nargs="+", choices=["files", "bursts", "sides"], help="tables of growth instead")
    parser.add_argument("--counts", type=int, nargs="+", default=[1000, 10_000], help="files at once, for --growth files")
    parser.add_argument("--large", action="store_true", help="100,000 files, too: some gigabytes")
    parser.add_argument("--small-side", type=int, default=128, help="pixels of a side for --growth files")
    parser.add_argument("--rounds", type=int, default=8, help="bursts of each size, for --growth bursts")
    parser.add_argument("--side-files", type=int, default=128, help="slices of each side, for --growth sides")
    parser.add_argument("--row-seconds", type=float, default=300.0, help="longest row of a peer in tables of growth")
    parser.add_argument("--json")
    args = parser.parse_args()
    args.ichd = str(pathlib.Path(args.ichd).resolve())
    work = pathlib.Path(tempfile.mkdtemp(prefix="ichd-bench-"))
    if args.growth:
        try:
            report = {name: growth(args, work, name) for name in args.networks}
        finally:
            shutil.rmtree(work)
        save(args, report)
        return
    heads = args.heads or work / "heads"
    wanted = args.files + args.singles
    if not heads.exists():
        make = [args.ichd, "phantom", "--out", str(heads), "--studies", str(wanted // 30 + 1), "--side", str(args.side)]
        subprocess.run(make, check=True, stdout=subprocess.DEVNULL)
    files = [File(path) for path in sorted(heads.glob("*/*.dcm"))][:wanted]
    if len(files) < wanted:
        raise SystemExit(f"{heads} has {len(files)} slices, {wanted} are needed")
    many, singles = files[: args.files], files[args.files :]
    report = {}
    try:
        for name in args.networks:
            weights = prepare(args, work, name)
            rows = {}
            for turn in range(args.turns):
                for who in ["ichd", *args.peers]:
                    folder = work / f"{name}-{who}-{turn}"
                    contender = Ichd(folder, args, work / "models", name) if who == "ichd" else Peer(folder, who, weights, name)
                    rows.setdefault(who, []).append(measure(contender, many, singles, args.rate))
                    shutil.rmtree(folder)
            middle = {who: {key: statistics.median(row[key] for row in turns) for key in turns[0]} for who, turns in rows.items()}
            report[name] = {"median": middle, "ratios": {who: ratios(middle["ichd"], middle[who]) for who in args.peers}}
            show(name, report[name])
    finally:
        shutil.rmtree(work)
    save(args, report)


def save(args, report):
    if args.json:
        pathlib.Path(args.json).write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def show(name, found):
    columns = ["slices_per_second", "median_ms", "p99_ms", "memory_mb", "cpu_ms_per_slice", "ready_s"]
    print(f"\n{name:<24}" + "".join(f"{column:>19}" for column in columns))
    for who, row in found["median"].items():
        print(f"{who:<24}" + "".join(f"{row[column]:>19.2f}" for column in columns))
    for who, row in found["ratios"].items():
        print(f"ichd against {who:<11}" + "".join(f"{row[column]:>19.2f}" for column in columns))


if __name__ == "__main__":
    main()
