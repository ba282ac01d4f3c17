"""vgsplit and vgmerge that are cut off anywhere, or cannot be done, leave every PV in a group that
the same command, or vgimport, brings to its end."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.unit.lvm.lab import Lab
from ulvm.blockdev.base import BlockDevice
from ulvm.errors import DeviceError, UlvmError
from ulvm.lvm import regroup
from ulvm.metadata.model import VolumeGroup
from ulvm.vgstore.scan import scan

NAMES = ("a", "b", "c", "d")


class Dies(Lab):
    """Ends like a killed process at the n-th time that a device is opened to be written."""

    left = 0

    def open(self, path: str, writable: bool) -> BlockDevice:
        if writable and self.left:
            self.left -= 1
            if not self.left:
                self.left = 1
                raise KeyboardInterrupt
        return super().open(path, writable)


def cut(folder: Path, command: Callable[[Lab], object], number: int) -> Dies | None:
    """A host on which the command died there; None if it came to its end."""
    folder.mkdir()
    lab = Dies(folder, names=NAMES)
    lab.left = number
    try:
        command(lab)
    except KeyboardInterrupt:
        lab.left = 0
        return lab
    return None


def groups(lab: Lab) -> dict[str, VolumeGroup]:
    return {vg.name: vg for vg in scan(lab.host).vgs}


def paths(lab: Lab, *names: str) -> list[str]:
    return [path for path in lab.devices if Path(path).name in names]


def finish(lab: Lab, command: Callable[[Lab], object], exported: str) -> None:
    """The command again; where it says that nothing is left to do, vgimport."""
    problem = ""
    try:
        command(lab)
    except UlvmError as error:
        problem = error.message
        found = groups(lab).get(exported)
        if found is not None and "EXPORTED" in found.status:
            regroup.imported(lab.session, exported)
    assert "interrupted" not in problem
    assert not any("EXPORTED" in vg.status for vg in groups(lab).values())


def test_a_split_that_was_cut_off_is_gone_on_with(tmp_path: Path) -> None:
    def command(lab: Lab) -> None:
        regroup.split(lab.session, "vg", "new", paths=paths(lab, "c", "d"))

    for number in range(1, 100):
        lab = cut(tmp_path / str(number), command, number)
        if lab is None:
            break
        finish(lab, command, "new")
        sizes = {name: len(vg.pvs) for name, vg in groups(lab).items()}
        assert sizes == {"vg": 2, "new": 2}, f"cut off at {number}"
    assert number > 10


def test_all_of_a_group_that_was_cut_off_on_its_way(tmp_path: Path) -> None:
    def command(lab: Lab) -> None:
        regroup.split(lab.session, "vg", "new", paths=list(lab.devices))

    for number in range(1, 100):
        lab = cut(tmp_path / str(number), command, number)
        if lab is None:
            break
        finish(lab, command, "new")
        assert {name: len(vg.pvs) for name, vg in groups(lab).items()} == {"new": 4}
    assert number > 10


@pytest.fixture
def two(lab: Lab) -> Lab:
    """`vg` with a and `other` with b, both this host's by their system ID."""
    lab.session.change_vg("vg", lambda vg: vg._replace(system_id="here"))
    lab.session.host = lab.host._replace(foreign=True)
    regroup.split(lab.session, "vg", "other", paths=paths(lab, "b"))
    return lab


def test_what_is_split_off_stays_with_its_host(two: Lab) -> None:
    found = {vg.name: vg.system_id for vg in scan(two.session.host).vgs}
    assert found == {"vg": "here", "other": "here"}


def test_a_merge_that_fails_leaves_the_source_as_it_was(two: Lab) -> None:
    (path,) = paths(two, "a")
    two.devices[path].fail("write")
    with pytest.raises(DeviceError):
        regroup.merge(two.session, "vg", "other")
    source = scan(two.session.host).vg("other")
    assert "EXPORTED" not in source.status
    assert source.system_id == "here"
