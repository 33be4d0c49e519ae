"""Compares mlx-cache with its peers on one model: the same file, threads and prompts, in one interleaved run.

    python peers.py --gguf FILE.gguf --mlx-cache target/release/mlx-cache

Engines
    mlx-cache        the binary, `mlx-cache run FILE.gguf --json`
    llama.cpp        llama-cpp-python, built for this CPU (see below), on FILE.gguf
    mlx_lm float32   mlx-lm on the same weights as MLX safetensors, everything but the packed weights in float32
    mlx_lm float16   the same in the type that MLX gives such a file; on a CPU it is so slow that it gets fewer
                     tokens and rounds (--float16-*), which the table says
An engine that is not wanted is named with --without; one that is missing is an error, never skipped.

What is measured, each in a fresh process limited to --threads cores
    first token   seconds from starting the process to the first byte of a one-token answer to a short chat prompt
    peak memory   largest resident set of the whole process during the run below; mapped model files count
    prefill       tokens per second: --prompt-tokens divided by the time until the first token is there
    decode        tokens per second of the --generate-tokens after that
A process that takes longer than --limit seconds ends the run with its name: beside other work on the same cores
llama.cpp's threads wait for each other, and one that generates a hundred tokens a second otherwise may get to one.
A round runs every engine once, starting with another one each time; the first --warmup rounds do not count. Model
files are in the page cache after them; --cold-files evicts them before each process.
--gguf may be any model that the engines take, where mlx_lm is left out: its weights are made of SmolLM2's (or another
Llama's) file, by ../fixtures/smollm2_convert.py. Other formats of the same weights are written by formats.py and named
with --use, such as --use llama.cpp=Q4_0.gguf.
All engines get the same text and must report the same token counts, or the run fails. Decoding is greedy.

Set-up, in a Python 3.11 environment (the versions that were used are in ../fixtures/requirements.txt)
    pip install mlx-lm "mlx[cpu]" gguf tokenizers        (on a Mac: mlx-lm alone)
    CMAKE_ARGS="-DGGML_NATIVE=ON" pip install --no-binary llama-cpp-python llama-cpp-python
Only what takes part is needed, and tokenizers only with mlx_lm; the build wants a C++ compiler. The output says which
instructions llama.cpp was built with. A native build takes AMX where the CPU has it, whatever -DGGML_AMX_INT8 says; to
do without (all in one line):
    flags="-mno-amx-tile -mno-amx-int8 -mno-amx-bf16"
    CMAKE_ARGS="-DGGML_NATIVE=ON -DCMAKE_C_FLAGS='$flags' -DCMAKE_CXX_FLAGS='$flags'"
        pip install --no-binary llama-cpp-python llama-cpp-python
"""

import argparse
import bisect
import importlib.metadata
import json
import os
import platform
import selectors
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "fixtures"))

