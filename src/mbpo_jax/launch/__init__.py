"""What starts runs, above the driver: commands, processes that share a run, and sweeps of many jobs."""
