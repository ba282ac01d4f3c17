"""Options of LVM2 for volumes of types that ulvm does not have: refused with a sentence.

What is built is linear, striped, error and zero volumes and classic snapshots. Whoever types an
option of another type is told so, instead of being told that there is no such option.
"""

from __future__ import annotations

__all__ = ["absent_option", "absent_type"]

_KINDS = {
    "RAID and mirrored": (
        "-m --mirrors --mirrorlog -R --regionsize --splitmirrors --trackchanges --mergemirrors "
        "--minrecoveryrate --maxrecoveryrate --raidintegrity --raidintegritymode "
        "--raidintegrityblocksize --replace --repair --nosync --syncaction --rebuild "
        "--writebehind --writemostly"
    ),
    "thin": (
        "-T --thin --thinpool --discards --errorwhenfull --poolmetadata --poolmetadatasize "
        "--poolmetadataspare --originname --mergethin --swapmetadata"
    ),
    "cached": (
        "-H --cache --cachemode --cachepolicy --cachesettings --cachemetadataformat --cachepool "
        "--cachevol --cachedevice --cachesize --splitcache --uncache"
    ),
    "VDO": "--vdo --vdopool --compression --deduplication --vdosettings",
}
_OF_OPTION = {option: kind for kind, options in _KINDS.items() for option in options.split()}
_TYPES = (
    "mirror raid0 raid0_meta raid1 raid10 raid10_near raid4 raid5 raid5_la raid5_ls raid5_n "
    "raid5_ra raid5_rs raid6 raid6_la_6 raid6_ls_6 raid6_n_6 raid6_nc raid6_nr raid6_ra_6 "
    "raid6_rs_6 raid6_zr cache cache-pool writecache integrity thin thin-pool vdo vdo-pool"
)
_HAS = "ulvm has linear, striped, error and zero volumes and snapshots."


def absent_option(command: str, option: str) -> str | None:
    """The sentence on an option of `command`, with its dashes; None for one that LVM2 has not
    either."""
    kind = _OF_OPTION.get(option.partition("=")[0])
    if kind is None or not command.startswith(("lv", "vg")):
        return None
    return f"Option {option.partition('=')[0]} is for {kind} volumes: {_HAS}"


def absent_type(name: str) -> str | None:
    """The sentence on a segment type; None for one that LVM2 has not either."""
    words = _TYPES.split()
    return f"Volumes of type {name} are not supported: {_HAS}" if name in words else None
