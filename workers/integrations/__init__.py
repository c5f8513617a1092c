"""Services outside the installation to which a job reports its metrics, each in a child process of its own."""
