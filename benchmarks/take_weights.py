"""Writes the weights of a training's checkpoint in half precision, at most a third of its size; or prints its training time.

``python benchmarks/take_weights.py RUN/last.ckpt weights.safetensors`` writes what ``codec.py``, ``refine.py`` and
``--model.warm_start`` read. The coding tables are not in it: ``python codec.py export`` makes them.

``python benchmarks/take_weights.py --elapsed RUN/last.ckpt`` prints the seconds of ``--model.minutes`` that are used up.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from safetensors.torch import save_file


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("output", type=Path, nargs="?")
    parser.add_argument("--elapsed", action="store_true")
    options = parser.parse_args()
    content = torch.load(options.checkpoint, map_location="cpu", weights_only=True, mmap=True)
    if options.elapsed:
        print(content["lr_schedulers"][0]["elapsed"])
        return
    prefix = "codec.net."
    state = {name.removeprefix(prefix): value for name, value in content["state_dict"].items() if name.startswith(prefix)}
    state = {name: value.contiguous() for name, value in state.items() if value.numel()}
    halved = {name: value.half() if name.startswith(("g_", "h_")) else value for name, value in state.items()}
    settings = content["hyper_parameters"]
    metadata = {"lmbda": str(settings["lmbda"]), "distortion": str(settings["distortion"]), "steps": str(content["global_step"])}
    save_file(halved, options.output, metadata)


if __name__ == "__main__":
    main()
