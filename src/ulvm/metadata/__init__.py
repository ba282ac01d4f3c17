"""What a volume group is and how it lies on disk. Pure: no I/O anywhere in this package."""
