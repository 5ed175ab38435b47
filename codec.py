"""One file: ``python codec.py encode photo.png -o photo.bin``, ``decode photo.bin -o photo.png``, ``info photo.bin``."""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path

from sga.bitstream import Bitstream, BitstreamError, check_size, decode_image
from sga.cli import errors_in_one_line, fail
from sga.codecs.checkpoint import EMBEDDED, load_codec
from sga.codecs.export import export_compressai, export_safetensors
from sga.files import write_atomically
from sga.images import LOSSLESS, read_image, write_image
from sga.photograph import refine_photograph
from sga.refinement.presets import DEFAULT, PRESETS, preset
from sga.refinement.target import Target


def encode(args: argparse.Namespace) -> None:
    """A photograph to a file, its latents refined for ``--steps`` steps (0: not refined).

    Where a target is not reached, the nearest file is written and the exit code is 1.
    """
    check_output(args)
    target = Target.of(args.target_bpp, args.target_psnr)
    image = read_image(args.input)
    check_size(image.shape[-2], image.shape[-1])
    loaded = load_codec(args.checkpoint)
    settings = preset(args.preset, args.steps)
    refined = refine_photograph(loaded, image, loaded.objective(args.lmbda), settings, target, args.seed)
    quality = refined.quality
    write_atomically(args.output, refined.file)
    print(f"{args.output}: {len(refined.file)} bytes, {quality.bpp:.4f} bpp, {quality.psnr_text}, {refined.seconds:.1f} s")
    if target is not None and not target.reached(quality.bpp, quality.psnr_db):
        fail(target.missed(quality.bpp, quality.psnr_db), 1)


def decode(args: argparse.Namespace) -> None:
    """A file to a photograph."""
    check_output(args, LOSSLESS)
    data = args.input.read_bytes()
    Bitstream.from_bytes(data)  # refuse a damaged file before a model is loaded
    image = decode_image(load_codec(args.checkpoint), data)
    temporary = args.output.with_name(f".{args.output.stem}.partial{args.output.suffix}")
    write_image(image, temporary)
    temporary.replace(args.output)
    print(f"{args.output}: {image.shape[-1]} x {image.shape[-2]}")


def info(args: argparse.Namespace) -> None:
    """What a file says, without decoding it."""
    data = args.input.read_bytes()
    stream = Bitstream.from_bytes(data)
    known = stream.model_hash == load_codec(args.checkpoint).model_hash
    print(f"size:    {stream.width} x {stream.height}")
    print(f"bytes:   {len(data)} ({8 * len(data) / (stream.width * stream.height):.4f} bpp)")
    names = zip(("y", "z", "adaptation of the prior"), stream.strings, strict=False)
    print(f"payload: {' + '.join(f'{len(string)} ({name})' for name, string in names)} bytes")
    print(f"model:   {stream.model_hash.hex()} ({'this checkpoint' if known else 'NOT this checkpoint'})")


def export(args: argparse.Namespace) -> None:
    """A checkpoint in another form: ``.safetensors`` to ship, anything else for ``compressai.utils.eval_model``."""
    check_output(args)
    loaded = load_codec(args.input)
    if args.output.suffix == ".safetensors":
        lmbda = args.lmbda or loaded.lmbda
        known = {} if lmbda is None else {"lmbda": str(lmbda)}
        export_safetensors(loaded.codec, args.output, {"distortion": loaded.distortion, **known})
    else:
        export_compressai(loaded.codec, args.output)
    print(f"{args.output}: {args.output.stat().st_size} bytes, model {load_codec(args.output).model_hash.hex()}")


def check_output(args: argparse.Namespace, endings: tuple[str, ...] = ()) -> None:
    """Refuses an output that could not be written, before any work.

    Raises:
        ValueError: It is a folder, lies in none, is the input, or has none of ``endings``.
    """
    output: Path = args.output
    if output.is_dir() or not output.parent.is_dir():
        raise ValueError(f"-o {output}: {'is a folder' if output.is_dir() else 'its folder does not exist'}")
    if output.exists() and Path(args.input).exists() and output.samefile(args.input):
        raise ValueError(f"-o {output}: is the input")
    if endings and output.suffix.lower() not in endings:
        raise ValueError(f"-o {output}: pictures are written without loss, as {' '.join(endings)}")


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="codec.py", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(function: object, what: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(function.__name__, help=str(function.__doc__), description=function.__doc__)  # type: ignore[attr-defined]
        sub.set_defaults(function=function)
        sub.add_argument("input", type=str if function is export else Path, help=what)
        if function is not info:
            sub.add_argument("-o", "--output", type=Path, required=True)
        if function is not export:
            sub.add_argument("--checkpoint", default=EMBEDDED, help="of the codec (default: the embedded one)")
        return sub

    encoder = command(encode, "photograph")
    encoder.add_argument("--preset", choices=PRESETS, default=DEFAULT, help=f"how it is refined (default: {DEFAULT})")
    encoder.add_argument("--steps", type=_steps, help="of refinement (default: the preset's; 0: none)")
    encoder.add_argument("--seed", type=int, default=0, help="of the refinement's noise")
    encoder.add_argument("--lmbda", type=_lmbda, help="weight of the distortion (default: the checkpoint's)")
    encoder.add_argument("--target-bpp", type=float, help="bits a pixel of the file, reached within 1 %% by moving lambda")
    encoder.add_argument("--target-psnr", type=float, help="dB, reached within 0.05 dB by moving lambda")
    command(decode, "file")
    command(info, "file")
    command(export, "checkpoint").add_argument("--lmbda", type=_lmbda, help="where the checkpoint does not say it")
    return parser.parse_args(arguments)


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


def main(arguments: list[str] | None = None) -> int:
    """Runs a command; exit code 2 and one line for what cannot be done."""
    args = parse(arguments)
    with errors_in_one_line():
        try:
            args.function(args)
        except BitstreamError as error:
            raise BitstreamError(f"{args.input}: {error}") from error
    return 0


if __name__ == "__main__":
    sys.exit(main())
