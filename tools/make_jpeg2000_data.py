"""Makes tests/data/jpeg2000: small codestreams that use every part of JPEG 2000 that the decoder knows, with the values that
a reader must find.

OpenJPEG's opj_compress writes them (Debian: libopenjp2-tools). Values of lossless ones are those that went in; of others those
of opj_decompress, by which the 9-7 transform may differ by one. OpenJPEG cannot pack the headers of packets; here they are cut out at
their markers and put into PPM and PPT segments. Its region of interest is right in lossless files only. Needs numpy. Never needed to
build, test or run.

    python tools/make_jpeg2000_data.py [FOLDER]
    python tools/make_jpeg2000_data.py FOLDER --random 1000 [--seed N]

The second form makes as many of random sizes and options; ICHD_JPEG2000_CASES=FOLDER lets the test
dicom::codec::jpeg2000::golden::codestreams_decode_to_what_went_in read them instead.
"""

import argparse
import pathlib
import random
import shutil
import subprocess
import tempfile

import numpy

ROOT = pathlib.Path(__file__).resolve().parent.parent
START, HEADER_END = b"\xff\x91", b"\xff\x92"

# Name, columns, rows, bits, sign, options of opj_compress. Lossless where the last rate is 1 or none is given.
CASES = [
    ("plain", 37, 29, 16, "s", ""),
    ("unsigned", 37, 29, 12, "u", ""),
    ("eight_bits", 37, 29, 8, "u", ""),
    ("one_pixel", 1, 1, 16, "u", "-n 1"),
    ("one_row", 45, 1, 12, "s", "-n 1"),
    ("one_column", 1, 45, 12, "u", "-n 1"),
    ("no_levels", 37, 29, 12, "u", "-n 1"),
    ("deep", 70, 66, 12, "u", "-n 7"),
    ("lossy", 61, 47, 12, "u", "-I -r 6"),
    ("lossy_signed", 61, 47, 12, "s", "-I -r 4 -n 4"),
    ("lossy_layers", 61, 47, 12, "u", "-I -r 20,10,3"),
    ("cut_off", 61, 47, 12, "u", "-r 5"),
    ("cut_off_layers", 61, 47, 14, "s", "-r 30,9,4"),
    ("layers", 37, 29, 12, "u", "-r 20,10,5,2,1"),
    ("blocks", 67, 35, 12, "u", "-b 16,16"),
    ("smallest_blocks", 37, 29, 12, "s", "-b 4,4"),
    ("wide_blocks", 130, 13, 12, "s", "-b 1024,4"),
    ("high_blocks", 13, 130, 12, "s", "-b 4,1024"),
    ("precincts", 67, 61, 12, "u", "-b 16,16 -c [32,32],[16,16],[8,8] -n 5"),
    ("smallest_precincts", 19, 17, 12, "u", "-b 4,4 -c [4,4] -n 3"),
    ("bypass", 37, 29, 16, "s", "-M 1"),
    ("reset", 37, 29, 16, "s", "-M 2"),
    ("each_pass_ends", 37, 29, 16, "s", "-M 4"),
    ("causal", 37, 29, 16, "s", "-M 8"),
    ("predictable_ends", 37, 29, 16, "s", "-M 16"),
    ("segment_symbols", 37, 29, 16, "s", "-M 32"),
    ("bypass_each_pass_ends", 37, 29, 16, "s", "-M 5 -r 8,1"),
    ("all_styles", 37, 29, 16, "u", "-M 63 -r 9,3,1"),
    ("tiles", 67, 61, 12, "u", "-t 23,19 -n 3"),
    ("tiles_off_origin", 67, 61, 12, "s", "-t 23,19 -d 13,7 -T 3,5 -n 3"),
    ("off_origin", 67, 61, 12, "u", "-d 13,7 -n 4"),
    ("off_origin_lossy", 67, 61, 12, "u", "-d 13,7 -n 4 -I -r 4"),
    ("tiles_lossy", 67, 61, 12, "s", "-t 31,33 -n 3 -I -r 4"),
    ("tile_parts", 67, 61, 12, "u", "-t 32,28 -TP R -n 4 -SOP -EPH -PLT -r 8,1"),
    ("tile_parts_layers", 67, 61, 12, "u", "-TP L -n 4 -r 8,1"),
    ("order_rlcp", 67, 61, 12, "u", "-p RLCP -b 16,16 -c [32,32],[16,32] -n 4 -r 9,1"),
    ("order_rpcl", 67, 61, 12, "u", "-p RPCL -b 16,16 -c [32,32],[16,32] -n 4 -r 9,1"),
    ("order_pcrl", 67, 61, 12, "u", "-p PCRL -b 16,16 -c [32,32],[16,32] -n 4 -r 9,1 -d 5,9"),
    ("order_cprl", 67, 61, 12, "u", "-p CPRL -b 16,16 -c [32,32],[16,32] -n 4 -r 9,1 -d 5,9"),
    ("order_changes", 67, 61, 12, "u", "-n 4 -r 9,1 -POC T1=2,0,2,4,1,RPCL/T1=0,0,2,2,1,LRCP"),
    ("raised", 37, 29, 12, "u", "-ROI c=0,U=7"),
    ("packet_markers", 67, 61, 12, "s", "-SOP -EPH -n 4 -r 9,1"),
]


