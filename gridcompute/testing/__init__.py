"""Public fakes and conformance classes: what gridcompute's own tests use, for the backends of others too."""
