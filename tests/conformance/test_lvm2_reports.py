"""The same reports asked of LVM2 and of ulvm over the same disks: byte for byte the same.

ulvm runs within the test, LVM2 with `--driverloaded n`: whether a volume is active it does not
know then, and says so in two places of lv_attr.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import needs
from tests.conformance.test_lvm2_metadata import Peer
from ulvm.cli import main as program
from ulvm.metadata.model import VolumeGroup

pytestmark = [needs.root, needs.loop, needs.program("lvm")]

_HOUR = 3600
_AGES = {"base": 60, "big": 5 * _HOUR, "str": 40 * _HOUR, "small": 400 * 24 * _HOUR}
"""Seconds since a volume was made."""

_NOISE = ("Activation disabled", "Reloading config", "Internal error", "NOT backed up")


class Asked:
    """Two volume groups and a PV in none, on loop devices."""

    def __init__(self, peer: Peer, capsys: pytest.CaptureFixture[str]) -> None:
        self._peer = peer
        self._capsys = capsys
        first, second, third, orphan = (peer.add_device(64 + 16 * n) for n in range(4))
        self.orphan = orphan
        self.devices = peer.devices
        for line in (
            f"vgcreate -s 1m --addtag t1 --addtag t2 vg {first} {second}",
            f"vgcreate vh {third}",
            f"pvcreate {orphan}",
            "lvcreate -an -Zn -Wn -l 5 -n base --addtag t1 --addtag t2 --addtag t3 vg",
            "lvcreate -an -Zn -Wn -l 4 -i 2 -n str --addtag t2 vg",
            "lvcreate -an -Zn -Wn -l 100 -n big vg",
            "lvcreate -an -Zn -Wn -l 2 -pr -n small vg",
            "lvcreate -an -s -l 2 -n s1 vg/base",
            "lvcreate -an -s -l 1 -c 16k -n s2 vg/base",
            "lvcreate -an -Zn -Wn -l 2 -n other vh",
        ):
            assert program.main(shlex.split(line)) == 0, line
        peer.change(_aged)

    def theirs(self, line: str) -> tuple[int, list[str], list[str]]:
        command, *words = shlex.split(line)
        extra = ""
        if "--config" in words:
            at = words.index("--config")
            extra = words[at + 1]
            del words[at : at + 2]
        ours = ",".join(f'"a|^{device}$|"' for device in self._peer.devices)
        config = (
            f'devices{{use_devicesfile=0 filter=[{ours},"r|.*|"] obtain_device_list_from_udev=0}} '
            "backup{backup=0 archive=0} activation{udev_sync=0 udev_rules=0 monitoring=0} "
            f'global{{event_activation=0 locking_dir="{self._peer.folder}/lock"}} {extra}'
        )
        done = subprocess.run(
            ["lvm", command, "--config", config, "--driverloaded", "n", *words],
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            env={**os.environ, "LVM_SUPPRESS_FD_WARNINGS": "1"},
            check=False,
        )
        errors = [ln for ln in done.stderr.splitlines() if not any(n in ln for n in _NOISE)]
        shown = done.stdout.replace("-XXs-", "---s-").replace("-XX--", "-----")
        return done.returncode, shown.splitlines(), errors

    def ours(self, line: str) -> tuple[int, list[str], list[str]]:
        self._capsys.readouterr()
        status = program.main(shlex.split(line))
        said = self._capsys.readouterr()
        return status, said.out.splitlines(), said.err.splitlines()

    def same(self, script: str) -> None:
        """Each line of `script` is a command."""
        for line in filter(None, map(str.strip, script.splitlines())):
            assert self.ours(line) == self.theirs(line), line

    def chosen_alike(self, command: str, selections: str) -> None:
        """Each line of `selections` is one for `command`."""
        name = "pv_name" if command == "pvs" else "vg_name" if command == "vgs" else "lv_name"
        for text in filter(None, map(str.strip, selections.splitlines())):
            line = f"{command} --noheadings -o {name} -S {shlex.quote(text)}"
            assert self.ours(line) == self.theirs(line), text


def _aged(vg: VolumeGroup) -> VolumeGroup:
    now = int(time.time())
    for lv in vg.lvs:
        if lv.name in _AGES:
            vg = vg.with_lv(lv._replace(creation_time=now - _AGES[lv.name]))
    return vg


@pytest.fixture
def asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Asked]:
    peer = Peer(tmp_path)
    monkeypatch.setenv("ULVM_SYSTEM_DIR", str(peer.host.system_dir))
    monkeypatch.setenv("ULVM_RUN_DIR", str(peer.host.run_dir))
    monkeypatch.setenv("TZ", "UTC")
    monkeypatch.setattr(sys, "argv", ["ulvm"])
    time.tzset()
    yield Asked(peer, capsys)
    peer.close()
    monkeypatch.undo()
    time.tzset()


_TEXTS = """
    lv_name=base#lv_name=big
    lv_name=base||lv_name=big && lv_size=100m
    (lv_name=base || lv_name=big) , lv_size=100m
    !(lv_name=base) && !(lv_name=~^s)
    lv_name="base"
    lv_name=
    lv_name=~(base|big)
    lv_name=~^(base|big)$
    lv_name=~{base}
    lv_name=~"b[a-h]s?e"
    lv_name=~"s\\d"
    lv_name=~
    lv_name!~"^b.*"
    lv_permissions=ro
    lv_permissions!=r
    lv_when_full=undefined
    origin=undefined
    lv_name="ba
    lv_name=base lv_name=big
    lv_name==base
    lv_name since base
    lv_name<base
    nosuch=1
    lv_name
    help=1
    &&
    (lv_name=base
    !lv_name=base
    !all
    selected=1
    lv_tags=t1
    lv_tags={t2,t1}
    lv_tags=[t1,t2]
    lv_tags=[t3&&t1&&t2]
    lv_tags=[x||t2]
    lv_tags={t1#x}
    lv_tags!={t1}
    lv_tags=[]
    lv_tags={t1,t2||t3}
    lv_tags={t1]
    lv_tags={"t1
    lv_tags=[t1 t2]
    lv_tags=~t1
    lv_tags>t1
    lv_role={public && snapshot}
    lv_tags=['']
    lv_tags!={''}
    lv_tags={t1||}
    lv_tags={t2&&}
    lv_tags=[t2&&t2]
    lv_tags={&&}
    lv_tags!={||}
    lv_name=~.base
    lv_name=~"^.base"
    lv_name=~"[^a]s1[^a]"
    lv_health_status=~.
    lv_name-=base
    lv_descendants=[s1,s2]
"""

_NUMBERS = """
    lv_size=5
    lv_size=5M
    lv_size>=5.0m && lv_size<0.1g
    lv_size=10240s
    lv_size=5242880b
    lv_size=5242.88K
    lv_size=5x
    lv_size=5%
    stripes=1k
    stripes=1%
    data_percent>1k
    data_percent>1%k
    lv_size="5m"
    lv_size=-1
    lv_size=5MiB
    lv_size=
    lv_size=~5
    lv_minor=undefined
    lv_minor=-1
    lv_minor>0
    lv_minor=-2
    seg_count>1
    seg_count=1.0
    seg_count=99999999999999999999999
    lv_read_ahead=auto
    lv_read_ahead=0
    chunk_size=16k
    origin_size=0
    vg_mda_copies=unmanaged
    lv_merging=no
    lv_merging=yes
    lv_merging=merg
    lv_skip_activation="skip activation"
    lv_fixed_minor=fixed
    lv_suspended=unknown
    lv_suspended>=0
    lv_autoactivation=enabled
    lv_autoactivation=1
    data_percent=0
    data_percent=5%
    data_percent!=5
    data_percent=101
    data_percent=5%%
    cache_total_blocks=undefined
    thin_count=0
"""

_TIMES = """
    lv_time=today
    lv_time since yesterday
    time before yesterday
    time until "2 days ago"
    time after "6 hours ago"
    time since "6h ago"
    time since "3 days 2 hours ago"
    time="400 days ago"
    time="400 days"
    time since "1 year 1 month ago"
    time since "yesterday 10:00"
    time since "yesterday 10 pm"
    time since "10pm yesterday"
    time since Sunday
    time since "Jan 1 2020"
    time before "1 Nov 2024"
    time since 2020
    time since 2020-01-01 && name=~^b
    time < 2020-01
    time > "2020-01-01 10:00:00 +02:00"
    time since 20200101
    time since @0
    time=@x
    time=garbage
    time="20 foo"
    time="4 w ago"
    time=4
    time=2026-13
    time=2026-02-30
    time="2026-02-28 25"
    time="yesterday today"
    time=~2026
    lv_time_removed<2026
"""

_OF_DEVICES = """
    pv_in_use="in use"
    pv_in_use=no
    pv_allocatable!=yes
    pv_missing=no
    pv_exported=y
    vg_name=""
    vg_tags={t1 && t2}
    pv_size>100m
    pv_name<1
    pvseg_size>5
    lv_name=base
    vg_autoactivation=yes
    vg_extendable=extendable
    vg_permissions=rw
"""


def test_selections(asked: Asked) -> None:
    for selections in (_TEXTS, _NUMBERS):
        asked.chosen_alike("lvs", selections)
    asked.chosen_alike("pvs", _OF_DEVICES)
    asked.same("lvs -S help\npvs -S ?\nlvs --logonly --configreport log -S help")


def test_times_in_a_selection(asked: Asked) -> None:
    asked.chosen_alike("lvs", _TIMES)


def test_columns_units_and_forms(asked: Asked) -> None:
    units = "\n".join(
        f"lvs --units {unit} -o lv_name,lv_size,vg_free,chunk_size"
        for unit in [*"hHrRbBsSkKmMgGtT", "4m", "3M", "8s", "x", "1k", "1.5m", "0.5k", "32e"]
    )
    asked.same(units)
    asked.same(f"""
        lvs
        lvs -o help
        lvs -o nosuch
        lvs -O nosuch
        lvs -o ''
        lvs -o lv_name -o lv_size
        lvs -o lv_name,lv_name -o +lv_size -o -lv_name
        lvs -o '#pool_lv,origin'
        lvs -o '#move_pv' -o '#pool_lv'
        lvs -o '#origin' --config 'report/compact_output_cols="move_pv"'
        lvs -o lv_name,move_pv,origin -o '#move_pv' --reportformat json
        lvs -o move_pv,lv_name -o '#move_pv' --config 'log/report_command_log=1'
        lvs -o +lv_size -o -lv_size
        lvs -o lv_name,lv_size,lv_name -o -name
        lvs -o vg_all,lv_name -o -vg_name
        lvs -o vg_all,lv_name -o -vg_all
        lvs -o +nosuch -o -nosuch,help,all
        pvs -o all,pvseg_start
        pvs -o all,vg_name
        lvs -o lv_initial_image_sync,lv_name
        lvs -o lv_initial_image_sync,lv_name --separator :
        lvdisplay -C -o lv_name -o +lv_size
        lvs -o '#all'
        lvs -o selected,lv_name -S lv_size>4m
        lvs -O -lv_size,lv_name
        lvs -O +lv_size -o lv_name
        lvs -O ''
        lvs --unbuffered
        lvs --unbuffered -O lv_name
        lvs --nosuffix
        lvs --nosuffix --units g
        lvs --separator :
        lvs --separator ' | ' --aligned
        lvs --nameprefixes --aligned
        lvs --nameprefixes --unquoted --noheadings --rows -o lv_name,lv_tags
        lvs --rows --separator ,
        lvs --binary -o lv_name,lv_merging,lv_suspended,zero
        lvs --reportformat json -o lv_name,lv_tags,seg_count,devices,lv_time
        lvs --reportformat json --noheadings nope
        lvs --reportformat yaml
        lvs --segments -o +devices,seg_pe_ranges,seg_le_ranges
        lvs --config 'report/aligned=0'
        lvs --config 'report/prefixes=1 report/quoted=0'
        lvs --config 'report/separator=":" report/headings=0'
        lvs --config 'report/list_item_separator=";" report/time_format="%Y"' -o lv_tags,lv_time
        lvs --config 'report/output_format="json"' -o lv_name vh
        lvs --config 'report/compact_output_cols="origin"'
        pvs -o all
        pvs --segments
        pvs --segments -o +lv_name,lv_size,seg_start,segtype
        pvs --segments {asked.orphan} --reportformat json
        pvs -o +lv_name,seg_start
        vgs -o all
        vgs -o +lv_name
        vgs -o +pv_name,pvseg_start
        vgs --reportformat json vh nope
    """)


def test_the_log_and_the_full_report(asked: Asked) -> None:
    log = "--config log/report_command_log=1"
    asked.same(f"""
        lvs --logonly
        lvs --logonly --configreport log -S all
        lvs --logonly --configreport log -S all vh nope
        lvs --logonly vg/nope
        vgs --logonly --configreport log -S all -O -log_seq_num -o log_message,log_object_name
        pvs --logonly --configreport log -S all --reportformat json
        lvs --logonly --configreport log -o help
        lvs --logonly --configreport log -o nosuch
        lvs --configreport foo
        lvs --configreport vg -o vg_name
        lvs {log} vh
        lvs {log} vh nope
        lvs {log} --noheadings nope
        lvs {log} -S lv_name=nope
        lvs {log} --reportformat json vh -o lv_name
        pvs {log}
        pvs --segments {log}
        fullreport {log} vh --configreport lv -o lv_name --configreport vg -o vg_name
    """)
    fields = (
        "--configreport vg -o vg_name --configreport pv -o pv_name --configreport lv -o lv_name "
        "--configreport seg -o lv_name,seg_start --configreport pvseg -o pv_name,pvseg_start"
    )
    asked.same(f"""
        fullreport {fields}
        fullreport --reportformat json {fields}
        fullreport {fields} --configreport lv -S lv_size>4m
        fullreport {fields} vh nope
        fullreport --logonly {fields}
    """)


def test_displays_of_what_is_seldom(asked: Asked) -> None:
    for line in (
        f"pvchange -xn {asked.devices[1]}",
        "lvcreate -an -Zn -Wn -l 1 -n next -C y vg",
        "lvcreate -an -Zn -Wn -l 1 -r 64 -n ahead vg",
    ):
        assert program.main(shlex.split(line)) == 0, line
    # By LVM2: without device-mapper it takes no major number but its own.
    assert asked.theirs("lvcreate -an -Zn -Wn -l 1 -n num -My --minor 77 vg")[0] == 0
    asked.same(f"""
        lvdisplay -c vg
        lvdisplay --readonly vg/num vg/s1
        pvdisplay -c
        pvdisplay -m {asked.orphan}
        vgdisplay -v --readonly vg
        lvs -O lv_read_ahead,-lv_name -o lv_name,lv_read_ahead
        lvs -O -lv_read_ahead,lv_name -o lv_name
        lvs -O lv_minor,lv_name -o lv_name,lv_minor
    """)


def test_displays_of_what_is_hidden_or_exported(asked: Asked) -> None:
    for line in ("lvconvert --merge vg/s1", "vgexport vh"):
        assert program.main(shlex.split(line)) == 0, line
    asked.same("""
        lvdisplay -c vg/s1
        lvdisplay -c vg/s1 vg/s2
        lvdisplay -c -S lv_name=~^s
        lvdisplay -a -c vg/s1
        vgs -a -o vg_name,lv_name,seg_size
        vgs -a -o vg_name,lv_name
        vgs -a
        lvdisplay -a -c -S lv_name=~^s vg
        lvdisplay -a -c vg
        pvdisplay -c
        pvdisplay -s
        pvdisplay -m
    """)
    asked.chosen_alike(
        "lvs -a",
        r"""
        lv_name=~^s1
        lv_name=~1$
        lv_name=s1
        lv_name=[s1]
        lv_name!=s1
    """,
    )
    assert program.main(shlex.split("lvcreate -an -s -V 64M -l 2 -n sp vg")) == 0
    asked.chosen_alike(
        "lvs",
        """
        origin=sp_vorigin
        origin='[sp_vorigin]'
        origin=~^sp
    """,
    )


def test_several_missing_devices(asked: Asked) -> None:
    for line in (
        f"vgextend vh {asked.orphan}",
        f"lvcreate -an -Zn -Wn -l 3 -n last vh {asked.orphan}",
    ):
        assert program.main(shlex.split(line)) == 0, line
    for device in (asked.devices[1], asked.orphan):
        with open(device, "r+b") as disk:
            disk.write(bytes(4096))
    for line in (
        "pvdisplay -m",
        "pvdisplay -m -S pv_missing=1",
        "pvdisplay -S lv_name=last",
        "pvs -o pv_all -S pv_missing=1",
        "pvscan -u",
        "pvs -o pv_name,vg_name -S pv_name='[unknown]'",
        "pvs -o pv_name,vg_name -S pv_name=unknown",
        "pvs -o pv_name,vg_name -S pv_name=~^unknown",
    ):
        (ours, shown, _), (theirs, wanted, _) = asked.ours(line), asked.theirs(line)
        assert (ours, shown) == (theirs, wanted), line
