"""Every setting of LVM2 2.03 with its type, version and default, and what ulvm adds.

Facts: `lvmconfig --type default --withversions --showdeprecated --showunsupported` of LVM2 2.03.16,
and what `lvmconfig --validate` says of each type. `settings.py` reads the table:

    [section]                                   `commented` if LVM2 shows it as a comment
        What it is for.
    name TYPE SINCE [-DEPRECATED] [FLAG ...] [= DEFAULT]
        What it does here; for what does nothing, a flag `!WORD` says why.

Types: b boolean, i integer, s string, S string that may be empty, a list of strings, A the same
that may be empty, x list of strings and integers. Flags: `advanced`, `unsupported`; `plain` where
the default is not shown as a comment; `command` and `metadata` for what a profile of that kind may
set. @SYS@ and @RUN@ are the host's directories.
"""

from __future__ import annotations

__all__ = ["REASONS", "TABLE"]

REASONS = {
    "udev": "it is about the kernel's device-mapper and udev, which are not used.",
    "label": "a device is known by its label alone, whatever it is a part of.",
    "align": "new PVs are aligned by default_data_alignment and data_alignment alone.",
    "hints": "all that may be a PV is looked at each time.",
    "names": "a device has the name that its links lead to.",
    "search": "what the devices file lists is looked for under its name alone.",
    "cling": "`cling' goes by the PVs of a volume, not by their tags.",
    "maximise": "the older way to choose extents is not there.",
    "raid": "there are no RAID volumes, and mirrors for pvmove alone.",
    "journal": "what is said goes to log/file and log/syslog.",
    "sparse": "a volume of a virtual size is a snapshot, since there are no thin pools.",
    "units": "units are always those of 1.",
    "system": "the system's own places are used.",
    "locks": "locks are the system's, which knows no priorities.",
    "internal": "an internal error always ends the command.",
    "readonly": "LVM2 2.03 pays it no heed, either.",
    "cluster": "there is no lock manager of a cluster.",
    "io": "devices are read and written by plain system calls.",
    "fsadm": "file systems are resized by their own programs.",
    "poll": "`ulvm lvpoll' sees to what goes on in the background.",
    "dbus": "nobody is told by D-Bus.",
    "readahead": "volumes are files and NBD exports, whose readers decide what they read ahead.",
    "skip": "LVM2 marks thin snapshots alone, which are not there.",
    "history": "LVM2 records thin volumes alone, which are not there.",
    "monitor": "snapshots are watched by ulvm's own daemon.",
    "thin": "there are no thin pools.",
    "cache": "there are no caches.",
    "vdo": "there are no VDO volumes.",
    "gone": "LVM2 itself has given it up.",
}
"""Why a setting with this word behind `!` has no effect."""

