"""Files and environment: artifacts, tables, progress. No science, no configuration."""
