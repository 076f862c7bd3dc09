"""Reads run directories, draws and exports them. The driver does not know this package."""
