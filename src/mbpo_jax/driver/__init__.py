"""The only impure part: environments, clocks, files, flags, compilation and donation."""
