"""Sources of novel names, one file each."""
