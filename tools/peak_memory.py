#!/usr/bin/env python3
"""Runs a command and prints the largest memory of its own (anonymous pages) and of mapped files that it had, in MB.

Mapped pages of the cache belong to the system, which takes them back when others need room; a peak of both together, as
`time -v` gives it, says little.

usage: tools/peak_memory.py COMMAND...
"""

import subprocess
import sys
import time


def main() -> int:
    if len(sys.argv) < 2:
        print(__doc__, file=sys.stderr)
        return 64
    child = subprocess.Popen(sys.argv[1:])
    peak = {"RssAnon": 0, "RssFile": 0}
    while child.poll() is None:
        try:
            with open(f"/proc/{child.pid}/status", encoding="ascii", errors="replace") as status:
                for line in status:
                    name, _, value = line.partition(":")
                    if name in peak:
                        peak[name] = max(peak[name], int(value.split()[0]))
        except (OSError, ValueError, IndexError):
            pass
        time.sleep(0.02)
    own, mapped = (peak[name] / 1024 for name in ("RssAnon", "RssFile"))
    print(f"own {own:.0f} MB, mapped files {mapped:.0f} MB", file=sys.stderr)
    return child.returncode


if __name__ == "__main__":
    sys.exit(main())
