"""Builds the C of nemotron_voice/model, where there is a compiler: int8 on CPUs is faster with it.

Without one, or on another processor than x86-64, the package is built without the library and runs
the same arithmetic in PyTorch.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

FOLDER = Path("nemotron_voice/model")
# Every processor with AVX2 (2013 and later); kernels.py looks for it before it loads the library.
# No -ffast-math: sums are reordered only where the source says so. No OpenMP library is linked, so
# that the threads are those that PyTorch has started.
FLAGS = "-std=gnu11 -O3 -march=x86-64-v3 -fno-math-errno -fno-trapping-math -fPIC -Wall -Wextra"


class FusedKernels(BuildHookInterface):
    """Hatchling's hook."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002
        """Build the library into the source tree and add it to the wheel."""
        if self.target_name != "wheel":
            return
        library = Path(self.root) / FOLDER / "libkernels.so"
        try:
            build(library)
        except (OSError, RuntimeError, subprocess.CalledProcessError) as error:
            library.unlink(missing_ok=True)
            self.app.display_warning(
                f"the model will be slower on CPUs, its kernels aren't built: {error}"
            )
            return
        build_data["force_include"][str(library)] = str(FOLDER / library.name)
        build_data["pure_python"] = False
        system = sysconfig.get_platform().replace("-", "_").replace(".", "_")
        build_data["tag"] = f"py3-none-{system}"  # it doesn't use Python's own interface


def build(library: Path) -> None:
    """Compile and link the sources that lie beside the library.

    Raises:
        RuntimeError: not on Linux on x86-64, or there is no C compiler.
        CalledProcessError: the compiler failed; it has said why.
    """
    if sys.platform != "linux" or platform.machine() != "x86_64":
        raise RuntimeError("it is for Linux on x86-64")
    compiler = os.environ.get("CC") or shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        raise RuntimeError("there is no C compiler (Debian: apt install gcc)")
    sources = sorted(library.parent.glob("*.c"))  # as kernels.py reads them
    digest = hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()
    compile_one = (*FLAGS.split(), "-fopenmp", f'-DSOURCE="{digest}"', "-c")
    with tempfile.TemporaryDirectory() as folder:  # what a failure leaves would be in the wheel
        compiled = [Path(folder, source.stem + ".o") for source in sources]
        linked = Path(folder, library.name)
        commands: list[tuple[str | Path, ...]] = [
            (*compile_one, source, "-o", into)
            for source, into in zip(sources, compiled, strict=True)
        ]
        for command in (*commands, ("-shared", *compiled, "-o", linked)):
            subprocess.run([*compiler.split(), *map(str, command)], check=True)  # noqa: S603
        library.unlink(missing_ok=True)  # a process that has it loaded keeps the old file
        shutil.copy(linked, library)


if __name__ == "__main__":  # python hatch_build.py: without an installation
    build(FOLDER / "libkernels.so")
