"""What attempts printed: kept by offset, served to any number of followers while it grows."""
