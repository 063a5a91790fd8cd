"""Results in the formats of the field: chunks that workers write in place, and metadata that makes them a dataset."""
