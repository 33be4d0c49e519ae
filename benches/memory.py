"""Compares what the memory gate of mlx-cache counts with the memory that the process takes.

    python memory.py --mlx-cache target/release/mlx-cache --model FILE.gguf --model FOLDER --original FOLDER \
        --draft-model FILE.gguf --adapter FOLDER --embed target/models/all-MiniLM-L6-v2

A row is a command that uses all that it asked for: the prompt fills the context (--context), up to the few tokens that
are generated.
    estimate   what the gate counted before loading: `memory.estimate_bytes` of the report
    peak       largest resident memory of the process (getrusage), its libraries and their files' pages included
Every command runs once in a process of its own; memory hardly depends on what else the machine does. The status is 1
if a row is off by more than --tolerance.

Of every --model: prompts of --prompts tokens. Of the first one also: packed caches, drafts, a format, several samples,
batches, an adapter (with --adapter). Of every --original: the same prompts as it is and with --quantize 4 and 8.
Of --embed: one text and 512.

Nothing but the Python standard library is needed.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

# A blank and this word are one token in the vocabularies of GPT-2's kind, and in most others.
WORD = "word"
GENERATED = 16
ANSWERS = 100


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mlx-cache", type=Path, required=True, help="path of the mlx-cache binary")
    parser.add_argument("--model", action="append", default=[], help="a model that writes text; may be repeated")
    parser.add_argument("--original", action="append", default=[], help="a folder with floats, to be quantized on load")
    parser.add_argument("--draft-model", help="a smaller model for the first --model")
    parser.add_argument("--adapter", help="an adapter of the first --original")
    parser.add_argument("--embed", help="a model that embeds text")
    parser.add_argument("--prompts", default="32,2000,8000", help="tokens of the prompts")
    parser.add_argument("--only", default="", metavar="TEXT", help="only rows whose name has this in it")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--tolerance", type=float, default=0.1, help="how far off an estimate may be")
    options = parser.parse_args()
    options.prompts = [int(length) for length in options.prompts.split(",")]
    return options


def prompt(tokens: int) -> str:
    return " ".join([WORD] * tokens)


def run_row(model: str, tokens: int, *flags: str) -> list[str]:
    """A prompt that fills its context."""
    context = str(tokens + GENERATED)
    return ["run", model, prompt(tokens), "--raw", "--temp", "0", "-n", str(GENERATED), "-c", context, *flags]


def rows(options: argparse.Namespace, folder: Path):
    """(name, arguments, text for its standard input or None)"""
    for model in [*options.model, *options.original]:
        for tokens in options.prompts:
            yield f"{Path(model).name}, {tokens} tokens", run_row(model, tokens), None
    for model in options.original:
        for bits in ("4", "8"):
            for tokens in options.prompts:
                row = run_row(model, tokens, "--quantize", bits)
                yield f"{Path(model).name} --quantize {bits}, {tokens} tokens", row, None
    if options.adapter:
        flags = ["--adapter", options.adapter]
        yield "adapter, 2000 tokens", run_row(options.original[0], 2000, *flags), None
    for model in options.model[:1]:
        for bits in ("4", "8"):
            for tokens in options.prompts:
                yield f"--kv-bits {bits}, {tokens} tokens", run_row(model, tokens, "--kv-bits", bits), None
        yield "--draft lookup, 2000 tokens", run_row(model, 2000, "--draft", "lookup"), None
        if options.draft_model:
            flags = ["--draft-model", options.draft_model]
            yield "--draft-model, 2000 tokens", run_row(model, 2000, *flags), None
        schema = folder / "schema.json"
        schema.write_text(json.dumps({"type": "array", "items": {"type": "boolean"}, "maxItems": 4}))
        yield "--format, 2000 tokens", run_row(model, 2000, "--format", str(schema)), None
        yield "--samples 4, 2000 tokens", run_row(model, 2000, "--samples", "4"), None
        for size in (1, 4, 16):
            for tokens in (200, 500, 2000):
                batch = folder / f"batch-{tokens}.jsonl"
                # Different from the first word on: equal beginnings are computed once.
                lines = [json.dumps({"prompt": f"{number} {prompt(tokens - 4)}"}) for number in range(16)]
                batch.write_text("\n".join(lines))
                row = ["run", model, "--batch", str(batch), "--batch-size", str(size), "--raw", "--temp", "0"]
                # So many that the last prompts are computed before the first answers end.
                row += ["-n", str(ANSWERS), "-c", str(tokens + ANSWERS)]
                yield f"--batch-size {size}, {tokens} tokens each", row, None
    if options.embed:
        yield "embed, one short text", ["embed", options.embed, "How far is it to the moon?"], None
        yield "embed, one long text", ["embed", options.embed, prompt(254)], None
        texts = "\n".join(prompt(1 + index * 7 % 254) for index in range(512))
        yield "embed, 512 texts", ["embed", options.embed, "-", "--output", str(folder / "vectors.npy")], texts
        longest = "\n".join([prompt(254)] * 512)
        yield "embed, 512 long texts", ["embed", options.embed, "-", "--output", str(folder / "more.npy")], longest


class Bench:
    def __init__(self, options: argparse.Namespace, folder: Path):
        self.options, self.folder = options, folder

    def run(self, arguments: list[str], text: str | None) -> tuple[int, dict, int]:
        """Status, envelope and peak memory of a command."""
        command = [str(self.options.mlx_cache), *arguments, "--threads", str(self.options.threads), "--json"]
        environment = {**os.environ, "MLX_CACHE_HOME": str(self.folder / "store"), "MLX_CACHE_DEVICE": "cpu"}
        with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as errors:
            given.write((text or "").encode())
            given.seek(0)
            process = subprocess.Popen(command, stdin=given, stdout=out, stderr=errors, env=environment)
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            out.seek(0)
            said = out.read().decode().strip().splitlines()
            if not said:
                errors.seek(0)
                sys.exit(f"{' '.join(command)[:300]}: status {process.returncode}\n{errors.read().decode()[-2000:]}")
        unit = 1 if platform.system() == "Darwin" else 1024  # bytes there, KiB on Linux
        return process.returncode, json.loads(said[-1]), usage.ru_maxrss * unit

    def measure(self, arguments: list[str], text: str | None) -> tuple[int, int]:
        """What the gate counts, and the peak."""
        status, envelope, peak = self.run(arguments, text)
        if status != 0:
            sys.exit(f"{' '.join(arguments)[:300]}: {json.dumps(envelope['error'])[:1000]}")
        return envelope["data"]["memory"]["estimate_bytes"], peak


def main() -> None:
    options = arguments()
    worst = 0.0
    with tempfile.TemporaryDirectory() as name:
        bench = Bench(options, Path(name))
        print("| what | estimate (MB) | peak (MB) | estimate / peak |\n| --- | ---: | ---: | ---: |")
        for what, row, text in rows(options, Path(name)):
            if options.only not in what:
                continue
            estimate, peak = bench.measure(row, text)
            worst = max(worst, abs(estimate / peak - 1))
            print(f"| {what} | {estimate / 1e6:.0f} | {peak / 1e6:.0f} | {estimate / peak:.2f} |", flush=True)
    sys.exit(worst > options.tolerance)


if __name__ == "__main__":
    main()
