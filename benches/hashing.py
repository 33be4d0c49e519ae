"""Compares `mlx-cache verify` with `openssl dgst -sha256` and `sha256sum` on the same files, in one interleaved run.

    python hashing.py --mlx-cache target/release/mlx-cache --gib 8 --folder /var/tmp

What is hashed: --files files of random bytes, --gib GiB in all, as the blobs of a Hugging Face cache whose names are
their checksums. Every program reads all of them; after the first --warmup rounds they are in the page cache, which
the output checks by the share of them that is resident (with `fincore`, where there is one).

Programs
    mlx-cache        `mlx-cache verify --source hf`: hashes, compares, looks at links and names
    openssl x1       one `openssl dgst -sha256` with all files, one after the other
    openssl xN       --jobs of them at the same time, each with its share of the files
    sha256sum xN     the same with coreutils

What is measured, for a program and all its processes
    rate             bytes of all files divided by the seconds from start to end
    CPU              seconds of user and system time: what is left of differences when others use the machine too
    peak memory      largest resident set of one of its processes
A round runs every program once, starting with another one each time. Ratios are those of one round each; the table
has their median, and the smallest and largest.
"""

import argparse
import hashlib
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

COMMIT = "0123456789abcdef0123456789abcdef01234567"
PIECE = 64 << 20


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mlx-cache", type=Path, required=True, help="path of the mlx-cache binary")
    parser.add_argument("--folder", type=Path, help="where the files are made, on a disk with room for them")
    parser.add_argument("--gib", type=float, default=8.0, help="size of all files together")
    parser.add_argument("--files", type=int, default=4)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--warmup", type=int, default=1)
    parser.add_argument("--save", type=Path, help="write every sample as JSON")
    return parser.parse_args()


def make_cache(hub: Path, files: int, total: int) -> list[Path]:
    """A repository with this much content; the paths of its blobs."""
    repository = hub / "models--bench--hashing"
    snapshot = repository / "snapshots" / COMMIT
    (repository / "blobs").mkdir(parents=True)
    snapshot.mkdir(parents=True)
    blobs = []
    for index in range(files):
        size = total // files
        temporary = repository / "blobs" / f"part-{index}"
        digest = hashlib.sha256()
        with temporary.open("wb") as out:
            for start in range(0, size, PIECE):
                piece = os.urandom(min(PIECE, size - start))
                digest.update(piece)
                out.write(piece)
        blob = temporary.rename(temporary.with_name(digest.hexdigest()))
        (snapshot / f"part-{index}.bin").symlink_to(Path("../../blobs") / blob.name)
        blobs.append(blob)
    return blobs


def measure(commands: list[list[str]], environment: dict[str, str]) -> dict[str, float]:
    """Runs commands at the same time to their ends."""
    start = time.perf_counter()
    children = [
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for command in commands
    ]
    # What the system counts for a child includes what this program had when it started it.
    peak = watch_peak(children)
    outputs = [child.stdout.read() for child in children]
    seconds = time.perf_counter() - start
    cpu = 0.0
    for child, command in zip(children, commands):
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode != 0:
            sys.exit(f"{command[0]} failed with {child.returncode}: {child.stderr.read().decode()}")
        cpu += usage.ru_utime + usage.ru_stime
    return {"seconds": seconds, "cpu": cpu, "peak": peak, "output": outputs[0].decode()}


def watch_peak(children: list[subprocess.Popen]) -> int:
    """Follows the processes until one is done; the largest resident set of any, in bytes, 0 where nobody tells."""
    peak = 0
    while all(os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None for child in children):
        for child in children:
            try:
                status = Path(f"/proc/{child.pid}/status").read_text()
            except OSError:
                continue
            peak = max([peak, *(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM"))])
        time.sleep(0.01)
    return peak


def shares(blobs: list[Path], jobs: int) -> list[list[str]]:
    parts = [[str(blob) for blob in blobs[index::jobs]] for index in range(jobs)]
    return [part for part in parts if part]


def resident(blobs: list[Path]) -> str:
    if shutil.which("fincore") is None:
        return "unknown (no fincore)"
    found = subprocess.run(
        ["fincore", "--bytes", "--noheadings", "--output", "RES", *map(str, blobs)], capture_output=True, text=True, check=True
    )
    cached = sum(int(line) for line in found.stdout.split())
    return f"{cached / sum(blob.stat().st_size for blob in blobs):.1%}"


def main() -> None:
    options = arguments()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        home = Path(folder)
        blobs = make_cache(home / "hub", options.files, int(options.gib * (1 << 30)))
        total = sum(blob.stat().st_size for blob in blobs)
        environment = {"HOME": folder, "HF_HUB_CACHE": str(home / "hub"), "MLX_CACHE_OFFLINE": "1", "PATH": os.environ["PATH"]}
        verify = [str(options.mlx_cache.resolve()), "verify", "--source", "hf", "--json", "--jobs", str(options.jobs)]
        everything = [str(blob) for blob in blobs]
        several = f"x{options.jobs}"
        programs = {
            "mlx-cache": [verify],
            "openssl x1": [["openssl", "dgst", "-sha256", *everything]],
            f"openssl {several}": [["openssl", "dgst", "-sha256", *part] for part in shares(blobs, options.jobs)],
            f"sha256sum {several}": [["sha256sum", *part] for part in shares(blobs, options.jobs)],
        }
        samples: dict[str, list[dict[str, float]]] = {name: [] for name in programs}
        names = list(programs)
        for number in range(options.warmup + options.rounds):
            turn = number % len(names)
            for name in names[turn:] + names[:turn]:
                sample = measure(programs[name], environment)
                output = sample.pop("output")
                if name == "mlx-cache":
                    data = json.loads(output)["data"]
                    assert data["bytes_hashed"] == total and data["summary"]["ok"] == 1, data
                if number >= options.warmup:
                    samples[name].append(sample)
        version = subprocess.run(["openssl", "version"], capture_output=True, text=True, check=True).stdout.strip()
        print(f"{platform.platform()}, {os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}; {version}")
        print(f"{len(blobs)} files, {total / 1e9:.2f} GB, {resident(blobs)} in the page cache; {options.rounds} rounds")
        print(f"{'':16} {'GB/s':>22} {'CPU s':>8} {'peak MB':>8}")
        for name, rounds in samples.items():
            rates = [total / 1e9 / sample["seconds"] for sample in rounds]
            spread = f"{statistics.median(rates):.2f} ({min(rates):.2f} to {max(rates):.2f})"
            cpu = statistics.median(sample["cpu"] for sample in rounds)
            peak = max(sample["peak"] for sample in rounds) / 1e6
            print(f"{name:16} {spread:>22} {cpu:8.2f} {peak:8.0f}")
        ours = samples["mlx-cache"]
        for name, rounds in list(samples.items())[1:]:
            factor = options.jobs if name == "openssl x1" else 1
            for what, ratios in {
                "rate": [theirs["seconds"] / own["seconds"] / factor for own, theirs in zip(ours, rounds)],
                "rate by CPU": [theirs["cpu"] / own["cpu"] for own, theirs in zip(ours, rounds)],
            }.items():
                against = f"{factor} x {name}" if factor > 1 else name
                print(f"{what} against {against}: {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")
        if options.save:
            options.save.write_text(json.dumps({"total": total, "samples": samples}, indent=1))


if __name__ == "__main__":
    main()
