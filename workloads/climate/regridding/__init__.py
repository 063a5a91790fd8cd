"""Regridding: weights between grids, made once, read from and written to files, and applied field by field."""
