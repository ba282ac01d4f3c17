"""All fields of lvs, vgs and pvs by name (lvmreport(7), columns.h of LVM2)."""

from __future__ import annotations

from ulvm.report.lv_fields import LV_FIELDS, SEGMENT_FIELDS
from ulvm.report.other_fields import OTHER_FIELDS
from ulvm.report.pv_fields import PV_FIELDS, PV_SEGMENT_FIELDS, VG_FIELDS
from ulvm.report.table import Field, Value

__all__ = ["FIELDS", "PREFIXES", "Field", "Value"]

PREFIXES = ("lv_", "vg_", "pv_", "seg_")
"""May be left out in -o, -O and -S."""

_ORDER = """
    lv_uuid lv_name lv_full_name lv_path lv_dm_path lv_parent lv_layout lv_role
    lv_initial_image_sync lv_image_synced lv_merging lv_converting lv_allocation_policy
    lv_allocation_locked lv_fixed_minor lv_skip_activation lv_autoactivation lv_when_full
    lv_active lv_active_locally lv_active_remotely lv_active_exclusively lv_major lv_minor
    lv_read_ahead lv_size lv_metadata_size seg_count origin origin_uuid origin_size lv_ancestors
    lv_full_ancestors lv_descendants lv_full_descendants raid_mismatch_count raid_sync_action
    raid_write_behind raid_min_recovery_rate raid_max_recovery_rate raidintegritymode
    raidintegrityblocksize integritymismatches move_pv move_pv_uuid convert_lv convert_lv_uuid
    mirror_log mirror_log_uuid data_lv data_lv_uuid metadata_lv metadata_lv_uuid pool_lv
    pool_lv_uuid lv_tags lv_profile lv_lockargs lv_time lv_time_removed lv_host lv_modules
    lv_historical writecache_block_size lv_kernel_major lv_kernel_minor lv_kernel_read_ahead
    lv_permissions lv_suspended lv_live_table lv_inactive_table lv_device_open data_percent
    snap_percent metadata_percent copy_percent sync_percent cache_total_blocks cache_used_blocks
    cache_dirty_blocks cache_read_hits cache_read_misses cache_write_hits cache_write_misses
    kernel_cache_settings kernel_cache_policy kernel_metadata_format lv_health_status
    kernel_discards lv_check_needed lv_merge_failed lv_snapshot_invalid vdo_operating_mode
    vdo_compression_state vdo_index_state vdo_used_size vdo_saving_percent
    writecache_total_blocks writecache_free_blocks writecache_writeback_blocks writecache_error
    lv_attr segtype stripes data_stripes reshape_len reshape_len_le data_copies data_offset
    new_data_offset parity_chunks stripe_size region_size chunk_size thin_count discards
    cache_metadata_format cache_mode zero transaction_id thin_id seg_start seg_start_pe seg_size
    seg_size_pe seg_tags seg_pe_ranges seg_le_ranges seg_metadata_le_ranges devices
    metadata_devices seg_monitor cache_policy cache_settings vdo_compression vdo_deduplication
    vdo_use_metadata_hints vdo_minimum_io_size vdo_block_map_cache_size vdo_block_map_era_length
    vdo_use_sparse_index vdo_index_memory_size vdo_slab_size vdo_ack_threads vdo_bio_threads
    vdo_bio_rotation vdo_cpu_threads vdo_hash_zone_threads vdo_logical_threads
    vdo_physical_threads vdo_max_discard vdo_write_policy vdo_header_size pv_fmt pv_uuid
    dev_size pv_name pv_major pv_minor pv_mda_free pv_mda_size pv_ext_vsn pe_start pv_size
    pv_free pv_used pv_attr pv_allocatable pv_exported pv_missing pv_pe_count pv_pe_alloc_count
    pv_tags pv_mda_count pv_mda_used_count pv_ba_start pv_ba_size pv_in_use pv_duplicate
    pv_device_id pv_device_id_type pvseg_start pvseg_size vg_fmt vg_uuid vg_name vg_attr
    vg_permissions vg_extendable vg_exported vg_autoactivation vg_partial vg_allocation_policy
    vg_clustered vg_shared vg_size vg_free vg_sysid vg_systemid vg_lock_type vg_lock_args
    vg_extent_size vg_extent_count vg_free_count max_lv max_pv pv_count vg_missing_pv_count
    lv_count snap_count vg_seqno vg_tags vg_profile vg_mda_count vg_mda_used_count vg_mda_free
    vg_mda_size vg_mda_copies
"""
"""In this order LVM2 shows the fields of `-o all`."""

_FOUND = {
    name: Field(name, heading, kind, max(width, len(heading)), value, group)
    for group, table in (
        ("lv", LV_FIELDS),
        ("seg", SEGMENT_FIELDS),
        ("vg", VG_FIELDS),
        ("pv", PV_FIELDS),
        ("pvseg", PV_SEGMENT_FIELDS),
        *OTHER_FIELDS.items(),
    )
    for name, heading, kind, width, value in table
}

FIELDS: dict[str, Field] = {name: _FOUND[name] for name in _ORDER.split()}
"""In LVM2's order."""
