"""Speed, each against a named rival in the same process."""
