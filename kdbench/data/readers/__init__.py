"""Readers of datasets, one file for each format."""
