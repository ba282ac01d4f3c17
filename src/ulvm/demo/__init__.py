"""The demonstration: a bank whose volume is backed up, restored and rolled back under load."""
