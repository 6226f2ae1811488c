"""From the registry's answer to a lazy dataset: a partition table, lazy arrays over it, an xarray.Dataset."""
