"""What every room stands on: errors, settings, schema, catalog, files, clock. Knows no room."""
