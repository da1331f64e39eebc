"""Measurements of kernels, and what the models say of them.

Nothing is imported here: ``fusemodel.validate.measure`` must run where only NumPy and PyTorch are installed.
"""
