"""Every field of LVM2's reports: its section, its type in a selection, what `-o help` says of it.

The order is that of `-o all`. A line is a name, a type and the words; one that begins with a blank
goes on from the line before.
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["DEVICES", "LOG", "VOLUMES", "Entry", "Section"]


class Entry(NamedTuple):
    name: str
    type: str
    """str, list, num, size, pct or time: how `-S` compares it."""
    help: str


class Section(NamedTuple):
    title: str
    entries: tuple[Entry, ...]

    @property
    def all_name(self) -> str:
        """What names all of it: `lv_all`."""
        return _ALL[self.title]


_ALL = {
    "Logical Volume Fields": "lv_all",
    "Logical Volume Device Info Fields": "lv_all",
    "Logical Volume Device Status Fields": "lv_all",
    "Logical Volume Device Info and Status Combined Fields": "lv_all",
    "Physical Volume Label Fields": "pv_all",
    "Physical Volume Fields": "pv_all",
    "Volume Group Fields": "vg_all",
    "Logical Volume Segment Fields": "seg_all",
    "Physical Volume Segment Fields": "pvseg_all",
    "Command Log Fields": "log_all",
    "Mapped Device Name Fields": "name_all",
    "Mapped Device Information Fields": "info_all",
    "Mapped Device Relationship Information Fields": "deps_all",
    "Mapped Device Name Components Fields": "splitname_all",
}

_VOLUMES = """\
[Logical Volume Fields]
lv_uuid str Unique identifier.
lv_name str Name.  LVs created for internal use are enclosed in brackets.
lv_full_name str Full name of LV including its VG, namely VG/LV.
lv_path str Full pathname for LV. Blank for internal LVs.
lv_dm_path str Internal device-mapper pathname for LV (in /dev/mapper directory).
lv_parent str For LVs that are components of another LV, the parent LV.
lv_layout list LV layout.
lv_role list LV role.
lv_initial_image_sync num Set if mirror/RAID images underwent initial resynchronization.
lv_image_synced num Set if mirror/RAID image is synchronized.
lv_merging num Set if snapshot LV is being merged to origin.
lv_converting num Set if LV is being converted.
lv_allocation_policy str LV allocation policy.
lv_allocation_locked num Set if LV is locked against allocation changes.
lv_fixed_minor num Set if LV has fixed minor number assigned.
lv_skip_activation num Set if LV is skipped on activation.
lv_autoactivation num Set if LV autoactivation is enabled.
lv_when_full str For thin pools, behavior when full.
lv_active str Active state of the LV.
lv_active_locally num Set if the LV is active locally.
lv_active_remotely num Set if the LV is active remotely.
lv_active_exclusively num Set if the LV is active exclusively.
lv_major num Persistent major number or -1 if not persistent.
lv_minor num Persistent minor number or -1 if not persistent.
lv_read_ahead size Read ahead setting in current units.
lv_size size Size of LV in current units.
lv_metadata_size size For thin and cache pools, the size of the LV that holds the metadata.
seg_count num Number of segments in LV.
origin str For snapshots and thins, the origin device of this LV.
origin_uuid str For snapshots and thins, the UUID of origin device of this LV.
origin_size size For snapshots, the size of the origin device of this LV.
lv_ancestors list LV ancestors ignoring any stored history of the ancestry chain.
lv_full_ancestors list LV ancestors including stored history of the ancestry chain.
lv_descendants list LV descendants ignoring any stored history of the ancestry chain.
lv_full_descendants list LV descendants including stored history of the ancestry chain.
raid_mismatch_count num For RAID, number of mismatches found or repaired.
raid_sync_action str For RAID, the current synchronization action being performed.
raid_write_behind num For RAID1, the number of outstanding writes allowed to writemostly devices.
raid_min_recovery_rate num For RAID1, the minimum recovery I/O load in kiB/sec/disk.
raid_max_recovery_rate num For RAID1, the maximum recovery I/O load in kiB/sec/disk.
raidintegritymode str The integrity mode
raidintegrityblocksize num The integrity block size
integritymismatches num The number of integrity mismatches.
move_pv str For pvmove, Source PV of temporary LV created by pvmove.
move_pv_uuid str For pvmove, the UUID of Source PV of temporary LV created by pvmove.
convert_lv str For lvconvert, Name of temporary LV created by lvconvert.
convert_lv_uuid str For lvconvert, UUID of temporary LV created by lvconvert.
mirror_log str For mirrors, the LV holding the synchronisation log.
mirror_log_uuid str For mirrors, the UUID of the LV holding the synchronisation log.
data_lv str For cache/thin/vdo pools, the LV holding the associated data.
data_lv_uuid str For cache/thin/vdo pools, the UUID of the LV holding the associated data.
metadata_lv str For cache/thin pools, the LV holding the associated metadata.
metadata_lv_uuid str For cache/thin pools, the UUID of the LV holding the associated metadata.
pool_lv str For cache/thin/vdo volumes, the cache/thin/vdo pool LV for this volume.
pool_lv_uuid str For cache/thin/vdo volumes, the UUID of the cache/thin/vdo pool LV for this
 volume.
