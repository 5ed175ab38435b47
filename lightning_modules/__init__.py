"""Training and refinement under PyTorch Lightning."""

import sys

from sga import codecs
from sga.refinement import expectation, rounding, schedules

# Configurations of runs that were made before the core had a package of its own name its classes by these modules.
for _name, _module in {"codecs": codecs, "relaxation": expectation, "rounding": rounding, "temperature": schedules}.items():
    sys.modules[f"{__name__}.{_name}"] = _module
