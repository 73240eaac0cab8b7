"""The operator pages: the same reads as the API's, rendered by the service itself, live without polling."""
