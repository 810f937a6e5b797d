"""The Cython kernels; everything else about the build stands in pyproject.toml."""

from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup

# Contraction into fused multiply-adds would make results differ between processors.
COMPILE_ARGS = ["-O3", "-ffp-contract=off", "-fno-math-errno"]

headers = sorted(map(str, Path("penstock/_native").glob("*.hpp")))  # a header can include another
kernels = sorted(Path("penstock/_native").glob("*.pyx"))
extensions = [
    Extension(
        f"penstock._native.{path.stem}",
        [str(path)],
        depends=headers,
        language="c++",
        extra_compile_args=[*COMPILE_ARGS, "-std=c++17"],
    )
    for path in kernels
]

setup(
    ext_modules=cythonize(
        extensions,
        build_dir="build",
        compiler_directives={
            "language_level": 3,
            "boundscheck": False,
            "wraparound": False,
            "cdivision": True,
            "initializedcheck": False,
            "embedsignature": True,
        },
    )
)
