"""Compares `mlx-cache embed` with its peers on all-MiniLM-L6-v2: the same weights, texts and cores, in turn.

    python embeddings.py --mlx-cache target/release/mlx-cache --model target/models/all-MiniLM-L6-v2 [PART...]

Engines
    mlx-cache               the binary
    sentence-transformers   on torch, as its users call it: SentenceTransformer(MODEL).encode(texts)
    onnxruntime             the model as ONNX, its graph fused by onnxruntime's own optimizer for transformers, texts
                            sorted by length; what fastembed and similar libraries do inside, without their overhead
An engine that is not wanted is named with --without; one that is missing is an error, never skipped.

Parts
    check       1,000 texts of many lengths, scripts and emojis (those of fixtures/minilm_golden.py) against
                sentence-transformers: cosine, largest difference, tokens after truncation, and several batch sizes
    throughput  512 of these texts, in texts per second; tokens are made within the time, loading is not counted,
                and the peers are warmed up first. mlx-cache reads a file and writes one
    lengths     the same for 512 texts of one length each: 8, 32, 128 and 256 tokens
    start       seconds from the start of a process to the vector of one short text, at the process's end
    memory      largest resident memory of mlx-cache for 20,000 lines and for --lines lines from a pipe
Every engine has a fresh process for each round, limited to --threads cores; rounds interleave the engines.

Set-up, in a Python 3.11 environment
    pip install sentence-transformers onnxruntime onnx onnxscript
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "fixtures"))

ENGINES = ["mlx-cache", "sentence-transformers", "onnxruntime"]
PARTS = ["check", "throughput", "lengths", "start", "memory"]
SHORT = "How far is it to the moon?"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help="what to measure (default: everything)")
    parser.add_argument("--mlx-cache", type=Path, help="path of the mlx-cache binary")
    parser.add_argument("--model", type=Path, help="folder of all-MiniLM-L6-v2")
    parser.add_argument("--without", action="append", default=[], choices=ENGINES, help="leave an engine out")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--lines", type=int, default=1_000_000)
    parser.add_argument("--save", type=Path, help="write every sample as JSON")
    parser.add_argument("--worker", nargs=2, metavar=("ENGINE", "TEXTS"), help=argparse.SUPPRESS)
    parser.add_argument("--onnx", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    unknown = set(options.parts) - set(PARTS)
    if unknown:
        parser.error(f"unknown parts {sorted(unknown)}; known are {PARTS}")
    options.parts = options.parts or PARTS
    return options


def mixed_texts(count: int) -> list[str]:
    from minilm_golden import text

    return [text(index) for index in range(count)]


def texts_of_length(tokens: int, count: int) -> list[str]:
    """Texts of exactly so many tokens, the two special ones included: each word is one."""
    words = "time year people way day man thing woman life child world school state family student group".split()
    return [" ".join(words[(index * 7 + at * (index + 3)) % len(words)] for at in range(tokens - 2)) for index in range(count)]


# --- workers -------------------------------------------------------------------------------------------------------


def export(model: Path, target: Path) -> None:
    """The encoder as ONNX, fused for speed in float32."""
    import torch
    from onnxruntime.transformers import optimizer
    from transformers import AutoModel

    class States(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = AutoModel.from_pretrained(model, attn_implementation="eager").eval()

        def forward(self, input_ids, attention_mask, token_type_ids):
            return self.inner(input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids)[0]

    names = ["input_ids", "attention_mask", "token_type_ids"]
    plain = target.with_suffix(".plain.onnx")
    ids = torch.ones(2, 16, dtype=torch.int64)
    torch.onnx.export(
        States(), (ids, ids, torch.zeros_like(ids)), str(plain), input_names=names, output_names=["states"],
        dynamic_axes={name: {0: "texts", 1: "tokens"} for name in [*names, "states"]}, dynamo=False, opset_version=17)
    fused = optimizer.optimize_model(str(plain), model_type="bert", num_heads=12, hidden_size=384, opt_level=0)
    fused.save_model_to_file(str(target))
    print("onnxruntime's fusions:", {k: v for k, v in fused.get_fused_operator_statistics().items() if v}, file=sys.stderr)


def sentence_transformers(options):
    import torch
    from sentence_transformers import SentenceTransformer

    torch.set_num_threads(options.threads)
    model = SentenceTransformer(str(options.model), device="cpu")
    return lambda texts: model.encode(texts, show_progress_bar=False)


def onnx_runtime(options):
    import numpy as np
    import onnxruntime
    from tokenizers import Tokenizer

    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = options.threads
    session = onnxruntime.InferenceSession(str(options.onnx), settings, providers=["CPUExecutionProvider"])
    tokenizer = Tokenizer.from_file(str(options.model / "tokenizer.json"))
    tokenizer.enable_truncation(256)
    tokenizer.no_padding()

    def encode(texts, batch=32):
        ids = [encoding.ids for encoding in tokenizer.encode_batch(texts)]
        order = sorted(range(len(ids)), key=lambda index: -len(ids[index]))
        vectors = np.zeros((len(ids), 384), np.float32)
        for first in range(0, len(order), batch):
            chosen = order[first : first + batch]
            longest = len(ids[chosen[0]])
            padded = np.zeros((len(chosen), longest), np.int64)
            mask = np.zeros((len(chosen), longest), np.int64)
            for row, index in enumerate(chosen):
                padded[row, : len(ids[index])] = ids[index]
                mask[row, : len(ids[index])] = 1
            inputs = {"input_ids": padded, "attention_mask": mask, "token_type_ids": np.zeros_like(mask)}
            states = session.run(None, inputs)[0]
            weights = mask[..., None].astype(np.float32)
            pooled = (states * weights).sum(1) / weights.sum(1)
            vectors[chosen] = pooled / np.linalg.norm(pooled, axis=1, keepdims=True)
        return vectors

    return encode


def work(options) -> None:
    """Reads texts as JSON, embeds them, prints how long it took; `-` embeds one text and prints its vector."""
    engine, source = options.worker
    encode = (sentence_transformers if engine == "sentence-transformers" else onnx_runtime)(options)
    if source == "-":
        print(encode([SHORT])[0].tolist())
        return
    texts = json.loads(Path(source).read_text())
    encode(texts[:64])
    start = time.monotonic()
    vectors = encode(texts)
    print(json.dumps({"seconds": time.monotonic() - start, "first": vectors[0].tolist()}))


# --- measuring -----------------------------------------------------------------------------------------------------


class Bench:
    def __init__(self, options, folder: Path):
        self.options, self.folder = options, folder
        self.engines = [engine for engine in ENGINES if engine not in options.without]
        self.onnx = folder / "model.onnx"
        if "onnxruntime" in self.engines:
            export(options.model, self.onnx)
        self.samples = {}

    def limited(self):
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: self.options.threads])

    def run(self, command: list[str], **more) -> str:
        environment = {**os.environ, "OMP_NUM_THREADS": str(self.options.threads), "HF_HUB_OFFLINE": "1",
                       "MLX_CACHE_HOME": str(self.folder / "store"), "TOKENIZERS_PARALLELISM": "true"}
        done = subprocess.run(command, capture_output=True, text=True, preexec_fn=self.limited, env=environment, **more)
        if done.returncode:
            sys.exit(f"{command[:4]}: status {done.returncode}\n{done.stderr[-3000:]}")
        return done.stdout

    def ours(self, *args: str) -> list[str]:
        return [str(self.options.mlx_cache), "embed", str(self.options.model), *args, "--threads", str(self.options.threads)]

    def peer(self, engine: str, source: str) -> list[str]:
        return [sys.executable, __file__, "--model", str(self.options.model), "--onnx", str(self.onnx),
                "--threads", str(self.options.threads), "--worker", engine, source]

    def seconds(self, engine: str, texts: list[str], plain: Path, listed: Path) -> float:
        if engine == "mlx-cache":
            target = self.folder / "vectors.npy"
            report = json.loads(self.run(self.ours("--input", str(plain), "-0", "--output", str(target), "--json")))
            assert report["data"]["count"] == len(texts)
            return report["data"]["timings"]["embed_s"]
        return json.loads(self.run(self.peer(engine, str(listed))))["seconds"]

    def rates(self, name: str, texts: list[str]) -> dict:
        plain, listed = self.folder / "texts", self.folder / "texts.json"
        plain.write_bytes(b"".join(text.encode() + b"\0" for text in texts))
        listed.write_text(json.dumps(texts))
        rates = {engine: [] for engine in self.engines}
        for round_number in range(self.options.rounds + 1):
            for place in range(len(self.engines)):
                engine = self.engines[(round_number + place) % len(self.engines)]
                rate = len(texts) / self.seconds(engine, texts, plain, listed)
                # The first round fills the page cache.
                if round_number:
                    rates[engine].append(rate)
        self.samples[name] = rates
        return rates

    def throughput(self):
        self.table("512 mixed texts (texts/s)", self.rates("throughput", mixed_texts(512)))

    def lengths(self):
        for tokens in (8, 32, 128, 256):
            self.table(f"512 texts of {tokens} tokens (texts/s)", self.rates(f"{tokens} tokens", texts_of_length(tokens, 512)))

    def start(self):
        times = {engine: [] for engine in self.engines}
        for round_number in range(self.options.rounds + 1):
            for engine in self.engines:
                command = self.ours(SHORT) if engine == "mlx-cache" else self.peer(engine, "-")
                start = time.monotonic()
                self.run(command)
                if round_number:
                    times[engine].append(time.monotonic() - start)
        self.samples["start"] = times
        self.table("one short text, start to vector (s)", times, lower_is_better=True)

    def memory(self):
        words = "time year people way day man thing woman life child world school state family student group".split()
        for count in (20_000, self.options.lines):
            target = self.folder / "many.f32"
            peak_pipe = subprocess.Popen(
                [sys.executable, "-c",
                 "import resource,subprocess,sys\n"
                 "code=subprocess.run(sys.argv[1:]).returncode\n"
                 "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)\nsys.exit(code)",
                 *self.ours("-", "--output", str(target), "--format", "f32", "--quiet")],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, preexec_fn=self.limited,
                env={**os.environ, "MLX_CACHE_HOME": str(self.folder / "store")})
            start = time.monotonic()
            for index in range(count):
                peak_pipe.stdin.write(f"{words[index % 16]} {words[index // 16 % 16]} {index}\n")
            peak_pipe.stdin.close()
            peak = int(peak_pipe.stdout.read().split()[-1])
            if peak_pipe.wait():
                sys.exit("mlx-cache failed")
            seconds = time.monotonic() - start
            size = target.stat().st_size
            assert size == count * 384 * 4, size
            target.unlink()
            scale = 1024 if sys.platform == "linux" else 1
            print(f"memory: {count} lines: peak {peak * scale / 1e6:.0f} MB, {seconds:.1f} s, {count / seconds:.0f} texts/s")
            self.samples[f"memory {count}"] = {"peak_bytes": peak * scale, "seconds": seconds}

    def check(self):
        import numpy as np
        from sentence_transformers import SentenceTransformer

        texts = mixed_texts(1000)
        model = SentenceTransformer(str(self.options.model), device="cpu")
        expected = model.encode(texts, show_progress_bar=False)
        lengths = [len(model.tokenizer(t, truncation=True, max_length=model.max_seq_length)["input_ids"]) for t in texts]
        plain = self.folder / "texts"
        plain.write_bytes(b"".join(text.encode() + b"\0" for text in texts))
        found = {}
        for batch in (None, 1, 7, 64):
            target = self.folder / "check.npy"
            more = [] if batch is None else ["--batch-size", str(batch)]
            report = json.loads(self.run(self.ours("--input", str(plain), "-0", "-o", str(target), "--json", *more)))
            found[batch] = np.load(target)
            tokens = report["data"]["usage"]["tokens"]
            assert tokens == sum(lengths), (tokens, sum(lengths))
        vectors = found[None]
        cosines = (vectors * expected).sum(1) / np.linalg.norm(vectors, axis=1) / np.linalg.norm(expected, axis=1)
        worst = float(np.abs(vectors - expected).max())
        others = {batch: float(np.abs(vectors - other).max()) for batch, other in found.items() if batch}
        print(f"check: 1,000 texts, {sum(lengths)} tokens, {sum(n == 256 for n in lengths)} cut at 256, the same counts")
        print(f"check: least cosine {cosines.min():.9f}, largest difference {worst:.2e}")
        print("check: largest difference to other batch sizes", {k: f"{v:.1e}" for k, v in others.items()})
        assert cosines.min() >= 0.99999 and worst <= 1e-4 and max(others.values()) <= 1e-5

    def table(self, title: str, samples: dict, lower_is_better=False):
        print(f"\n{title}, median (least–most) of {self.options.rounds}")
        ours = statistics.median(samples["mlx-cache"]) if "mlx-cache" in samples else None
        for engine, values in samples.items():
            median = statistics.median(values)
            line = f"  {engine:<23}{median:10.3f} ({min(values):.3f}–{max(values):.3f})"
            if ours and engine != "mlx-cache":
                line += f"   mlx-cache is {median / ours if lower_is_better else ours / median:.2f}×"
            print(line, flush=True)


def main() -> None:
    options = arguments()
    if options.worker:
        return work(options)
    if not (options.mlx_cache and options.model):
        sys.exit("--mlx-cache and --model are needed")
    options.mlx_cache, options.model = options.mlx_cache.resolve(), options.model.resolve()
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(options, Path(folder))
        for part in options.parts:
            getattr(bench, part)()
        if options.save:
            options.save.write_text(json.dumps(bench.samples, indent=1) + "\n")


if __name__ == "__main__":
    main()
