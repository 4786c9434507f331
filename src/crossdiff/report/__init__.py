"""The pages, figures, tables and summary.json of finished runs."""
