"""What a finished run shows: pages, figures, tables and summary.json."""