ENGINES = ["mlx-cache", "llama.cpp", "mlx_lm float32", "mlx_lm float16"]
METRICS = {
    "first_token_s": ("first token (s)", "{:.3f}"),
    "peak_rss_mb": ("peak memory (MB)", "{:.0f}"),
    "prefill": ("prefill (tok/s)", "{:.1f}"),
    "decode": ("decode (tok/s)", "{:.1f}"),
}
LOWER_IS_BETTER = {"first_token_s", "peak_rss_mb"}
QUESTION = "What is the capital of France?"
# Plain prose; repeated, it makes a prompt of any length whose greedy continuation does not end early.
PROSE = (
    "The river rises in the hills to the north and runs for two hundred miles before it meets the sea. "
    "Along its banks lie small towns where people once built boats, kept mills and traded wool and salt. "
    "In spring the water is high and brown, and in late summer children can walk across it on the stones. "
)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gguf", type=Path, help="the model")
    parser.add_argument("--mlx-cache", type=lambda path: Path(path).absolute(), help="path of the mlx-cache binary")
    parser.add_argument("--without", action="append", default=[], choices=ENGINES, help="leave an engine out")
    parser.add_argument("--use", action="append", default=[], metavar="ENGINE=PATH", help="another file of the weights for one engine")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--prompt-tokens", type=int, default=320)
    parser.add_argument("--generate-tokens", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--warmup", type=int, default=1)
    parser.add_argument("--float16-prompt-tokens", type=int, default=16)
    parser.add_argument("--float16-generate-tokens", type=int, default=4)
    parser.add_argument("--float16-rounds", type=int, default=1, help="it takes part in the first of the rounds only")
    parser.add_argument("--baseline", choices=ENGINES, help="what ratios refer to (default: the first engine)")
    parser.add_argument("--limit", type=float, default=300, metavar="SECONDS", help="longest that a process may take")
    parser.add_argument("--cold-files", action="store_true", help="evict the model from the page cache each time")
    parser.add_argument("--save", type=Path, help="write every sample as JSON")
    parser.add_argument("--worker", nargs=2, metavar=("ENGINE", "MODEL"), help=argparse.SUPPRESS)
    return parser.parse_args()


# --- workers: one process, one prompt; the prompt is on stdin, the tokens and times go to stdout -------------------


def mlx_lm_tokens(model_path: str, prompt: str, threads: int, count: int):
    """Yields (prompt token count, then one item for each token) from mlx_lm's stream_generate, greedy."""
    from mlx_lm import load, stream_generate

    model, tokenizer = load(model_path)
    ids = tokenizer.encode(prompt, add_special_tokens=False)
    yield len(ids)
    for response in stream_generate(model, tokenizer, ids, max_tokens=count):
        yield response.text


def llama_cpp_tokens(model_path: str, prompt: str, threads: int, count: int):
    """The same from llama-cpp-python."""
    from llama_cpp import Llama

    context = max(2048, len(prompt) + count)  # a token is a byte at least
    llama = Llama(model_path, n_ctx=context, n_threads=threads, n_threads_batch=threads, verbose=False)
    ids = llama.tokenize(prompt.encode(), add_bos=False, special=True)
    yield len(ids)
    for number, token in enumerate(llama.generate(ids, temp=0.0), start=1):
        if token == llama.token_eos():
            return
        yield llama.detokenize([token]).decode(errors="replace")
        if number == count:
            return


def work(engine: str, model: str, threads: int, count: int) -> None:
    """Prints a byte as soon as there is a token, and at the end a line of JSON with rates and counts."""
    prompt = sys.stdin.read()
    tokens = (llama_cpp_tokens if engine == "llama.cpp" else mlx_lm_tokens)(model, prompt, threads, count)
    prompt_tokens = next(tokens)
    times, text = [time.monotonic()], ""
    for piece in tokens:
        times.append(time.monotonic())
        text += piece
        if len(times) == 2:
            print(".", flush=True)
    generated = len(times) - 1
    report = {"prompt_tokens": prompt_tokens, "generated_tokens": generated, "text": text}
    report["prefill"] = prompt_tokens / (times[1] - times[0])
    if generated > 1:
        report["decode"] = (generated - 1) / (times[-1] - times[1])
    print(json.dumps(report), flush=True)


# --- measuring -----------------------------------------------------------------------------------------------------


def limited(threads: int):
    """A function that limits a child to the first `threads` cores, where the system can."""
    if not hasattr(os, "sched_setaffinity"):
        return None
    cores = sorted(os.sched_getaffinity(0))[:threads]
    return lambda: os.sched_setaffinity(0, cores)


def run(command: list[str], prompt: str, threads: int, environment: dict[str, str], limit: float) -> dict:
    """Runs `command` with `prompt` on stdin: {"first_byte_s", "peak_rss_mb", "stdout"}; fails loudly."""
    with tempfile.TemporaryFile() as errors:
        start = time.monotonic()
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env={**os.environ, "OMP_NUM_THREADS": str(threads), **environment},
            preexec_fn=limited(threads),
        )
        late = threading.Timer(limit, process.kill)
        late.start()
        process.stdin.write(prompt.encode())
        process.stdin.close()
        selector = selectors.DefaultSelector()
        selector.register(process.stdout, selectors.EVENT_READ)
        selector.select()
        first = time.monotonic() - start
        output = process.stdout.read().decode(errors="replace")
        process.stdout.close()
        _, status, usage = os.wait4(process.pid, 0)
        late.cancel()
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode == -signal.SIGKILL:
            sys.exit(f"ended after {limit:.0f} s (--limit), or killed for memory: {' '.join(command)}")
        if process.returncode != 0:
            errors.seek(0)
            sys.exit(f"failed ({process.returncode}): {' '.join(command)}\n{output[-2000:]}\n{errors.read().decode()}")
    unit = 1 if platform.system() == "Darwin" else 1024  # bytes there, KiB on Linux
    return {"first_byte_s": first, "peak_rss_mb": usage.ru_maxrss * unit / 1e6, "stdout": output}


