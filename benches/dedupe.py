#!/usr/bin/env python3
"""Times `mlx-cache dedupe` against fclones and rdfind in turn, on folders made for it.

Two folders: FILES small files in pairs (names, sizes and headers of many), and a few large ones of BYTES in
all, each twice. Cold means that the page cache was dropped (as root) and that nothing is remembered; warm
means that nothing has changed since. Every program only looks: nothing is linked.

    benches/dedupe.py --mlx-cache target/release/mlx-cache --folder /tmp/dedupe-bench
"""

import argparse
import os
import pathlib
import random
import shutil
import statistics
import subprocess
import sys
import time


def make_small(folder, count):
    """Pairs of equal files, mostly holes; a third of all share a size with others but differ."""
    folder.mkdir(parents=True)
    source = random.Random(1)
    for at in range(count // 2):
        kind = source.random()
        size = 40_000 if kind < 0.33 else source.randrange(17_000, 60_000)
        head, tail = source.randbytes(64), source.randbytes(64)
        for copy in ("a", "b"):
            place = folder / copy / f"{at // 500:03}"
            place.mkdir(parents=True, exist_ok=True)
            with open(place / f"{at:06}.safetensors", "wb") as file:
                file.write(head)
                file.seek(size - len(tail))
                file.write(tail)


def make_large(folder, total, sparse):
    """Eight files in four pairs."""
    folder.mkdir(parents=True)
    source = random.Random(2)
    size = total // 8
    for pair in range(4):
        first, second = (folder / f"{pair}-{copy}.safetensors" for copy in "ab")
        block = source.randbytes(1 << 20)
        with open(first, "wb") as file:
            if sparse:
                file.write(block)
                file.truncate(size)
            else:
                for _ in range(size >> 20):
                    file.write(block[:-8] + source.randbytes(8))
        if sparse:
            with open(second, "wb") as file:
                file.write(block)
                file.truncate(size)
        else:
            shutil.copyfile(first, second)


def drop_caches():
    subprocess.run(["sync"], check=True)
    try:
        pathlib.Path("/proc/sys/vm/drop_caches").write_text("3")
        return True
    except OSError:
        return False


def run(command, env):
    """Seconds and peak memory in MB of a program that must succeed."""
    started = time.monotonic()
    # A child begins with the peak memory of this process: nothing large may be kept here.
    process = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.monotonic() - started
    if status != 0:
        sys.exit(f"{command} ended with {status}")
    return seconds, usage.ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--mlx-cache", required=True)
    arguments.add_argument("--folder", required=True, type=pathlib.Path)
    arguments.add_argument("--files", type=int, default=100_000)
    arguments.add_argument("--bytes", type=float, default=20e9)
    arguments.add_argument("--sparse", action="store_true", help="the large files are mostly holes")
    arguments.add_argument("--rounds", type=int, default=3)
    options = arguments.parse_args()

    options.folder.mkdir(parents=True, exist_ok=True)
    small, large = options.folder / "small", options.folder / "large"
    if not small.exists():
        make_small(small, options.files)
    if not large.exists():
        make_large(large, int(options.bytes), options.sparse)
    home = options.folder / "home"
    env = {**os.environ, "HOME": str(home), "MLX_CACHE_HOME": str(home / "store")}

    def ours(folder):
        return [options.mlx_cache, "dedupe", "--source", "store", "--path", str(folder), "--min-size", "1", "--json"]

    programs = {
        "fclones": lambda folder: ["fclones", "group", "--format", "json", "--min", "1", str(folder)],
        "rdfind": lambda folder: ["rdfind", "-dryrun", "true", "-makeresultsfile", "false", str(folder)],
    }
    programs = {name: command for name, command in programs.items() if shutil.which(name)}
    figures, dropped = {}, True
    for name, folder in (("small", small), ("large", large)):
        for _ in range(options.rounds):
            for program in ["mlx-cache", *programs]:
                shutil.rmtree(home, ignore_errors=True)
                home.mkdir()
                command = ours(folder) if program == "mlx-cache" else programs[program](folder)
                dropped &= drop_caches()
                for state in ("cold", "warm"):
                    figures.setdefault((name, program, state), []).append(run(command, env))
                print(name, program, *(f"{figures[name, program, s][-1][0]:.2f}" for s in ("cold", "warm")), flush=True)
    if not dropped:
        print("the page cache could not be dropped: cold is only the first run")
    print("\n| files | program | cold (s) | warm (s) | peak memory (MB) |")
    print("| --- | --- | ---: | ---: | ---: |")
    for name in ("small", "large"):
        for program in ["mlx-cache", *programs]:
            shown = []
            for state in ("cold", "warm"):
                times = [seconds for seconds, _ in figures[name, program, state]]
                shown.append(f"{statistics.median(times):.2f} ({min(times):.2f}–{max(times):.2f})")
            memory = max(m for state in ("cold", "warm") for _, m in figures[name, program, state])
            print(f"| {name} | {program} | {shown[0]} | {shown[1]} | {memory:.0f} |")


if __name__ == "__main__":
    main()