lv_tags list Tags, if any.
lv_profile str Configuration profile attached to this LV.
lv_lockargs str Lock args of the LV used by lvmlockd.
lv_time time Creation time of the LV, if known
lv_time_removed time Removal time of the LV, if known
lv_host str Creation host of the LV, if known.
lv_modules list Kernel device-mapper modules required for this LV.
lv_historical num Set if the LV is historical.
writecache_block_size num The writecache block size
[Logical Volume Device Info Fields]
lv_kernel_major num Currently assigned major number or -1 if LV is not active.
lv_kernel_minor num Currently assigned minor number or -1 if LV is not active.
lv_kernel_read_ahead size Currently-in-use read ahead setting in current units.
lv_permissions str LV permissions.
lv_suspended num Set if LV is suspended.
lv_live_table num Set if LV has live table present.
lv_inactive_table num Set if LV has inactive table present.
lv_device_open num Set if LV device is open.
[Logical Volume Device Status Fields]
data_percent pct For snapshot, cache and thin pools and volumes, the percentage full if LV is
 active.
snap_percent pct For snapshots, the percentage full if LV is active.
metadata_percent pct For cache and thin pools, the percentage of metadata full if LV is active.
copy_percent pct For Cache, RAID, mirrors and pvmove, current percentage in-sync.
sync_percent pct For Cache, RAID, mirrors and pvmove, current percentage in-sync.
cache_total_blocks num Total cache blocks.
cache_used_blocks num Used cache blocks.
cache_dirty_blocks num Dirty cache blocks.
cache_read_hits num Cache read hits.
cache_read_misses num Cache read misses.
cache_write_hits num Cache write hits.
cache_write_misses num Cache write misses.
kernel_cache_settings list Cache settings/parameters as set in kernel, including default values
 (cached segments only).
kernel_cache_policy str Cache policy used in kernel.
kernel_metadata_format num Cache metadata format used in kernel.
lv_health_status str LV health status.
kernel_discards str For thin pools, how discards are handled in kernel.
lv_check_needed num For thin pools and cache volumes, whether metadata check is needed.
lv_merge_failed num Set if snapshot merge failed.
lv_snapshot_invalid num Set if snapshot LV is invalid.
vdo_operating_mode str For vdo pools, its current operating mode.
vdo_compression_state str For vdo pools, whether compression is running.
vdo_index_state str For vdo pools, state of index for deduplication.
vdo_used_size num For vdo pools, currently used space.
vdo_saving_percent num For vdo pools, percentage of saved space.
writecache_total_blocks num Total writecache blocks.
writecache_free_blocks num Total writecache free blocks.
writecache_writeback_blocks num Total writecache writeback blocks.
writecache_error num Total writecache errors.
[Logical Volume Device Info and Status Combined Fields]
lv_attr str Various attributes - see man page.
[Physical Volume Label Fields]
pv_fmt str Type of metadata.
pv_uuid str Unique identifier.
dev_size size Size of underlying device in current units.
pv_name str Name.
pv_major str Device major number.
pv_minor str Device minor number.
pv_mda_free size Free metadata area space on this device in current units.
pv_mda_size size Size of smallest metadata area on this device in current units.
pv_ext_vsn num PV header extension version.
[Physical Volume Fields]
pe_start num Offset to the start of data on the underlying device.
pv_size size Size of PV in current units.
pv_free size Total amount of unallocated space in current units.
pv_used size Total amount of allocated space in current units.
pv_attr str Various attributes - see man page.
pv_allocatable num Set if this device can be used for allocation.
pv_exported num Set if this device is exported.
pv_missing num Set if this device is missing in system.
pv_pe_count num Total number of Physical Extents.
pv_pe_alloc_count num Total number of allocated Physical Extents.
pv_tags list Tags, if any.
pv_mda_count num Number of metadata areas on this device.
pv_mda_used_count num Number of metadata areas in use on this device.
pv_ba_start size Offset to the start of PV Bootloader Area on the underlying device in current
 units.
