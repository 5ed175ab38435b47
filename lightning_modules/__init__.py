"""Training and refinement under PyTorch Lightning."""

import sys

from sga import codecs
from sga.refinement import expectation, rounding, schedules

# Configurations of old runs, made before the core moved from lightning_modules to sga, name its classes by these modules.
for _name, _module in {"codecs": codecs, "relaxation": expectation, "rounding": rounding, "temperature": schedules}.items():
    sys.modules[f"{__name__}.{_name}"] = _module
