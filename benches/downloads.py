"""Compares `mlx-cache pull` with `hf download` on a hub of its own: the same server and files, in one interleaved run.

    python downloads.py --mlx-cache target/release/mlx-cache

The Python that runs this needs huggingface_hub (pip install huggingface_hub); `make test` leaves one at
target/python/hf-<release>/bin/python3. Nothing else is needed, and no network.

What is measured, each in a fresh process with a home of its own
    model     a model of --gib GiB in one file, with its small files
    shards    the same in four files
    limited   the model from a server that gives --connection-mb MB/s to each connection, as storage far away does
    again     a second pull of what is there already
    list      a dry run over a repository of 10,000 files
The server is a process that sends files from the page cache (sendfile), so it takes next to nothing of the machine.
mlx-cache checks the SHA-256 of everything and syncs it to the disk before it calls a model whole; hf does neither.
A round runs each program once on each, starting with another one each time; the first --warmup rounds do not count.
"""

import argparse
import hashlib
import importlib.metadata
import json
import os
import platform
import re
import shutil
import socketserver
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import typing
import urllib.parse
from pathlib import Path

PROGRAMS = ["mlx-cache", "hf"]
COMMIT = "0123456789abcdef0123456789abcdef01234567"
PAGE = 1000
HF = "import sys; from huggingface_hub.cli.hf import main; sys.argv[0] = 'hf'; main()"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mlx-cache", type=Path, help="path of the mlx-cache binary")
    parser.add_argument("--gib", type=float, default=1.0, help="size of the model")
    parser.add_argument("--connection-mb", type=float, default=100, help="MB/s of a connection where it is limited")
    parser.add_argument("--only", action="append", choices=[*TASKS], help="measure this only (may be repeated)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--warmup", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="where files go (default: a temporary folder)")
    parser.add_argument("--save", type=Path, help="write every sample as JSON")
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


# --- the hub -------------------------------------------------------------------------------------------------------


class Hub(socketserver.StreamRequestHandler):
    """Answers as huggingface.co does, for the repositories in `repositories`; large files are at a second port."""

    repositories: typing.ClassVar[dict[str, dict]] = {}
    storage = ""
    disable_nagle_algorithm = True

    def handle(self) -> None:
        while line := self.rfile.readline(65536):
            method, target, _ = line.decode().split()
            headers = {}
            while (line := self.rfile.readline(65536).strip()) != b"":
                name, value = line.decode().split(":", 1)
                headers[name.lower()] = value.strip()
            try:
                self.answer(method, target, headers)
            except KeyError:
                # hf asks for more than models.
                self.send(method, 404, b"{}", {})
            except (BrokenPipeError, ConnectionResetError):
                return

    def answer(self, method: str, target: str, headers: dict[str, str]) -> None:
        path, _, query = target.partition("?")
        parts = urllib.parse.unquote(path).strip("/").split("/")
        if parts[0] == "api":
            name, rest = "/".join(parts[2:4]), parts[4:]
            repository = self.repositories[name]
            if rest[:1] == ["tree"]:
                start = int(urllib.parse.parse_qs(query).get("cursor", ["0"])[0])
                body = repository["pages"][start // PAGE]
                more = {}
                if start + PAGE < len(repository["files"]):
                    host = headers["host"]
                    more["Link"] = f'<http://{host}{path}?recursive=true&cursor={start + PAGE}>; rel="next"'
                return self.send(method, 200, body, more)
            return self.send(method, 200, json.dumps({"id": name, "sha": COMMIT, "siblings": []}).encode(), {})
        if parts[0] == "storage":
            return self.file(method, self.repositories["/".join(parts[1:3])]["files"]["/".join(parts[3:])], headers)
        file = self.repositories["/".join(parts[:2])]["files"]["/".join(parts[4:])]
        more = {"X-Repo-Commit": COMMIT, "ETag": f'"{file["etag"]}"', "X-Linked-ETag": f'"{file["etag"]}"'}
        if not file["large"]:
            return self.file(method, file, headers, more)
        more |= {
            "X-Linked-Size": str(file["size"]),
            "Location": f"{self.storage}/storage{path.replace(f'/resolve/{COMMIT}', '')}",
        }
        return self.send(method, 302, b"Found", more)

    def send(self, method: str, status: int, body: bytes, more: dict[str, str]) -> None:
        self.head(status, len(body), more)
        if method != "HEAD":
            self.request.sendall(body)

    def head(self, status: int, length: int, more: dict[str, str]) -> None:
        lines = [f"HTTP/1.1 {status} OK", f"Content-Length: {length}", *(f"{k}: {v}" for k, v in more.items())]
        self.request.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())

    def file(self, method: str, file: dict, headers: dict[str, str], more: dict[str, str] | None = None) -> None:
        start, end, status = 0, file["size"], 200
        if asked := re.fullmatch(r"bytes=(\d+)-(\d*)", headers.get("range", "")):
            start = int(asked[1])
            end = min(end, int(asked[2] or end) + 1)
            status = 206
        more = {"Accept-Ranges": "bytes", **(more or {})}
        if status == 206:
            more["Content-Range"] = f"bytes {start}-{end - 1}/{file['size']}"
        self.head(status, end - start, more)
        if method == "HEAD":
            return
        rate, began, first = file["rate"], time.monotonic(), start
        with open(file["path"], "rb") as content:
            while start < end:
                most = min(end - start, 1 << 20 if rate else 1 << 30)
                start += os.sendfile(self.request.fileno(), content.fileno(), start, most)
                if rate:
                    time.sleep(max(0.0, (start - first) / rate - (time.monotonic() - began)))


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = daemon_threads = True
    request_queue_size = 128


