"""Bytes in Zarr: where they lie (``layout``, ``location``, ``marker``), how they are reached (``objects``), what they
hold (``arrays``), and the two directions (``write``, ``read``).
"""
