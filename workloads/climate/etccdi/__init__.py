"""The kernels of the ETCCDI indices: a pixel's daily series in, its indices of every year or month out."""
