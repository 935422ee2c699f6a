"""Build: the C11 core and the tape's codec as limited-API extensions, and the guest images beside them.

RACETAPE_BUILD=debug turns warnings into errors, RACETAPE_BUILD=sanitize builds with ASan and UBSan as well.
"""

from __future__ import annotations

import glob
import os
import subprocess
import sys

from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext

FLAGS = {
    "release": ["-O3"],
    "debug": ["-O3", "-Werror"],
    "sanitize": ["-O1", "-g", "-Werror", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"],
}


class BuildExtensionAndImages(build_ext):
    """Builds the core, then the guest images by the package just built: here if in place, else in the build folder."""

    def run(self) -> None:
        super().run()
        home = "." if self.inplace else self.build_lib
        subprocess.run([sys.executable, "-m", "machine.images"], cwd=home, check=True)


build = os.environ.get("RACETAPE_BUILD", "release")


def extension(name: str, folder: str) -> Extension:
    """The extension module made of all C files of a folder."""
    return Extension(
        name,
        sources=sorted(glob.glob(f"{folder}/*.c")),
        depends=sorted(glob.glob(f"{folder}/*.h") + glob.glob(f"{folder}/*.def")),
        py_limited_api=True,
        # Asserts stay on: Python's own flags define NDEBUG, ours undefine it.
        extra_compile_args=["-std=c11", "-Wall", "-Wextra", "-UNDEBUG", "-fvisibility=hidden", *FLAGS[build]],
        extra_link_args=[flag for flag in FLAGS[build] if flag.startswith("-fsanitize")],
    )


setup(
    packages=find_packages(include=["racetape*", "debugger*", "replayer*", "recorder*", "traces*", "machine*"]),
    package_data={
        "machine": ["_core.pyi", "py.typed", "guest/**/*"],
        "traces": ["_codec.pyi"],
        "traces.gallery": ["gallery.toml", "*.tape"],
        "racetape": ["py.typed"],
        "recorder": ["litmus/tests/**/*.litmus"],
    },
    ext_modules=[extension("machine._core", "machine/core"), extension("traces._codec", "traces/codec")],
    cmdclass={"build_ext": BuildExtensionAndImages},
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
