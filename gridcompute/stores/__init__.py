"""The backends behind `gridcompute.store`."""
