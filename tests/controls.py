"""Takes SmolLM2-135M-Instruct through every control of `run`, in three forms: its GGUF file, MLX safetensors converted
from it without loss, and an original in float16 that is quantized again while it is loaded.

    python controls.py --mlx-cache target/release/mlx-cache \
        --gguf target/models/smollm2/SmolLM2-135M-Instruct.Q4_1.gguf

Each check says what holds; the status is 1 if one does not. Nothing is kept. Needs mlx, tokenizers and safetensors
beside this checkout, and takes about two minutes.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import mlx.core as mx

FIXTURES = Path(__file__).parent.parent / "fixtures"
GROUP = 32
PROMPT = "Name three colours and say what each is found on."
REPEAT = "Repeat: one two three four five six seven. one two three four five six seven. one two three"
SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 12}, "age": {"type": "integer", "minimum": 0, "maximum": 130}},
    "required": ["name", "age"],
    "additionalProperties": False,
}


def original(packed: Path, folder: Path) -> None:
    """The packed model's values as float16."""
    folder.mkdir()
    weights = mx.load(str(packed / "model.safetensors"))
    config = json.loads((packed / "config.json").read_text())
    quantization = config.pop("quantization")
    plain = {}
    for name, weight in weights.items():
        module, _, part = name.rpartition(".")
        if f"{module}.scales" not in weights:
            plain[name] = weight.astype(mx.float16)
        elif part == "weight":
            bits = quantization.get(module, quantization)
            bits = bits["bits"] if isinstance(bits, dict) else quantization["bits"]
            scales, biases = weights[f"{module}.scales"], weights[f"{module}.biases"]
            plain[name] = mx.dequantize(weight, scales, biases, group_size=GROUP, bits=bits).astype(mx.float16)
    mx.save_safetensors(str(folder / "model.safetensors"), plain, metadata={"format": "mlx"})
    (folder / "config.json").write_text(json.dumps(config | {"torch_dtype": "float16"}))
    for file in packed.iterdir():
        if file.name not in ("config.json", "model.safetensors"):
            (folder / file.name).write_bytes(file.read_bytes())


def adapter(folder: Path, size: float) -> str:
    """An adapter to the queries of the last layer."""
    folder.mkdir()
    module, hidden, rank = "model.layers.29.self_attn.q_proj", 576, 8
    mx.random.seed(7)
    parts = {
        f"{module}.lora_a": mx.random.normal((hidden, rank)),
        f"{module}.lora_b": size * mx.random.normal((rank, hidden)),
    }
    mx.save_safetensors(str(folder / "adapters.safetensors"), parts)
    config = {"fine_tune_type": "lora", "num_layers": 1, "lora_parameters": {"rank": rank, "scale": 1.0, "dropout": 0.0}}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return str(folder)


class Model:
    """One form of the model, and what it says."""

    def __init__(self, binary: str, store: Path, path: Path, *flags: str):
        self.binary, self.path, self.flags = binary, str(path), list(flags)
        self.environment = {**os.environ, "MLX_CACHE_HOME": str(store), "MLX_CACHE_DEVICE": "cpu"}

    def run(self, *arguments: str, status: int = 0) -> dict:
        command = [self.binary, "run", self.path, *self.flags, *arguments, "--json"]
        done = subprocess.run(command, capture_output=True, text=True, env=self.environment, stdin=subprocess.DEVNULL)
        if done.returncode != status:
            sys.exit(f"{command}: status {done.returncode}\n{done.stdout[-1000:]}{done.stderr[-1000:]}")
        envelope = json.loads(done.stdout.splitlines()[-1])
        return envelope["data"] if status == 0 else envelope["error"]

    def text(self, *arguments: str, prompt: str = PROMPT) -> str:
        return self.run(prompt, "-n", "24", *arguments)["text"]


