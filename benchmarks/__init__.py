"""What the library costs, side by side with plain xarray and with the bare limit: ``python -m benchmarks``."""
