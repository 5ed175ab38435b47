"""Reports of finished models and runs: pictures and tables."""
