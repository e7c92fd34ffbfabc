#!/usr/bin/env python3
"""Writes fuzz/seeds anew: small, valid inputs for every fuzz target, made from the files in tests/data/dicom and
tests/data/jpeg2000 and from daemon.yaml. Standard library only. Run by `tools/fuzz.sh seeds`."""

import json
import pathlib
import shutil
import struct
import zlib

ROOT = pathlib.Path(__file__).resolve().parent.parent
SEEDS = ROOT / "fuzz" / "seeds"
LONG = {b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"}
# One for each way of encoding a data set; `decode` starts from the files themselves.
WALKED = {"enhanced_implicit", "enhanced_rle", "rsna_style", "signed16_explicit_be", "signed16_undefined_lengths"}
CODECS = {"rle": "rle", "jpeg": "jpeg_", "jpegls": "jpegls", "jpeg2000": "j2k"}


def write(target, name, content):
    folder = SEEDS / target
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content)


def meta_end(data):
    """Where the file meta information ends, and the transfer syntax that it names."""
    at, syntax = 132, ""
    while data[at : at + 2] == b"\x02\x00":
        vr = data[at + 4 : at + 6]
        if vr in LONG:
            length, value = struct.unpack_from("<I", data, at + 8)[0], at + 12
        else:
            length, value = struct.unpack_from("<H", data, at + 6)[0], at + 8
        if data[at : at + 4] == b"\x02\x00\x10\x00":
            syntax = data[value : value + length].rstrip(b"\0 ").decode()
        at = value + length
    return at, syntax


def codestream(data):
    """All fragments of the pixel data, joined."""
    at = data.index(b"\xe0\x7f\x10\x00OB\0\0\xff\xff\xff\xff") + 12
    items = []
    while data[at : at + 4] == b"\xfe\xff\x00\xe0":
        length = struct.unpack_from("<I", data, at + 4)[0]
        items.append(data[at + 8 : at + 8 + length])
        at += 8 + length
    return b"".join(items[1:])


def small(stream, side=16, coded=600):
    """The beginning of a JPEG or JPEG-LS codestream as a picture of `side` x `side`: quicker to run through."""
    frame = next(at for at in range(len(stream)) if stream[at] == 0xFF and stream[at + 1] in (0xC0, 0xC1, 0xC3, 0xF7))
    size = struct.pack(">2H", side, side)
    return (stream[: frame + 5] + size + stream[frame + 9 :])[: stream.index(b"\xff\xda") + coded]


def side(data, tag):
    return struct.unpack_from("<H", data, data.index(tag) + 8)[0]


def dicom():
    for path in sorted((ROOT / "tests/data/dicom").glob("*.dcm")):
        data = path.read_bytes()
        end, syntax = meta_end(data)
        if syntax == "1.2.840.10008.1.2.1.99":
            write("inflate", path.stem, data[end:])
            continue
        if path.stem in WALKED:
            explicit, big = syntax != "1.2.840.10008.1.2", syntax == "1.2.840.10008.1.2.2"
            write("prewalk", path.stem, bytes([explicit | big << 1]) + data[end:])
        for target, part in CODECS.items():
            if part in path.name and "enhanced" not in path.name:
                rows, columns = side(data, b"\x28\x00\x10\x00US"), side(data, b"\x28\x00\x11\x00US")
                bits = 0 if data[data.index(b"\x28\x00\x00\x01US") + 8] == 16 else 1
                write(target, path.stem, bytes([rows - 1, columns - 1, bits]) + codestream(data))
                if target in ("jpeg", "jpegls"):
                    write(target, path.stem + "_small", bytes([15, 15, bits]) + small(codestream(data)))
    squeeze = zlib.compressobj(9, zlib.DEFLATED, -15)
    write("inflate", "empty_picture", squeeze.compress(bytes(1 << 16)) + squeeze.flush())


def jpeg2000():
    """Those of all styles and orders that fit into what the target reads, 64 x 64."""
    for line in (ROOT / "tests/data/jpeg2000/cases.csv").read_text().splitlines():
        name, rows, columns, *_ = line.split(",")
        if int(rows) <= 64 and int(columns) <= 64:
            stream = (ROOT / f"tests/data/jpeg2000/{name}.j2k").read_bytes()
            write("jpeg2000", name, bytes([int(rows) - 1, int(columns) - 1, 0]) + stream)


def config():
    text = (ROOT / "daemon.yaml").read_text()
    write("config", "shipped", text.encode())
    write("config", "short", b"inbox: { path: in, after: move }\ndevice: cuda:1\nlog: { filter: 'info,ichd=debug' }\n")
    route = "routes:\n  - name: er\n    match: { folder: [er/*], thickness_max: 3 }\n    models: [{ name: a, weight: 2 }]\n"
    write("config", "route", route.encode())
    write("config", "alias", b"a: &a [1]\nwindows: [*a, *a]\nresults: {smoothing: [0.1, 0.8, 0.1]}\n")
    write("config", "wrong", b"inbox:\n  setle_ms: 5\n  scan_secs: fast\nbatch: 7\nturbo: true\n")


def pickled(tensors):
    """The pickle of a state dict of f32 tensors, as PyTorch writes it."""

    def text(value):
        return b"X" + struct.pack("<I", len(value)) + value.encode()

    out = b"\x80\x02ccollections\nOrderedDict\n)R("
    for key, (name, shape) in enumerate(tensors.items()):
        count, strides = 1, []
        for length in reversed(shape):
            strides.insert(0, count)
            count *= length
        out += text(name) + b"ctorch._utils\n_rebuild_tensor_v2\n((" + text("storage") + b"ctorch\nFloatStorage\n"
        out += text(str(key)) + text("cpu") + b"J" + struct.pack("<i", count) + b"tQK\0("
        out += b"".join(b"J" + struct.pack("<i", length) for length in shape) + b"t("
        out += b"".join(b"J" + struct.pack("<i", stride) for stride in strides)
        out += b"t\x89ccollections\nOrderedDict\n)RtR"
    return out + b"u."


def archive(entries):
    """A ZIP archive of stored entries."""
    body, directory = b"", b""
    for name, content in entries.items():
        common = struct.pack("<5H3I2H", 20, 0, 0, 0, 0, 0, len(content), len(content), len(name), 0)
        directory += b"PK\x01\x02\x14\0" + common + bytes(10) + struct.pack("<I", len(body)) + name.encode()
        body += b"PK\x03\x04" + common + name.encode() + content
    end = struct.pack("<2H2I", len(entries), len(entries), len(directory), len(body))
    return body + directory + b"PK\x05\x06\0\0\0\0" + end + bytes(2)


def weights():
    head = json.dumps(
        {
            "conv.weight": {"dtype": "F32", "shape": [2, 1], "data_offsets": [0, 8]},
            "conv.bias": {"dtype": "F16", "shape": [2], "data_offsets": [8, 12]},
        }
    ).encode()
    write("weights", "small.safetensors", struct.pack("<Q", len(head)) + head + bytes(12))
    tensors = {"conv.weight": [2, 3], "conv.bias": [2]}
    entries = {"archive/data.pkl": pickled(tensors), "archive/byteorder": b"little"}
    entries |= {"archive/data/0": bytes(24), "archive/data/1": bytes(8)}
    write("weights", "small.pth", archive(entries))
    write("weights", "small.pickle", pickled(tensors))


shutil.rmtree(SEEDS, ignore_errors=True)
dicom()
jpeg2000()
config()
weights()
print(sum(path.stat().st_size for path in SEEDS.rglob("*") if path.is_file()), "bytes of seeds")
