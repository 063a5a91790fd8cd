"""The workloads that come with gridcompute: real jobs, and examples of how to write one."""
