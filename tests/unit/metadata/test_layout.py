"""Where pvcreate puts things, as real LVM2 2.03.16 answered (spec sec. 2 and further runs)."""

from __future__ import annotations

import pytest

from ulvm.errors import RefusedError
from ulvm.metadata.label import DiskLocn
from ulvm.metadata.layout import PvOptions, plan_layout, usable_extents

K, M = 2, 2048
"""Sectors in a KiB and a MiB."""
DEVICE = 128 * M

# device size, options, pe_start, first area's size, ba_start, ba_size; sectors
VECTORS = [
    (DEVICE, PvOptions(), 2048, 2040, 0, 0),
    (DEVICE, PvOptions(bootloader_area_size=2 * M), 6144, 2040, 2048, 4096),
    (DEVICE, PvOptions(metadata_size=3 * M, data_alignment=64 * K), 6272, 6264, 0, 0),
    (DEVICE, PvOptions(metadata_size=100 * K, data_alignment=1 * K), 208, 200, 0, 0),
    (DEVICE, PvOptions(metadata_size=2045 * K), 6144, 6136, 0, 0),
    (DEVICE, PvOptions(data_alignment=192 * K, data_alignment_offset=7), 2311, 2303, 0, 0),
    (DEVICE, PvOptions(metadata_copies=0, label_sector=2), 2048, 0, 0, 0),
    (DEVICE, PvOptions(metadata_copies=0, data_alignment_offset=7), 2055, 0, 0, 0),
    (DEVICE, PvOptions(metadata_copies=0, data_alignment=1 * K), 2, 0, 0, 0),
    (DEVICE, PvOptions(metadata_copies=0, bootloader_area_size=1 * M), 4096, 0, 2048, 2048),
    (DEVICE, PvOptions(data_alignment=8 * M), 16384, 16376, 0, 0),
    (DEVICE, PvOptions(data_alignment=3), 2049, 2041, 0, 0),
    (DEVICE, PvOptions(metadata_size=1 * K), 2048, 2040, 0, 0),
    (DEVICE, PvOptions(bootloader_area_size=100 * K), 4096, 2040, 2048, 2048),
    (DEVICE, PvOptions(metadata_size=200 * M), 258048, 258040, 0, 0),
    (DEVICE, PvOptions(metadata_size=200 * M, data_alignment=64 * K), 261888, 261880, 0, 0),
    (DEVICE, PvOptions(metadata_size=200 * M, data_alignment=1 * K), 262140, 262132, 0, 0),
    (DEVICE, PvOptions(metadata_size=127 * M), 262144, 262136, 0, 0),
    (
        DEVICE,
        PvOptions(metadata_size=127 * M, bootloader_area_size=2 * M),
        258048,
        253944,
        253952,
        4096,
    ),
    (257812, PvOptions(metadata_size=200 * M, data_alignment=64 * K), 257664, 257656, 0, 0),
]


@pytest.mark.parametrize("vector", VECTORS)
def test_vectors(vector: tuple[int, PvOptions, int, int, int, int]) -> None:
    device, options, pe_start, mda, ba_start, ba_size = vector
    layout = plan_layout(device, options)
    assert (layout.pe_start, layout.ba_start, layout.ba_size) == (pe_start, ba_start, ba_size)
    assert layout.metadata_areas == ((DiskLocn(4096, mda * 512),) if mda else ())


# device size (sectors), options, the second metadata area in bytes
SECOND = [
    (DEVICE, PvOptions(metadata_copies=2), DiskLocn(133169152, 1048576)),
    (
        DEVICE,
        PvOptions(metadata_copies=2, data_alignment=192 * K, data_alignment_offset=7),
        DiskLocn(133103616, 1114112),
    ),
    (DEVICE, PvOptions(metadata_copies=2, metadata_size=3 * M), DiskLocn(131072000, 3145728)),
    (
        DEVICE,
        PvOptions(metadata_copies=2, metadata_size=100 * M),
        DiskLocn(206848 * 512, 55296 * 512),
    ),
    (257812, PvOptions(metadata_copies=2), DiskLocn(130023424, 1976320)),
    (
        257812,
        PvOptions(metadata_copies=2, data_alignment=64 * K),
        DiskLocn(130940928, 1058816),
    ),
    (2 * M, PvOptions(metadata_copies=2), DiskLocn(1048576, 1048576)),
]


@pytest.mark.parametrize(("device", "options", "area"), SECOND)
def test_second_area_at_the_end(device: int, options: PvOptions, area: DiskLocn) -> None:
    assert plan_layout(device, options).metadata_areas[1] == area


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (
            PvOptions(metadata_size=4 * K, data_alignment=1 * K),
            "Metadata area size too small: 4096 bytes. It must be at least 32768 bytes.",
        ),
        (PvOptions(data_alignment=200 * M), "/dev/x: Data alignment must not exceed device size."),
        (
            PvOptions(bootloader_area_size=200 * M),
            "/dev/x: Bootloader area with data-aligned start must not exceed device size.\n"
            "Format-specific initialisation of physical volume /dev/x failed.",
        ),
    ],
)
def test_refusals(options: PvOptions, says: str) -> None:
    with pytest.raises(RefusedError) as caught:
        plan_layout(DEVICE, options, device="/dev/x")
    assert caught.value.message == says


def test_extents_stop_at_the_second_area() -> None:
    areas = (DiskLocn(4096, 1044480), DiskLocn(133169152, 1048576))
    assert usable_extents(DEVICE, 2048, areas[:1], 8192) == 31
    assert usable_extents(DEVICE, 2048, areas[:1], 2048) == 127
    assert usable_extents(DEVICE, 2048, areas, 2048) == 126