def picture(random_state, columns, rows, bits, sign):
    """Rings with edges and noise over most of the range."""
    y, x = numpy.mgrid[:rows, :columns]
    radius = numpy.hypot(x - columns * 0.4, y - rows * 0.55)
    values = numpy.sin(radius / 5) * 2 ** (bits - 3) + random_state.normal(0, 2 ** (bits - 7) + 1, (rows, columns))
    values[radius > 0.6 * max(rows, columns)] = -(2 ** (bits - 1))
    values = numpy.clip(numpy.rint(values), -(2 ** (bits - 1)), 2 ** (bits - 1) - 1).astype(numpy.int64)
    return values if sign == "s" else values + 2 ** (bits - 1)


def kind(bits, sign):
    return ("<i" if sign == "s" else "<u") + ("1" if bits <= 8 else "2")


def encode(values, bits, sign, options, folder):
    """The codestream and what OpenJPEG reads from it; None where it cannot write one."""
    rows, columns = values.shape
    source, coded, read = folder / "source.rawl", folder / "coded.j2k", folder / "read.rawl"
    values.astype(kind(bits, sign)).tofile(source)
    coded.unlink(missing_ok=True)
    if "-n" not in options.split():
        options += f" -n {min(6, min(rows, columns).bit_length())}"
    command = ["opj_compress", "-i", source, "-o", coded, "-F", f"{columns},{rows},1,{bits},{sign}", *options.split()]
    made = subprocess.run(command, capture_output=True, text=True)
    if made.returncode or not coded.exists() or coded.stat().st_size < 60:
        return None
    if subprocess.run(["opj_decompress", "-i", coded, "-o", read], capture_output=True).returncode:
        return None
    decoded = numpy.fromfile(read, kind(bits, sign)).astype(numpy.int64).reshape(rows, columns)
    # It writes signed samples without their sign.
    half = 2 ** (bits - 1)
    return coded.read_bytes(), (decoded + half) % (2 * half) - half if sign == "s" else decoded


def marker(code, content):
    return bytes([0xFF, code]) + (len(content) + 2).to_bytes(2, "big") + content


def packed(stream, where):
    """The same with the headers of packets in PPM or PPT segments; one tile-part, packets between SOP and EPH."""
    tile = stream.index(b"\xff\x90")
    data = stream.index(b"\xff\x93", tile) + 2
    headers, bodies = [], []
    for packet in stream[data:-2].split(START + b"\0\4")[1:]:
        header, body = packet[2:].split(HEADER_END, 1)
        headers.append(header)
        bodies.append(body)
    headers, bodies = b"".join(headers), b"".join(bodies)
    # Neither SOP nor EPH any more.
    style = stream.index(b"\xff\x52") + 4
    main = bytearray(stream[:tile])
    main[style] &= ~6
    if where == "ppt":
        # In two segments, in the wrong order: numbers count.
        half = len(headers) // 2
        part = marker(0x61, b"\1" + headers[half:]) + marker(0x61, b"\0" + headers[:half])
    else:
        run = len(headers).to_bytes(4, "big") + headers
        main += marker(0x60, b"\1" + run[7:]) + marker(0x60, b"\0" + run[:7])
        part = b""
    body = part + b"\xff\x93" + bodies
    start = bytearray(stream[tile : tile + 12])
    start[6:10] = (12 + len(body)).to_bytes(4, "big")
    return bytes(main) + bytes(start) + body + b"\xff\xd9"


