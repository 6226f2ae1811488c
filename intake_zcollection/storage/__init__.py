"""Bytes in Zarr: where they lie (``layout``), how they are reached (``stores``), what they hold (``arrays``,
``fragment``), and the two directions (``write``, ``read``).
"""