def evict(path: Path) -> None:
    """Drops a model's pages from the page cache."""
    for file in [path] if path.is_file() else path.iterdir():
        descriptor = os.open(file, os.O_RDONLY)
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def command_for(engine: str, model: Path, binary: Path | None, threads: int, count: int, as_json: bool) -> list[str]:
    if engine == "mlx-cache":
        command = [str(binary), "run", str(model), "-", "--raw", "--temp", "0", "--max-tokens", str(count)]
        return command + (["--json"] if as_json else [])
    worker = [sys.executable, str(Path(__file__).resolve()), "--worker", engine, str(model)]
    return [*worker, "--threads", str(threads), "--generate-tokens", str(count)]


def measure(engine: str, model: Path, options: argparse.Namespace, prompts: dict, home: str) -> dict:
    """One sample of every metric for one engine: a one-token run, then the long run."""
    short = engine == "mlx_lm float16"
    prompt = prompts["float16" if short else "long"]
    length = options.float16_prompt_tokens if short else options.prompt_tokens
    count = options.float16_generate_tokens if short else options.generate_tokens
    environment = {"MLX_CACHE_HOME": home, "MLX_CACHE_DEVICE": "cpu"} if engine == "mlx-cache" else {}

    def once(text: str, tokens: int, as_json: bool) -> dict:
        if options.cold_files:
            evict(model)
        command = command_for(engine, model, options.mlx_cache, options.threads, tokens, as_json)
        return run(command, text, options.threads, environment, options.limit)

    first = once(prompts["question"], 1, as_json=False)
    if not first["stdout"]:
        sys.exit(f"{engine} answered nothing")
    long = once(prompt, count, as_json=True)
    report = json.loads(long["stdout"].strip().splitlines()[-1])
    if engine == "mlx-cache":
        data = report["data"]
        report = {
            **data["usage"],
            "prefill": data["timings"]["prompt_tokens_per_s"],
            "decode": data["timings"]["generation_tokens_per_s"],
            "text": data["text"],
        }
    if (report["prompt_tokens"], report["generated_tokens"]) != (length, count):
        got = f"{report['prompt_tokens']} and {report['generated_tokens']}"
        sys.exit(f"{engine} reports {got} tokens, asked for {length} and {count}")
    return {
        "first_token_s": first["first_byte_s"],
        "peak_rss_mb": long["peak_rss_mb"],
        "prefill": report["prefill"],
        "decode": report["decode"],
        "text": report["text"],
    }


def counter_of(options: argparse.Namespace, folder: Path | None):
    """A function that counts a text's tokens, by the converted model's tokenizer or by llama.cpp's."""
    if folder is not None:
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        return lambda text: len(tokenizer.encode(text, add_special_tokens=False).ids)
    try:
        from llama_cpp import Llama
    except ImportError:
        sys.exit("prompts are counted with llama-cpp-python, or with tokenizers where mlx_lm takes part")
    vocabulary = Llama(str(options.gguf), vocab_only=True, verbose=False)
    return lambda text: len(vocabulary.tokenize(text.encode(), add_bos=False, special=True))