def write(folder, name, stream, values, bits, sign, tolerance):
    (folder / f"{name}.j2k").write_bytes(stream)
    (folder / f"{name}.values").write_bytes((values & 0xFFFF).astype("<u2").tobytes())
    rows, columns = values.shape
    with (folder / "cases.csv").open("a") as table:
        table.write(f"{name},{rows},{columns},{bits},{sign},{tolerance}\n")


def is_lossless(options):
    rates = options.split("-r ")[1].split()[0].split(",") if "-r " in options else ["1"]
    return "-I" not in options.split() and rates[-1] == "1"


def any_case(chance):
    """Sizes and options as they come."""
    columns, rows = (chance.choice([1, 2, 3, 5, 17, 33, 64, 65, 100, 128, 131, 200, 260]) for _ in range(2))
    bits, sign = chance.choice([8, 10, 12, 12, 14, 16, 16]), chance.choice("suu")
    levels = chance.randint(0, min(6, min(columns, rows).bit_length() - 1))
    options = [f"-n {levels + 1}", f"-p {chance.choice(['LRCP', 'RLCP', 'RPCL', 'PCRL', 'CPRL'])}"]
    layers = chance.choice([1, 1, 1, 2, 3, 5])
    rates = sorted(chance.sample([1.5, 2, 3, 5, 8, 20, 50], layers), reverse=True)
    # In 16 bits OpenJPEG's own 9-7 transform is off by up to three.
    if chance.random() < 0.35 and bits < 16:
        options.append("-I -r " + ",".join(map(str, rates)))
    elif chance.random() < 0.5:
        options.append("-r " + ",".join(map(str, rates[:-1] + [chance.choice([1, 2])])))
    styles = sum(bit for bit in (1, 2, 4, 8, 16, 32) if chance.random() < 0.25)
    options.append(f"-M {styles}")
    width = chance.choice([4, 16, 32, 64, 64, 128, 256])
    options.append(f"-b {width},{chance.choice([side for side in (4, 16, 32, 64, 128, 256) if side * width <= 4096])}")
    if chance.random() < 0.35:
        sides = (f"[{2 ** chance.randint(4, 8)},{2 ** chance.randint(4, 8)}]" for _ in range(chance.randint(1, 3)))
        options.append("-c " + ",".join(sides))
    left, top = (chance.randint(0, 60), chance.randint(0, 60)) if chance.random() < 0.3 else (0, 0)
    options.append(f"-d {left},{top}")
    if chance.random() < 0.35:
        # Not one column or row: of those OpenJPEG's encoder loses bits.
        wide, high = chance.randint(20, 140), chance.randint(20, 140)
        if (left + columns) % wide != 1 and (top + rows) % high != 1:
            options.append(f"-t {wide},{high}")
    options += [option for option in ("-SOP", "-EPH", "-PLT") if chance.random() < 0.3]
    return columns, rows, bits, sign, " ".join(options)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=pathlib.Path, default=ROOT / "tests/data/jpeg2000")
    parser.add_argument("--random", type=int, default=0)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    shutil.rmtree(args.folder, ignore_errors=True)
    args.folder.mkdir(parents=True)
    chance = random.Random(args.seed)
    cases = [(f"{number:05}", *any_case(chance)) for number in range(args.random)] or CASES
    n_left_out = 0
    with tempfile.TemporaryDirectory() as temporary:
        for name, columns, rows, bits, sign, options in cases:
            values = picture(numpy.random.default_rng(chance.randrange(1 << 30)), columns, rows, bits, sign)
            made = encode(values, bits, sign, options, pathlib.Path(temporary))
            if made is None or (is_lossless(options) and "-ROI" not in options and (made[1] != values).any()):
                if not args.random:
                    raise SystemExit(f"OpenJPEG cannot make {name}: {options}")
                n_left_out += 1
                continue
            stream, read = made
            tolerance = int("-I" in options.split())
            expected = values if is_lossless(options) else read
            write(args.folder, name, stream, expected, bits, sign, tolerance)
            if name == "packet_markers":
                for where in ("ppm", "ppt"):
                    write(args.folder, f"packed_{where}", packed(stream, where), expected, bits, sign, tolerance)
    print(f"{len(list(args.folder.glob('*.j2k')))} codestreams, {n_left_out} that OpenJPEG writes wrongly or not at all")


if __name__ == "__main__":
    main()
