"""What was written for another framework, as plugins of ours."""
