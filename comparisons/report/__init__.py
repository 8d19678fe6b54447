"""Tables, files and pages."""
