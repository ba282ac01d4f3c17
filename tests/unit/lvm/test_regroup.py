"""vgsplit and vgmerge that are cut off anywhere, or cannot be done, leave every PV in a group that
the same command, or vgimport, brings to its end."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.unit.lvm.lab import Kept, Lab
from ulvm.blockdev.base import BlockDevice
from ulvm.blockdev.memory import MemoryDevice
from ulvm.errors import DeviceError, FormatError, RefusedError, UlvmError
from ulvm.lvm import lv as lvm_lv
from ulvm.lvm import regroup
from ulvm.lvm.clone import import_clone
from ulvm.metadata.mda import MdaHeader, RawLocn
from ulvm.metadata.model import VolumeGroup
from ulvm.metadata.text_words import UINT32
from ulvm.vgstore.archive import backup_path
from ulvm.vgstore.scan import scan

NAMES = ("a", "b", "c", "d")
AREA = 4096
"""Where the metadata area of a PV begins."""


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


def test_a_split_that_one_disk_refused_for_a_moment_comes_to_its_end(tmp_path: Path) -> None:
    """Its header is the third thing that the first commit writes there."""
    lab = Lab(tmp_path, names=NAMES)
    (path,) = paths(lab, "d")
    lab.devices[path].fail_nth("write", 3)
    regroup.split(lab.session, "vg", "new", paths=paths(lab, "c", "d"))
    assert lab.heard.warned[0].startswith("WARNING: injected write fault")
    assert {name: len(vg.pvs) for name, vg in groups(lab).items()} == {"vg": 2, "new": 2}
    assert "EXPORTED" not in groups(lab)["new"].status
    assert scan(lab.host).warnings == ()


@pytest.mark.parametrize("name", NAMES)
def test_a_split_that_a_disk_refuses_leaves_all_as_it_was(tmp_path: Path, name: str) -> None:
    """A disk that stays as well as one that goes: what they refuse may never be had."""
    lab = Lab(tmp_path, names=NAMES)
    (path,) = paths(lab, name)
    lab.devices[path].fail("write")
    with pytest.raises(DeviceError):
        regroup.split(lab.session, "vg", "new", paths=paths(lab, "c", "d"))
    lab.devices[path].clear()
    assert {name: (len(vg.pvs), vg.seqno) for name, vg in groups(lab).items()} == {"vg": (4, 1)}
    lab.session.change_vg("vg", lambda vg: vg)


@pytest.mark.parametrize(
    ("gone", "why"),
    [
        ("exported", "Volume group new is exported\n"),
        ("another host's", "Cannot access VG new with system ID another "),
        ("not understood", "This is not a volume group: "),
    ],
)
def test_nothing_is_split_off_to_a_group_that_is_not_here(
    tmp_path: Path, gone: str, why: str
) -> None:
    lab = Lab(tmp_path, names=NAMES)
    regroup.split(lab.session, "vg", "new", paths=paths(lab, "d"))
    if gone == "exported":
        regroup.exported(lab.session, "new")
    elif gone == "another host's":
        lab.session.change_vg("new", lambda vg: vg._replace(system_id="another"))
    else:
        (path,) = paths(lab, "d")
        text = b"new {\nseqno = none\n}\n\0"
        header = MdaHeader.unpack(lab.devices[path].read(AREA, 512), start=AREA)
        lab.devices[path].write(AREA + 512, text)
        header = header.with_commit(RawLocn.of_text(512, text))
        lab.devices[path].write(AREA, header.pack())
    before = lab.contents()
    with pytest.raises(UlvmError) as refused:
        regroup.split(lab.session, "vg", "new", paths=paths(lab, "c"))
    assert refused.value.message.startswith(why)
    assert refused.value.message.endswith("Failed to read VG new.")
    assert lab.contents() == before


@pytest.mark.parametrize(("limit", "what"), [("max_pv", "physical"), ("max_lv", "logical")])
def test_no_more_goes_to_a_group_than_it_may_have(tmp_path: Path, limit: str, what: str) -> None:
    lab = Lab(tmp_path, names=NAMES)
    regroup.split(lab.session, "vg", "new", paths=paths(lab, "d"), attributes={limit: 1})
    for name in ("one", "two"):
        lvm_lv.create_virtual(
            lab.session, "vg", name, type_name="zero", extents=lambda vg: 1, active=False
        )
    before = lab.contents()
    with pytest.raises(RefusedError, match=rf"Maximum number of {what} volumes \(1\) exceeded"):
        regroup.split(lab.session, "vg", "new", paths=paths(lab, "c"))
    assert lab.contents() == before


@pytest.fixture
def two(lab: Lab) -> Lab:
    """`vg` with a and `other` with b, both this host's by their system ID."""
    lab.session.change_vg("vg", lambda vg: vg._replace(system_id="here"))
    lab.begin(lab.host._replace(foreign=True))
    regroup.split(lab.session, "vg", "other", paths=paths(lab, "b"))
    return lab