def prompt_of(count, length: int) -> str:
    """A text that is exactly `length` tokens, which `count` counts."""
    words = (PROSE * (1 + length // 40)).split(" ")
    # As many words as fit, then short ones until it is full.
    most = bisect.bisect_right(range(1, len(words) + 1), length, key=lambda number: count(" ".join(words[:number])))
    text = " ".join(words[:most])
    while count(text) < length:
        text += " and"
    if count(text) != length:
        sys.exit(f"no text of exactly {length} tokens was found")
    return text


def machine(engines: list[str]) -> list[str]:
    """What the numbers depend on, one line each."""
    cpu = platform.processor()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), cpu)
    lines = [f"{platform.system()} {platform.machine()}, {cpu}, {os.cpu_count()} cores"]
    if any(engine.startswith("mlx_lm") for engine in engines):
        lines.append(", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("mlx", "mlx-lm")))
    return lines


def llama_cpp_about() -> str:
    """llama.cpp's own description of its build: which instructions it uses."""
    code = "import llama_cpp as l; print(l.__version__, l.llama_print_system_info().decode())"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return f"llama-cpp-python {answer.stdout.strip()}"


def summary(samples: dict[str, list[dict]], engines: list[str], baseline: str, options) -> str:
    """The two markdown tables: medians with their range, and ratios to the baseline."""
    titles = [title for title, _ in METRICS.values()]
    rule = "| --- " + "| ---: " * (len(titles) + 1) + "|"
    lines = [f"| engine | {' | '.join(titles)} | rounds |", rule]
    for engine in engines:
        cells = []
        for metric, (_, form) in METRICS.items():
            values = [sample[metric] for sample in samples[engine]]
            middle, low, high = (form.format(f(values)) for f in (statistics.median, min, max))
            cells.append(f"{middle} ({low}–{high})")
        lines.append(f"| {engine} | {' | '.join(cells)} | {len(samples[engine])} |")
    lines += ["", f"How many times better {baseline} is (medians; below 1 it is worse):", ""]
    lines += [f"| {baseline} compared with | {' | '.join(titles)} |", "| --- " + "| ---: " * len(titles) + "|"]
    for engine in engines:
        if engine == baseline:
            continue
        cells = []
        for metric in METRICS:
            ours, theirs = (statistics.median(s[metric] for s in samples[name]) for name in (baseline, engine))
            cells.append(f"{theirs / ours if metric in LOWER_IS_BETTER else ours / theirs:.2f}×")
        lines.append(f"| {engine} | {' | '.join(cells)} |")
    lines += ["", f"{options.prompt_tokens} prompt tokens, {options.generate_tokens} generated, greedy."]
    if "mlx_lm float16" in engines:
        few, fewer = options.float16_prompt_tokens, options.float16_generate_tokens
        lines[-1] += f" mlx_lm float16: {few} prompt tokens, {fewer} generated."
    return "\n".join(lines)


def main() -> None:
    options = arguments()
    if options.worker:
        work(*options.worker, options.threads, options.generate_tokens)
        return
    engines = [engine for engine in ENGINES if engine not in options.without]
    if options.gguf is None:
        sys.exit("--gguf is missing")
    if "mlx-cache" in engines and (options.mlx_cache is None or not options.mlx_cache.exists()):
        sys.exit("give the binary with --mlx-cache PATH, or leave it out with --without mlx-cache")
    baseline = options.baseline or engines[0]
    if baseline not in engines:
        sys.exit(f"the baseline {baseline} does not take part")

    with tempfile.TemporaryDirectory() as folder:
        models = {"mlx-cache": options.gguf, "llama.cpp": options.gguf}
        converted = [engine for engine in engines if engine.startswith("mlx_lm")]
        for dtype in (engine.split()[1] for engine in converted):
            # In a process of its own: a child's peak memory starts at its parent's.
            models[f"mlx_lm {dtype}"] = Path(folder, dtype)
            converter = Path(__file__).parent.parent / "fixtures" / "smollm2_convert.py"
            subprocess.run([sys.executable, converter, options.gguf, models[f"mlx_lm {dtype}"], dtype], check=True)

        for text in options.use:
            engine, separator, path = text.partition("=")
            if not separator or engine not in models or not Path(path).exists():
                sys.exit(f"--use wants ENGINE=PATH with one of {list(models)} and a path that exists, not {text!r}")
            models[engine] = Path(path)

        count = counter_of(options, models[converted[0]] if converted else None)
        prompts = {
            "long": prompt_of(count, options.prompt_tokens),
            "float16": prompt_of(count, options.float16_prompt_tokens),
            "question": f"<|im_start|>user\n{QUESTION}<|im_end|>\n<|im_start|>assistant\n",
        }
        samples = {engine: [] for engine in engines}
        for number in range(options.warmup + options.rounds):
            counts = number >= options.warmup
            turn = number % len(engines)
            for engine in engines[turn:] + engines[:turn]:
                if (
                    engine == "mlx_lm float16"
                    and not options.warmup <= number < options.warmup + options.float16_rounds
                ):
                    continue
                sample = measure(engine, models[engine], options, prompts, str(Path(folder, "home")))
                print(
                    f"round {number}: {engine}: " + ", ".join(f"{m} {sample[m]:.3f}" for m in METRICS), file=sys.stderr
                )
                if counts:
                    samples[engine].append(sample)

    about = [*machine(engines), f"{options.threads} threads"] + ([llama_cpp_about()] if "llama.cpp" in engines else [])
    print("\n".join(f"- {line}" for line in about) + "\n")
    print(summary(samples, engines, baseline, options))
    if options.save:
        options.save.write_text(json.dumps({"about": about, "samples": samples}, indent=1) + "\n")


if __name__ == "__main__":
    main()
