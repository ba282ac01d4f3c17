"""Which volumes may be activated here (lvm.conf(5)): activation/volume_list for every activation,
activation/auto_activation_volume_list for `-aay`; activation/read_only_volume_list: those that are
read only then, whatever their metadata say.

An entry is `vg`, `vg/lv`, `@tag` (of the volume or its VG) or `@*` (any that is a tag of this host,
too: lvm.conf(5), section `tags`). Without the setting all volumes may, or, where the host has tags,
those that have one of them; with an empty list none. Snapshots go with their origin.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

from ulvm.activation.plan import root_of
from ulvm.metadata.model import LogicalVolume, VolumeGroup
from ulvm.vgstore.config import Config

__all__ = ["as_activated", "list_words", "may_activate", "unlisted_words"]

_NO_AUTO = "NOAUTOACTIVATE"


def may_activate(config: Config, vg: VolumeGroup, lv_name: str, *, auto: bool = False) -> bool:
    """Whether the lists have the volume; `auto`: also the list and the marks for `-aay`."""
    lv = root_of(vg, lv_name)
    if auto:
        if _NO_AUTO in vg.flags or _NO_AUTO in lv.flags:
            return False
        if not _listed(config, "activation/auto_activation_volume_list", vg, lv):
            return False
    if config.get("activation/volume_list") is None and _host_tags(config):
        return _matches(config, ["@*"], vg, lv)
    return _listed(config, "activation/volume_list", vg, lv)


def as_activated(config: Config, vg: VolumeGroup) -> VolumeGroup:
    """The VG with the volumes read only that the list has, and what may be a part of another:
    written to by itself, the side of a mirror say is no copy of the other any more."""
    for lv in vg.lvs if vg.has_unknown_segments else ():
        if vg.is_component(lv):
            vg = vg.with_lv(lv._replace(status=lv.status - {"WRITE"}))
    setting = "activation/read_only_volume_list"
    if config.get(setting) is None:
        return vg
    entries = config.get_list(setting, [])
    for lv in vg.lvs:
        if lv.snapshot_segment is not None or lv.is_pvmove or not lv.writable:
            continue
        if _matches(config, entries, vg, root_of(vg, lv.name)):
            vg = vg.with_lv(lv._replace(status=lv.status - {"WRITE"}))
    return vg


def list_words(config: Config, volume: str) -> list[str]:
    """What -v says of the list before `vg/lv` is activated."""
    setting = "activation/volume_list configuration setting"
    if config.get("activation/volume_list") is None:
        return [f"{setting} not defined: Checking only host tags for {volume}."]
    return [f"{setting} defined: Checking the list to match {volume}."]


def unlisted_words(config: Config, volume: str) -> list[str]:
    """What -v says of a volume that the list does not have."""
    words = [f"Activating logical volume {volume}.", *list_words(config, volume)]
    if config.get("activation/volume_list") is not None:
        setting = "activation/volume_list configuration setting"
        words.append(f"No item supplied in {setting} matches {volume}.")
    return [*words, f"Not activating {volume} since it does not pass activation filter."]


def _listed(config: Config, setting: str, vg: VolumeGroup, lv: LogicalVolume) -> bool:
    if config.get(setting) is None:
        return True
    return _matches(config, config.get_list(setting, []), vg, lv)


def _matches(config: Config, entries: Iterable[str], vg: VolumeGroup, lv: LogicalVolume) -> bool:
    tags = {*vg.tags, *lv.tags}
    for entry in entries:
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
    if "tags" not in config.tree:
        return set()
    # Loads the table of settings, which nothing else here needs.
    from ulvm.vgstore.settings import host_tags

    return set(host_tags(config.tree, os.uname().nodename))
