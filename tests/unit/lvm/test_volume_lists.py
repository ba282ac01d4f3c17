"""Which volumes the lists of ulvm.conf let be activated."""

from __future__ import annotations

import os

import pytest

from tests.unit.lvm.lab import Lab
from ulvm.errors import RefusedError
from ulvm.lvm import lv, snapshot
from ulvm.lvm.volume_lists import may_activate
from ulvm.metadata import edit
from ulvm.metadata.model import PhysicalVolume
from ulvm.metadata.uuid import new_uuid
from ulvm.vgstore.config import Config

HERE = os.uname().nodename


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ("", True),
        ("activation { volume_list = [] }", False),
        ('activation { volume_list = [ "vg/a" ] }', True),
        ('activation { volume_list = [ "vg/b" ] }', False),
        ('activation { volume_list = [ "@t" ] }', True),
        ('activation { volume_list = [ "@*" ] }', False),
        ('activation { volume_list = [ "@*" ] } tags { t { } }', True),
        (
            f'activation {{ volume_list = [ "@*" ] }} tags {{ t {{ host_list = ["{HERE}"] }} }}',
            True,
        ),
        ('activation { volume_list = [ "@*" ] } tags { t { host_list = ["elsewhere"] } }', False),
        ('activation { volume_list = [ "@*" ] } tags { hosttags = 1 }', False),
    ],
)
def test_volume_list(settings: str, expected: bool) -> None:
    vg = edit.new_vg("vg", uuid=new_uuid(), extent_size=8, tags=["t"])
    pv = PhysicalVolume(new_uuid(), "/d", 1000, 8, 100)
    vg = edit.add_linear(edit.add_pv(vg, pv), "a", 1, uuid=new_uuid(), now=1, host="h")
    config = Config().with_overrides(settings) if settings else Config()
    assert may_activate(config, vg, "a") is expected


def test_what_may_not_be_activated_is_not_made_where_it_would_have_to_be_wiped(lab: Lab) -> None:
    lv.create(lab.session, "vg", "o", extents=1, active=False)
    config = Config().with_overrides('activation { volume_list = [ "vg/o" ] }')
    lab.begin(lab.host._replace(config=config))
    before = lab.vg
    with pytest.raises(RefusedError, match="not active locally"):
        lv.create(lab.session, "vg", "a", extents=1)
    config = Config().with_overrides("activation { volume_list = [] }")
    lab.begin(lab.host._replace(config=config))
    with pytest.raises(RefusedError, match="snapshot exception store"):
        snapshot.create(lab.session, "vg", "o", "s", extents=1)
    assert lab.vg == before
    lv.create_virtual(lab.session, "vg", "z", type_name="zero", extents=lambda vg: 1)
    assert not lab.tables()
