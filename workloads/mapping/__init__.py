"""Short reads against a reference: what becomes of the alignments."""
