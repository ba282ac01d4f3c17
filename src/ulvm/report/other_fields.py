"""Fields of kinds of volumes that are not made here: they are there, and blank.

So that a script which asks for them by name (`lv_when_full`, `raid_sync_action`) gets an answer.
"""

from __future__ import annotations

from ulvm.report.rows import Row
from ulvm.report.table import Table, Value

__all__ = ["OTHER_FIELDS"]


def _blank(_: Row) -> Value:
    return ""


def _unknown(_: Row) -> Value:
    return "unknown"


def _none(_: Row) -> Value:
    return -1


OTHER_FIELDS: dict[str, Table] = {
    "lv": (
        ("lv_image_synced", "ImgSynced", "bin", 10, _blank),
        ("lv_when_full", "WhenFull", "str", 15, _blank),
        ("lv_metadata_size", "MSize", "str", 0, _blank),
        ("raid_mismatch_count", "Mismatches", "str", 0, _blank),
        ("raid_sync_action", "SyncAction", "str", 0, _blank),
        ("raid_write_behind", "WBehind", "str", 0, _blank),
        ("raid_min_recovery_rate", "MinSync", "str", 0, _blank),
        ("raid_max_recovery_rate", "MaxSync", "str", 0, _blank),
        ("raidintegritymode", "IntegMode", "str", 0, _blank),
        ("integritymismatches", "IntegMismatches", "str", 0, _blank),
        ("convert_lv_uuid", "Convert UUID", "str", 38, _blank),
        ("mirror_log_uuid", "Log UUID", "str", 38, _blank),
        ("data_lv", "Data", "str", 0, _blank),
        ("data_lv_uuid", "Data UUID", "str", 38, _blank),
        ("metadata_lv", "Meta", "str", 0, _blank),
        ("metadata_lv_uuid", "Meta UUID", "str", 38, _blank),
        ("pool_lv_uuid", "Pool UUID", "str", 38, _blank),
        ("lv_lockargs", "LLockArgs", "str", 0, _blank),
        ("lv_time_removed", "RTime", "str", 26, _blank),
        ("lv_historical", "Historical", "bin", 0, _blank),
        ("cache_total_blocks", "CacheTotalBlocks", "str", 0, _blank),
        ("cache_used_blocks", "CacheUsedBlocks", "str", 16, _blank),
        ("cache_dirty_blocks", "CacheDirtyBlocks", "str", 0, _blank),
        ("cache_read_hits", "CacheReadHits", "str", 16, _blank),
        ("cache_read_misses", "CacheReadMisses", "str", 16, _blank),
        ("cache_write_hits", "CacheWriteHits", "str", 16, _blank),
        ("cache_write_misses", "CacheWriteMisses", "str", 0, _blank),
        ("kernel_cache_settings", "KCacheSettings", "str", 18, _blank),
        ("kernel_cache_policy", "KCachePolicy", "str", 18, _blank),
        ("kernel_metadata_format", "KMFmt", "str", 0, _blank),
        ("kernel_discards", "KDiscards", "str", 0, _blank),
        ("vdo_operating_mode", "VDOOperatingMode", "str", 0, _blank),
        ("vdo_compression_state", "VDOCompressionState", "str", 0, _blank),
        ("vdo_index_state", "VDOIndexState", "str", 0, _blank),
        ("vdo_used_size", "VDOUsedSize", "str", 0, _blank),
        ("vdo_saving_percent", "VDOSaving%", "str", 0, _blank),
        ("writecache_total_blocks", "WCacheTotalBlocks", "str", 0, _blank),
        ("writecache_free_blocks", "WCacheFreeBlocks", "str", 0, _blank),
        ("writecache_writeback_blocks", "WCacheWritebackBlocks", "str", 0, _blank),
        ("writecache_error", "WCacheErrors", "str", 0, _blank),
        ("raidintegrityblocksize", "IntegBlkSize", "num", 0, _none),
        ("writecache_block_size", "WCacheBlkSize", "num", 0, _none),
        ("lv_check_needed", "CheckNeeded", "bin", 15, _unknown),
    ),
    "seg": (
        ("reshape_len", "RSize", "str", 0, _blank),
        ("reshape_len_le", "RSize", "str", 0, _blank),
        ("data_offset", "DOff", "str", 0, _blank),
        ("new_data_offset", "NOff", "str", 0, _blank),
        ("parity_chunks", "#Par", "str", 0, _blank),
        ("thin_count", "#Thins", "str", 0, _blank),
        ("discards", "Discards", "str", 0, _blank),
        ("cache_metadata_format", "CMFmt", "str", 0, _blank),
        ("cache_mode", "CacheMode", "str", 0, _blank),
        ("transaction_id", "TransId", "str", 0, _blank),
        ("thin_id", "ThId", "str", 0, _blank),
        ("seg_metadata_le_ranges", "Metadata LE Ranges", "str", 0, _blank),
        ("metadata_devices", "Metadata Devs", "str", 0, _blank),
        ("cache_policy", "CachePolicy", "str", 0, _blank),
        ("cache_settings", "CacheSettings", "str", 0, _blank),
        ("vdo_compression", "VDOCompression", "str", 0, _blank),
        ("vdo_deduplication", "VDODeduplication", "str", 0, _blank),
        ("vdo_use_metadata_hints", "VDOMetadataHints", "str", 0, _blank),
        ("vdo_minimum_io_size", "VDOMinimumIOSize", "str", 0, _blank),
        ("vdo_block_map_cache_size", "VDOBlockMapCacheSize", "str", 0, _blank),
        ("vdo_block_map_era_length", "VDOBlockMapEraLength", "str", 0, _blank),
        ("vdo_use_sparse_index", "VDOSparseIndex", "str", 0, _blank),
        ("vdo_index_memory_size", "VDOIndexMemorySize", "str", 0, _blank),
        ("vdo_slab_size", "VDOSlabSize", "str", 0, _blank),
        ("vdo_ack_threads", "VDOAckThreads", "str", 0, _blank),
        ("vdo_bio_threads", "VDOBioThreads", "str", 0, _blank),
        ("vdo_bio_rotation", "VDOBioRotation", "str", 0, _blank),
        ("vdo_cpu_threads", "VDOCPUThreads", "str", 0, _blank),
        ("vdo_hash_zone_threads", "VDOHashZoneThreads", "str", 0, _blank),
        ("vdo_logical_threads", "VDOLogicalThreads", "str", 0, _blank),
        ("vdo_physical_threads", "VDOPhysicalThreads", "str", 0, _blank),
        ("vdo_max_discard", "VDOMaxDiscard", "str", 0, _blank),
        ("vdo_write_policy", "VDOWritePolicy", "str", 0, _blank),
        ("vdo_header_size", "VDOHeaderSize", "str", 0, _blank),
        ("zero", "Zero", "bin", 0, _unknown),
    ),
    "vg": (
        ("vg_clustered", "Clustered", "bin", 10, _blank),
        ("vg_shared", "Shared", "bin", 7, _blank),
        ("vg_sysid", "SYS ID", "str", 0, _blank),
        ("vg_lock_type", "LockType", "str", 0, _blank),
        ("vg_lock_args", "VLockArgs", "str", 0, _blank),
    ),
    "pv": (("pv_duplicate", "Duplicate", "bin", 0, lambda r: "duplicate" if r.copy else ""),),
}
