"""Writes a GGUF file's weights in other formats, with llama.cpp's own quantizer: the files for `peers.py --use`.

    python formats.py FILE.gguf FOLDER [FORMAT...]

FORMAT is one of llama.cpp's names of a mixture, such as Q8_0, Q4_0, Q4_K_M, Q6_K, F16 or BF16 (the default is all of
these); the result is FOLDER/FORMAT.gguf. Weights that are quantized already are quantized again, which costs quality,
not speed. Rows whose length is no multiple of 256 cannot be K-quants: llama.cpp then takes Q5_0 or Q8_0 for them, as it
does for most of SmolLM2-135M's, and says so.

For MLX's own format, 4 bits in groups of 32, of the same weights: ../fixtures/smollm2_convert.py FILE.gguf FOLDER.
"""

import argparse
from pathlib import Path

FORMATS = ["BF16", "F16", "Q4_0", "Q4_K_M", "Q6_K", "Q8_0"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("gguf", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("formats", nargs="*", default=FORMATS, metavar="FORMAT")
    options = parser.parse_args()

    import llama_cpp

    llama_cpp.llama_backend_init()
    options.folder.mkdir(parents=True, exist_ok=True)
    for name in options.formats:
        kind = getattr(llama_cpp, f"LLAMA_FTYPE_MOSTLY_{name}", None)
        if kind is None:
            parser.error(f"llama.cpp knows no format {name}")
        parameters = llama_cpp.llama_model_quantize_default_params()
        parameters.ftype, parameters.allow_requantize = kind, True
        target = options.folder / f"{name}.gguf"
        source, written = str(options.gguf).encode(), str(target).encode()
        if llama_cpp.llama_model_quantize(source, written, parameters) != 0:
            target.unlink(missing_ok=True)
            parser.exit(1, f"llama.cpp could not write {target}\n")
        print(f"{target}: {target.stat().st_size} bytes", flush=True)


if __name__ == "__main__":
    main()
