"""Which volumes may be activated here (lvm.conf(5)): activation/volume_list for every activation,
activation/auto_activation_volume_list for `-aay`.

An entry is `vg`, `vg/lv`, `@tag` (of the volume or its VG) or `@*` (any that is a tag of this host,
too: lvm.conf(5), section `tags`). Without the setting all volumes may; with an empty list none.
Snapshots go with their origin.
"""

from __future__ import annotations

import os

from ulvm.activation.plan import root_of
from ulvm.metadata.model import LogicalVolume, VolumeGroup
from ulvm.vgstore.config import Config

__all__ = ["list_words", "may_activate"]

_NO_AUTO = "NOAUTOACTIVATE"


def may_activate(config: Config, vg: VolumeGroup, lv_name: str, *, auto: bool = False) -> bool:
    """Whether the lists have the volume; `auto`: also the list and the marks for `-aay`."""
    lv = root_of(vg, lv_name)
    if auto:
        if _NO_AUTO in vg.flags or _NO_AUTO in lv.flags:
            return False
        if not _listed(config, "activation/auto_activation_volume_list", vg, lv):
            return False
    return _listed(config, "activation/volume_list", vg, lv)


def list_words(config: Config, volume: str) -> list[str]:
    """What -v says of the list before `vg/lv` is activated."""
    setting = "activation/volume_list configuration setting"
    if config.get("activation/volume_list") is None:
        return [f"{setting} not defined: Checking only host tags for {volume}."]
    return [f"{setting} defined: Checking the list to match {volume}."]


def _listed(config: Config, setting: str, vg: VolumeGroup, lv: LogicalVolume) -> bool:
    if config.get(setting) is None:
        return True
    tags = {*vg.tags, *lv.tags}
    for entry in config.get_list(setting, []):
        if entry == "@*":
            matches = bool(tags & _host_tags(config))
        elif entry.startswith("@"):
            matches = entry[1:] in tags
        else:
            matches = entry in (vg.name, f"{vg.name}/{lv.name}")
        if matches:
            return True
    return False


def _host_tags(config: Config) -> set[str]:
    # Loads the table of settings, which nothing else here needs.
    from ulvm.vgstore.settings import host_tags

    return set(host_tags(config.tree, os.uname().nodename))
