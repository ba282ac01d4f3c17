"""This host's system ID: LVM2 2.03.16 gives the same for the same settings."""

from __future__ import annotations

from pathlib import Path

import pytest

from ulvm.cli.main import main
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
        ('global/system_id_source="lvmlocal" local/system_id="//"', "", 2),
        ('global/system_id_source="file" global/system_id_file="/nowhere"', "", 2),
    ],
)
def test_where_it_comes_from(settings: str, expected: str, warnings: int) -> None:
    config = Config().with_overrides(settings)
    found, said = host_system_id(config)
    assert (found, len(said)) == (expected, warnings)
    assert local_system_id(config) == expected


@pytest.mark.parametrize(
    ("text", "expected", "warnings"),
    [
        ("# a comment\n\n  host one # and another\n# more\n", "hostone", 0),
        ("one\ntwo\n", "one", 1),
        ("localhost\n", "", 2),
    ],
)
def test_a_file_with_comments(tmp_path: Path, text: str, expected: str, warnings: int) -> None:
    path = tmp_path / "id"
    path.write_text(text)
    settings = f'global/system_id_source="file" global/system_id_file="{path}"'
    found, said = host_system_id(Config().with_overrides(settings))
    assert (found, len(said)) == (expected, warnings)


def test_a_group_gets_an_id_that_a_host_can_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ULVM_SYSTEM_DIR", str(tmp_path / "etc"))
    monkeypatch.setenv("ULVM_RUN_DIR", str(tmp_path / "run"))
    image = tmp_path / "pv.img"
    image.write_bytes(bytes(8 << 20))
    assert main(["vgcreate", "vg", str(image)]) == 0
    for wrong in ("localhost1", "//"):
        assert main(["vgchange", "-y", "--systemid", wrong, "vg"]) == 5
        assert capsys.readouterr().err.endswith("  Unable to set system ID.\n")
    assert main(["vgchange", "-y", "--systemid", "-my host/1", "vg"]) == 0
    capsys.readouterr()

    def shown(host_id: str, *words: str) -> tuple[str, str]:
        settings = f'global/system_id_source="lvmlocal" local/system_id="{host_id}"'
        main(["vgs", "--noheadings", "-o", "vg_systemid", *words, "--config", settings])
        said = capsys.readouterr()
        return said.out.strip(), said.err

    assert shown("myhost1") == ("myhost1", "")
    # Groups of other hosts are no concern of one with a system ID, unless they are named.
    assert shown("other") == ("", "")
    words = "Cannot access VG vg with system ID myhost1 with local system ID other."
    assert shown("other", "vg") == ("", f"  {words}\n")