def test_a_split_of_all_stands_where_the_backup_of_the_old_group_stays(lab: Lab) -> None:
    old = backup_path(lab.host, "vg")
    old.unlink(missing_ok=True)
    old.mkdir(parents=True)
    regroup.split(lab.session, "vg", "new", paths=list(lab.devices))
    (found,) = groups(lab).values()
    assert found.name == "new"
    assert "EXPORTED" not in found.status
    assert lab.heard.warned == [f"WARNING: Failed to remove {old}: Is a directory"]


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


def test_a_merge_that_one_disk_has_only_in_part_is_no_success(two: Lab) -> None:
    """The header of the last commit is the sixth thing that is written to the source."""
    (path,) = paths(two, "b")
    two.devices[path].fail_nth("write", 6)
    with pytest.raises(RefusedError, match=r"also belongs to VG other: run the .* again"):
        regroup.merge(two.session, "vg", "other")
    regroup.merge(two.session, "vg", "other")
    assert [vg.name for vg in scan(two.session.host).vgs] == ["vg"]


def test_a_copy_does_not_get_the_name_of_another_host_s_group(tmp_path: Path) -> None:
    lab = Lab(tmp_path, names=NAMES)
    regroup.split(lab.session, "vg", "g", paths=paths(lab, "c"))
    regroup.split(lab.session, "vg", "g1", paths=paths(lab, "d"))
    lab.session.change_vg("g1", lambda vg: vg._replace(system_id="another"))
    assert import_clone(lab.session, [copy_of(lab, "c")]).name == "g2"


def copy_of(lab: Lab, name: str) -> str:
    (path,) = paths(lab, name)
    copy = f"{path}.copy"
    Path(copy).touch()
    lab.devices[copy] = Kept(MemoryDevice(lab.devices[path].size))
    lab.devices[copy].write(0, lab.contents()[path])
    return copy


def test_a_copy_that_could_not_be_read_again_stays_what_it_is(tmp_path: Path) -> None:
    lab = Lab(tmp_path, names=("a",))
    lab.session.change_vg("vg", lambda vg: vg._replace(seqno=UINT32 - 1))
    copy = copy_of(lab, "a")
    before = lab.contents()
    with pytest.raises(FormatError, match="'seqno' of vg1 in VG vg1 is 4294967296: out of range"):
        import_clone(lab.session, [copy])
    assert lab.contents() == before


def test_a_copy_does_not_get_a_name_too_long_for_its_volumes(tmp_path: Path) -> None:
    lab = Lab(tmp_path, names=("a",))
    lvm_lv.create_virtual(
        lab.session, "vg", "o", type_name="zero", extents=lambda vg: 1, active=False
    )
    copy = copy_of(lab, "a")
    before = lab.contents()
    with pytest.raises(RefusedError, match='/o" length 131 is not supported'):
        import_clone(lab.session, [copy], name="v" * 127)
    assert lab.contents() == before


def test_a_copy_does_not_get_the_name_of_a_directory_of_the_tree(tmp_path: Path) -> None:
    lab = Lab(tmp_path, names=("a",))
    assert import_clone(lab.session, [copy_of(lab, "a")], name="mapper").name == "mapper1"
