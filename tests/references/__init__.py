"""Independent computations that tests compare with: loops and plain NumPy, nothing from ``fusemodel.numerics``."""