def serve(description: Path) -> None:
    """Serves what a file describes, tells its address on standard output, and ends with its standard input."""
    Hub.repositories = json.loads(description.read_text())
    for repository in Hub.repositories.values():
        entries = [entry(path, file) for path, file in repository["files"].items()]
        repository["pages"] = [json.dumps(entries[at : at + PAGE]).encode() for at in range(0, len(entries), PAGE)]
    hub, storage = Server(("127.0.0.1", 0), Hub), Server(("127.0.0.1", 0), Hub)
    Hub.storage = f"http://localhost:{storage.server_address[1]}"
    for server in (hub, storage):
        threading.Thread(target=server.serve_forever, daemon=True).start()
    print(f"http://127.0.0.1:{hub.server_address[1]}", flush=True)
    sys.stdin.read()


def entry(path: str, file: dict) -> dict:
    """A file as the hub's tree lists it."""
    listed = {"type": "file", "path": path, "size": file["size"], "oid": file["git"]}
    if file["large"]:
        listed["lfs"] = {"oid": file["etag"], "size": file["size"], "pointerSize": 135}
    return listed


# --- what it serves ------------------------------------------------------------------------------------------------


def described(path: Path, large: bool, rate: float = 0) -> dict:
    """What the server has to know of a file."""
    size = path.stat().st_size
    sha256, git = hashlib.sha256(), hashlib.sha1(f"blob {size}\0".encode())
    with open(path, "rb") as content:
        while piece := content.read(1 << 24):
            sha256.update(piece)
            git.update(piece)
    etag = sha256.hexdigest() if large else git.hexdigest()
    return {"path": str(path), "size": size, "etag": etag, "git": git.hexdigest(), "large": large, "rate": rate}


def weights(path: Path, size: int) -> None:
    """A safetensors file of one tensor, whose bytes no compression makes smaller."""
    header = json.dumps({"w": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}).encode()
    with open(path, "wb") as content:
        content.write(len(header).to_bytes(8, "little") + header)
        while size > 0:
            content.write(os.urandom(piece := min(size, 1 << 24)))
            size -= piece


def repositories(folder: Path, size: int, rate: float, tasks: list[str]) -> dict[str, dict]:
    small = {}
    for name, text in [
        ("config.json", '{"model_type": "llama"}'),
        ("tokenizer.json", json.dumps({"filler": "x" * 2_000_000})),
        ("tokenizer_config.json", "{}"),
        ("generation_config.json", "{}"),
    ]:
        (folder / name).write_text(text)
        small[name] = described(folder / name, large=False)
    made = {}
    if {"model", "again", "limited"} & set(tasks):
        weights(folder / "model.safetensors", size)
        file = described(folder / "model.safetensors", large=True)
        made["bench/model"] = {"files": {**small, "model.safetensors": file}}
        made["bench/limited"] = {"files": {**small, "model.safetensors": {**file, "rate": rate}}}
    if "shards" in tasks:
        shards = {}
        for number in range(1, 5):
            name = f"model-0000{number}-of-00004.safetensors"
            weights(folder / name, size // 4)
            shards[name] = described(folder / name, large=True)
        made["bench/shards"] = {"files": {**small, **shards}}
    if "list" in tasks:
        tiny = folder / "tiny.json"
        tiny.write_text("{}")
        file = described(tiny, large=False)
        made["bench/list"] = {"files": {f"experts/{at // 100}/{at}.json": file for at in range(10_000)}}
    return made


# --- measuring -----------------------------------------------------------------------------------------------------

# The repository of each task, and whether it is a dry run.
TASKS = {
    "model": ("bench/model", False),
    "shards": ("bench/shards", False),
    "limited": ("bench/limited", False),
    "again": ("bench/model", False),
    "list": ("bench/list", True),
}


def command_for(program: str, binary: Path, repository: str, dry_run: bool) -> list[str]:
    if program == "hf":
        return [sys.executable, "-c", HF, "download", repository, *(["--dry-run"] if dry_run else [])]
    return [str(binary), "pull", repository, "--quiet", *(["--dry-run", "--all-files"] if dry_run else [])]


def run(command: list[str], home: Path, endpoint: str) -> dict:
    """Runs a command to its end: seconds, CPU seconds, largest resident memory in MB; fails loudly."""
    inherited = {name: os.environ[name] for name in ("PATH", "PYTHONPATH", "VIRTUAL_ENV") if name in os.environ}
    quiet = {"HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_UPDATE_CHECK": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    with tempfile.TemporaryFile() as output:
        start = time.monotonic()
        process = subprocess.Popen(
            command,
            stdout=output,
            stderr=output,
            env={**inherited, **quiet, "HOME": str(home), "HF_ENDPOINT": endpoint},
        )
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.monotonic() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            output.seek(0)
            sys.exit(f"failed ({process.returncode}): {' '.join(command)}\n{output.read().decode()[-4000:]}")
    unit = 1 if platform.system() == "Darwin" else 1024  # bytes there, KiB on Linux
    return {"seconds": seconds, "cpu": usage.ru_utime + usage.ru_stime, "rss_mb": usage.ru_maxrss * unit / 1e6}


def check(home: Path, files: dict[str, dict]) -> None:
    """Every file of a repository must be below the home, or nothing was measured."""
    sizes = {found.name: found.stat().st_size for found in home.rglob("*") if found.is_file()}
    for path, file in files.items():
        if sizes.get(Path(path).name) != file["size"]:
            sys.exit(f"{path} is not below {home}")


def measure(task: str, program: str, binary: Path, made: dict, folder: Path, endpoint: str) -> dict:
    repository, dry_run = TASKS[task]
    home = folder / "home"
    home.mkdir()
    command = command_for(program, binary, repository, dry_run)
    if task == "again":
        run(command, home, endpoint)
    sample = run(command, home, endpoint)
    if not dry_run:
        check(home, made[repository]["files"])
    shutil.rmtree(home)
    # What the disk still has to do for one program is not to be paid by the next.
    os.sync()
    return sample


def machine() -> list[str]:
    cpu = platform.processor()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), cpu)
    version = importlib.metadata.version("huggingface_hub")
    return [f"{platform.system()} {platform.machine()}, {cpu}, {os.cpu_count()} cores", f"huggingface_hub {version}"]


