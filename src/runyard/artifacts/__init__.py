"""What jobs leave behind: files collected per attempt, kept apart from the workspace, downloadable."""
