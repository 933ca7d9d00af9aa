"""What a run leaves behind for people: report.json, overview.png and the two volumes."""