pv_ba_size size Size of PV Bootloader Area in current units.
pv_in_use num Set if PV is used.
pv_duplicate num Set if PV is an unchosen duplicate.
pv_device_id str Device ID such as the WWID.
pv_device_id_type str Type of device ID such as WWID.
[Volume Group Fields]
vg_fmt str Type of metadata.
vg_uuid str Unique identifier.
vg_name str Name.
vg_attr str Various attributes - see man page.
vg_permissions str VG permissions.
vg_extendable num Set if VG is extendable.
vg_exported num Set if VG is exported.
vg_autoactivation num Set if VG autoactivation is enabled.
vg_partial num Set if VG is partial.
vg_allocation_policy str VG allocation policy.
vg_clustered num Set if VG is clustered.
vg_shared num Set if VG is shared.
vg_size size Total size of VG in current units.
vg_free size Total amount of free space in current units.
vg_sysid str System ID of the VG indicating which host owns it.
vg_systemid str System ID of the VG indicating which host owns it.
vg_lock_type str Lock type of the VG used by lvmlockd.
vg_lock_args str Lock args of the VG used by lvmlockd.
vg_extent_size size Size of Physical Extents in current units.
vg_extent_count num Total number of Physical Extents.
vg_free_count num Total number of unallocated Physical Extents.
max_lv num Maximum number of LVs allowed in VG or 0 if unlimited.
max_pv num Maximum number of PVs allowed in VG or 0 if unlimited.
pv_count num Number of PVs in VG.
vg_missing_pv_count num Number of PVs in VG which are missing.
lv_count num Number of LVs.
snap_count num Number of snapshots.
vg_seqno num Revision number of internal metadata.  Incremented whenever it changes.
vg_tags list Tags, if any.
vg_profile str Configuration profile attached to this VG.
vg_mda_count num Number of metadata areas on this VG.
vg_mda_used_count num Number of metadata areas in use on this VG.
vg_mda_free size Free metadata area space for this VG in current units.
vg_mda_size size Size of smallest metadata area for this VG in current units.
vg_mda_copies num Target number of in use metadata areas in the VG.
[Logical Volume Segment Fields]
segtype str Type of LV segment.
stripes num Number of stripes or mirror/raid1 legs.
data_stripes num Number of data stripes or mirror/raid1 legs.
reshape_len size Size of out-of-place reshape space in current units.
reshape_len_le num Size of out-of-place reshape space in logical extents.
data_copies num Number of data copies.
data_offset num Data offset on each image device.
new_data_offset num New data offset after any reshape on each image device.
parity_chunks num Number of (rotating) parity chunks.
stripe_size size For stripes, amount of data placed on one device before switching to the next.
region_size size For mirrors/raids, the unit of data per leg when synchronizing devices.
chunk_size size For snapshots, the unit of data used when tracking changes.
thin_count num For thin pools, the number of thin volumes in this pool.
discards str For thin pools, how discards are handled.
cache_metadata_format num For cache, metadata format in use.
cache_mode str For cache, how writes are cached.
zero num For thin pools and volumes, if zeroing is enabled.
transaction_id num For thin pools, the transaction id and creation transaction id for thins.
thin_id num For thin volume, the thin device id.
seg_start size Offset within the LV to the start of the segment in current units.
seg_start_pe num Offset within the LV to the start of the segment in physical extents.
seg_size size Size of segment in current units.
seg_size_pe size Size of segment in physical extents.
seg_tags list Tags, if any.
seg_pe_ranges list Ranges of Physical Extents of underlying devices in command line format
 (deprecated, use seg_le_ranges for common format).
seg_le_ranges list Ranges of Logical Extents of underlying devices in command line format.
seg_metadata_le_ranges list Ranges of Logical Extents of underlying metadata devices in command
 line format.
