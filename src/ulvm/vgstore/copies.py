"""Which metadata areas of a volume group are in use (vgchange --vgmetadatacopies, vgcreate(8)).

An area that is not has a mark in its header, and what lies in it counts for nothing. With a number
of copies, as many areas are in use as it says, where there are so many: those that are stay, the
first area of each PV before a second one, in the order of the PVs. Without one every area stays as
it is. At least one is in use.

Crash argument: the areas that come into use, and those that stay, get the new text before the mark
is set on those that go. So at any moment an area that counts has the old text or the new one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ulvm.vgstore.scan import MdaCopy, PvDevice

__all__ = ["areas_in_use"]

_Areas = tuple[tuple[PvDevice, MdaCopy], ...]


def areas_in_use(
    pvs: Iterable[PvDevice], copies: int, ignore: Mapping[str, bool]
) -> tuple[_Areas, _Areas]:
    """(areas to use, areas to leave out) of those that are not damaged; `copies` 0 for no limit, -1
    for all. `ignore`: PVs, by UUID, of which none is to be used from now on (True) or all."""
    ranked = [(pv, mda, number) for pv in pvs for number, mda in enumerate(pv.areas)]
    order = [(pv, mda) for pv, mda, _ in sorted(ranked, key=lambda area: area[2])]
    used = [(pv, mda) for pv, mda in order if copies < 0 or not ignore.get(pv.uuid, mda.ignored)]
    if copies > 0:
        used += [area for area in order if area not in used]
        del used[copies:]
    used = used or order[:1]
    chosen = {(pv.uuid, mda.offset) for pv, mda in used}
    areas = [(pv, mda) for pv, mda, _ in ranked]
    return (
        tuple(a for a in areas if (a[0].uuid, a[1].offset) in chosen),
        tuple(a for a in areas if (a[0].uuid, a[1].offset) not in chosen),
    )
