"""The compiled extensions; all other metadata is in pyproject.toml."""

import numpy
from Cython.Build import cythonize
from pybind11.setup_helpers import Pybind11Extension
from setuptools import Extension, setup

# Neither -march=native (the wheel runs on other machines: hot kernels are compiled for AVX2 and AVX-512 as well and
# chosen at load) nor -ffast-math (NaN marks an unseen observation and must survive).
FLAGS = ["-O3", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=off"]
WARNINGS = ["-Wall", "-Wextra"]

ISAS = ["baseline", "avx2", "avx512"]  # One source file each, compiled for it by a pragma; see native/isa.hpp.
triangulation = Pybind11Extension(
    "fusion._kernels.triangulation",
    ["native/triangulation_bindings.cpp", *(f"native/triangulation_{isa}.cpp" for isa in ISAS)],
    depends=[
        f"native/{name}.hpp"
        for name in ("isa", "small_matrix", "triangulation", "detections", "grouping", "matching", "joints", "tracking")
    ],
    cxx_std=17,
    extra_compile_args=[*FLAGS, "-ffp-contract=fast", *WARNINGS],
)
# Included by goods.pyx, in this order; the first two by arms.pyx as well.
GOODS = ["arrays", "numbers", "identification", "loads", "divisions", "factors", "candidates", "hypotheses", "moves"]
in_cython = [
    Extension(
        f"fusion._kernels.{name}",
        [f"native/{name}.pyx"],
        depends=depends,
        include_dirs=[numpy.get_include()],
        define_macros=[("NPY_NO_DEPRECATED_API", "NPY_2_0_API_VERSION")],
        extra_compile_args=[*FLAGS],
    )
    for name, depends in (
        ("arms", [f"native/{part}.pxi" for part in GOODS[:2]]),
        ("attribution", []),
        ("gates", ["native/arrays.pxi"]),
        ("goods", [f"native/{part}.pxi" for part in GOODS]),
        ("looks", ["native/arrays.pxi"]),
        ("shelves", []),
        ("state", [f"native/{GOODS[0]}.pxi"]),
    )
]

setup(
    ext_modules=[
        triangulation,
        *cythonize(
            in_cython,
            build_dir="build/cython",
            compiler_directives={"language_level": 3, "freethreading_compatible": True},
        ),
    ]
)
