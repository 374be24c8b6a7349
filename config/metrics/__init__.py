"""What Prometheus reads at /metrics: counted in each process, and asked of the databases."""
