"""What a job reports to besides its own events: other people's services, each behind a child process of its own."""
