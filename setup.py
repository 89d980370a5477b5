"""Package list of the mapped rooms; all metadata is in setup.cfg."""

from setuptools import find_namespace_packages, find_packages, setup


def mapped(room: str) -> list[str]:
    """The packages of an outer room (upstream/, downstream/) under their installed names."""
    return [f"sslbench.{room}"] + [f"sslbench.{room}.{name}" for name in find_namespace_packages(room)]


setup(packages=find_packages(include=["sslbench*"]) + mapped("upstream") + mapped("downstream"))
