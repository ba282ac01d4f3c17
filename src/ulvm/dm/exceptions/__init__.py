"""Exception stores: which chunks of an origin lie where in a COW, in memory and on disk."""
