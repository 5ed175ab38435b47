"""What finished models and runs show: pictures and tables."""
