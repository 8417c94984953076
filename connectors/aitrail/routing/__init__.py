"""What of the flow a destination gets: which events, which of their fields, how much of their content, how fast."""