TABLE = """
[config]
    How this configuration is read.
checks b 2.2.99 = 1
    Check the settings at the start of every command.
abort_on_errors b 2.2.99 = 0
    Fail when that check finds a fault.
profile_dir s 2.2.99 = "@SYS@/profile"
    Where the profiles lie.
[devices]
    What is looked at as a physical volume.
dir s 1.0.0 advanced = "/dev"
    The directory that stands for the volumes' nodes in names such as /dev/vg/lv.
scan a 1.0.0 advanced = ["/dev"]
    Directories in which disks and images are looked for without a devices file.
loopfiles a 1.2.0 -2.3.0 unsupported !gone
obtain_device_list_from_udev b 2.2.85 !udev = 0
external_device_info_source s 2.2.116 !udev = "none"
hints s 2.3.2 !hints = "all"
preferred_names A 1.2.19 !names
use_devicesfile b 2.3.12 = 1
    Look only at what the devices file lists.
devicesfile s 2.3.12 = "system.devices"
    The devices file's name in the directory `devices' of the system directory.
search_for_devnames s 2.3.12 !search = "auto"
filter a 1.0.0 = ["a|.*|"]
    Which names are looked at: expressions `a|...|' and `r|...|', first match counts.
global_filter a 2.2.98 = ["a|.*|"]
    As devices/filter, before it, and never overridden by --config.
cache s 1.0.0 -1.2.19 plain !gone = "@SYS@/cache/.cache"
cache_dir s 1.2.19 -2.3.0 plain !gone = "@SYS@/cache"
cache_file_prefix S 1.2.19 -2.3.0 plain !gone = ""
write_cache_state b 1.0.0 -2.3.0 plain !gone = 1
types x 1.0.0 advanced !label
sysfs_scan b 1.0.8 !label = 1
scan_lvs b 2.2.182 = 0
    Let active volumes be PVs.
multipath_component_detection b 2.2.89 !label = 1
multipath_wwids_file S 2.3.13 !label = "/etc/multipath/wwids"
md_component_detection b 1.0.18 !label = 1
md_component_checks s 2.3.2 !label = "auto"
fw_raid_component_detection b 2.2.112 !label = 0
md_chunk_alignment b 2.2.48 !align = 1
default_data_alignment i 2.2.75 = 1
    MiB to which the data of a new PV are aligned.
data_alignment_detection b 2.2.51 !align = 1
data_alignment i 2.2.45 = 0
    KiB to which the data of a new PV are aligned; 0: the default.
data_alignment_offset_detection b 2.2.50 !align = 1
ignore_suspended_devices b 1.2.19 !udev = 0
ignore_lvm_mirrors b 2.2.104 !udev = 1
disable_after_error_count i 2.2.75 -2.3.0 !gone = 0
require_restorefile_with_uuid b 2.2.73 = 1
    pvcreate --uuid wants --restorefile.
pv_min_size i 2.2.85 = 2048
    KiB; what is smaller is no PV.
issue_discards b 2.2.85 = 0
    Discard what is freed by lvremove and lvreduce.
allow_changes_with_duplicate_pvs b 2.2.153 = 0
    Groups may be changed and activated while a PV is on several devices.
allow_mixed_block_sizes b 2.3.6 = 0
    PVs of a group may have logical blocks of different sizes.
[allocation]
    How extents are chosen.
cling_tag_list a 2.2.77 !cling
maximise_cling b 2.2.85 !maximise = 1
use_blkid_wiping b 2.2.105 = 1
    Signatures are looked for by libblkid, if it is there, and not by a table of our own.
wipe_signatures_when_zeroing_new_lvs b 2.2.105 = 1
    Wipe signatures on a new volume when its begin is zeroed.
mirror_logs_require_separate_pvs b 2.2.85 !raid = 0
raid_stripe_all_devices b 2.2.162 !raid = 0
cache_pool_metadata_require_separate_pvs b 2.2.106 metadata !cache = 0
cache_pool_cachemode s 2.2.113 -2.2.128 metadata !gone = "writethrough"
cache_metadata_format i 2.2.169 metadata !cache = 0
cache_mode s 2.2.128 metadata !cache = "writethrough"
cache_policy s 2.2.128 metadata !cache
cache_pool_chunk_size i 2.2.106 metadata !cache
cache_pool_max_chunks i 2.2.165 metadata !cache
thin_pool_metadata_require_separate_pvs b 2.2.89 !thin = 0
thin_pool_crop_metadata b 2.3.12 !thin = 0
thin_pool_zero b 2.2.99 metadata !thin = 1
thin_pool_discards s 2.2.99 metadata !thin = "passdown"
thin_pool_chunk_size_policy s 2.2.101 metadata !thin = "generic"
zero_metadata b 2.3.10 !thin = 1
thin_pool_chunk_size i 2.2.99 metadata !thin
physical_extent_size i 2.2.112 = 4096
    KiB of an extent of a new VG.
vdo_use_compression i 2.3.0 metadata !vdo = 1
vdo_use_deduplication i 2.3.0 metadata !vdo = 1
vdo_use_metadata_hints i 2.3.0 metadata !vdo = 1
vdo_minimum_io_size i 2.3.0 metadata !vdo = 4096
vdo_block_map_cache_size_mb i 2.3.0 metadata !cache = 128
vdo_block_map_period i 2.3.0 metadata !vdo = 16380
vdo_check_point_frequency i 2.3.0 metadata !vdo = 0
vdo_use_sparse_index i 2.3.0 metadata !vdo = 0
vdo_index_memory_size_mb i 2.3.0 metadata !vdo = 256
vdo_slab_size_mb i 2.3.0 metadata !vdo = 2048
vdo_ack_threads i 2.3.0 metadata !vdo = 1
vdo_bio_threads i 2.3.0 metadata !vdo = 4
vdo_bio_rotation i 2.3.0 metadata !vdo = 64
vdo_cpu_threads i 2.3.0 metadata !vdo = 2
vdo_hash_zone_threads i 2.3.0 metadata !vdo = 1
vdo_logical_threads i 2.3.0 metadata !vdo = 1
vdo_physical_threads i 2.3.0 metadata !vdo = 1
vdo_write_policy s 2.3.0 metadata !vdo = "auto"
vdo_max_discard i 2.3.0 metadata !vdo = 1
vdo_pool_header_size i 2.3.12 metadata !vdo = 512
[log]
    What is said, and where.
report_command_log b 2.2.158 command = 0
    Report what was done to each object.
command_log_sort s 2.2.158 command = "log_seq_num"
    Order of that report.
command_log_cols s 2.2.158 command = "log_seq_num,log_type,log_context,log_object_type,\
log_object_name,log_object_id,log_object_group,log_object_group_id,log_message,log_errno,\
log_ret_code"
    Columns of that report.
command_log_selection s 2.2.158 command = "!(log_type=status && message=success)"
    Which lines that report has.
verbose i 1.0.0 = 0
    As so many -v; below 0, nothing but errors is shown.
silent b 2.2.98 = 0
    As -qq.
syslog b 1.0.0 = 0
    Put what log/level says in the system's log.
file s 1.0.0
    Put it in this file.
journal A 2.3.12 !journal = []
overwrite b 1.0.0 = 0
    That file begins anew with each command.
level i 1.0.0 = 0
    3: errors; 4: also warnings and results; 5: also what -v tells; 0: nothing.
indent b 1.0.0 = 0
    Indent what -v tells.
command_names b 1.0.0 = 0
    The name of the command stands before log/prefix.
prefix S 1.0.0 = "  "
    Stands before each message.
activation b 1.0.0 !udev = 0
activate_file s 1.0.0 unsupported !udev
debug_classes A 2.2.99 !journal = ["memory","devices","io","activation","allocation","metadata",\
"cache","locking","lvmpolld","dbus"]
debug_file_fields a 2.3.2 advanced = ["time","command","fileline","message"]
    What stands before a message in log/file.
debug_output_fields a 2.3.2 advanced !journal = ["time","command","fileline","message"]
[backup]
    Copies of the metadata.
backup b 1.0.0 = 1
    Keep a copy of the metadata after each change.
backup_dir s 1.0.0 = "@SYS@/backup"
    Where those copies lie.
archive b 1.0.0 = 1
    Keep a copy of the metadata before each change.
archive_dir s 1.0.0 = "@SYS@/archive"
    Where the archive lies.
retain_min i 1.0.0 = 10
    Files of a VG that the archive keeps at least.
retain_days i 1.0.0 = 30
    Days for which the archive keeps a file.
[shell]
    The shell (`ulvm' alone).
history_size i 1.0.0 = 100
    Lines of history that the shell keeps.
[global]
    What concerns all commands.
umask i 1.0.0 = 077
    File creation mask, if it is set; octal if it begins with 0.
test b 1.0.0 = 0
    As --test.
units s 1.0.0 command = "r"
    Default of --units.
si_unit_consistency b 2.2.54 command !units = 1
suffix b 1.0.0 command = 1
    Show units behind sizes.
activation b 1.0.0 = 1
    Use the daemon; 0 for commands that touch metadata alone.
fallback_to_lvm1 b 1.0.18 -2.3.0 !gone = 0
format s 1.0.0 -2.3.0 !gone = "lvm2"
format_libraries a 1.0.0 -2.3.0 !gone
segment_libraries a 1.0.18 -2.3.3 !gone
proc s 1.0.0 advanced !system = "/proc"
etc s 2.2.117 !system = "/etc"
locking_type i 1.0.0 -2.3.0 = 1
    0 and 5: as --nolocking; 4: metadata are not changed; else what 1 is.
wait_for_locks b 2.2.50 = 1
    Wait for another command rather than fail.
fallback_to_clustered_locking b 2.2.42 -2.3.0 !gone = 1
fallback_to_local_locking b 2.2.42 -2.3.0 !gone = 1
locking_dir s 1.0.0 = "@RUN@/lock"
    Where the locks lie.
prioritise_write_locks b 2.2.52 !locks = 1
library_dir s 1.0.0 !system
locking_library S 1.0.0 -2.3.0 !gone = "liblvm2clusterlock.so"
abort_on_internal_errors b 2.2.57 !internal = 0
detect_internal_vg_cache_corruption b 2.2.96 -2.2.174 !gone = 0
metadata_read_only b 2.2.75 !readonly = 0
mirror_segtype_default s 2.2.87 !raid = "raid1"
support_mirrored_mirror_log b 2.3.2 !raid = 0
raid10_segtype_default s 2.2.99 !raid = "raid10"
sparse_segtype_default s 2.2.112 !sparse = "thin"
lvdisplay_shows_full_device_path b 2.2.89 command = 0
    lvdisplay shows a path in place of the name.
event_activation b 2.3.1 = 1
    Whether pvscan --cache -aay activates.
use_lvmetad b 2.2.93 -2.3.0 !gone = 0
lvmetad_update_wait_time i 2.2.151 -2.3.0 !gone = 0
use_aio b 2.2.183 !io = 1
use_lvmlockd b 2.2.124 !cluster = 0
lvmlockd_lock_retries i 2.2.125 !cluster = 3
sanlock_lv_extend i 2.2.124 !cluster = 256
lvmlockctl_kill_command S 2.3.12 !cluster = ""
thin_check_executable S 2.2.94 !thin = "/usr/sbin/thin_check"
thin_dump_executable S 2.2.100 !thin = "/usr/sbin/thin_dump"
thin_repair_executable S 2.2.100 !thin = "/usr/sbin/thin_repair"
thin_check_options A 2.2.96 !thin = ["-q"]
thin_repair_options A 2.2.100 !thin = [""]
thin_disabled_features A 2.2.99 !thin
cache_disabled_features A 2.2.128 !cache
cache_check_executable S 2.2.108 !cache = "/usr/sbin/cache_check"
cache_dump_executable S 2.2.108 !cache = "/usr/sbin/cache_dump"
cache_repair_executable S 2.2.108 !cache = "/usr/sbin/cache_repair"
cache_check_options A 2.2.108 !cache = ["-q","--clear-needs-check-flag"]
cache_repair_options A 2.2.108 !cache = [""]
vdo_format_executable S 2.3.0 !vdo = "/usr/bin/vdoformat"
vdo_format_options A 2.3.0 !vdo = [""]
vdo_disabled_features A 2.3.11 !vdo
fsadm_executable s 2.2.170 !fsadm = "/sbin/fsadm"
system_id_source s 2.2.117 = "none"
    Where the host's system ID comes from.
system_id_file s 2.2.117
    The file with the system ID, for the source `file'.
use_lvmpolld b 2.2.120 !poll = 1
notify_dbus b 2.2.145 !dbus = 1
io_memory_size i 2.3.2 !io = 8192
[activation]
    How volumes are made active.
checks b 2.2.86 !udev = 0
udev_sync b 2.2.51 !udev = 1
udev_rules b 2.2.57 !udev = 1
verify_udev_operations b 2.2.86 !udev = 0
retry_deactivation b 2.2.89 = 1
    Wait a moment for those who are just closing a volume.
missing_stripe_filler s 1.0.0 advanced = "error"
    What stands in for missing PVs: error, zero, or the path of a device.
use_linear_target b 2.2.89 !udev = 1
reserved_stack i 1.0.0 !udev = 64
reserved_memory i 1.0.0 !udev = 8192
process_priority i 1.0.0 !udev = -18
volume_list A 1.0.18
    Only these volumes are activated.
auto_activation_volume_list A 2.2.97
    Only these volumes are activated by -aay.
read_only_volume_list A 2.2.89
    These volumes are read only when they are activated.
mirror_region_size i 1.0.0 -2.2.99 !gone = 2048
raid_region_size i 2.2.99 !raid = 2048
error_when_full b 2.2.115 !thin = 0
readahead s 1.0.23 !readahead = "auto"
raid_fault_policy s 2.2.89 !raid = "warn"
mirror_image_fault_policy s 2.2.57 !raid = "remove"
mirror_log_fault_policy s 1.2.18 !raid = "allocate"
mirror_device_fault_policy s 1.2.10 -2.2.57 !gone = "remove"
snapshot_autoextend_threshold i 2.2.75 = 70
    Percent of fill at which a snapshot is extended; 100: never (LVM2: 100).
snapshot_autoextend_percent i 2.2.75 = 20
    Percent of its size by which it is extended.
thin_pool_autoextend_threshold i 2.2.89 metadata !thin = 100
thin_pool_autoextend_percent i 2.2.89 metadata !thin = 20
vdo_pool_autoextend_threshold i 2.3.0 metadata !vdo = 100
vdo_pool_autoextend_percent i 2.3.0 metadata !vdo = 20
mlock_filter a 2.2.62 advanced !udev
use_mlockall b 2.2.62 !udev = 0
monitoring b 2.2.63 = 1
    Watch the fill of active snapshots.
polling_interval i 2.2.63 = 15
    Seconds between reports on a move or merge.
auto_set_activation_skip b 2.2.99 !skip = 1
activation_mode s 2.2.108 = "degraded"
    What is activated of a VG with missing PVs.
lock_start_list A 2.2.124 !cluster
auto_lock_start_list A 2.2.124 !cluster
[metadata] commented
    What is written to physical volumes.
check_pv_device_sizes b 2.2.141 advanced = 1
    Warn of devices that are smaller than the PVs on them.
record_lvs_history b 2.2.145 !history = 0
lvs_history_retention_time i 2.2.145 !history = 0
pvmetadatacopies i 1.0.0 advanced = 1
    Metadata areas of a new PV.
vgmetadatacopies i 2.2.69 = 0
    Metadata areas that a new group keeps in use; 0: all.
pvmetadatasize i 1.0.0
    Sectors of a metadata area of a new PV.
pvmetadataignore b 2.2.69 advanced = 0
    New PVs' metadata areas are not used.
stripesize i 1.0.0 advanced = 64
    KiB of a stripe's chunk.
dirs a 1.0.0 -2.3.0 advanced !gone
[report] commented
    What reports show.
output_format s 2.2.158 command = "basic"
    Form of reports: basic, json or json_std.
compact_output b 2.2.115 command = 0
    Leave out columns that are empty.
compact_output_cols S 2.2.133 command = ""
    Leave out these columns if they are empty.
aligned b 1.0.0 command = 1
    Align columns.
buffered b 1.0.0 command = 1
    Gather a report before showing it.
headings b 1.0.0 command = 1
    Show headings.
separator s 1.0.0 command = " "
    Stands between columns.
list_item_separator s 2.2.108 command = ","
    Stands between items of a list.
prefixes b 2.2.36 command = 0
    Show LVM2_NAME='value' pairs.
quoted b 2.2.39 command = 1
    Quote those values.
columns_as_rows b 1.0.0 command = 0
    Show a column as a row.
binary_values_as_numeric b 2.2.108 command = 0
    Show 0 and 1 for what is true or not.
time_format s 2.2.123 command = "%Y-%m-%d %T %z"
    Form of times, by strftime(3).
devtypes_sort s 2.2.101 command = "devtype_name"
    Order of devtypes.
devtypes_cols s 2.2.101 command = "devtype_name,devtype_max_partitions,devtype_description"
    Columns of devtypes.
devtypes_cols_verbose s 2.2.101 command = "devtype_name,devtype_max_partitions,\
devtype_description"
    Columns of devtypes -v.
lvs_sort s 1.0.0 command = "vg_name,lv_name"
    Order of lvs.
lvs_cols s 1.0.0 command = "lv_name,vg_name,lv_attr,lv_size,pool_lv,origin,data_percent,\
metadata_percent,move_pv,mirror_log,copy_percent,convert_lv"
    Columns of lvs.
lvs_cols_verbose s 1.0.0 command = "lv_name,vg_name,seg_count,lv_attr,lv_size,lv_major,lv_minor,\
lv_kernel_major,lv_kernel_minor,pool_lv,origin,data_percent,metadata_percent,move_pv,\
copy_percent,mirror_log,convert_lv,lv_uuid,lv_profile"
    Columns of lvs -v.
vgs_sort s 1.0.0 command = "vg_name"
    Order of vgs.
vgs_cols s 1.0.0 command = "vg_name,pv_count,lv_count,snap_count,vg_attr,vg_size,vg_free"
    Columns of vgs.
vgs_cols_verbose s 1.0.0 command = "vg_name,vg_attr,vg_extent_size,pv_count,lv_count,snap_count,\
vg_size,vg_free,vg_uuid,vg_profile"
    Columns of vgs -v.
pvs_sort s 1.0.0 command = "pv_name"
    Order of pvs.
pvs_cols s 1.0.0 command = "pv_name,vg_name,pv_fmt,pv_attr,pv_size,pv_free"
    Columns of pvs.
pvs_cols_verbose s 1.0.0 command = "pv_name,vg_name,pv_fmt,pv_attr,pv_size,pv_free,dev_size,\
pv_uuid"
    Columns of pvs -v.
segs_sort s 1.0.0 command = "vg_name,lv_name,seg_start"
    Order of lvs --segments.
segs_cols s 1.0.0 command = "lv_name,vg_name,lv_attr,stripes,segtype,seg_size"
    Columns of lvs --segments.
segs_cols_verbose s 1.0.0 command = "lv_name,vg_name,lv_attr,seg_start,seg_size,stripes,segtype,\
stripesize,chunksize"
    Columns of lvs --segments -v.
pvsegs_sort s 1.1.3 command = "pv_name,pvseg_start"
    Order of pvs --segments.
pvsegs_cols s 1.1.3 command = "pv_name,vg_name,pv_fmt,pv_attr,pv_size,pv_free,pvseg_start,\
pvseg_size"
    Columns of pvs --segments.
pvsegs_cols_verbose s 1.1.3 command = "pv_name,vg_name,pv_fmt,pv_attr,pv_size,pv_free,\
pvseg_start,pvseg_size,lv_name,seg_start_pe,segtype,seg_pe_ranges"
    Columns of pvs --segments -v.
vgs_cols_full s 2.2.158 command = "vg_all"
    Columns of vgs in fullreport.
pvs_cols_full s 2.2.158 command = "pv_all"
    Columns of pvs in fullreport.
lvs_cols_full s 2.2.158 command = "lv_all"
    Columns of lvs in fullreport.
pvsegs_cols_full s 2.2.158 command = "pvseg_all,pv_uuid,lv_uuid"
    Columns of pvs --segments in fullreport.
segs_cols_full s 2.2.158 command = "seg_all,lv_uuid"
    Columns of lvs --segments in fullreport.
vgs_sort_full s 2.2.158 command = "vg_name"
    Order of vgs in fullreport.
pvs_sort_full s 2.2.158 command = "pv_name"
    Order of pvs in fullreport.
lvs_sort_full s 2.2.158 command = "vg_name,lv_name"
    Order of lvs in fullreport.
pvsegs_sort_full s 2.2.158 command = "pv_uuid,pvseg_start"
    Order of pvs --segments in fullreport.
segs_sort_full s 2.2.158 command = "lv_uuid,seg_start"
    Order of lvs --segments in fullreport.
mark_hidden_devices b 2.2.140 command = 1
    Show hidden volumes in brackets.
two_word_unknown_device b 2.2.146 = 0
    Call a missing device `unknown device'.
[dmeventd]
    LVM2's monitor; that of ulvm is its daemon.
mirror_library s 1.2.3 !monitor = "libdevmapper-event-lvm2mirror.so"
raid_library s 2.2.87 !monitor = "libdevmapper-event-lvm2raid.so"
snapshot_library s 1.2.26 !monitor = "libdevmapper-event-lvm2snapshot.so"
thin_library s 2.2.89 !monitor = "libdevmapper-event-lvm2thin.so"
thin_command s 2.2.169 !monitor = "lvm lvextend --use-policies"
vdo_library s 2.3.0 !monitor = "libdevmapper-event-lvm2vdo.so"
vdo_command s 2.3.0 !monitor = "lvm lvextend --use-policies"
executable s 2.2.73 !monitor = "/sbin/dmeventd"
[tags] commented
    Tags of hosts.
hosttags b 1.0.18 = 0
    Give this host its name as a tag.
<tag>/host_list A 1.0.18
    Hosts that have this tag.
[local]
    What concerns this host alone.
system_id S 2.2.117 = ""
    The system ID, for the source lvmlocal.
extra_system_ids A 2.2.117
    VGs of these system IDs are used, too.
host_id i 2.2.124 !cluster = 0
[ulvm]
    What LVM2 does not have.
durability s 0.1.0 = "host"
    What survives: `host' a power cut, `process' only the end of a process.
stage_size i 0.1.0 = 65536
    KiB of new data of each origin that wait in memory for their copies, 0 for none.
device_links b 0.1.0
    Links to the volumes in devices/dir; by default on root's own host.
"""
