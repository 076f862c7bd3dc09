"""What predicts: `gaussian` builds the `WorldModel`; the other files are its state, its fit and the rows of that."""
