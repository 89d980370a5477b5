"""Package list of the mapped rooms and the start-up hook; all metadata is in setup.cfg."""

import base64
import hashlib
import zipfile
from pathlib import Path

from setuptools import find_namespace_packages, find_packages, setup
from setuptools.command.build_py import build_py
from setuptools.command.editable_wheel import editable_wheel

# Python runs .pth files of site-packages at start-up: this one lets s3prl and ESPnet find our upstreams.
PTH = "sslbench_s3prl.pth"


class BuildWithHook(build_py):
    """Puts the .pth file beside the packages, so that a wheel installs it at the root of site-packages."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            self.copy_file(PTH, str(Path(self.build_lib) / PTH))


class EditableWithHook(editable_wheel):
    """Adds the .pth file to the wheel that `pip install -e` makes and throws away."""

    def run(self) -> None:
        super().run()
        for wheel in Path(self.dist_dir or "dist").glob("sslbench-*.editable-*.whl"):
            add_to_wheel(wheel, PTH, Path(PTH).read_bytes())


def add_to_wheel(wheel: Path, name: str, data: bytes) -> None:
    """Rewrite a wheel with one more file at its root, recorded with its hash."""
    with zipfile.ZipFile(wheel) as archive:
        members = {item: archive.read(item) for item in archive.namelist()}
    if name in members:
        return
    digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
    record = next(item for item in members if item.endswith(".dist-info/RECORD"))
    members[record] = f"{name},sha256={digest},{len(data)}\n".encode() + members[record]
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        for item, content in {name: data, **members}.items():
            archive.writestr(item, content)


def mapped(room: str) -> list[str]:
    """The packages of an outer room (upstream/, downstream/) under their installed names."""
    return [f"sslbench.{room}"] + [f"sslbench.{room}.{name}" for name in find_namespace_packages(room)]


setup(
    packages=find_packages(include=["sslbench*"]) + mapped("upstream") + mapped("downstream"),
    cmdclass={"build_py": BuildWithHook, "editable_wheel": EditableWithHook},
)