devices list Underlying devices used with starting extent numbers.
metadata_devices list Underlying metadata devices used with starting extent numbers.
seg_monitor str Dmeventd monitoring status of the segment.
cache_policy str The cache policy (cached segments only).
cache_settings list Cache settings/parameters (cached segments only).
vdo_compression num Set for compressed LV (vdopool).
vdo_deduplication num Set for deduplicated LV (vdopool).
vdo_use_metadata_hints num Use REQ_SYNC for writes (vdopool).
vdo_minimum_io_size num Minimum acceptable IO size (vdopool).
vdo_block_map_cache_size size Allocated caching size (vdopool).
vdo_block_map_era_length num Speed of cache writes (vdopool).
vdo_use_sparse_index num Sparse indexing (vdopool).
vdo_index_memory_size size Allocated indexing memory (vdopool).
vdo_slab_size size Increment size for growing (vdopool).
vdo_ack_threads num Acknowledging threads (vdopool).
vdo_bio_threads num IO submitting threads (vdopool).
vdo_bio_rotation num IO enqueue (vdopool).
vdo_cpu_threads num CPU threads for compression and hashing (vdopool).
vdo_hash_zone_threads num Threads for subdivide parts (vdopool).
vdo_logical_threads num Logical threads for subdivide parts (vdopool).
vdo_physical_threads num Physical threads for subdivide parts (vdopool).
vdo_max_discard num Maximum discard size volume can recieve (vdopool).
vdo_write_policy str Specified write policy (vdopool).
vdo_header_size size Header size at front of vdopool.
[Physical Volume Segment Fields]
pvseg_start num Physical Extent number of start of segment.
pvseg_size num Number of extents in segment.
"""

_LOG = """\
[Command Log Fields]
log_seq_num num Log sequence number.
log_type str Log type.
log_context str Current context.
log_object_type str Current object type.
log_object_name str Current object name.
log_object_id str Current object ID.
log_object_group str Current object group.
log_object_group_id str Current object group ID.
log_message str Log message.
log_errno num Errno.
log_ret_code num Return code.
"""


_DEVICES = """\
[Mapped Device Name Fields]
name str Name of mapped device.
mangled_name str Mangled name of mapped device.
unmangled_name str Unmangled name of mapped device.
uuid str Unique (optional) identifier for mapped device.
mangled_uuid str Mangled unique (optional) identifier for mapped device.
unmangled_uuid str Unmangled unique (optional) identifier for mapped device.
read_ahead num Read ahead value.
[Mapped Device Information Fields]
blkdevname str Name of block device.
attr str (L)ive, (I)nactive, (s)uspended, (r)ead-only, read-(w)rite.
tables_loaded str Which of the live and inactive table slots are filled.
suspended str Whether the device is suspended.
readonly str Whether the device is read-only or writeable.
devno str Device major and minor numbers
major num Block device major number.
minor num Block device minor number.
open num Number of references to open device, if requested.
segments num Number of segments in live table, if present.
events num Number of most recent event.
[Mapped Device Relationship Information Fields]
device_count num Number of devices used by this one.
devs_used str List of names of mapped devices used by this one.
devnos_used str List of device numbers of devices used by this one.
blkdevs_used str List of names of block devices used by this one.
device_ref_count num Number of mapped devices referencing this one.
names_using_dev str List of names of mapped devices using this one.
devnos_using_dev str List of device numbers of mapped devices using this one.
[Mapped Device Name Components Fields]
subsystem str Userspace subsystem responsible for this device.
vg_name str LVM Volume Group name.
lv_name str LVM Logical Volume name.
lv_layer str LVM device layer.
"""


def _parsed(text: str) -> tuple[Section, ...]:
    sections = []
    for part in text.replace("\n ", " ").removeprefix("[").split("\n["):
        title, *lines = part.rstrip().split("\n")
        entries = tuple(Entry(*line.split(" ", 2)) for line in lines)
        sections.append(Section(title.rstrip("]"), entries))
    return tuple(sections)


VOLUMES = _parsed(_VOLUMES)
"""Of lvs, vgs, pvs and fullreport."""

DEVICES = _parsed(_DEVICES)
"""Of `dmsetup info -c`; the statistics of dmstats are not among them."""

LOG = _parsed(_LOG)
"""Of the log of a command."""
