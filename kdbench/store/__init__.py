"""Stage 4: what lies on disk. No torch at module level."""
