"""Many runs side by side: what a job is, and where jobs are done."""
