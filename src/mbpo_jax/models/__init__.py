"""What predicts: each file builds one `WorldModel`."""
