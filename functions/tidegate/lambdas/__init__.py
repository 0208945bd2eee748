"""One thin file per serverless function."""
