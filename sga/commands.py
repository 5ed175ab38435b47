"""Neural image codecs with refined latents: one photograph to one file and back, and jobs on many.

encode, decode, info and export handle one file each. refine, train, study and report have
options of their own: sga refine --help. doctor checks this machine and installation.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import shtab

from sga import __version__
from sga.cli import errors_in_one_line, fail
from sga.files import destination, home, local_path
from sga.refinement.presets import DEFAULT, names

# Torch, and modules that need it, are imported by the functions that compute, so that help and refusals are fast.

JOBS = {
    "refine": ("refine", "Refine the images of a folder; writes files, metrics and curves."),
    "train": ("train", "Train a codec, or test it from files: fit, validate, test."),
    "study": ("study", "Refine images in many ways: many runs of refine, resumable."),
    "doctor": ("sga.doctor", "Check this machine and installation; says what to do about what does not work."),
    "report": ("reports.__main__", "Make a page with curves, tables and pictures of finished runs."),
}
"""Module with the ``main`` of each job, and its line of the help."""


def encode(args: argparse.Namespace) -> None:
    """A photograph to a file, refined unless --steps is 0.

    Where a target is not reached, the nearest file is written and the exit code is 1.
    """
    from sga.api import load
    from sga.bitstream import check_size
    from sga.images import read_image
    from sga.photograph import refine_photograph
    from sga.progress import listening
    from sga.refinement.presets import preset
    from sga.refinement.target import Target

    check_output(args)
    target = Target.of(args.target_bpp, args.target_psnr)
    image = read_image(args.input)
    check_size(image.shape[-2], image.shape[-1])
    codec = load(args.checkpoint)
    settings = preset(args.preset, args.steps)
    with listening(True, settings.steps) as listener:
        result = refine_photograph(codec, image, codec.objective(args.lmbda), settings, target, args.seed, listener)
    result.save(args.output)
    quality = result.quality
    print(f"{args.output}: {len(result.file)} bytes, {quality.bpp:.4f} bpp, {quality.psnr_text}, {result.seconds:.1f} s")
    if target is not None and not target.reached(quality.bpp, quality.psnr_db):
        fail(target.missed(quality.bpp, quality.psnr_db), 1)


def decode(args: argparse.Namespace) -> None:
    """A file to a photograph."""
    from sga.api import decode as decode_file
    from sga.api import load
    from sga.bitstream import Bitstream
    from sga.images import LOSSLESS, write_image

    check_output(args, LOSSLESS)
    data = args.input.read_bytes()
    Bitstream.from_bytes(data)  # refuse a damaged file before a model is loaded
    image = decode_file(data, load(args.checkpoint))
    write_image(image, args.output)
    print(f"{args.output}: {image.shape[-1]} x {image.shape[-2]}")


def info(args: argparse.Namespace) -> None:
    """Size, payload and model of a file, without decoding it."""
    from sga.api import load
    from sga.bitstream import Bitstream

    data = args.input.read_bytes()
    stream = Bitstream.from_bytes(data)
    known = stream.model_hash == load(args.checkpoint).model_hash
    print(f"size:    {stream.width} x {stream.height}")
    print(f"bytes:   {len(data)} ({8 * len(data) / (stream.width * stream.height):.4f} bpp)")
    strings = zip(("y", "z", "adaptation of the prior"), stream.strings, strict=False)
    print(f"payload: {' + '.join(f'{len(string)} ({name})' for name, string in strings)} bytes")
    print(f"model:   {stream.model_hash.hex()} ({'this checkpoint' if known else 'NOT this checkpoint'})")


def export(args: argparse.Namespace) -> None:
    """A checkpoint in another form: .safetensors to ship, anything else for compressai.utils.eval_model."""
    from sga.api import load
    from sga.codecs.export import export_compressai, export_safetensors

    check_output(args)
    loaded = load(args.input)
    if args.output.suffix == ".safetensors":
        lmbda = args.lmbda or loaded.lmbda
        known = {} if lmbda is None else {"lmbda": str(lmbda)}
        export_safetensors(loaded.codec, args.output, {"distortion": loaded.distortion, **known})
    else:
        export_compressai(loaded.codec, args.output)
    print(f"{args.output}: {args.output.stat().st_size} bytes, model {load(args.output).model_hash.hex()}")


def check_output(args: argparse.Namespace, endings: tuple[str, ...] = ()) -> None:
    """Refuses an output that could not be written, before any work.

    Raises:
        ValueError: The output is a folder, a device or the like, its folder does not exist, it is the input, it is the address of
            another place, or it has none of ``endings``.
    """
    output = args.output = local_path(args.output)
    try:
        there = destination(output)
    except OSError as error:
        raise ValueError(f"-o {output}: {error.strerror}") from error
    if not there.parent.is_dir():
        raise ValueError(f"-o {output}: its folder does not exist")
    if output.exists() and Path(args.input).exists() and output.samefile(args.input):
        raise ValueError(f"-o {output}: is the input")
    if endings and output.suffix.lower() not in endings:
        raise ValueError(f"-o {output}: pictures are written without loss, as {' '.join(endings)}")


def run_job(name: str, arguments: Sequence[str]) -> int:
    """Exit code of a job, after running its ``main``.

    The folder of the project's modules comes first on ``sys.path``, so that a folder ``data`` or ``reports`` in the current folder
    is not imported instead. Workers of a ``DataLoader`` inherit the path, and further ranks run this command again.
    """
    rooms = str(home())
    sys.path[:] = [rooms, *(folder for folder in sys.path if folder != rooms)]
    module, _ = JOBS[name]
    code: int = importlib.import_module(module).main(list(arguments), prog=f"sga {name}")
    return code


def command_line(prog: str = "sga", jobs: Mapping[str, tuple[str, str]] = JOBS) -> argparse.ArgumentParser:
    """The parser of the commands; it knows ``jobs`` only for its help and for completion."""
    about = str(__doc__) if jobs else "One photograph to one file and back."
    parser = argparse.ArgumentParser(prog=prog, description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--version", action="version", version=f"sga {__version__}")
    shtab.add_argument_to(parser, help="script for the shell's completion, to be evaluated by it")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(function: Callable[[argparse.Namespace], None], what: str) -> argparse.ArgumentParser:
        about = str(function.__doc__)
        sub = commands.add_parser(function.__name__, help=about.partition("\n")[0], description=about)
        sub.set_defaults(function=function)
        _file(sub.add_argument("input", type=str if function is export else Path, help=what))
        if function is not info:
            _file(sub.add_argument("-o", "--output", type=Path, required=True, help="file to write"))
        if function is not export:
            _file(sub.add_argument("--checkpoint", default="embedded", help="checkpoint of the codec (default: the embedded one)"))
        return sub

    encoder = command(encode, "photograph")
    presets = names()
    encoder.add_argument(
        "--preset", choices=presets, default=DEFAULT, metavar="NAME", help=f"{', '.join(presets)} (default: {DEFAULT})"
    )
    encoder.add_argument("--steps", type=_steps, help="Adam steps (default: the preset's; 0: not refined)")
    encoder.add_argument("--seed", type=int, default=0, help="seed of the refinement's noise")
    encoder.add_argument("--lmbda", type=_lmbda, help="weight of the distortion (default: the checkpoint's)")
    encoder.add_argument("--target-bpp", type=float, help="bits per pixel of the file, reached within 1 %% by moving lambda")
    encoder.add_argument("--target-psnr", type=float, help="PSNR in dB, reached within 0.05 dB by moving lambda")
    command(decode, "file")
    command(info, "file")
    command(export, "checkpoint").add_argument(
        "--lmbda", type=_lmbda, help="weight of the distortion, if the checkpoint does not say"
    )
    for name, (_, about) in jobs.items():
        commands.add_parser(name, help=about, add_help=False)
    return parser


def _file(action: argparse.Action) -> None:
    """Lets the shell complete file names for an argument."""
    action.complete = shtab.FILE  # type: ignore[attr-defined]


def _steps(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError("must be a whole number, 0 or more")
    return int(text)


def _lmbda(text: str) -> float:
    try:
        lmbda = float(text)
    except ValueError:
        lmbda = math.nan
    if not 0 < lmbda < math.inf:
        raise argparse.ArgumentTypeError("must be a number above 0")
    return lmbda


def main(arguments: Sequence[str] | None = None, prog: str = "sga", jobs: Mapping[str, tuple[str, str]] = JOBS) -> int:
    """Runs a command; ``arguments`` are by default those of the process. A user's error gives one line and exit code 2."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words and words[0] in jobs:
        return run_job(words[0], words[1:])
    args = command_line(prog, jobs).parse_args(words)
    with errors_in_one_line():
        gc.disable()  # the imports make many objects and hardly any garbage: collecting it takes a sixth of a cold start
        from sga.bitstream import BitstreamError

        gc.enable()
        gc.freeze()
        if isinstance(args.input, Path):
            args.input = local_path(args.input)
        try:
            args.function(args)
        except BitstreamError as error:
            raise BitstreamError(f"{args.input}: {error}") from error
    return 0


if __name__ == "__main__":
    sys.exit(main())
