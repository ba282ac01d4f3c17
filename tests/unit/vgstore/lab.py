"""A host on plain files, whose PVs can be made to fail."""

from __future__ import annotations

from pathlib import Path

from ulvm.blockdev.base import BlockDevice
from ulvm.blockdev.faults import FaultDevice
from ulvm.blockdev.file import FileDevice
from ulvm.metadata import edit
from ulvm.metadata.layout import PvOptions
from ulvm.metadata.model import VolumeGroup
from ulvm.metadata.uuid import new_uuid
from ulvm.vgstore.commit import Pending, prepare
from ulvm.vgstore.config import Config
from ulvm.vgstore.host import Host
from ulvm.vgstore.pv import as_member, create_pv
from ulvm.vgstore.scan import Scan, scan

MIB = 1 << 20
EXTENT = 8192


class Lab:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.faults: dict[str, list[tuple[str, int]]] = {}
        self.host = Host(folder / "etc", folder / "run", opener=self._open)
        self.warnings: list[str] = []

    def _open(self, path: str, writable: bool) -> BlockDevice:
        """`faults[path]`: (kind, offset) of the requests that fail; offset -1 for any."""
        device = FileDevice(path, writable=writable, claim=False)
        planned = self.faults.get(path)
        if not planned:
            return device
        faulty = FaultDevice(device)
        for kind, offset in planned:
            if offset < 0:
                faulty.fail(kind)  # type: ignore[arg-type]
            else:
                faulty.fail_range(kind, offset, 512)  # type: ignore[arg-type]
        return faulty

    def with_config(self, text: str) -> Host:
        """This host with other settings."""
        return self.host._replace(config=Config().with_overrides(text))

    def pv(
        self,
        name: str,
        *,
        copies: int = 1,
        size: int = 128 * MIB,
        options: PvOptions | None = None,
    ) -> str:
        path = self.folder / name
        with path.open("wb") as stream:
            stream.truncate(size)
        options = options or PvOptions(metadata_copies=copies)
        create_pv(self.host, str(path), uuid=new_uuid(), options=options)
        return str(path)

    def vg(self, *paths: str, name: str = "vg") -> VolumeGroup:
        vg = edit.new_vg(name, uuid=new_uuid(), extent_size=EXTENT)
        found = self.scan()
        for path in paths:
            vg = edit.add_pv(vg, as_member(found.pv(path), EXTENT))
        return self.prepare(None, vg).commit()

    def scan(self) -> Scan:
        return scan(self.host)

    def prepare(
        self, old: VolumeGroup | None, new: VolumeGroup, *, allow_missing: bool = False
    ) -> Pending:
        return prepare(
            self.host,
            self.scan(),
            old,
            new,
            command="test",
            allow_missing=allow_missing,
            warn=self.warnings.append,
        )

    def add(self, vg: VolumeGroup, name: str, extents: int = 1) -> VolumeGroup:
        return edit.add_linear(vg, name, extents, uuid=new_uuid(), now=1, host="h")

    def change(self, name: str) -> VolumeGroup:
        """One whole change."""
        old = self.scan().vg("vg")
        return self.prepare(old, self.add(old, name)).commit()

    def bytes_of(self, *paths: str) -> list[bytes]:
        """The first 2 MiB of each: labels and metadata areas."""
        return [Path(path).read_bytes()[: 2 * MIB] for path in paths]

    def patch(self, path: str, offset: int, data: bytes) -> None:
        with open(path, "r+b") as stream:
            stream.seek(offset)
            stream.write(data)
