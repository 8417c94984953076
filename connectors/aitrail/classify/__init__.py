"""Classification: prompt injection and data leakage, judged from texts with roles; imports nothing of normalize."""
