"""Workloads of climate science: statistics of gridded archives, pixel by pixel or field by field."""
