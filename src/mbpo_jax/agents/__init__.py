"""What acts and learns: each file builds one `Agent`."""
