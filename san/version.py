"""The version of this library; it stands in records and in saved adapters."""

__version__ = "0.1.0"
