"""Callbacks: they measure, draw and write; none changes a result."""