def checks(model: Model, gguf: Path, folder: Path):
    """(what holds, whether it does)"""
    greedy = ["--temp", "0"]
    base = model.text(*greedy)
    warm = ["--temp", "1", "--seed", "5"]
    drawn = model.text(*warm)
    yield "a seed gives one text", model.text(*warm) == drawn != model.text("--temp", "1", "--seed", "6")
    for flags in (
        ["--top-k", "3"], ["--top-p", "0.4"], ["--min-p", "0.3"], ["--typical-p", "0.4"],
        ["--xtc-probability", "1"], ["--mirostat-tau", "2"], ["--repetition-penalty", "1.5"],
        ["--presence-penalty", "2"], ["--frequency-penalty", "2"], ["--logit-bias", " colours=never"],
    ):  # fmt: skip
        yield f"{flags[0]} is repeatable", model.text(*warm, *flags) == model.text(*warm, *flags)
    told = model.run(PROMPT, "-n", "24", *greedy, "--logprobs=3")
    yield "--logprobs leaves the text", told["text"] == base and len(told["logprobs"]) == 24
    several = model.run(PROMPT, "-n", "24", *warm, "--samples", "3")
    other = model.text("--temp", "1", "--seed", "7")
    yield "--samples are those of their seeds", [several["text"], several["others"][1]["text"]] == [drawn, other]
    stopped = model.text(*greedy, "--stop", base[8:12])
    yield "--stop ends before its text", stopped == base[: base.index(base[8:12])]

    schema = folder / "schema.json"
    schema.write_text(json.dumps(SCHEMA))
    held = model.run(PROMPT, "--temp", "1.5", "--top-k", "0", "--seed", "1", "--format", str(schema), "--samples", "20")
    found = [json.loads(answer["text"]) for answer in [held, *held["others"]]]
    fits = all(set(one) == {"name", "age"} and 0 <= one["age"] <= 130 and len(one["name"]) <= 12 for one in found)
    yield "20 answers at temperature 1.5 fit --format", fits

    cache = str(folder / "prompt.cache")
    for saved in (["--prompt-cache", cache], ["--kv-bits", "8", "--prompt-cache", f"{cache}.8"]):
        plain = base if len(saved) == 2 else model.text(*greedy, "--kv-bits", "8")
        runs = [model.run(PROMPT, "-n", "24", *greedy, *saved) for _ in range(2)]
        cached = [run["usage"]["cached_tokens"] for run in runs]
        fits = [run["text"] for run in runs] == [plain, plain] and cached[0] == 0 < cached[1]
        yield f"{' '.join(saved[:-1])} gives the same", fits
    yield "--kv-start beyond the text packs nothing", base == model.text(*greedy, "--kv-bits", "4", "--kv-start", "500")
    yield "--max-kv-size that suffices changes nothing", base == model.text(*greedy, "--max-kv-size", "200", "--keep", "8")
    long = " ".join(["word"] * 300)
    small = model.run(long, "--raw", "-n", "8", *greedy, "--max-kv-size", "64", "--keep", "4")
    yield "--max-kv-size 64 answers 300 tokens", small["usage"]["generated_tokens"] == 8

    repeated = model.text(*greedy, prompt=REPEAT)
    for draft in (["--draft", "lookup"], ["--draft-model", str(gguf)]):
        drafted = model.run(REPEAT, "-n", "24", *greedy, *draft)
        fits = drafted["text"] == repeated and drafted["usage"]["accepted_tokens"] > 0
        yield f"{draft[0]} gives the same", fits
    batch = folder / "batch.jsonl"
    prompts = [PROMPT, REPEAT, "What is a village?"]
    batch.write_text("\n".join(json.dumps({"prompt": prompt, "max_tokens": 24}) for prompt in prompts))
    results = [result["text"] for result in model.run("--batch", str(batch), *greedy)["results"]]
    yield "--batch gives each its own", results == [base, repeated, model.text(*greedy, prompt=prompts[2])]
    yield "an adapter of nothing changes nothing", base == model.text(*greedy, "--adapter", str(folder / "nothing"))
    yield "an adapter changes the answer", base != model.text(*greedy, "--adapter", str(folder / "strong"))
    yield "--system is said", "be brief" in model.run(PROMPT, "-n", "1", "--system", "be brief")["rendered_prompt"]
    yield "--think needs a switch", model.run(PROMPT, "--think", status=7)["code"] == "CAPABILITY_MISSING"
    yield "--hide-thinking leaves an answer without", base == model.text(*greedy, "--hide-thinking")
    limited = model.run(PROMPT, "--memory-limit", "50MB", status=5)
    yield "--memory-limit is kept", limited["code"] == "INSUFFICIENT_MEMORY"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mlx-cache", required=True, help="path of the mlx-cache binary")
    parser.add_argument("--gguf", type=Path, required=True, help="SmolLM2-135M-Instruct")
    options = parser.parse_args()
    mx.set_default_device(mx.cpu)
    failed = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        packed, plain = folder / "packed", folder / "original"
        convert = [sys.executable, str(FIXTURES / "smollm2_convert.py"), str(options.gguf), str(packed)]
        subprocess.run(convert, check=True, capture_output=True)
        original(packed, plain)
        adapter(folder / "nothing", 0.0)
        adapter(folder / "strong", 1.0)
        forms = {
            "GGUF": Model(options.mlx_cache, folder / "store", options.gguf),
            "MLX": Model(options.mlx_cache, folder / "store", packed),
            "--quantize 8": Model(options.mlx_cache, folder / "store", plain, "--quantize", "8"),
        }
        for form, model in forms.items():
            scratch = folder / form.strip("-")
            scratch.mkdir()
            for which in ("nothing", "strong"):
                (scratch / which).symlink_to(folder / which)
            for what, holds in checks(model, options.gguf, scratch):
                failed += not holds
                print(f"{'ok' if holds else 'FAILED'}  {form}: {what}", flush=True)
        texts = [forms[form].text("--temp", "0") for form in ("GGUF", "MLX")]
        failed += texts[0] != texts[1]
        print(f"{'ok' if texts[0] == texts[1] else 'FAILED'}  GGUF and MLX say the same")
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
