"""The list of packages; everything else about the distribution is in pyproject.toml.

The source of gridcompute_workloads lies in the folder workloads, which setuptools can't find by itself.
"""

from setuptools import find_packages, setup

WORKLOADS = "gridcompute_workloads"

setup(
    packages=[
        *find_packages(include=["gridcompute", "gridcompute.*"]),
        WORKLOADS,
        *(f"{WORKLOADS}.{name}" for name in find_packages("workloads")),
    ]
)
