"""This host's system ID: LVM2 2.03.16 gives the same for the same settings."""

from __future__ import annotations

import pytest

from ulvm.vgstore.config import Config
from ulvm.vgstore.system_id import host_system_id, local_system_id


@pytest.mark.parametrize(
    ("settings", "expected", "warnings"),
    [
        ('global/system_id_source="none"', "", 0),
        ('global/system_id_source="none" local/system_id="x"', "", 1),
        ('global/system_id_source="lvmlocal" local/system_id="-_a b"', "ab", 0),
        ('global/system_id_source="lvmlocal" local/system_id="localhost1"', "", 2),
        ('global/system_id_source="nonsense"', "", 2),
        ('global/system_id_source="file" global/system_id_file="/nowhere"', "", 1),
    ],
)
def test_where_it_comes_from(settings: str, expected: str, warnings: int) -> None:
    config = Config().with_overrides(settings)
    found, said = host_system_id(config)
    assert (found, len(said)) == (expected, warnings)
    assert local_system_id(config) == expected
