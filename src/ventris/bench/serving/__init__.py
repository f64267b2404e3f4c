"""The server under load: throughput, latency, and hours of misuse. ``ventris bench serve``."""
