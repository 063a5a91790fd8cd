"""Data from outside: read by region where lengths are known, block by block where they aren't."""
