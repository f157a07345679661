"""How a process lives: devices, ranks, signals, leases, files. Knows no data, method or table."""
