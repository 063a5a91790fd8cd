"""What ops do: one small frozen class each, computing a region of its output from regions of its inputs."""
