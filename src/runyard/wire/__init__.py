"""The JSON that crosses a boundary: what a user may write, what Runyard answers. Imports nothing of the other rooms."""
