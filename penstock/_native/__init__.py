"""Cython kernels; each has a slow, obvious twin in the tests."""
