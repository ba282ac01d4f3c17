"""The device mapper: tables, targets, snapshots. Knows nothing of LVM."""