def summary(samples: dict, tasks: list[str]) -> str:
    lines = [
        "| task | program | seconds | CPU seconds | peak memory (MB) | rounds |",
        "| --- | --- | ---: | ---: | ---: | ---: |",
    ]
    for task in tasks:
        for program in PROGRAMS:
            cells = []
            for metric, form in (("seconds", "{:.3f}"), ("cpu", "{:.2f}"), ("rss_mb", "{:.0f}")):
                values = [sample[metric] for sample in samples[task][program]]
                cells.append("{} ({}–{})".format(*(form.format(f(values)) for f in (statistics.median, min, max))))
            lines.append(f"| {task} | {program} | {' | '.join(cells)} | {len(samples[task][program])} |")
    lines += ["", "How many times as fast mlx-cache is, round by round (below 1 it is slower):", ""]
    lines += ["| task | median | lowest | highest |", "| --- | ---: | ---: | ---: |"]
    for task in tasks:
        ours, theirs = (samples[task][program] for program in PROGRAMS)
        ratios = [b["seconds"] / a["seconds"] for a, b in zip(ours, theirs)]
        lines.append(f"| {task} | {statistics.median(ratios):.2f}× | {min(ratios):.2f}× | {max(ratios):.2f}× |")
    return "\n".join(lines)


def main() -> None:
    options = arguments()
    if options.serve:
        serve(options.serve)
        return
    if options.mlx_cache is None or not options.mlx_cache.exists():
        sys.exit("give the binary with --mlx-cache PATH")
    binary = options.mlx_cache.resolve()
    tasks = [task for task in TASKS if task in (options.only or TASKS)]
    with tempfile.TemporaryDirectory(dir=options.folder) as place:
        folder = Path(place)
        content = folder / "content"
        content.mkdir()
        made = repositories(content, int(options.gib * 2**30), options.connection_mb * 1e6, tasks)
        description = folder / "repositories.json"
        description.write_text(json.dumps(made))
        os.sync()
        command = [sys.executable, str(Path(__file__).resolve()), "--serve", str(description)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
            endpoint = server.stdout.readline().strip()
            samples = {task: {program: [] for program in PROGRAMS} for task in tasks}
            for number in range(options.warmup + options.rounds):
                for task in tasks:
                    turn = number % len(PROGRAMS)
                    for program in PROGRAMS[turn:] + PROGRAMS[:turn]:
                        sample = measure(task, program, binary, made, folder, endpoint)
                        figures = ", ".join(f"{name} {value:.3f}" for name, value in sample.items())
                        print(f"round {number}: {task}: {program}: {figures}", file=sys.stderr)
                        if number >= options.warmup:
                            samples[task][program].append(sample)
            server.stdin.close()
    print("\n".join(f"- {line}" for line in machine()))
    print(f"- {options.gib:g} GiB; {options.connection_mb:g} MB/s for each connection where it is limited\n")
    print(summary(samples, tasks))
    if options.save:
        options.save.write_text(json.dumps({"about": machine(), "samples": samples}, indent=1) + "\n")


if __name__ == "__main__":
    main()
