"""Common parts of the command lines: ``--config`` by name or path, and the default accelerator."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar, NoReturn

import torch
from jsonargparse import ActionConfigFile  # type: ignore[attr-defined]
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI

from sga.cli import fail
from sga.files import local_path

PATHS = (
    *("output", "resume", "ckpt_path", "model.checkpoint", "model.warm_start"),
    *("data.root", "data.valid", "data.test", "trainer.default_root_dir"),
)
"""Options that are paths, or words that are none of ``~`` and an address."""

ACCELERATOR = "cpu" if torch.backends.mps.is_available() else "auto"
"""Default accelerator: Lightning's choice, except MPS, which lacks the float64 that coding files needs."""


class OneLineParser(LightningArgumentParser):
    """Lightning's parser, whose errors are one line without the usage, which has a line per option."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Ends the program with exit code 2."""
        if not self.exit_on_error:  # the library tries a value
            super().error(message, ex)
        prog = getattr(ex, "subcommand_parser", self).prog.replace(" [options]", "")
        fail(f"{message.strip().rstrip('.')} ({prog} --help lists the options)")


class CommandLine(LightningCLI):
    """A Lightning command line whose help lists the values of ``--config``.

    Attributes:
        description: First line of the help.
        config_help: Help of ``--config``.
        without_effect: Options of the Trainer, without ``trainer.``, that this command has no use for, and what is in their place.
    """

    description: ClassVar[str]
    config_help: ClassVar[str]
    without_effect: ClassVar[Mapping[str, str]]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # Without --optimizer and --lr_scheduler, which would have no effect.
        super().__init__(*args, **{"auto_configure_optimizers": False, **kwargs})

    def init_parser(self, **kwargs: Any) -> LightningArgumentParser:
        """A parser with ``--config`` and the help of this command."""
        parser = OneLineParser(
            **{"description": self.description, "dump_header": [f"pytorch_lightning=={version('pytorch-lightning')}"], **kwargs}
        )
        parser.add_argument("-c", "--config", action=ActionConfigFile, help=self.config_help)
        return parser

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parses the arguments; in the paths among them, ``~`` is expanded.

        Raises:
            ValueError: A path is the address of another place, such as ``s3://bucket/run``, or an option has no effect.
        """
        super().parse_arguments(parser, args)
        subcommand = self.config.get("subcommand")
        config, default = self.config, self._parser(subcommand).get_defaults()
        if subcommand:
            config = config[subcommand]
        for name, instead in self.without_effect.items():
            if config.trainer.get(name) not in (None, default.trainer.get(name)):
                raise ValueError(f"--trainer.{name} has no effect here: {instead}")
        for key in PATHS:
            value = config.get(key)
            if isinstance(value, str | Path):
                config[key] = type(value)(local_path(value))


def config_file(name: str, folder: Path) -> Path:
    """Path of the configuration with a name: ``folder/NAME.yaml``, or the name itself where it is the path of a file.

    Raises:
        ValueError: Neither file exists.
    """
    path = Path(name)
    if path.suffix != ".yaml" and not path.is_file():
        path = folder / f"{name}.yaml"
    if not path.is_file():
        known = " ".join(sorted(file.relative_to(folder).with_suffix("").as_posix() for file in folder.rglob("*.yaml")))
        raise ValueError(f"--config {name}: no such file; give the path of one, or a name of configs/{folder.name}: {known}")
    return path


def with_configs(args: Sequence[str], find: Callable[[str], Sequence[str]], default: str | None = None) -> list[str]:
    """Arguments of a command, with each name after ``--config`` replaced by the values that ``find`` returns for it.

    Args:
        args: Arguments as the user gave them.
        find: Function from a name to values of ``--config``: paths, or configurations in YAML.
        default: Name of the configuration that comes first where the user gives none.

    Raises:
        ValueError: ``find`` does not know a name.
    """
    words: list[str] = []
    named, is_name = False, False
    for word in args:
        joined = re.fullmatch("(?:--config=|-c=|-c)(.+)", word)
        name = word if is_name else joined[1] if joined else None
        is_name = not is_name and word in ("--config", "-c")
        if name is not None:
            named = True
            words += [f"--config={config}" for config in find(name)]
        elif not is_name:
            words.append(word)
    if is_name:
        words.append("--config")  # the parser says that nothing follows it
    return words if named or is_name or default is None else [*(f"--config={config}" for config in find(default)), *words]
